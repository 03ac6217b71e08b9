"""What is posted to the API: checked here for form, by the desk for sense."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

CellIds = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1, max_length=20_000)]
Name = Annotated[str, Field(min_length=1, max_length=100)]
Text = Annotated[str, Field(min_length=1, max_length=10_000)]
Pixels = Annotated[float, Field(allow_inf_nan=False)]
Size = Annotated[float, Field(gt=0, le=100_000)]


class Body(BaseModel):
    """What every change says."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    reviewer: Annotated[str, Field(max_length=100)] | None = Field(
        None, description="Initials; left out: those of `leukostream review --reviewer`."
    )


class ClassBody(Body):
    """The class of a cell; null: the models decide again."""

    class_: Name | None = Field(alias="class")
    subclass: Name | None = None


class CellsClassBody(ClassBody):
    """The class of several cells, undone together."""

    cell_ids: CellIds


class CellsBody(Body):
    cell_ids: CellIds


class NewCellBody(Body):
    """A white cell that was missed, by its centre in a frame."""

    frame_id: int
    x_px: Pixels
    y_px: Pixels
    class_: Name = Field(alias="class")
    subclass: Name | None = None
    width_px: Size | None = Field(None, description="Left out, as height_px: those of the slide's usual white cell.")
    height_px: Size | None = None


class CommentBody(Body):
    text: Text
    cell_id: int | None = Field(None, description="Left out: on the slide.")


class SignBody(Body):
    version: int | None = Field(
        None, description="Of the slide as it was looked at: where it has changed since, nothing is signed."
    )
    despite: Text | None = Field(None, description='Why, where the verdict is "do not use".')


class AmendBody(Body):
    reason: Text


class BeginBody(Body):
    blind: bool = False


class SettleBody(Body):
    """What cells are of which blind reviewers said something."""

    cell_ids: CellIds
    class_: Name = Field(alias="class")
    subclass: Name | None = None


class SettleAgreedBody(Body):
    first: Name
    second: Name
