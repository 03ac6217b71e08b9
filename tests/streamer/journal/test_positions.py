"""A journal of a source that knows where its frames lie: cut off, gone on with, counted again, exported."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest

from streamer.analysis.analyser import Analysed
from streamer.commands.recount import recount
from streamer.interop.cells_csv import write as write_csv
from streamer.interop.coco import write as write_coco
from streamer.interop.everything import write as write_json
from streamer.interop.sessions import exported
from streamer.journal import Emission, Journal, JournalError, JournalReader, opened
from streamer.journal.rows import ModelId, Rules
from streamer.mosaic.scale import Scale, scale_of
from streamer.protocol.factory import MessageFactory
from streamer.protocol.messages import AnyMessage, FrameMessage
from streamer.records import Detections, Frame, FrameQuality, StagePoint, usable_point
from streamer.run.session import SlideSession
from streamer.stage.preparation import RegistrationConfig, prepare
from streamer.stage.readings import Reading
from tests.streamer.stage.position_cases import APART, BLOCK, UM_PER_PX, Place, Said, exact, stage
from tests.streamer.stage.stage_cases import HEIGHT, WIDTH, view

PLACES = [*APART[:1], *BLOCK, *APART[1:]]
CELLS = [(250, 150), (480, 300), (700, 130), (1200, 180), (1250, 560), (200, 900), (700, 930), (1250, 930)]
"""Middles of white cells on the made slide; each field apart shows one whole."""
RULES = Rules(
    detector=ModelId(name="scripted", sha256=None),
    classifier=None,
    operating_score=0.5,
    long_side_px=640,
    label_names=("WBC",),
    kinds=("white",),
)


def analysed(number: int, place: Place, said: Reading | None) -> Analysed:
    x, y = place
    inside = [(cx - x, cy - y) for cx, cy in CELLS if 20 < cx - x < WIDTH - 20 and 20 < cy - y < HEIGHT - 20]
    boxes = np.array([(cx - 15, cy - 15, cx + 15, cy + 15) for cx, cy in inside], np.float32).reshape(-1, 4)
    image = view(*place)
    frame = Frame(
        "slide",
        number,
        1000 * number,
        image,
        stage_um=None if said is None else StagePoint(said.x_um, said.y_um, float(number)),
        stage_error_um=None if said is None else said.error_um,
        um_per_px=None if said is None else said.um_per_px,
    )
    detections = Detections(
        boxes_px=boxes,
        scores=np.ones(len(boxes), np.float32),
        labels=np.zeros(len(boxes), np.intp),
        label_names=("WBC",),
        kinds=("white",),
        truncated=False,
    )
    return Analysed(frame, detections, None, prepare(image, RegistrationConfig()), FrameQuality(1.0, True), {})


def film(say: Said) -> list[Analysed]:
    return [analysed(number, place, say(number, place)) for number, place in enumerate(PLACES)]


def run_over(path: Path, frames: Sequence[Analysed], *, resume: bool = False, finish: bool = True) -> list[Emission]:
    journal = Journal(path, resume=resume)
    kept = journal.session("slide") or journal.new_session("slide", "session", address="", live=False, rules=RULES)
    run_id = f"run{frames[0].frame.frame_id}"
    kept.begin_run(run_id, "{}")
    factory = MessageFactory("slide", session="session", run_id=run_id, next_session_seq=kept.stored.next_seq)
    session = SlideSession(factory, None, operating_score=0.5, journal=kept)
    published = [emission for one in frames for emission in session.update(one)]
    if finish:
        published += session.finish("finished", "end of the source")
    journal.close()
    return published


def known(path: Path) -> tuple[bytes, list[tuple[object, ...]]]:
    """All that the journal knows of the stage, bit by bit."""
    with JournalReader(path) as journal:
        stored = journal.sessions[0].stage
        return msgspec.json.encode(stored.positions()), [tuple(one) for one in stored.readings()]


def bodies(published: Sequence[Emission]) -> list[dict[str, object]]:
    stamps = {"run_id", "seq", "published_ns", "published_utc", "captured_utc", "last_seq"}
    return [{k: v for k, v in msgspec.to_builtins(message).items() if k not in stamps} for message, _ in published]


SAY = {"turned": stage(90, mirrored=True, um_per_px=UM_PER_PX), "exact": exact()}


@pytest.fixture(scope="module", params=list(SAY))
def whole(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[Analysed], Path, list[Emission]]:
    frames = film(SAY[request.param])
    path = tmp_path_factory.mktemp("journal") / "whole.db"
    return frames, path, run_over(path, frames)


@pytest.mark.parametrize("cut", [2, 6, 9])
def test_cut_off_and_gone_on_with_the_fit_is_the_same_bit_by_bit(
    tmp_path: Path, whole: tuple[list[Analysed], Path, list[Emission]], cut: int
) -> None:
    frames, path, published = whole
    again = tmp_path / "cut.db"
    parts = run_over(again, frames[:cut], finish=False) + run_over(again, frames[cut:], resume=True)
    assert bodies(parts) == bodies(published)
    assert known(again) == known(path)


def test_all_fields_are_one_island_and_every_cell_is_counted_once(
    whole: tuple[list[Analysed], Path, list[Emission]],
) -> None:
    frames, _, published = whole
    messages: list[AnyMessage] = [message for message, _ in published]
    told = [message for message in messages if isinstance(message, FrameMessage)]
    assert [(m.stage_um, m.um_per_px) for m in told] == [
        (
            StagePoint(round(at.x, 3), round(at.y, 3), at.z) if (at := one.frame.stage_um) is not None else None,
            UM_PER_PX,
        )
        for one in frames
    ]
    assert told[-1].stage is not None
    assert told[-1].stage.island == 0
    final = next(message for message in messages[::-1] if message.__class__.__name__ == "DifferentialMessage")
    assert final.total == len(CELLS)  # type: ignore[union-attr]


def test_counted_again_it_is_what_was_published(
    whole: tuple[list[Analysed], Path, list[Emission]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert recount(str(whole[1])) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("equal to the final differential published, ")


def test_exports_have_the_cells_in_micrometres(whole: tuple[list[Analysed], Path, list[Emission]]) -> None:
    frames, path, _ = whole
    is_exact = frames[0].frame.stage_error_um == 0
    with opened(str(path)) as journal:
        one = exported(journal.sessions[0])
        table, coco, everything = io.StringIO(), io.StringIO(), io.StringIO()
        write_csv([one], table)
        write_coco([one], coco)
        write_json([one], everything)
        believed = scale_of(one.stored, 7.5 / UM_PER_PX)
        contradicted = scale_of(one.stored, 15 / UM_PER_PX)
    assert believed == Scale(UM_PER_PX, "source")
    assert contradicted is not None
    assert contradicted.ruler == ("red cells" if is_exact else "stage")
    assert contradicted.um_per_px == pytest.approx(UM_PER_PX / 2 if is_exact else UM_PER_PX, rel=0.01)
    rows = list(csv.DictReader(table.getvalue().splitlines()))
    say = SAY["exact" if is_exact else "turned"]
    shown = [(x, y) if is_exact else (x - WIDTH // 2, y - HEIGHT // 2) for x, y in CELLS]
    true = sorted((round(r.x_um), round(r.y_um)) for place in shown if (r := say(0, place)) is not None)
    assert sorted((round(float(row["stage_x_um"])), round(float(row["stage_y_um"]))) for row in rows) == true
    islands = {(float(row["x_um"]), float(row["x_px"])) for row in rows}
    assert all(um == pytest.approx(px * UM_PER_PX, abs=0.02) for um, px in islands)
    images = json.loads(coco.getvalue())
    assert images["images"][0]["stage_um"] == msgspec.to_builtins(usable_point(frames[0].frame.stage_um))
    assert {image["um_per_px"] for image in images["images"]} == {UM_PER_PX}
    assert all(len(box["attributes"]["stage_um"]) == 2 for box in images["annotations"])
    session = json.loads(everything.getvalue())["sessions"][0]
    assert session["frames"][3]["stage_um"] == msgspec.to_builtins(usable_point(frames[3].frame.stage_um))
    assert sorted((round(cell["stage_um"]["x"]), round(cell["stage_um"]["y"])) for cell in session["cells"]) == true


def test_a_source_without_positions_has_no_such_tables_and_no_micrometres(tmp_path: Path) -> None:
    path = tmp_path / "none.db"
    run_over(path, film(lambda number, place: None)[:3])
    with contextlib.closing(sqlite3.connect(path)) as database:
        names = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
    assert not names & {"frame_positions", "keyframe_positions", "known_positions"}
    with opened(str(path)) as journal:
        table = io.StringIO()
        write_csv([exported(journal.sessions[0])], table)
    (row, *_) = csv.DictReader(table.getvalue().splitlines())
    assert [row[name] for name in ("x_um", "y_um", "stage_x_um", "stage_y_um")] == ["", "", "", ""]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE known_positions SET state = 'no JSON'",
        """UPDATE known_positions SET state = replace(state, '"joins":{', '"joins":{"0":[5,0,0],')""",
        "UPDATE keyframe_positions SET x_um = 'far' WHERE number = 0",
        "UPDATE keyframe_positions SET number = 4000 WHERE number = 0",
    ],
)
def test_a_journal_that_lies_about_the_stage_is_one_line(tmp_path: Path, statement: str) -> None:
    path = tmp_path / "bad.db"
    frames = film(SAY["turned"])
    run_over(path, frames[:8], finish=False)
    with contextlib.closing(sqlite3.connect(path)) as database:
        assert database.execute(statement).rowcount == 1
        database.commit()
    with pytest.raises(JournalError, match="got what leukostream does not write"):
        run_over(path, frames[8:], resume=True)
