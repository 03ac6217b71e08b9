"""The picture of a visited slide: places, light, stitching, layout, marks; and the whole of it from a run."""

import itertools
import re

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.analysis import models
from streamer.cli import main
from streamer.dashboard.palette import class_colour
from streamer.journal import JournalReader, SeenFrame
from streamer.mosaic import compose, stitching
from streamer.mosaic.layout import CAPTION_PX, layout
from streamer.mosaic.light import GROUND, Light, estimate, reduced
from streamer.mosaic.marks import CellMark, draw, legend
from streamer.mosaic.places import FinalPlaces, PlacedFrame, extent_of, needed
from streamer.mosaic.scale import Scale
from streamer.mosaic.stitching import stitched
from streamer.mosaic.visited import look_over
from streamer.records import Detections, StagePosition
from streamer.stage.placement import Correction, Placement
from tests.cases import textured_slide
from tests.streamer.journal import journal_cases
from tests.streamer.journal.journal_cases import PLACES, write_images
from tests.streamer.recording.recording_cases import frames_of, pictures, record

WIDTH, HEIGHT = 320, 240
SLIDE = textured_slide(seed=5, width=1000, height=700)
NO_LIGHT = Light(np.zeros((15, 3)))


def placed(number, x, y, *, island=0, accepted=True, focus=1.0, size=(WIDTH, HEIGHT)):
    return PlacedFrame(number, island, x, y, *size, None, accepted, focus)


def seen(number, x, anchor, *, island=0, corrections=(), lost=False):
    position = None if lost else StagePosition(island, x, 10.0, 1.0)
    nothing = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.intp), (), (), False)
    placement = Placement(position, anchor, "blurred" if lost else None, tuple(corrections))
    return SeenFrame(number, WIDTH, HEIGHT, placement, nothing, None, True, (), 0.9, None, "")


class SlidePictures:
    """Cuts frames out of a slide, under a lamp."""

    def __init__(self, slide, lamp=1.0, exposures=None):
        self.slide = slide
        self.lamp = lamp
        self.exposures = exposures or {}
        self.asked = []

    def image(self, frame):
        cut = cv2.warpAffine(
            self.slide,
            np.array([[1, 0, -frame.x_px], [0, 1, -frame.y_px]], np.float32),
            (frame.width, frame.height),
        )
        return np.clip(np.rint(cut * self.lamp * self.exposures.get(frame.frame_id, 1.0)), 0, 255).astype(np.uint8)

    def of(self, frames):
        for frame in frames:
            self.asked.append(frame.frame_id)
            yield frame, self.image(frame)


def raster():
    """Frames over all of SLIDE with some overlap, and a few pixels off the grid."""
    rng = np.random.default_rng(2)
    frames = []
    for y in (0, 160, 320, 460):
        for x in (0, 220, 440, 680):
            dx, dy = (0, 0) if x in (0, 680) or y in (0, 460) else rng.uniform(-20, 20, 2).round(2).tolist()
            frames.append(placed(len(frames), x + dx, y + dy))
    return frames


def vignette(colour=(1.0, 0.9, 1.1), depth=0.5):
    y, x = np.mgrid[-1 : 1 : HEIGHT * 1j, -1 : 1 : WIDTH * 1j]
    fall = np.exp(-depth * (0.6 * (x - 0.2) ** 2 + y**2 + 0.3 * x * y**2))
    return fall[..., None] ** np.array([1.0, 0.7, 1.3]) * np.array(colour) * 0.9


# Places


def test_frames_move_with_their_anchors_and_join_islands():
    places = FinalPlaces()
    places.add(seen(0, 0.0, anchor=0))
    places.add(seen(1, 100.0, anchor=0))
    places.add(seen(2, 5.0, anchor=1, island=1))
    places.add(seen(3, 0.0, None, lost=True, corrections=[Correction(0, 0, 1.0, 2.0)]))
    places.add(seen(4, 201.0, anchor=0))  # its place is in the corrected map already
    places.correct([Correction(1, 0, 300.0, -10.0), Correction(0, 0, 0.5, 0.0)])
    assert [(f.frame_id, f.island, f.x_px, f.y_px) for f in places.frames()] == [
        (0, 0, 1.5, 12.0),
        (1, 0, 101.5, 12.0),
        (2, 0, 305.0, 0.0),
        (4, 0, 201.5, 10.0),
    ]


