from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

from streamer.records import Frame, Mode, Skip

pytest.importorskip("av", reason="PyAV is not installed")

from tools.bench import lag
from tools.bench.sender import NumberedFilm, number_of, numbered


@pytest.mark.parametrize("number", [0, 1, 1234, 4095])
def test_the_number_of_a_frame_survives_noise(number: int) -> None:
    noise = np.random.default_rng(number).integers(0, 40, (90, 160, 3), np.uint8)
    assert number_of(np.clip(numbered(noise, number) + noise // 2, 0, 255).astype(np.uint8)) == number


def test_a_film_bears_its_numbers_and_begins_with_a_key_frame() -> None:
    film = NumberedFilm.encode(160, 96, frames=20, keys_every=10)
    assert [frame.is_key for frame in film.frames] == [number % 10 == 0 for number in range(20)]


class Scripted:
    name, behind_s, passed_over = "scripted", 0.5, 7
    default_mode: Mode = "live"

    def __init__(self) -> None:
        strip = np.zeros((48, 96, 3), np.uint8)
        frames = [Frame("scripted", number, 0, numbered(strip, number)) for number in (5, 2, 9)]
        self._items = iter([frames[0], Skip("scripted", "3 s", "fell behind", ""), *frames[1:], None])

    def open(self) -> None: ...

    def read(self) -> Frame | Skip | None:
        return next(self._items)

    def close(self) -> None: ...


def test_ages_are_those_of_the_numbers() -> None:
    found = lag.measured(lambda number, now_s: number / 100, Scripted(), 0, 60.0, "96x48", "scripted")
    ages_ms = found.first_ms, found.median_ms, found.last_ms, found.worst_ms
    assert ages_ms == pytest.approx((50.0, 50.0, 90.0, 90.0))
    assert (found.frames, found.jumps, found.behind_s, found.passed_over) == (3, 1, 0.5, 7)


@pytest.mark.lengthy
def test_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "lag.json"
    words = ["--sizes", "320x240", "--consumers-ms", "50", "--seconds", "1.5", "--loop-seconds", "4", "--over", "tcp"]
    began_s = time.monotonic()
    assert lag.main([*words, "--json", str(path)]) == 0
    found = json.loads(path.read_text())["lags"]
    assert [one["reader"] for one in found] == ["PyAV", "OpenCV", "OpenCV frame by frame"]
    assert all(one["size"] == "320x240" and one["frames"] > 0 for one in found)
    assert all(0 <= one["first_ms"] <= one["worst_ms"] <= 1000 * (time.monotonic() - began_s) for one in found)
    assert capsys.readouterr().out.count("| 320x240 |") == 3
