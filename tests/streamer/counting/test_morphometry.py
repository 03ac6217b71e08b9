"""Cells measured by a scripted segmenter: which looks are measured, what is published, what the journal gives back."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from engines.base import ModelNotFoundError, UsageError
from engines.zoo import store
from streamer.analysis.analyser import Analysed, Analyser
from streamer.analysis.models import choose_scales, load_models
from streamer.commands.export import export
from streamer.commands.recount import recount
from streamer.config import Config
from streamer.counting.decision import ClassDecision
from streamer.counting.morphometry import ShapeBook, ShapeMeter, clear_of_edges, look_quality
from streamer.dashboard.cells import cells_panel
from streamer.dashboard.state import DashboardState
from streamer.dashboard.words import described
from streamer.interop.cells_csv import SHAPE_COLUMNS
from streamer.journal import Journal, JournalError, JournalReader, recounted, rules_of
from streamer.protocol.factory import MessageFactory
from streamer.protocol.messages import CellMessage
from streamer.records import AttributeValue, CellShape, Frame, MeasuredLook
from streamer.run import session as session_module
from streamer.run.session import SlideSession
from tests.cases import HEIGHT, WIDTH, always, by_darkness, find_by_script, stamped
from tests.streamer.journal.journal_cases import analysed, classifier, detector


def shape(frame_id: int, area: float = 100.0) -> CellShape:
    return CellShape(frame_id, area, 2 * area, None, None, 0.5, 1, 0.9)


def look(cell_id: int, quality: float, frame_id: int) -> MeasuredLook:
    return MeasuredLook(cell_id, quality, shape(frame_id))


def test_the_best_look_holds_in_whatever_order() -> None:
    looks = [look(1, 0.5, 3), look(1, 0.7, 5), look(1, 0.7, 4), look(1, 0.2, 1)]
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]):
        book = ShapeBook()
        for i in order:
            book.add(looks[i])
        assert book.of(1) == shape(4)
        assert book.quality(1) == 0.7
    assert book.of(2) is None


def test_cells_that_turn_out_to_be_one() -> None:
    book = ShapeBook()
    for one in (look(1, 0.5, 1), look(2, 0.7, 2), look(3, 0.4, 3)):
        book.add(one)
    assert book.join([(2, 1), (3, 1), (9, 1), (1, None)]) == [1]
    assert book.of(1) == shape(2)
    assert len(book) == 1


@pytest.mark.parametrize(
    ("score", "focus", "inside", "quality"),
    [(0.95, 0.8, True, 0.7), (0.95, 2.0, True, 0.9), (1.0, 1.0, True, 1.0), (1.0, 1.0, False, 0.7), (0.05, 1, True, 0)],
)
def test_quality_has_steps(score: float, focus: float, inside: bool, quality: float) -> None:
    assert look_quality(score, focus, inside) == pytest.approx(quality)


def test_whole_cells_only() -> None:
    boxes = np.array([[10, 10, 40, 40], [2, 10, 40, 40], [10, 10, 318, 40], [100, 240, 130, 256]], np.float32)
    assert clear_of_edges(boxes, WIDTH, HEIGHT).tolist() == [0]


def field(number: int, x: int) -> np.ndarray:
    """A cell with its left side at `x`: nucleus 90 in cytoplasm 190, on textured ground."""
    rng = np.random.default_rng(5)
    wide = np.clip(rng.normal(228, 4, (HEIGHT, 2 * WIDTH, 3)), 0, 255).astype(np.uint8)
    for left, top in rng.integers(0, (2 * WIDTH - 20, HEIGHT - 20), (60, 2)).tolist():
        wide[top : top + 6, left : left + 9] = 214
    frame = wide[:, 200 - x : 200 - x + WIDTH].copy()
    frame[100:140, x : x + 40] = 190
    frame[110:130, x + 10 : x + 30] = 90
    return stamped(frame, number)


def run(
    scores: list[float], places: list[int], um_per_px: float | None = None
) -> tuple[SlideSession, list, ShapeMeter]:
    """One cell in one frame for each score."""
    boxes = {i: [((x, 100, x + 40, 140), s, 0)] for i, (s, x) in enumerate(zip(scores, places, strict=True))}
    analyser = Analyser(find_by_script(boxes), always(1))
    meter = ShapeMeter(by_darkness(48), um_per_px)
    factory = MessageFactory("slide", session="s", run_id="r")
    session = SlideSession(factory, ClassDecision.of(always(1)), operating_score=0.3, shapes=meter)
    messages = []
    for i, x in enumerate(places):
        (seen,) = analyser.analyse([Frame("slide", i, 1000 * i, field(i, x))])
        messages.append([m for m, _ in session.update(seen) if isinstance(m, CellMessage)])
    return session, messages, meter


def test_a_cell_is_measured_once_and_again_only_when_it_is_seen_better() -> None:
    session, messages, meter = run([0.7, 0.65, 0.95, 0.9], [100, 110, 120, 130], um_per_px=0.5)
    assert [len(cells) for cells in messages] == [1, 0, 1, 0]
    assert len(meter.segmenter.engine.calls) == 2  # type: ignore[attr-defined]
    first, second = messages[0][0].shape, messages[2][0].shape
    assert (first.frame_id, second.frame_id) == (0, 2)
    assert second.nucleus_area_px == pytest.approx(400, rel=0.1)
    assert second.cytoplasm_area_px == pytest.approx(1200, rel=0.1)
    assert second.nucleus_area_um2 == pytest.approx(second.nucleus_area_px / 4, abs=0.05)
    assert second.nuclear_lobes == 1
    (cell,) = session.count.cells()
    assert cell.shape is not None
    assert cell.shape.frame_id == 2
    assert session.count.cell(cell.cell_id).shape == cell.shape


def test_a_cut_cell_is_not_measured_and_neither_is_anything_without_a_segmenter() -> None:
    _, messages, meter = run([0.9, 0.9], [2, 2])
    assert meter.segmenter.engine.calls == []  # type: ignore[attr-defined]
    assert all(cell.shape is None for cells in messages for cell in cells)
    plain = SlideSession(
        MessageFactory("slide", session="s", run_id="r"), ClassDecision.of(classifier()), operating_score=0.5
    )
    cells = [m for one in analysed() for m, _ in plain.update(one) if isinstance(m, CellMessage)]
    assert cells
    assert all(cell.shape is None for cell in cells)


def session_of(journal: Journal, run_id: str) -> SlideSession:
    rules = rules_of(detector(), classifier(), by_darkness())
    kept = journal.session("slide")
    kept = kept or journal.new_session("slide", "session", address="path:/frames", live=False, rules=rules)
    kept.begin_run(run_id, "{}")
    factory = MessageFactory(
        "slide", session="session", run_id=run_id, next_session_seq=kept.stored.next_seq, monotonic_ns=lambda: 0
    )
    return SlideSession(
        factory, ClassDecision.of(classifier()), operating_score=0.5, journal=kept, shapes=ShapeMeter(by_darkness())
    )


def walk(path: Path, frames: list[Analysed], stops: tuple[int, ...] = ()) -> list:
    """The cells at the end of a walk that is stopped, and gone on with, after so many frames."""
    begin = 0
    for number, end in enumerate((*stops, len(frames))):
        journal = Journal(path, resume=number > 0)
        session = session_of(journal, f"run {number}")
        for one in frames[begin:end]:
            list(session.update(one))
        if end == len(frames):
            session.finish("finished", "end of the source")
        cells = [msgspec.to_builtins(cell) for cell in session.count.cells()]
        journal.close()
        begin = end
    return cells


def test_the_journal_gives_the_measures_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(session_module, "CHECKPOINT_EVERY_FRAMES", 7)
    frames = analysed()
    whole = walk(tmp_path / "whole.db", frames)
    measured = [cell for cell in whole if cell["shape"] is not None]
    assert len(measured) > 8
    assert len({cell["shape"]["frame_id"] for cell in measured}) > 3
    assert walk(tmp_path / "parted.db", frames, (5, 16, 30)) == whole

    with JournalReader(tmp_path / "parted.db") as journal:
        result = recounted(journal.sessions[0])
        assert [msgspec.to_builtins(cell) for cell in result.count.cells()] == whole
    assert recount(str(tmp_path / "whole.db")) == 0
    told = capsys.readouterr().out
    nuclei = sum(cell["shape"]["nucleus_area_px"] is not None for cell in measured)
    assert f"shapes: nucleus measured in {nuclei} of {sum(cell['kind'] == 'white' for cell in whole)} white" in told

    export(str(tmp_path / "whole.db"), "csv", str(tmp_path / "cells.csv"), None)
    with open(tmp_path / "cells.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0])[-len(SHAPE_COLUMNS) :] == SHAPE_COLUMNS
    for row, cell in zip(rows, whole, strict=True):
        for name in SHAPE_COLUMNS:
            value = None if cell["shape"] is None else cell["shape"][name]
            assert row[name] == "" if value is None else float(row[name]) == pytest.approx(value, abs=1e-4)
    export(str(tmp_path / "whole.db"), "json", str(tmp_path / "all.json"), None)
    exported = json.loads((tmp_path / "all.json").read_text())["sessions"][0]["cells"]
    assert [cell["shape"] for cell in exported] == [cell["shape"] for cell in whole]


def test_a_session_is_gone_on_with_by_the_same_segmenter_only(tmp_path: Path) -> None:
    walk(tmp_path / "walk.db", analysed()[:3])
    refused = pytest.raises(JournalError, match="got segmenter none, expected scripted-segmenter")
    with JournalReader(tmp_path / "walk.db") as journal, refused:
        journal.sessions[0].check("walk.db", rules=rules_of(detector(), classifier()))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, {"a": None, "b": None}),
        (0.08, {"a": 0.08, "b": 0.08}),
        (("b=0.1",), {"a": None, "b": 0.1}),
        (("0.2", "a=0.1"), {"a": 0.1, "b": 0.2}),
    ],
)
def test_the_scale_of_each_source(given: float | tuple[str, ...] | None, expected: dict[str, float | None]) -> None:
    assert choose_scales(given, ["a", "b"]) == expected


@pytest.mark.parametrize("given", ["0", "-1", "wide", "a=nan"])
def test_scales_that_are_none(given: str) -> None:
    with pytest.raises(UsageError, match=r"--um-per-px: got '.*', expected micrometres a pixel"):
        choose_scales((given,), ["a", "b"])


def test_a_segmenter_that_is_not_here_says_how_to_make_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEUKOSTREAM_CACHE", str(tmp_path))
    monkeypatch.setattr(store, "PUBLISHED", "nowhere")  # as of an installed program, which has the card alone
    config = Config(segmenter="deeplabv3-xception", classifier="none", backend="onnxruntime")
    with pytest.raises(
        ModelNotFoundError, match=r"fetch it with: leukostream models pull .* or make it with the commands"
    ):
        load_models(config, ["a"], None, lambda line: None)  # type: ignore[arg-type]


def test_the_dashboard_says_the_measures_beside_the_class() -> None:
    _, messages, _ = run([0.9], [100])
    state = DashboardState()
    state.update(messages[0][0])
    lines = ["".join(part.text for part in line) for line in cells_panel(state, 90, 9, "truecolor", film=False)]
    assert "lymphocyte" in lines[1]
    assert "N:C 0.33, 1 lobe, nucleus 400 px²" in lines[2]


def test_the_measures_in_words() -> None:
    _, messages, _ = run([0.9], [100])
    told = messages[0][0]
    values = {**msgspec.structs.asdict(shape(1, 2345.6)), "nucleus_to_cytoplasm_ratio": 0.4321, "nuclear_lobes": 3}
    looks = {"nucleus_shape": AttributeValue(value="segmented-multilobed", confidence=0.9)}
    measured = replace(told, shape=CellShape(**{**values, "nucleus_area_um2": 41.2}), attributes=looks)
    assert described(measured) == "N:C 0.43, 3 lobes, nucleus 41 µm², nucleus segmented multilobed"
    bare = CellShape(**{**values, "nucleus_to_cytoplasm_ratio": None, "nuclear_lobes": 1})
    assert described(replace(told, shape=bare)) == "1 lobe, nucleus 2 346 px²"
    assert described(replace(told, shape=None)) == ""