def test_what_shows_a_place_best_is_chosen_and_nothing_is_left_out():
    still = [placed(i, 0.0, 0.0, focus=0.5 + i / 100) for i in range(30)]
    beside = [
        placed(40, 200.0, 0.0, focus=0.1),
        placed(41, 520.0, 0.0, accepted=False),
        placed(42, 0, 0, accepted=False),
    ]
    chosen = [frame.frame_id for frame in needed([*still, *beside])]
    assert chosen == [29, 28, 27, 40, 41]


# Light


@pytest.mark.lengthy
def test_the_lamp_is_found_from_frames_with_cells_in_them():
    lamp = vignette()
    images = SlidePictures(SLIDE, lamp)
    light = estimate(reduced(images.image(frame)) for frame in raster())
    off = light.over(HEIGHT, WIDTH) - (np.log(lamp) - np.log(lamp).mean((0, 1)))
    assert np.abs(off - off.mean((0, 1))).max() < 0.04
    assert np.abs(np.log(lamp) - np.log(lamp).mean((0, 1))).max() > 0.4  # what was there to be found


def test_exposure_and_white_balance_of_a_frame_are_taken_out():
    frame = placed(0, 300.0, 200.0)
    cast = SlidePictures(SLIDE, np.array([0.5, 0.7, 0.6])).image(frame)
    plain = SlidePictures(SLIDE).image(frame)
    corrected, same = (NO_LIGHT.corrected(image, reduced(image)) for image in (cast, plain))
    assert np.abs(corrected - same).mean() < 2.5
    assert np.median(same[same > 200]) == pytest.approx(GROUND, abs=4)


def test_a_frame_without_ground_is_not_blown_up():
    dark = np.full((HEIGHT, WIDTH, 3), 12, np.uint8)
    assert NO_LIGHT.corrected(dark, reduced(dark)).max() <= 48


# Stitching


def expected(scale):
    """SLIDE with its ground where the mosaic puts it."""
    ground = np.percentile(SLIDE.reshape(-1, 3), 90, axis=0)
    bright = np.clip(SLIDE * (GROUND / ground), 0, 255)
    size = round(SLIDE.shape[1] * scale), round(SLIDE.shape[0] * scale)
    return cv2.resize(bright.astype(np.float32), size, interpolation=cv2.INTER_AREA)


@pytest.mark.parametrize("scale", [1.0, 0.5, 0.31])
@pytest.mark.lengthy
def test_the_slide_comes_back_without_its_lamp(scale):
    frames = raster()
    images = SlidePictures(SLIDE, vignette(), {5: 0.8, 9: 0.7})
    light = estimate(reduced(images.image(frame)) for frame in frames)
    picture = stitched(frames, extent_of(frames), scale, light, images)
    wanted = expected(scale)
    assert picture.shape == wanted.shape
    off = picture.astype(np.float32) - wanted
    assert np.abs(off).mean() < 6
    for rows in np.array_split(off, 4):  # no part of it is darker, or of another colour
        for part in np.array_split(rows, 4, axis=1):
            assert np.abs(np.median(part.reshape(-1, 3), axis=0)).max() < 6


def test_it_is_the_same_in_bands(monkeypatch):
    frames = raster()
    images = SlidePictures(SLIDE)
    at_once = stitched(frames, extent_of(frames), 0.7, NO_LIGHT, images)
    monkeypatch.setattr(stitching, "BAND_PIXELS", 700 * 45)
    in_bands = SlidePictures(SLIDE)
    assert np.array_equal(stitched(frames, extent_of(frames), 0.7, NO_LIGHT, in_bands), at_once)
    assert len(in_bands.asked) > len(frames)


def test_where_the_stage_has_not_been_is_paper():
    frames = [placed(0, 0.0, 0.0), placed(1, 600.0, 400.0)]
    picture = stitched(frames, extent_of(frames), 1.0, NO_LIGHT, SlidePictures(SLIDE))
    assert picture.shape == (640, 920, 3)
    assert (picture[:HEIGHT, WIDTH + 2 : 598] == 255).all()
    assert (picture[HEIGHT // 2, 20 : WIDTH - 20] != 255).any()


# Layout and marks


@settings(max_examples=200, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.floats(320, 40_000), st.floats(240, 30_000)), min_size=1, max_size=60),
    max_side=st.integers(1000, 12_000),
)
def test_islands_lie_side_by_side_in_bounds(sizes, max_side):
    placed = layout(sizes, max_side)
    assert 0 < placed.scale <= 1
    assert max(placed.width, placed.height) <= max_side
    boxes = []
    for (x, y), (width, height) in zip(placed.corners, sizes, strict=True):
        right, bottom = x + max(1, round(width * placed.scale)), y + max(1, round(height * placed.scale))
        assert x >= 0
        assert y >= CAPTION_PX
        assert right <= placed.width
        assert bottom <= placed.height
        for other in boxes:
            assert right <= other[0] or x >= other[2] or bottom <= other[1] - CAPTION_PX or y - CAPTION_PX >= other[3]
        boxes.append((x, y, right, bottom))


