"""Programs that count: what they see, and that cameras and files are let go of however they end."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading

import cv2
import msgspec
import numpy as np
import pytest

import streamer
from engines.backends.onnxruntime import OnnxRuntimeEngine
from engines.base import LeukostreamError, UsageError
from streamer.cli import main
from streamer.commands.run import build
from streamer.commands.run.sources import OpenedSource
from streamer.records import Frame
from streamer.run.pipeline import Pipeline
from streamer.sources import SourceError

SIM = "sim:seed=7,cells=3"


class Camera:
    """Gives the same picture `frames` times, or for ever."""

    name, default_mode = "scope", "live"

    def __init__(self, frames: int | None = None, failure: Exception | None = None) -> None:
        self.frames, self.failure, self.is_open, self.read_frames = frames, failure, False, 0
        self.picture = np.full((96, 128, 3), 220, np.uint8)

    def open(self) -> None:
        self.is_open = True

    def read(self) -> Frame | None:
        if self.read_frames == self.frames:
            if self.failure is not None:
                raise self.failure
            return None
        self.read_frames += 1
        return Frame(self.name, self.read_frames - 1, self.read_frames * 1_000_000, self.picture)

    def close(self) -> None:
        self.is_open = False


@pytest.fixture
def camera(monkeypatch):
    def of(mode="analysis", **settings):
        made = Camera(**settings)
        monkeypatch.setattr(build, "open_sources", lambda config: iter([OpenedSource(made, mode, "camera:scope")]))
        return made

    return of


@pytest.fixture
def fields(tmp_path):
    folder = tmp_path / "fields"
    folder.mkdir()
    for number in range(3):
        cv2.imwrite(str(folder / f"{number}.png"), np.full((96, 128, 3), 200 + number, np.uint8))
    return folder


@pytest.mark.lengthy
def test_nothing_of_a_slide_stays_once_it_is_counted(monkeypatch):
    """A program that counts an archive in one process grew by 45 MB a slide."""
    closed = []
    close = OnnxRuntimeEngine.close
    monkeypatch.setattr(OnnxRuntimeEngine, "close", lambda engine: closed.append(id(engine)) or close(engine))
    gc.collect()
    gc.disable()  # Python may not have looked yet
    try:
        before = {id(one) for one in gc.get_objects() if isinstance(one, Pipeline)}
        assert streamer.count(SIM).total == 3
        left = [one for one in gc.get_objects() if isinstance(one, Pipeline) and id(one) not in before]
    finally:
        gc.enable()
    assert left == []
    assert len(set(closed)) == 2, "the detector's and the classifier's"


def test_the_package_imports_what_counts_only_when_it_is_used():
    code = (
        "import sys, streamer; assert 'streamer.api' not in sys.modules and 'cv2' not in sys.modules;"
        "streamer.open; heavy = {'pandas', 'supervision'} & set(sys.modules); assert not heavy, heavy;"
        "assert {'open', 'count', 'classify'} <= set(dir(streamer))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'opne'"):
        streamer.opne  # noqa: B018


@pytest.mark.lengthy
def test_a_program_sees_what_run_publishes(tmp_path):
    assert main(["run", "--source", SIM, "--jsonl", str(tmp_path / "run.jsonl"), "--no-dashboard"]) == 0
    lines = [msgspec.json.decode(line) for line in (tmp_path / "run.jsonl").read_bytes().splitlines()]
    published = {line["frame_id"]: line["detections"] for line in lines if line["type"] == "frame"}
    seen, white = {}, set()
    with streamer.open(SIM) as feed:
        for frame in feed:
            seen[frame.frame_id] = msgspec.json.decode(msgspec.json.encode(frame.detections))
            white |= {cell.cell_id for cell in frame.cells}
            assert frame.image.shape == (frame.message.height, frame.message.width, 3)
    assert seen == published
    final = [line for line in lines if line["type"] == "differential"][-1]
    assert feed.slide.total == final["total"] > 0
    assert msgspec.to_builtins(feed.slide.classes) == final["classes"]
    assert set(feed.slide.cells) <= white
    assert set(feed.slide.pictures) == set(feed.slide.cells)
    assert feed.slide.end.state == "finished"
    assert f"{final['total']} white cells" in str(feed.slide)


@pytest.mark.lengthy
def test_tables_of_a_slide():
    pytest.importorskip("pandas")
    slide = streamer.count(SIM)
    table = slide.to_pandas()
    assert table["count"].to_dict() == {name: share.count for name, share in slide.classes.items()}
    assert list(table.columns) == ["count", "percent", "low", "high", "percent_size_corrected"]
    cells = slide.cells_to_pandas()
    assert cells["class"].to_dict() == {number: cell.class_ for number, cell in slide.cells.items()}
    assert cells.filter(like="p(").sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-3)


@pytest.mark.lengthy
def test_boxes_for_supervision_and_coco():
    pytest.importorskip("supervision")
    with streamer.open(SIM) as feed:
        frame = next(iter(feed))
    found = frame.to_supervision()
    assert len(found) == len(frame.detections) > 0
    assert [frame.label_names[one] for one in found.class_id] == [one.label for one in frame.detections]
    assert found.data["cell_class"].tolist() == [one.class_ or "" for one in frame.detections]
    feed = streamer.open(SIM)
    coco = feed.to_coco()
    names = {one["id"]: one["name"] for one in coco["categories"]}
    first = [one for one in coco["annotations"] if one["image_id"] == 1]
    assert [names[one["category_id"]] for one in first] == [one.label for one in frame.detections]
    assert coco["images"][0]["file_name"] == "sim-000000.png"
    classes = {one["attributes"]["cell_id"]: one["attributes"]["class"] for one in coco["annotations"]}
    assert {number: classes[number] for number in feed.slide.cells} == {
        number: cell.class_ for number, cell in feed.slide.cells.items()
    }


def test_a_frame_without_cells_is_no_cells(fields):
    pytest.importorskip("supervision")
    frames = list(streamer.open(fields))
    assert [frame.file for frame in frames] == ["0.png", "1.png", "2.png"]
    assert [len(frame.to_supervision()) for frame in frames] == [0, 0, 0]
    assert [frame.image[0, 0, 0] for frame in frames] == [200, 201, 202]
    assert streamer.count(fields).total == 0


def threads():
    return {thread.name for thread in threading.enumerate()} - {"MainThread"}


def let_go(camera, before):
    return not camera.is_open and camera.read_frames > 0 and threads() <= before


def test_the_camera_is_let_go_of_where_the_loop_is_left(camera):
    before, scope = threads(), camera()
    for frame in streamer.open("0"):
        assert frame.source == "scope"
        assert scope.is_open
        break
    assert let_go(scope, before)


@pytest.mark.parametrize("fault", [ValueError("of the program"), KeyboardInterrupt()])
def test_the_camera_is_let_go_of_where_the_program_fails(camera, fault):
    before, scope = threads(), camera()
    with pytest.raises(type(fault)), streamer.open("0") as feed:  # noqa: PT012
        for _ in feed:
            raise fault
    assert let_go(scope, before)


def test_the_camera_is_let_go_of_where_the_feed_is_forgotten(camera):
    before, scope = threads(), camera()
    feed = streamer.open("0")
    del feed
    assert not scope.is_open
    assert threads() <= before


def test_close_twice_and_slide_after_it(camera):
    camera()
    feed = streamer.open("0")
    next(iter(feed))
    feed.close()
    feed.close()
    assert list(feed) == []
    assert (feed.slide.end.state, feed.slide.end.reason) == ("stopped", "by the program")


def test_what_fails_in_the_source_is_raised_after_what_it_gave(camera):
    before, scope = threads(), camera(frames=2, failure=SourceError("the lamp burst"))
    seen = []
    with pytest.raises(SourceError, match="the lamp burst"):
        seen.extend(frame.frame_id for frame in streamer.open("0"))
    assert seen == [0, 1]
    assert let_go(scope, before)


def test_a_slow_program_sees_every_frame_of_an_analysis_and_the_newest_of_a_camera(camera):
    camera(frames=40)
    assert [frame.frame_id for frame in streamer.open("0", queue=2)] == list(range(40))
    scope = camera("live")
    feed, seen = streamer.open("0", stop_after_s=120, stale_after_ms=1e12), []  # its clock begins at 0
    for frame in feed:
        seen.append(frame.frame_id)
        missed = feed.missed
        while len(seen) == 1 and feed.missed == missed:  # the program is busy until it is too late for some
            feed.slides  # noqa: B018
        if len(seen) == 3:
            break
    assert feed.missed > 0
    assert seen == sorted(seen)
    assert seen[1] - seen[0] > 1
    assert not scope.is_open


def test_a_journal_is_whole_and_free_when_the_loop_was_left(camera, tmp_path):
    camera(frames=5)
    journal = tmp_path / "slide.db"
    streamer.count("0", journal=str(journal))
    assert main(["recount", str(journal)]) == 0
    again = camera(frames=7)
    assert streamer.count("0", journal=str(journal), resume=True).differential.frames >= 5
    assert not again.is_open


def test_time_is_over(camera):
    camera("live")
    slide = streamer.count("0", stop_after_s=0.2)
    assert slide.end.reason == "after 0.2 s, as asked for"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: streamer.open(), "got no source, expected one or more"),
        (lambda: streamer.open("sim:", detectr="x"), r"got the key 'detectr', .* did you mean 'detector'\?"),
        (lambda: streamer.open("sim:", backend="cpu"), "expected one of auto, onnxruntime"),
        (lambda: streamer.open("sim:", dashboard=True), "got an option of the dashboard"),
        (lambda: streamer.open("sim:", resume=True), "got no --journal"),
        (lambda: streamer.count("sim:", mode="quick"), "expected one of live, analysis"),
        (lambda: streamer.classify(np.zeros((40, 40))), r"got float64 \(40, 40\), expected uint8"),
        (lambda: streamer.classify(np.zeros((4, 40, 3), np.uint8)), "expected 8 px or more"),
        (lambda: streamer.classify(7), "got int, expected uint8"),
        (lambda: streamer.classify("cell.png", site="lab/", classifier="x"), "got a classifier too"),
    ],
)
def test_what_can_not_be_meant_is_one_line(call, message):
    with pytest.raises(UsageError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def test_no_source_and_no_count():
    with pytest.raises(LeukostreamError, match="no such file"):
        streamer.count("nowhere/")
    with streamer.open(SIM, detector="yolov5n-blood") as feed, pytest.raises(LeukostreamError, match="iterate first"):
        feed.slide  # noqa: B018
