"""`leukostream cameras`: what is attached to this machine, each with what to write behind `--source`."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from engines.base import LeukostreamError
from streamer.commands.options import Parser
from streamer.dashboard.canvas import clean


@dataclass(frozen=True, slots=True)
class Options:
    """There are none."""


def add_options(_: Parser) -> None: ...


def main(_: Options) -> int:
    """0 where a camera can be used. LeukostreamError where none can."""
    from streamer.sources.attached import attached_cameras  # OpenCV

    found = attached_cameras()
    console = Console()
    if found.cameras:
        table = Table("camera", "gives", "--source", box=None, pad_edge=False)
        for camera in found.cameras:
            table.add_row(escape(clean(camera.name)), escape(clean(camera.gives)), escape(clean(camera.source)))
        console.print(table, soft_wrap=True)
    for fault in found.faults:
        console.print(f"not looked at: {clean(fault)}", style="dim", markup=False, highlight=False, soft_wrap=True)
    if not any(camera.usable for camera in found.cameras):
        got = ", ".join(clean(camera.source) for camera in found.cameras) or "none"
        raise LeukostreamError(
            f"cameras: got {got}, expected one that can be used; "
            "check the cable and the permission to read it, or give a stream (rtsp://…), a film or a folder"
        )
    return 0
