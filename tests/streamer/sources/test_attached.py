"""What is attached, over all back ends: none of them takes the others with it."""

from __future__ import annotations

import cv2
import pytest

from streamer.sources import attached, parse_source
from streamer.sources.attached import attached_cameras
from tests.streamer.sources import drivers
from tests.streamer.sources.scripted import Opener, ScriptedCapture


@pytest.mark.lengthy
def test_a_back_end_that_crashes_leaves_the_others_alone() -> None:
    found = attached_cameras(
        {
            "crashing": drivers.crashes,
            "odd": drivers.finds_two,
            "missing": drivers.misses_a_package,
            "buggy": drivers.has_a_bug,
            "empty": drivers.finds_none,
        }
    )
    assert [camera.source for camera in found.cameras] == ["odd:1", "odd:2"]
    assert found.faults == (
        "crashing: its process was ended by SIGABRT",
        "missing: got no package 'missing', expected it here: pip install 'leukostream[missing]'",
        "buggy: ZeroDivisionError: by a back end",
    )


@pytest.mark.lengthy
def test_a_back_end_that_hangs_is_given_up() -> None:
    found = attached_cameras({"hanging": drivers.hangs, "odd": drivers.finds_two}, within_s=10.0)
    assert len(found.cameras) == 2
    assert found.faults == ("hanging: got no answer within 10 s, expected the list of its cameras; its library hangs",)


def test_cameras_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attached, "_LISTS_DEVICES", False)
    captures = ScriptedCapture([]), ScriptedCapture([True], {cv2.CAP_PROP_FPS: 25.0})
    monkeypatch.setattr(attached, "open_capture", Opener(*captures))
    (camera,) = attached.of_opencv()
    assert (camera.name, camera.gives, camera.usable) == ("camera 1", "60x40, 25 frames/s", True)
    assert parse_source(camera.source).target == "1,size=60x40"
    assert captures[1].released


def test_a_device_that_does_not_answer_is_listed_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attached, "open_capture", Opener(ScriptedCapture([])))
    camera = attached._look(3, cv2.CAP_V4L2)
    assert (camera.source, camera.usable) == ("camera:3", False)
    assert camera.gives.startswith("no answer: in use by another program")
