"""The arithmetic of the area benchmark, its films, and a run of it in small."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.backends.scripted import ScriptedEngine, candidates, detector_specs
from streamer.records import Frame
from tools.bench import area, area_film, area_results, area_run
from tools.bench.area_results import Agreement, Line, Place, Run, agreement, card_arithmetic, matched, ratio
from tools.bench.area_run import ProcessorTime


def place(x_px: float, y_px: float = 0.0, class_name: str = "neutrophil", island: int = 0) -> Place:
    return Place(island, x_px, y_px, class_name, None)


def run_of(*cells: Place, verdict: str = "ready for review") -> Run:
    return Run(2, 1.0, 3.0, 1.0, 1.0, 0.5, {}, 0.0, 1.0, 1.0, {}, {"p50": 1.0, "p99": 1.0}, cells, verdict)


def frame_at(x_px: float, y_px: float = 0.0, *, accepted: bool = True) -> dict[str, object]:
    stage = {"island": 0, "x_px": x_px, "y_px": y_px}
    return {"source": "a", "stage": stage, "accepted": accepted, "width": 640, "height": 480}


def test_a_line_through_points_on_it_misses_none() -> None:
    line = Line.through([1, 2, 4], [5, 7, 11])
    assert (line.slope, line.start, line.largest_miss) == pytest.approx((2.0, 3.0, 0.0), abs=1e-9)


def test_how_far_a_point_is_off_is_said_as_a_share_of_the_rise() -> None:
    line = Line.through([0, 1, 2, 3], [0, 11, 19, 30])
    assert line.slope == pytest.approx(9.8)
    assert line.largest_miss == pytest.approx(0.9 / 29.4, rel=0.01)


def test_no_line_through_one_place() -> None:
    with pytest.raises(ValueError, match="got 1 different places, expected two"):
        Line.through([3, 3], [1, 2])


def test_ratios_are_of_runs_that_took_turns() -> None:
    assert ratio([2.0, 30.0, 4.0], [1.0, 10.0, 2.0]) == 2.0


def test_a_card_carries_as_many_more_cameras_as_it_is_given_fewer_pixels() -> None:
    assert "room for 320 by this measurement" in card_arithmetic(64, 0.2)


def test_cells_are_matched_by_their_place_and_island() -> None:
    first = [place(0), place(100), place(200), place(0, island=1)]
    second = [place(203), place(4), place(130), place(2, island=2)]
    assert matched(first, second) == [(0, 1), (2, 0)]
    assert matched([], second) == []


def test_two_cells_are_not_one_cell_of_the_other_run() -> None:
    assert matched([place(0), place(6)], [place(5)]) == [(1, 0)]


def test_what_one_run_has_beside_another() -> None:
    first = run_of(place(0), place(100, class_name="monocyte"), place(900))
    second = run_of(place(1), place(101), place(500, class_name="blast"), verdict="incomplete")
    assert agreement(first, second) == Agreement(
        first=3,
        second=3,
        both=2,
        only_first=1,
        only_second=1,
        class_differs=1,
        serious_lost=1,
        same_verdict=False,
    )
    assert not agreement(run_of(place(0)), run_of(place(0))).only_second


def test_agreements_of_several_films_add_up() -> None:
    same = agreement(run_of(place(0)), run_of(place(0)))
    other = agreement(run_of(place(0)), run_of(place(9000), verdict="do not use"))
    total = Agreement.total([same, other, same])
    assert (total.first, total.both, total.only_first, total.only_second) == (3, 2, 1, 1)
    assert not total.same_verdict


def test_area_that_is_seen_twice_counts_once_and_rejected_frames_not() -> None:
    visited = [frame_at(0), frame_at(0), frame_at(320), frame_at(5000, accepted=False), {**frame_at(0), "stage": None}]
    assert area_results.fields_visited(visited) == pytest.approx(1.5)
    assert area_results.fields_visited([]) == 0.0


def test_only_cells_that_count_and_were_seen_whole_are_compared() -> None:
    cell = {"type": "cell", "source": "a", "island": 0, "x_px": 1.0, "y_px": 2.0, "subclass": None}
    messages: list[dict[str, Any]] = [
        {**cell, "cell_id": 1, "class": "unclassified", "counted": True, "partial": False},
        {**cell, "cell_id": 1, "class": "monocyte", "counted": True, "partial": False},
        {**cell, "cell_id": 2, "class": "monocyte", "counted": True, "partial": True},
        {**cell, "cell_id": 3, "class": "monocyte", "counted": False, "partial": False},
        {"type": "differential"},
    ]
    assert area_results.cells_of(messages) == (Place(0, 1.0, 2.0, "monocyte", None),)


def test_what_engines_are_given_is_counted_padding_and_all() -> None:
    counts = area_run.InputPixels()
    answer = candidates([[]], top_k=4)
    engine = area_run.CountedEngine(
        ScriptedEngine(*detector_specs(64, 96, 4), lambda feeds: answer), "detector", counts
    )
    engine.infer({"images": np.zeros((1, 64, 96, 3), np.uint8)})
    engine.infer({"images": np.zeros((1, 64, 96, 3), np.uint8)})
    assert counts.pixels == {"detector": 2 * 64 * 96, "classifier": 0}


@pytest.fixture
def film(tmp_path: Path) -> Path:
    frames = (np.full((16, 24, 3), number, np.uint8) for number in range(12))
    assert area_film.write_film(tmp_path / "film.npy", frames) == 12
    return tmp_path / "film.npy"


def numbers_of(source: area_film.FilmSource) -> list[int]:
    source.open()
    found: list[Frame] = []
    while (frame := source.read()) is not None:
        found.append(frame)
    source.close()
    assert [frame.frame_id for frame in found] == list(range(len(found)))
    return [int(frame.image[0, 0, 0]) for frame in found]


def test_a_film_is_an_array_whose_frames_are_shown_in_order(film: Path) -> None:
    assert np.load(film).shape == (12, 16, 24, 3)
    before = area_film.fed_s()
    assert numbers_of(area_film.FilmSource("a", film, time.monotonic_ns)) == list(range(12))
    assert area_film.fed_s() > before
    assert numbers_of(area_film.FilmSource("a", film, time.monotonic_ns, first=3, count=4)) == [3, 4, 5, 6]


def test_a_camera_passes_over_what_its_reader_is_late_for(film: Path) -> None:
    seconds = iter([2.0, 2.0, 2.5])
    source = area_film.FilmSource("a", film, lambda: round(1e9 * next(seconds, 2.61)), fps=10)
    assert source.default_mode == "live"
    source.open()
    frames = [frame for _ in range(3) if (frame := source.read()) is not None]
    source.close()
    assert [int(frame.image[0, 0, 0]) for frame in frames] == [0, 5, 6]
    assert [frame.captured_ns / 1e9 for frame in frames] == pytest.approx([2.0, 2.5, 2.6])
    assert source.passed_over == 4


def test_noise_is_that_of_its_seed() -> None:
    grey = [np.full((8, 8, 3), 100, np.uint8)] * 2
    one, again, other = (np.stack(list(area_film.with_noise(grey, seed))) for seed in (1, 1, 2))
    assert (one == again).all()
    assert (one != other).any()
    assert (one[0] != one[1]).any()


def test_a_pan_goes_to_pictures_that_overlap_and_jumps_to_others() -> None:
    corners = np.array([(0, 0), (320, 0), (5000, 0)])
    path = list(area_film._path(corners, (640, 480)))
    assert path[:3] == [(0, 0)] * 3
    assert path[3:14] == [(round(320 * step / 12), 0) for step in range(1, 12)]
    assert path[14:] == [(320, 0)] * 3 + [(5000, 0)] * 3


def test_processor_time_is_told_by_the_kind_of_thread_that_spent_it() -> None:
    def work() -> None:
        begun = time.thread_time()
        while time.thread_time() - begun < 0.02:
            pass

    processor = ProcessorTime()
    with processor.measured():
        threads = [threading.Thread(target=work, name=name) for name in ("worker 0", "worker 1", "tail")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(processor.threads_s) == ["tail", "worker"]
    assert processor.threads_s["worker"] >= 0.04
    assert processor.threads_s["tail"] >= 0.02
    assert processor.started_s is None
    line = area.processor_line([{"threads_ms": {"tail": ms}, "loading_ms": 3.0} for ms in (1.0, 2.0, 9.0)])
    assert line.endswith("by thread: tail 2.00; loading the models 3.00")


@pytest.mark.slow
def test_a_part_of_it_in_small(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = tmp_path / "area.json"
    assert area.main(["--quick", "--parts", "growth", "processes", "--json", str(result)]) == 0
    report = json.loads(result.read_text())
    growth = report["growth"]
    assert growth["slides"] == [1, 2]
    assert growth["fields"][1] > growth["fields"][0] > 1
    assert growth["processor_line"]["slope"] > 0
    assert min(growth["feeder_s"]) > 0
    processes = report["processes"]
    assert processes["speed"] == processes["apart_fps"][0] / processes["together_fps"][0]
    shown = capsys.readouterr().out
    assert "growth" in shown
    assert "in a process each" in shown
