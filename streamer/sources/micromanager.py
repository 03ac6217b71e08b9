"""Cameras and stages of a Micro-Manager configuration: the extra `micromanager` is pymmcore-plus, which holds MMCore.

A configuration with `#py` lines, for devices written in Python, is loaded by UniMMCore.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from engines.base import UsageError, near
from streamer.sources.base import SourceAbsentError, SourceError, SourceLostError
from streamer.sources.camera_process import DrivenSource
from streamer.sources.driver import Driver, RawImage
from streamer.sources.packages import extra, require
from streamer.sources.stage_track import StagePoller, StageSample

if TYPE_CHECKING:
    from pymmcore_plus import CMMCorePlus

OPENS_WITHIN_S = 180.0
"""A configuration may home its stages and cool its camera before it is loaded."""

_ASKED_EVERY_S = 0.04
_POLL_S = 0.002
_SETTINGS = ("camera", "xy", "z", "exposure", "mda")


@dataclass(frozen=True, slots=True)
class MicroManagerAddress:
    """What stands behind `mm:`."""

    config: str
    camera: str | None = None
    """The device's label; None: the configuration's own."""
    xy: str | None = None
    z: str | None = None
    exposure_ms: float | None = None
    """None: as the configuration has it."""
    mda: str | None = None
    """A file with a useq sequence, which is taken as it comes; None: live."""

    @classmethod
    def parse(cls, target: str) -> MicroManagerAddress:
        """`CONFIG.cfg[,camera=NAME,xy=NAME,z=NAME,exposure=MS,mda=FILE]`; UsageError for anything else."""
        config, *parts = re.split(r",(?=\s*\w+\s*=)", target)
        if not config.strip():
            raise UsageError(f"--source mm:{target}: got no configuration, expected mm:CONFIG.cfg")
        given: dict[str, Any] = {}
        for part in parts:
            key, _, value = (piece.strip() for piece in part.partition("="))
            if key not in _SETTINGS:
                hint = near(key, _SETTINGS) or f"; expected one of {', '.join(_SETTINGS)}"
                raise UsageError(f"--source mm:{target}: got the setting {key!r}, which does not exist{hint}")
            if key == "exposure":
                if not re.fullmatch(r"\d+(\.\d+)?", value) or not float(value):
                    raise UsageError(f"--source mm:{target}: got exposure {value!r}, expected milliseconds, such as 10")
                given["exposure_ms"] = float(value)
            elif not value:
                raise UsageError(f"--source mm:{target}: got no {key}, expected one such as {key}=NAME")
            else:
                given[key] = value
        return cls(os.path.expanduser(config.strip()), **given)


def open_micromanager(name: str, target: str, now_ns: Callable[[], int]) -> DrivenSource:
    """UsageError for a malformed address, SourceError for a missing package and a sequence's file that is not there."""
    address = MicroManagerAddress.parse(target)
    shown = f"microscope {os.path.basename(address.config)}"
    if address.mda is not None and not os.path.isfile(address.mda):
        raise SourceError(f"{shown}: got no file {address.mda!r}, expected a useq sequence (YAML or JSON)")
    for module in ("pymmcore_plus", "useq"):
        require(module, "micromanager", f"source mm:{address.config}")
    if address.mda is None:
        return DrivenSource(name, shown, connect, target, now_ns, opens_within_s=OPENS_WITHIN_S)
    # A sequence may wait for minutes between two images, by its plan; none of it may be lost.
    waits = {"silence_s": None, "default_mode": "analysis"}
    return DrivenSource(name, shown, connect, target, now_ns, opens_within_s=OPENS_WITHIN_S, **waits)  # type: ignore[arg-type]


def connect(target: str) -> Driver:
    """A camera that is sending, as driver.py has it."""
    address = MicroManagerAddress.parse(target)
    microscope = Microscope.load(address)
    if address.mda is None:
        return LiveMicroscope(microscope)
    from streamer.sources.micromanager_sequence import SequenceOfImages

    return SequenceOfImages(microscope, address.mda)


