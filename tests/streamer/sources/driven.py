"""What the tests of cameras in processes of their own ask of each."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

import pytest

from streamer.records import Frame
from streamer.sources import open_source, parse_source
from streamer.sources.base import SourceLostError
from streamer.sources.camera_process import DrivenSource


def opened(address: str) -> DrivenSource:
    source = open_source(parse_source(address))
    assert isinstance(source, DrivenSource)
    source.open()
    return source


def frames_of(source: DrivenSource, count: int) -> Iterator[Frame]:
    while count:
        item = source.read()
        assert item is not None
        if isinstance(item, Frame):
            count -= 1
            yield item


def until_none(next_image: Callable[[float], object]) -> None:
    """Images that came before are given first."""
    while next_image(3.0) is not None:
        pass


def check_is_found_again_after_a_kill(source: DrivenSource) -> None:
    """Its driver is killed: the camera is lost, and opened again its numbers go on."""
    try:
        list(frames_of(source, 2))
        assert source.pid is not None
        os.kill(source.pid, signal.SIGKILL)
        with pytest.raises(SourceLostError, match="SIGKILL"):
            list(frames_of(source, 100))
        source.close()
        source.open()
        (frame,) = frames_of(source, 1)
        assert frame.frame_id >= 2
    finally:
        source.close()
