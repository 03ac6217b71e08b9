"""`leukostream cameras`: what is attached to this machine, each with what to write behind `--source`."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from engines.base import LeukostreamError
from streamer.commands.options import Parser
from streamer.dashboard.canvas import clean


@dataclass(frozen=True, slots=True)
class Options:
    """There are none."""


def add_options(_: Parser) -> None: ...


def main(_: Options) -> int:
    """0 where a camera answers. LeukostreamError where none does."""
    from streamer.sources.attached import attached_cameras  # OpenCV

    found = list(attached_cameras())
    table = Table("camera", "answers", "--source", box=None, pad_edge=False)
    for camera in found:
        rate = "" if camera.fps is None else f", {camera.fps:g} frames/s"
        size = None if camera.size_px is None else f"{camera.size_px[0]}x{camera.size_px[1]}{rate}"
        name = clean(camera.name) or f"camera {camera.device}"
        table.add_row(name, size or "no: in use by another program, or not the device that sends", camera.source)
    if found:
        Console().print(table, soft_wrap=True)
    if not any(camera.size_px for camera in found):
        raise LeukostreamError(
            f"cameras: got {', '.join(camera.device for camera in found) or 'none'}, expected one that gives frames; "
            "check the cable and the permission to read it, or give a stream (rtsp://…), a film or a folder"
        )
    return 0