class Microscope:
    """A configuration that is loaded, and which of its devices are used."""

    def __init__(self, core: CMMCorePlus, address: MicroManagerAddress) -> None:
        """SourceError for a device that the configuration has not."""
        from pymmcore_plus import DeviceType

        self.core = core
        self.camera = self._device(DeviceType.Camera, address.camera, core.getCameraDevice(), "camera")
        if not self.camera:
            raise SourceError("got a configuration without a camera, expected one; name it with ,camera=NAME")
        core.setCameraDevice(self.camera)
        self.xy = self._device(DeviceType.XYStage, address.xy, core.getXYStageDevice(), "xy")
        self.z = self._device(DeviceType.Stage, address.z, core.getFocusDevice(), "z")
        if address.exposure_ms is not None:
            self._expose(address.exposure_ms)

    @classmethod
    def load(cls, address: MicroManagerAddress) -> Microscope:
        """SourceError for a file that is not there, SourceAbsentError for hardware that does not answer."""
        with extra("micromanager", f"source mm:{address.config}"):
            from pymmcore_plus import CMMCorePlus
        core = (_unified_core() if _has_python_devices(address.config) else CMMCorePlus)()
        try:
            core.loadSystemConfiguration(address.config)
        except FileNotFoundError as error:
            raise SourceError(
                f"got no file {address.config!r}, expected a configuration of Micro-Manager, as its Hardware "
                "Configuration Wizard writes it"
            ) from error
        except Exception as error:  # MMCore's, and whatever a device written in Python raises
            hint = (
                ""
                if core.getDeviceAdapterSearchPaths()
                else "; no device adapters were found: `mmcore install` gets them"
            )
            raise SourceAbsentError(f"got '{_one_line(error)}', expected that its devices answer{hint}") from error
        return cls(core, address)

    @property
    def settings(self) -> Mapping[str, str]:
        found = {"camera": self.camera, "exposure": f"{self.core.getExposure():g} ms"}
        found |= {name: label for name, label in (("xy", self.xy), ("z", self.z)) if label}
        if size := self.um_per_px:
            found["um_per_px"] = f"{size:g}"
        return found

    @property
    def um_per_px(self) -> float | None:
        """Of the objective and binning as they are; None: the configuration does not say."""
        return float(self.core.getPixelSizeUm(True)) or None

    def where(self) -> StageSample:
        """RuntimeError where the stage does not answer."""
        x_um, y_um = self.core.getXYPosition(self.xy)
        z_um = float(self.core.getPosition(self.z)) if self.z else None
        return StageSample(time.monotonic_ns(), float(x_um), float(y_um), z_um, bool(self.core.deviceBusy(self.xy)))

    def image(self, stored: npt.NDArray[Any], arrived_ns: int) -> RawImage:
        """Of an array of MMCore, (H, W) or (H, W, 3) RGB."""
        colours = stored.ndim == 3
        if stored.dtype == np.uint8:
            pixel_format = "RGB8" if colours else "Mono8"
        elif stored.dtype == np.uint16:
            bits = min(16, max(9, self.core.getImageBitDepth()))
            pixel_format = f"RGB{bits if bits in (10, 12, 14) else 16}" if colours else f"Mono{bits}"
        else:
            raise SourceError(f"got samples of {stored.dtype}, expected 8 or 16 bits: choose the camera's pixel type")
        data = np.ascontiguousarray(stored).reshape(-1).view(np.uint8)
        return RawImage(
            *(data, stored.shape[1], stored.shape[0], pixel_format, arrived_ns),
            exposure_ms=float(self.core.getExposure()),
            um_per_px=self.um_per_px,
        )

    def close(self) -> None:
        self.core.unloadAllDevices()

    def _device(self, kind: Any, asked: str | None, usual: str, setting: str) -> str:
        if asked is None:
            return usual
        labels = list(self.core.getLoadedDevicesOfType(kind))
        if asked not in labels:
            raise SourceError(
                f"got {setting} {asked!r}, expected one of the configuration: {', '.join(labels) or 'it has none'}"
            )
        return asked

    def _expose(self, exposure_ms: float) -> None:
        try:
            self.core.setExposure(exposure_ms)
        except (RuntimeError, ValueError) as error:
            why = _one_line(error)
            raise SourceError(f"got exposure {exposure_ms:g} ms, expected {self._exposures()}: {why}") from error
        now_ms = self.core.getExposure()
        if abs(now_ms - exposure_ms) > 0.05 * exposure_ms:
            raise SourceError(f"got exposure {exposure_ms:g} ms, expected {self._exposures()}; it stays at {now_ms:g}")

    def _exposures(self) -> str:
        core, what = self.core, (self.camera, "Exposure")
        if not core.hasProperty(*what) or not core.hasPropertyLimits(*what):
            return "one that the camera takes"
        return f"{core.getPropertyLowerLimit(*what):g} to {core.getPropertyUpperLimit(*what):g}"