def test_one_island_fills_the_picture_and_is_never_enlarged():
    assert layout([(640, 480)], 6000).scale == 1
    assert layout([(20_000, 15_000)], 6000).scale == pytest.approx(0.3, abs=0.01)


@pytest.mark.parametrize("class_name", ["neutrophil", "unclassified", "plasma cell"])
def test_a_mark_is_a_ring_in_the_colour_of_its_class(class_name):
    canvas = np.full((200, 200, 3), 220, np.uint8)
    draw(canvas, [CellMark(100, 100, 60, class_name, False, 7)])
    colour = class_colour(class_name)
    bgr = [int(colour[i : i + 2], 16) for i in (5, 3, 1)]
    assert (canvas[100, 100] == 220).all()
    assert canvas[100, 100 - 37].tolist() == bgr


# From a run to the picture


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A folder with the run of the journal tests' walk: frames/, walk.db, walk.rec."""
    folder = tmp_path_factory.mktemp("mosaic")
    write_images(folder / "frames")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "load_detector", lambda *_, **__: journal_cases.detector())
        patch.setattr(models, "load_classifier", lambda *_, **__: journal_cases.classifier())
        patch.chdir(folder)
        words = ["run", "--source", "slide=frames", "--journal", "walk.db", "--record", "walk.rec", "--every-frame"]
        assert main(words) == 0
    return folder


@pytest.mark.lengthy
def test_places_are_those_of_the_walk(ran):
    with JournalReader(ran / "walk.db") as journal:
        visited = look_over(journal.sessions[0])
    (frames,) = visited.islands.values()
    assert [frame.frame_id for frame in frames] == [i for i in range(len(PLACES)) if i != journal_cases.BLANK]
    first = frames[0].x_px - PLACES[0]
    assert all(frame.x_px - first == pytest.approx(PLACES[frame.frame_id], abs=0.6) for frame in frames)
    assert sum(map(len, visited.cells.values())) == 16
    assert all(20 <= side <= 40 for side in visited.sides_px.values())
    assert (len(visited.sides_px), visited.lost) == (16, 1)


@pytest.mark.parametrize("how", ["its own recording", "a moved recording", "its source"])
@pytest.mark.lengthy
def test_the_picture_of_a_run(ran, tmp_path, capfd, monkeypatch, how):
    monkeypatch.chdir(ran)
    out = tmp_path / "slide.png"
    arguments = ["walk.db", "-o", str(out), "--no-marks"]
    if how == "a moved recording":
        (tmp_path / "moved.rec").write_bytes((ran / "walk.rec").read_bytes())
        arguments.insert(1, str(tmp_path / "moved.rec"))
    if how != "its own recording":
        (ran / "walk.rec").rename(ran / "away.rec")
    try:
        assert main(["mosaic", *arguments]) == 0
    finally:
        if how != "its own recording":
            (ran / "away.rec").rename(ran / "walk.rec")
    assert "1 island, 32 frames, 16 cells; 1 frame without a place" in capfd.readouterr().out
    picture = cv2.imread(str(out))[16 + CAPTION_PX :, 16:]
    slide = textured_slide()[:, : max(PLACES) + 320]
    picture = picture[: slide.shape[0], : slide.shape[1]]
    assert picture.shape == slide.shape
    assert np.corrcoef(picture[8:-8, 8:-8].ravel(), slide[8:-8, 8:-8].ravel())[0, 1] > 0.95


def test_scaled_down_with_marks(ran, tmp_path, monkeypatch):
    monkeypatch.chdir(ran)
    with_marks, without = tmp_path / "marked.jpg", tmp_path / "plain.jpg"
    for out, option in ((with_marks, "--marks"), (without, "--no-marks")):
        assert main(["mosaic", "walk.db", "-o", str(out), "--max-side", "800", option]) == 0
    marked, plain = (cv2.imread(str(out)) for out in (with_marks, without))
    assert max(marked.shape) <= 800
    height = min(marked.shape[0], plain.shape[0]) - 80
    assert (np.abs(marked[:height].astype(int) - plain[:height]).max(2) > 60).mean() > 0.01


