"""Basler's cameras, through pylon: the extra `pylon` is pypylon, whose wheel holds it.

With PYLON_CAMEMU=1 in the environment pylon shows an emulated camera, 0815-0000.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engines.base import UsageError
from streamer.sources.base import SourceAbsentError, SourceError, SourceLostError
from streamer.sources.camera_process import DrivenSource
from streamer.sources.driver import AttachedCamera, RawImage
from streamer.sources.features import FeatureRefusedError, FeatureSettings, first_line, set_up
from streamer.sources.genicam import HELD, not_attached
from streamer.sources.newest_image import Grabbed, NewestImage
from streamer.sources.packages import extra, require

_BUFFERS = 8
_POLL_MS = 250
_NO_NUMBER = 2**64 - 1


@dataclass(frozen=True, slots=True)
class PylonAddress:
    """What stands behind `pylon:`."""

    serial: str
    settings: FeatureSettings

    @classmethod
    def parse(cls, target: str) -> PylonAddress:
        """`SERIAL[,KEY=VALUE…]`; UsageError for anything else."""
        serial, *rest = (part.strip() for part in target.split(","))
        if not serial or "=" in serial:
            raise UsageError(
                f"--source pylon:{target}: got no serial number, expected pylon:SERIAL[,exposure=…]; "
                "`leukostream cameras` lists what is attached"
            )
        return cls(serial, FeatureSettings.parse(rest, f"pylon:{target}"))


def open_pylon(name: str, target: str, now_ns: Callable[[], int]) -> DrivenSource:
    """UsageError for a malformed address, SourceError where the package is missing."""
    address = PylonAddress.parse(target)
    require("pypylon", "pylon", f"source pylon:{target}")
    return DrivenSource(name, f"camera {address.serial}", connect, target, now_ns)


class PylonDriver:
    """One camera that is sending."""

    def __init__(self, pylon: Any, camera: Any, settings: FeatureSettings) -> None:
        """`camera` is open, and closed with it. SourceError for a setting that it does not take."""
        self._pylon = pylon
        self._camera = camera
        now = set_up(settings, ParameterFeatures(camera.GetNodeMap()))
        self.settings, self._exposure_ms, self.period_s = now.settings, now.exposure_ms, now.period_s
        self._format = self.settings["pixel_format"]
        camera.MaxNumBuffer.Value = _BUFFERS
        camera.StartGrabbing(pylon.GrabStrategy_OneByOne)
        self._newest = NewestImage(self._grab)
        self._newest.start()

    def next(self, timeout_s: float) -> RawImage | None:
        return self._newest.take(timeout_s)

    def close(self) -> None:
        self._newest.stop()
        with contextlib.suppress(Exception):  # of a camera that is gone
            self._camera.StopGrabbing()
        self._camera.Close()

    def _grab(self) -> Grabbed | None:
        result = self._camera.RetrieveResult(_POLL_MS, self._pylon.TimeoutHandling_Return)
        arrived_ns = time.monotonic_ns()
        if not result.IsValid():
            if self._camera.IsCameraDeviceRemoved():
                raise SourceLostError("got the end of its connection, expected images; is it plugged in?")
            if not self._camera.IsGrabbing():
                raise SourceLostError("got the end of its images, expected more; another program may have stopped it")
            return None
        number = None if result.BlockID == _NO_NUMBER else int(result.BlockID)
        image = (lambda: self._image(result, arrived_ns)) if result.GrabSucceeded() else None
        return Grabbed(number, image, result.Release, arrived_ns)

    def _image(self, result: Any, arrived_ns: int) -> RawImage:
        data = np.frombuffer(result.GetBuffer(), np.uint8)
        if result.PaddingX:
            rows = data.reshape(result.Height, -1)
            data = np.ascontiguousarray(rows[:, : -result.PaddingX]).reshape(-1)
        return RawImage(
            *(data, int(result.Width), int(result.Height), self._format, arrived_ns), exposure_ms=self._exposure_ms
        )


def connect(target: str) -> PylonDriver:
    """A camera that is sending, as driver.py has it."""
    address = PylonAddress.parse(target)
    with extra("pylon", f"source pylon:{target}"):
        from pypylon import genicam, pylon
    factory = pylon.TlFactory.GetInstance()
    devices = {device.GetSerialNumber(): device for device in factory.EnumerateDevices()}
    device = devices.get(address.serial)
    if device is None:
        raise not_attached(address.serial, devices)
    try:
        camera = pylon.InstantCamera(factory.CreateDevice(device))
        camera.Open()
    except genicam.GenericException as error:
        if not factory.IsDeviceAccessible(device):
            raise SourceAbsentError(HELD) from error
        raise SourceAbsentError(f"got '{first_line(error)}', expected that it opens") from error
    try:
        return PylonDriver(pylon, camera, address.settings)
    except genicam.GenericException as error:
        camera.Close()
        raise SourceError(f"got '{first_line(error)}', expected that it sends") from error
    except BaseException:
        camera.Close()
        raise


def attached() -> list[AttachedCamera]:
    """What pylon shows; none is opened."""
    with extra("pylon", "pylon"):
        from pypylon import pylon
    factory = pylon.TlFactory.GetInstance()
    found = []
    for device in factory.EnumerateDevices():
        usable = bool(factory.IsDeviceAccessible(device))
        gives = "ready" if usable else "in use by another program"
        found.append(AttachedCamera(f"pylon:{device.GetSerialNumber()}", device.GetModelName(), gives, usable))
    return found


class ParameterFeatures:
    """Features of pylon's node map."""

    def __init__(self, nodes: Any) -> None:
        from pypylon import genicam

        self._nodes = nodes
        self._error = genicam.GenericException

    def has(self, name: str) -> bool:
        try:
            node = self._nodes.GetNode(name)
            return node is not None and bool(node.IsReadable() or node.IsWritable())
        except self._error:
            return False

    def read(self, name: str) -> str:
        return str(self._nodes.GetNode(name).ToString())

    def write(self, name: str, value: str) -> None:
        try:
            self._nodes.GetNode(name).FromString(value)
        except self._error as error:
            raise FeatureRefusedError(first_line(error)) from error

    def choices(self, name: str) -> Sequence[str]:
        try:
            return list(self._nodes.GetNode(name).Symbolics)
        except (AttributeError, self._error):
            return []

    def bounds(self, name: str) -> tuple[float, float] | None:
        node = self._nodes.GetNode(name)
        try:
            return node.Min, node.Max
        except (AttributeError, self._error):
            return None
