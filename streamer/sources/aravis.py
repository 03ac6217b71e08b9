"""GigE Vision and USB3 Vision cameras through Aravis, a library of Linux distributions that needs no maker's producer.

It is reached through PyGObject, which comes from the distribution too (Debian: gir1.2-aravis-0.8, python3-gi). A
virtual environment sees these with `--system-site-packages`.
"""

from __future__ import annotations

import importlib.util
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from streamer.sources.base import SourceAbsentError, SourceError, SourceLostError
from streamer.sources.driver import AttachedCamera, RawImage
from streamer.sources.features import FeatureRefusedError, FeatureSettings, set_up
from streamer.sources.genicam import HELD, GenicamAddress, not_attached
from streamer.sources.newest_image import Grabbed, NewestImage

_BUFFERS = 8
_POLL_US = 250_000


def library() -> Any:
    """Aravis as PyGObject gives it. SourceError where it is not installed."""
    try:
        import gi

        gi.require_version("Aravis", "0.8")
        from gi.repository import Aravis
    except (ImportError, ValueError) as error:
        raise _missing(str(error)) from error
    return Aravis


def require() -> None:
    """The same before a run begins, without importing it, which its driver does in a process of its own."""
    if importlib.util.find_spec("gi") is None:
        raise _missing("No module named 'gi'")


def _missing(what: str) -> SourceError:
    return SourceError(
        f"genicam:aravis: got {what}, expected Aravis 0.8 and PyGObject of this system: apt install "
        "gir1.2-aravis-0.8 python3-gi, and a virtual environment made with --system-site-packages"
    )


class AravisDriver:
    """One camera that is sending."""

    def __init__(self, aravis: Any, camera: Any, settings: FeatureSettings) -> None:
        """SourceError for a setting that it does not take."""
        self._aravis = aravis
        self._camera = camera
        self._lost = threading.Event()
        device = camera.get_device()
        device.connect("control-lost", lambda *_: self._lost.set())
        now = set_up(settings, AravisFeatures(device))
        self.settings, self._exposure_ms, self.period_s = now.settings, now.exposure_ms, now.period_s
        self._format = self.settings["pixel_format"]
        self._stream = camera.create_stream(None, None)
        for _ in range(_BUFFERS):
            self._stream.push_buffer(aravis.Buffer.new_allocate(camera.get_payload()))
        camera.start_acquisition()
        self._newest = NewestImage(self._grab)
        self._newest.start()

    def next(self, timeout_s: float) -> RawImage | None:
        return self._newest.take(timeout_s)

    def close(self) -> None:
        self._newest.stop()
        if not self._lost.is_set():
            self._camera.stop_acquisition()

    def _grab(self) -> Grabbed | None:
        buffer = self._stream.timeout_pop_buffer(_POLL_US)
        arrived_ns = time.monotonic_ns()
        if buffer is None:
            if self._lost.is_set():
                raise SourceLostError("got no answer of the camera, expected images; is it plugged in?")
            return None
        whole = buffer.get_status() == self._aravis.BufferStatus.SUCCESS
        image = (lambda: self._image(buffer, arrived_ns)) if whole else None
        return Grabbed(int(buffer.get_frame_id()), image, lambda: self._stream.push_buffer(buffer), arrived_ns)

    def _image(self, buffer: Any, arrived_ns: int) -> RawImage:
        data = np.frombuffer(buffer.get_data(), np.uint8)
        width, height = buffer.get_image_width(), buffer.get_image_height()
        return RawImage(data, width, height, self._format, arrived_ns, exposure_ms=self._exposure_ms)


def connect(target: str) -> AravisDriver:
    """A camera that is sending, as driver.py has it."""
    address = GenicamAddress.parse(target)
    aravis = library()
    from gi.repository import GLib

    found = {serial: identity for serial, identity, _ in _devices(aravis)}
    if address.serial not in found:
        raise not_attached(address.serial, found)
    try:
        camera = aravis.Camera.new(found[address.serial])
        if camera.is_gv_device() and not camera.get_device().is_controller():
            raise SourceAbsentError(HELD)
        return AravisDriver(aravis, camera, address.settings)
    except GLib.Error as error:
        raise SourceAbsentError(f"got '{error.message}', expected that it sends") from error


def attached() -> list[AttachedCamera]:
    """What Aravis shows; none is opened. SourceError where it is not installed."""
    return [
        AttachedCamera(f"genicam:aravis,{serial}", name, "ready", usable=True)
        for serial, _, name in _devices(library())
    ]


class AravisFeatures:
    """Features of Aravis' node map."""

    def __init__(self, device: Any) -> None:
        from gi.repository import GLib

        self._device = device
        self._error = GLib.Error

    def has(self, name: str) -> bool:
        try:
            return bool(self._device.is_feature_available(name))
        except self._error:
            return False

    def read(self, name: str) -> str:
        return str(self._device.get_feature(name).get_value_as_string())

    def write(self, name: str, value: str) -> None:
        """Aravis itself does not check the range."""
        bounds = self.bounds(name)
        try:
            if bounds is not None and not bounds[0] <= float(value) <= bounds[1]:
                raise FeatureRefusedError("out of range")
            self._device.get_feature(name).set_value_from_string(value)
        except ValueError as error:
            raise FeatureRefusedError("no number") from error
        except self._error as error:
            raise FeatureRefusedError(error.message) from error

    def choices(self, name: str) -> Sequence[str]:
        try:
            return list(self._device.dup_available_enumeration_feature_values_as_strings(name))
        except (self._error, TypeError):
            return []

    def bounds(self, name: str) -> tuple[float, float] | None:
        for bounds_of in (self._device.get_float_feature_bounds, self._device.get_integer_feature_bounds):
            try:
                least, most = bounds_of(name)
                return float(least), float(most)
            except self._error:
                continue
        return None


def _devices(aravis: Any) -> list[tuple[str, str, str]]:
    """(serial number, id, name) of each."""
    aravis.update_device_list()
    return [
        (
            str(aravis.get_device_serial_nbr(number) or aravis.get_device_id(number)),
            str(aravis.get_device_id(number)),
            f"{aravis.get_device_vendor(number)} {aravis.get_device_model(number)}",
        )
        for number in range(aravis.get_n_devices())
    ]
