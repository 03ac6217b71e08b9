"""OpenFlexure microscopes, on a double made from the public description of their web API. No real one was tried."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

import pytest

from engines.base import UsageError
from streamer.records import Frame, StagePoint
from streamer.sources import open_source, parse_source
from streamer.sources.base import SourceAbsentError, SourceError, SourceLostError
from streamer.sources.openflexure import OpenFlexureAddress, OpenFlexureSource
from tests.streamer.sources.openflexure_double import FIRST_V3, V2, V3, Microscope


@pytest.fixture
def microscopes() -> Iterator[list[Microscope]]:
    found: list[Microscope] = []
    yield found
    for microscope in found:
        microscope.off()


def switched_on(microscopes: list[Microscope], paths: Mapping[str, str]) -> Microscope:
    microscopes.append(Microscope(paths))
    return microscopes[-1]


def opened(microscope: Microscope, options: str = "") -> OpenFlexureSource:
    source = open_source(parse_source(f"openflexure:127.0.0.1:{microscope.port}{options}"))
    assert isinstance(source, OpenFlexureSource)
    source.open()
    return source


def frame_of(source: OpenFlexureSource) -> Frame:
    while True:
        item = source.read()
        assert item is not None
        if isinstance(item, Frame):
            return item


def test_addresses() -> None:
    address = OpenFlexureAddress.parse("microscope.local,um_per_step=0.09,um_per_px=0.12")
    assert (address.netloc, address.um_per_step, address.um_per_z_step, address.um_per_px) == (
        *("microscope.local:5000", 0.09, None, 0.12),
    )
    assert OpenFlexureAddress.parse("[fd00::2]:80").netloc == "[fd00::2]:80"
    assert parse_source("openflexure:microscope.local:5000").name == "microscope-local"
    for target, says in (
        ("", "got '', expected HOST[:PORT]"),
        ("http://a/b", "expected HOST[:PORT]"),
        ("a:99999", "expected HOST[:PORT]"),
        ("a,um_per_stp=1", "did you mean 'um_per_step'"),
        ("a,um_per_step=0", "got um_per_step '0', expected one such as um_per_step=0.09"),
    ):
        with pytest.raises(UsageError) as caught:
            OpenFlexureAddress.parse(target)
        assert says in str(caught.value)


@pytest.mark.lengthy
@pytest.mark.parametrize("paths", [V2, V3, FIRST_V3], ids=["version 2", "version 3", "first version 3"])
def test_frames_with_the_position_of_the_stage(microscopes: list[Microscope], paths: Mapping[str, str]) -> None:
    source = opened(switched_on(microscopes, paths), ",um_per_step=0.1,um_per_z_step=0.05,um_per_px=0.2")
    try:
        frames = [frame_of(source) for _ in range(3)]
    finally:
        source.close()
    assert [frame.frame_id for frame in frames] == [0, 1, 2]
    assert frames[2].image.shape == (120, 160, 3)
    assert frames[2].stage_um == StagePoint(pytest.approx(100.0), pytest.approx(-20.0), pytest.approx(2.0))
    assert frames[2].um_per_px == 0.2
    assert frames[2].moving is False
    assert source.remarks == []


@pytest.mark.lengthy
def test_a_stage_that_moves(microscopes: list[Microscope]) -> None:
    microscope = switched_on(microscopes, V2)
    source = opened(microscope, ",um_per_step=0.1")
    try:
        frame_of(source)
        microscope.speed = 1000  # 100 µm a second, 10 µm in the time that a frame takes to come
        time.sleep(0.3)
        assert frame_of(source).moving is True
    finally:
        source.close()


@pytest.mark.lengthy
def test_steps_without_their_length_are_no_position(microscopes: list[Microscope]) -> None:
    source = opened(switched_on(microscopes, V3))
    try:
        frame = frame_of(source)
    finally:
        source.close()
    assert (frame.stage_um, frame.um_per_px, frame.moving) == (None, None, None)
    (remark,) = source.remarks
    assert "its stage counts steps" in remark
    assert "add um_per_step=F" in remark


@pytest.mark.lengthy
def test_a_position_that_fails_costs_no_frame(microscopes: list[Microscope]) -> None:
    microscope = switched_on(microscopes, V2)
    source = opened(microscope, ",um_per_step=0.1")
    try:
        assert frame_of(source).stage_um is not None
        microscope.position = "the stage is busy"
        time.sleep(0.3)
        assert frame_of(source).stage_um is None
    finally:
        source.close()


@pytest.mark.lengthy
def test_a_microscope_that_is_switched_off_is_lost_and_found_again(microscopes: list[Microscope]) -> None:
    microscope = switched_on(microscopes, V2)
    source = opened(microscope, ",um_per_step=0.1")
    try:
        first = frame_of(source)
        microscope.off()
        with pytest.raises(SourceLostError):
            list(iter(source.read, None))
        source.close()
        with pytest.raises(SourceLostError, match="got 'Connection refused', expected an OpenFlexure server"):
            source.open()
        source.close()
        microscope.on()
        source.open()
        assert frame_of(source).frame_id > first.frame_id
    finally:
        source.close()


def test_what_is_no_microscope(microscopes: list[Microscope], free_port: int) -> None:
    source = open_source(parse_source(f"openflexure:127.0.0.1:{free_port}"))
    with pytest.raises(SourceAbsentError, match="got 'Connection refused', expected an OpenFlexure server; is it on"):
        source.open()
    source.close()
    other = switched_on(microscopes, {"stream": "/a", "position": "/b"})
    with pytest.raises(SourceError, match=r"got no position of a stage at /api/v3/stage/position, /api/v2/"):
        opened(other)
