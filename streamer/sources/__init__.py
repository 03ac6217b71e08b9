"""Where frames come from. `parse_source` reads what a person wrote, `open_source` makes the source of it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from engines.base import UsageError
from streamer.records import Mode
from streamer.sources.address import SourceAddress, parse_source, unique_names
from streamer.sources.base import Source, SourceError, SourceLostError

__all__ = [
    "Source",
    "SourceAddress",
    "SourceError",
    "SourceLostError",
    "open_source",
    "parse_source",
    "unique_names",
]


_SLIDES = (".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".svslide", ".czi", ".dcm", ".zarr")
"""How the names of slides end that are neither films nor fields."""


def open_source(
    address: SourceAddress,
    *,
    mode: Mode | None = None,
    now_ns: Callable[[], int] = time.monotonic_ns,
    say: Callable[[str], None] = lambda line: None,
) -> Source:
    """The source of an address, constructed and not yet opened.

    `mode` "live" plays a film, a recording and the simulated slide at their own rate; else they go as fast as they are
    read. In "analysis" a stream passes over no frame, and an imagezmq sender is answered once its frame is kept.
    SourceError for a path that does not exist, UsageError for what its kind can't mean. A web server is asked whether
    it holds a film. `say` gets lines for people while frames are read. Each kind is imported when it is asked for, so
    that who only shows messages does not load OpenCV.
    """
    if address.kind == "camera":
        from streamer.sources.camera import CameraSource

        return CameraSource(address.name, address.target, now_ns)
    if address.kind == "stream":
        return _of_url(address, mode, now_ns)
    if address.kind == "path":
        return _of_path(address, mode, now_ns)
    if address.kind == "sim":
        from streamer.sources.simulated import SimulatedSource, SlideParameters

        parameters = SlideParameters.parse(address.target)
        return SimulatedSource(parameters, name=address.name, live=mode == "live", now_ns=now_ns)
    if address.kind == "replay":
        from streamer.sources.replay import ReplaySource

        return ReplaySource(address.name, address.target, now_ns, live=mode == "live")
    if address.kind == "mm":
        from streamer.sources.micromanager import open_micromanager

        return open_micromanager(address.name, address.target, now_ns)
    if address.kind == "genicam":
        from streamer.sources.genicam import open_genicam

        return open_genicam(address.name, address.target, now_ns)
    if address.kind == "pylon":
        from streamer.sources.pylon import open_pylon

        return open_pylon(address.name, address.target, now_ns)
    if address.kind == "openflexure":
        from streamer.sources.openflexure import open_openflexure

        return open_openflexure(address.name, address.target, now_ns, every_frame=mode == "analysis")
    if address.kind == "wsi":
        from streamer.sources.whole_slide import WholeSlideSource

        return WholeSlideSource(address.name, address.target, now_ns)
    if address.kind == "package":
        from streamer.sources.packages import open_packaged

        prefix, _, target = address.target.partition(":")
        return open_packaged(prefix, address.name, target, now_ns)
    from streamer.sources.imagezmq import ImagezmqSource

    return ImagezmqSource(address.name, address.target, now_ns, loses_nothing=mode == "analysis", say=say)


def _of_url(address: SourceAddress, mode: Mode | None, now_ns: Callable[[], int]) -> Source:
    from streamer.sources.diagnosis import is_film
    from streamer.sources.stream import StreamSource
    from streamer.sources.video import VideoFileSource

    if is_film(address.target):
        return VideoFileSource(address.name, address.target, now_ns, live=mode == "live")
    return StreamSource(address.name, address.target, now_ns, every_frame=mode == "analysis")


def _of_path(address: SourceAddress, mode: Mode | None, now_ns: Callable[[], int]) -> Source:
    from streamer.sources.images import ImagesSource, is_image, list_images
    from streamer.sources.video import VideoFileSource

    target = os.path.expanduser(address.target)
    if target.lower().rstrip("/").endswith(_SLIDES) and os.path.exists(target):
        raise UsageError(f"source {target}: got a whole-slide image, expected it as wsi:{target}")
    if os.path.isfile(target) and not is_image(Path(target)):
        return VideoFileSource(address.name, target, now_ns, live=mode == "live")
    list_images(target)  # for its error, now and not when the pipeline runs
    return ImagesSource(address.name, target, now_ns)