class LiveMicroscope:
    """The newest image of a camera that goes on and on, with where the stage was."""

    def __init__(self, microscope: Microscope) -> None:
        self._microscope = microscope
        self._core = microscope.core
        self.settings = microscope.settings
        self.period_s = self._core.getExposure() / 1000
        self._number: int | None = None
        self._stage = StagePoller(microscope.where, _ASKED_EVERY_S) if microscope.xy else None
        if self._stage is not None:
            self._stage.start()
        self._core.startContinuousSequenceAcquisition(0)

    def next(self, timeout_s: float) -> RawImage | None:
        until_s = time.monotonic() + timeout_s
        while not self._core.getRemainingImageCount():
            if not self._core.isSequenceRunning():
                raise SourceLostError("got the end of its images, expected more; is the camera plugged in?")
            if time.monotonic() > until_s:
                return None
            time.sleep(_POLL_S)
        stored, metadata = self._core.getLastImageAndMD()
        self._core.clearCircularBuffer()
        said = dict(metadata)
        image = self._microscope.image(stored, _arrived_ns(said))
        number = _number(said)
        if number is not None and self._number is not None and number > self._number:
            image.passed_over = number - self._number - 1
        self._number = number
        if self._stage is not None:
            begun_ns = image.arrived_ns - round((image.exposure_ms or 0.0) * 1e6)
            place = self._stage.during(begun_ns, image.arrived_ns, image.um_per_px)
            if place is not None:
                image.stage_um, image.moving = place.stage_um, place.moving
        return image

    def close(self) -> None:
        if self._stage is not None:
            self._stage.stop()
        self._core.stopSequenceAcquisition()
        self._microscope.close()


def _has_python_devices(config: str) -> bool:
    try:
        return any(line.startswith("#py ") for line in Path(config).read_text("utf-8", "replace").splitlines())
    except OSError:
        return False


def _unified_core() -> type[CMMCorePlus]:
    try:
        from pymmcore_plus.experimental.unicore import UniMMCore
    except ImportError as error:
        raise SourceError(
            "got a configuration with devices in Python, expected a pymmcore-plus that has UniMMCore: "
            "pip install --upgrade pymmcore-plus"
        ) from error
    return UniMMCore


def _arrived_ns(metadata: Mapping[str, Any]) -> int:
    """When MMCore had the image, on the clock of time.monotonic_ns()."""
    now_ns = time.monotonic_ns()
    try:
        received = datetime.fromisoformat(str(metadata["TimeReceivedByCore"]))
    except (KeyError, ValueError):
        return now_ns
    age_s = datetime.now(received.tzinfo).timestamp() - received.timestamp()
    return now_ns - round(max(0.0, age_s) * 1e9) if age_s < 60.0 else now_ns


def _number(metadata: Mapping[str, Any]) -> int | None:
    """MMCore's, of the images that it put into its buffer."""
    try:
        return int(metadata["ImageNumber"])
    except (KeyError, ValueError):
        return None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
