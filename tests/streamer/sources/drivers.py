"""Drivers of cameras that do what a test wrote down; they run in a process of their own, as real ones do."""

from __future__ import annotations

import itertools
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from engines.base import UsageError
from streamer.sources.base import SourceAbsentError, SourceError, SourceLostError
from streamer.sources.driver import AttachedCamera, EndOfImages, RawImage


def raw(value: int, width: int = 48, height: int = 40, pixel_format: str = "Mono8") -> RawImage:
    """A grey image of one value."""
    data = np.full(width * height, value, np.uint8)
    return RawImage(data, width, height, pixel_format, time.monotonic_ns())


class ScriptedDriver:
    """One word of the target answers one call of `next`, in order; then it ends. A number is an image of that value."""

    settings: Mapping[str, str] = {"exposure": "10"}
    period_s = 0.0
    closes: Path | None = None
    """Written when it closes."""

    def __init__(self, words: Iterator[str]) -> None:
        self._words = words

    def next(self, timeout_s: float) -> RawImage | None:
        word = next(self._words, "end")
        if word == "end":
            raise EndOfImages
        if word == "slowly":
            time.sleep(0.01)
            return raw(1)
        if word == "silence":
            return None
        if word == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if word == "hang":
            time.sleep(60)
        if word == "lost":
            raise SourceLostError("got the end of its connection, expected images")
        if word == "bug":
            raise ZeroDivisionError("by a driver")
        if word == "losses":
            image = raw(7)
            image.lost, image.damaged, image.passed_over = 3, 2, 5
            return image
        if word == "stage":
            image = raw(8)
            image.stage_um, image.um_per_px, image.moving, image.exposure_ms = (1.5, -2.0, None), 0.25, True, 20.0
            return image
        if word == "large":
            return raw(9, 480, 400)
        if word == "old":
            image = raw(10)
            image.arrived_ns -= 2_000_000_000
            return image
        if word == "odd":
            return raw(11, pixel_format="Confidence8")
        return raw(int(word))

    def close(self) -> None:
        if self.closes is not None:
            time.sleep(1.5)
            self.closes.write_text("after 1.5 s")


def connect(target: str) -> ScriptedDriver:
    """What stands before the first space opens: "open", or how it does not."""
    how, *words = target.split()
    if how == "prints":
        print("a banner of its library", flush=True)
        os.system("echo and of its C code")
        print("and a warning", file=sys.stderr, flush=True)
    elif how == "crash":
        os.abort()
    elif how == "hang":
        time.sleep(60)
    elif how not in ("open", "slow", "endless") and not how.startswith("closes:"):
        kinds = {"absent": SourceAbsentError, "never": SourceError, "usage": UsageError, "bug": ZeroDivisionError}
        raise kinds[how]("says the driver")
    driver = ScriptedDriver(itertools.repeat("slowly") if how == "endless" else iter(words))
    if how.startswith("closes:"):
        driver.closes = Path(how.removeprefix("closes:"))
    driver.period_s = 1.5 if how == "slow" else 0.0
    return driver


def finds_two() -> list[AttachedCamera]:
    return [
        AttachedCamera("odd:1", "[bold]Odd", "640x480", usable=True),
        AttachedCamera("odd:2", "", "in use by another program", usable=False),
    ]


def finds_none() -> list[AttachedCamera]:
    return []


def misses_a_package() -> list[AttachedCamera]:
    raise SourceError("missing: got no package 'missing', expected it here: pip install 'leukostream[missing]'")


def crashes() -> list[AttachedCamera]:
    os.abort()


def hangs() -> list[AttachedCamera]:
    time.sleep(60)
    return []


def has_a_bug() -> list[AttachedCamera]:
    raise ZeroDivisionError("by a back end")
