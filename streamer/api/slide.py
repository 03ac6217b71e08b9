"""What was counted on one slide."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from streamer.dashboard import format_differential
from streamer.interop.formats import needed
from streamer.protocol.messages import CellMessage, DifferentialMessage, EndMessage
from streamer.records import ClassShare, Flag, Verdict

if TYPE_CHECKING:
    import pandas

CELL_COLUMNS = (
    *("cell_id", "island", "x_px", "y_px", "class", "subclass", "top_class", "looks", "partial"),
    *("first_frame_id", "last_frame_id", "unclassified_reason", "reclassified"),
)
"""Of `SlideResult.cells_to_pandas`; a column `p(CLASS)` a class follows."""


@dataclass(frozen=True, slots=True, eq=False)
class SlideResult:
    """A slide as it stands: final once the run has ended. `print` shows it as `leukostream run` does."""

    source: str
    differential: DifferentialMessage
    """The record: see streamer.records.Differential for its fields."""
    cells: Mapping[int, CellMessage] = field(default_factory=dict)
    """By `cell_id`, those that are a cell of their own: the white ones, seen whole or cut by an edge, smudge cells,
    artefacts and nucleated red cells."""
    pictures: Mapping[int, bytes] = field(default_factory=dict)
    """JPEG by `cell_id`, of the first frame that showed it."""
    end: EndMessage | None = None
    """How it ended; None while it goes on."""
    note: str | None = None
    """What the classifier gets wrong, in a sentence for people; None: its card does not say."""

    @property
    def total(self) -> int:
        """Unique white cells seen whole: what all percentages are of."""
        return self.differential.total

    @property
    def classes(self) -> dict[str, ClassShare]:
        return self.differential.classes

    @property
    def flags(self) -> tuple[Flag, ...]:
        return self.differential.flags

    @property
    def verdict(self) -> Verdict:
        """Whether the result may be believed, and why not: look at it first."""
        assert self.differential.verdict is not None, "only an older streamer leaves it out"
        return self.differential.verdict

    def __str__(self) -> str:
        return format_differential(self.differential, self.note)

    def to_pandas(self) -> pandas.DataFrame:
        """A row a class: count, percent, its 95 % limits `low` and `high`, percent_size_corrected. UsageError without
        pandas."""
        with needed("to_pandas", "pandas"):
            import pandas
        rows = {name: msgspec.structs.asdict(share) for name, share in self.classes.items()}
        table = pandas.DataFrame.from_dict(rows, orient="index", columns=list(ClassShare.__struct_fields__))
        return table.rename_axis("class")

    def cells_to_pandas(self) -> pandas.DataFrame:
        """A row a cell of `cells`: CELL_COLUMNS, then the probability of each class. UsageError without pandas."""
        with needed("cells_to_pandas", "pandas"):
            import pandas
        rows = [_row(cell) for cell in self.cells.values()]
        columns = dict.fromkeys([*CELL_COLUMNS, *(name for row in rows for name in row)])
        return pandas.DataFrame(rows, columns=list(columns)).set_index("cell_id")


def _row(cell: CellMessage) -> dict[str, Any]:
    values: dict[str, Any] = msgspec.to_builtins(cell)
    shares = {f"p({name})": share for name, share in cell.class_probabilities.items()}
    return {**{name: values[name] for name in CELL_COLUMNS}, **shares}