def test_tiles_to_zoom_into(ran, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(ran)
    whole, out = tmp_path / "slide.png", tmp_path / "slide.dzi"
    assert main(["mosaic", "walk.db", "-o", str(whole)]) == 0
    monkeypatch.setattr(compose, "IN_MEMORY_BYTES", 1000)  # drawn in a file, and the same
    assert main(["mosaic", "walk.db", "-o", str(out), "--max-side", "6000"]) == 0
    picture = cv2.imread(str(whole))
    size = re.search(r'Width="(\d+)" Height="(\d+)"', out.read_text())
    assert (int(size[2]), int(size[1])) == picture.shape[:2]
    levels = sorted((tmp_path / "slide_files").iterdir(), key=lambda one: int(one.name))
    assert cv2.imread(str(levels[0] / "0_0.jpg")).shape == (1, 1, 3)
    for level, folder in enumerate(levels):
        columns = 1 + max(int(tile.stem.split("_")[0]) for tile in folder.iterdir())
        rows = 1 + max(int(tile.stem.split("_")[1]) for tile in folder.iterdir())
        tiled = np.concatenate(
            [
                np.concatenate([cv2.imread(str(folder / f"{x}_{y}.jpg")) for x in range(columns)], axis=1)
                for y in range(rows)
            ]
        )
        factor = 2 ** (len(levels) - 1 - level)
        assert tiled.shape[:2] == tuple(-(-side // factor) for side in picture.shape[:2])
        if factor == 1:
            assert np.abs(tiled.astype(int) - picture).mean() < 3
    capfd.readouterr()
    assert main(["mosaic", "walk.db", "-o", str(out)]) == 2
    assert "which is there already; remove it" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("um_per_px", "width", "length_px", "ruler"), [(0.1, 1000, 200, "given"), (1.0, 1499, 200, "red cells")]
)
def test_the_scale_bar_is_as_long_as_it_says(um_per_px, width, length_px, ruler):
    plain, barred = (legend(width, "", {}, 0.5, measure) for measure in (None, Scale(um_per_px / 2, ruler)))
    assert len(barred) - len(plain) == 34
    bar = barred[34:68, :600].min(2) < 100
    longest = max(len(list(run)) for row in bar for dark, run in itertools.groupby(row) if dark)
    assert longest == length_px


BAD = [
    (["walk.db", "-o", "a.gif"], 2, "got .gif, expected one of .png"),
    (["walk.db", "-o", "a.png", "--source", "up"], 2, "got source 'up', expected --source with one of: slide"),
    (["walk.db", "-o", "a.png", "--island", "7"], 2, "--island: got 7, expected one of 'slide': "),
    (["walk.db", "-o", "a.png", "--max-side", "30"], 2, "--max-side: got 30, expected at least 400"),
    (["missing.db", "-o", "a.png"], 1, "missing.db"),
    (["walk.rec", "-o", "a.png"], 1, "got a recording, expected a journal"),
    (["walk.db", "walk.db", "-o", "a.png"], 1, "got no recording"),
    (["walk.db", "other.rec", "-o", "a.png"], 1, "got source 'slide', expected one of: left"),
    (["walk.db", "-o", "missing/a.png"], 1, "-o missing/a.png: got 'No such file or directory'"),
]


@pytest.mark.parametrize(("arguments", "status", "says"), BAD, ids=[says for *_, says in BAD])
def test_bad_usage_is_one_clear_line(ran, capfd, monkeypatch, arguments, status, says):
    monkeypatch.chdir(ran)
    if "other.rec" in arguments and not (ran / "other.rec").exists():
        record(ran / "other.rec", frames_of("left", pictures(1)))
    assert main(["mosaic", *arguments]) == status
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("leukostream: ")
    assert says in line


def test_the_recording_of_another_run_is_refused(ran, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(models, "load_detector", lambda *_, **__: journal_cases.detector())
    monkeypatch.setattr(models, "load_classifier", lambda *_, **__: journal_cases.classifier())
    monkeypatch.chdir(ran)
    other = tmp_path / "other.rec"
    assert main(["run", "--source", "slide=frames", "--record", str(other), "--every-frame"]) == 0
    assert main(["mosaic", "walk.db", str(other), "-o", str(tmp_path / "a.png")]) == 1
    assert "got another session of 'slide' than the journal's" in capfd.readouterr().err
