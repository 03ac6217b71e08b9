"""Cameras of the GenICam standard, through the GenTL producer of their maker: a file `.cti`.

The extra `genicam` is harvesters, the library that loads producers. GENICAM_GENTL64_PATH names their folders; the
installers of makers set it.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engines.base import UsageError
from streamer.sources.base import SourceAbsentError, SourceError, SourceLostError
from streamer.sources.camera_process import DrivenSource
from streamer.sources.driver import AttachedCamera, RawImage
from streamer.sources.features import FeatureRefusedError, FeatureSettings, first_line, set_up
from streamer.sources.newest_image import Grabbed, NewestImage
from streamer.sources.packages import extra, require

if TYPE_CHECKING:
    from harvesters.core import Harvester

PATH_VARIABLE = "GENICAM_GENTL64_PATH"

ARAVIS = "aravis"
"""Instead of a producer's file: through Aravis, by the module of that name."""

HELD = "got a camera that another program holds, expected a free one; close it there"

_BUFFERS = 8
_POLL_S = 0.25
_USABLE = 1
"""GenTL's DEVICE_ACCESS_STATUS_READWRITE; higher ones are cameras that another program holds."""
_READABLE = (2, 3, 4)
"""GenApi's access modes: to be written, read, or both."""


@dataclass(frozen=True, slots=True)
class GenicamAddress:
    """What stands behind `genicam:`."""

    serial: str
    producer: str | None
    """Its file; None: all that GENICAM_GENTL64_PATH names. ARAVIS: none, but Aravis."""
    settings: FeatureSettings

    @classmethod
    def parse(cls, target: str) -> GenicamAddress:
        """`[FILE.cti,|aravis,]SERIAL[,KEY=VALUE…]`; UsageError for anything else."""
        first, *rest = (part.strip() for part in target.split(","))
        producer = None
        if first == ARAVIS or first.lower().endswith(".cti"):
            producer = os.path.expanduser(first)
            first, *rest = rest or [""]
        if not first or "=" in first:
            raise UsageError(
                f"--source genicam:{target}: got no serial number, expected genicam:[FILE.cti,]SERIAL[,exposure=…]; "
                "`leukostream cameras` lists what is attached"
            )
        return cls(first, producer, FeatureSettings.parse(rest, f"genicam:{target}"))


def open_genicam(name: str, target: str, now_ns: Callable[[], int]) -> DrivenSource:
    """UsageError for a malformed address, SourceError where a package is missing."""
    from streamer.sources import aravis

    address = GenicamAddress.parse(target)
    if address.producer == ARAVIS:
        aravis.require()
        return DrivenSource(name, f"camera {address.serial}", aravis.connect, target, now_ns)
    require("harvesters", "genicam", f"source genicam:{target}")
    return DrivenSource(name, f"camera {address.serial}", connect, target, now_ns)


class GenicamDriver:
    """One camera that is sending."""

    def __init__(self, harvester: Harvester, acquirer: Any, settings: FeatureSettings) -> None:
        """Both are closed with it. SourceError for a setting that it does not take."""
        from genicam.gentl import GenericException, TimeoutException

        self._harvester = harvester
        self._acquirer = acquirer
        self._timeout_error, self._error = TimeoutException, GenericException
        now = set_up(settings, NodeFeatures(acquirer.remote_device.node_map))
        self.settings, self._exposure_ms, self.period_s = now.settings, now.exposure_ms, now.period_s
        acquirer.num_buffers = max(_BUFFERS, acquirer.min_num_buffers)
        acquirer.start()
        self._newest = NewestImage(self._grab)
        self._newest.start()

    def next(self, timeout_s: float) -> RawImage | None:
        return self._newest.take(timeout_s)

    def close(self) -> None:
        self._newest.stop()
        self._acquirer.destroy()
        self._harvester.reset()

    def _grab(self) -> Grabbed | None:
        try:
            buffer = self._acquirer.fetch(timeout=_POLL_S)
        except self._timeout_error:
            return None
        except self._error as error:
            raise SourceLostError(f"got '{first_line(error)}', expected images; is it plugged in?") from error
        arrived_ns = time.monotonic_ns()
        number = _value(lambda: int(buffer.module.frame_id))
        parts = buffer.payload.components
        whole = bool(parts) and _value(lambda: bool(buffer.module.is_complete())) is not False
        image = (lambda: self._image(parts[0], arrived_ns)) if whole else None
        return Grabbed(number, image, buffer.queue, arrived_ns)

    def _image(self, part: Any, arrived_ns: int) -> RawImage:
        data = np.asarray(part.data).reshape(-1).view(np.uint8)
        if padding := _value(lambda: int(part.x_padding)):
            rows = data.reshape(part.height, -1)
            data = np.ascontiguousarray(rows[:, : rows.shape[1] - padding]).reshape(-1)
        return RawImage(*(data, part.width, part.height, part.data_format, arrived_ns), exposure_ms=self._exposure_ms)


def connect(target: str) -> GenicamDriver:
    """A camera that is sending, as driver.py has it."""
    address = GenicamAddress.parse(target)
    with extra("genicam", f"source genicam:{target}"):
        harvester = _loaded(producers(address.producer))
    try:
        acquirer = acquirer_of(harvester, _device(harvester, address.serial))
        return GenicamDriver(harvester, acquirer, address.settings)
    except BaseException:
        harvester.reset()
        raise


def acquirer_of(harvester: Harvester, device: Any) -> Any:
    """The device, opened. SourceAbsentError where that can't be done now."""
    from genicam.gentl import AccessDeniedException, GenericException, ResourceInUseException

    try:
        return harvester.create(device)
    except (ResourceInUseException, AccessDeniedException) as error:
        raise SourceAbsentError(HELD) from error
    except GenericException as error:
        raise SourceAbsentError(f"got '{first_line(error)}', expected that it opens") from error


def attached() -> list[AttachedCamera]:
    """What the producers of GENICAM_GENTL64_PATH show; none is opened. SourceError where there is no producer."""
    with extra("genicam", "genicam"):
        harvester = _loaded(producers(None))
    try:
        found = []
        for device in harvester.device_info_list:
            words = [_text(device, "vendor"), _text(device, "model"), _text(device, "user_defined_name")]
            status = _value(lambda device=device: int(device.access_status))  # type: ignore[misc]
            usable = status is None or status <= _USABLE
            gives = "ready" if usable else "in use by another program"
            serial = _serial(device)
            found.append(AttachedCamera(f"genicam:{serial}", " ".join(filter(None, words)), gives, usable))
        return found
    finally:
        harvester.reset()


def producers(named: str | None) -> list[str]:
    """The files to load. SourceError where there is none."""
    if named is not None:
        if not os.path.isfile(named):
            raise SourceError(f"got no file {named!r}, expected the GenTL producer of the camera's maker, a .cti file")
        return [os.path.abspath(named)]
    folders = [folder for folder in os.environ.get(PATH_VARIABLE, "").split(os.pathsep) if folder]
    found = sorted(str(file) for folder in folders for file in Path(folder).glob("*.cti"))
    if not found:
        where = f"no .cti file in {', '.join(folders)}" if folders else f"no {PATH_VARIABLE}"
        raise SourceError(
            f"got {where}, expected the GenTL producer of the camera's maker: install its software, set "
            f"{PATH_VARIABLE} to the folder with the .cti file, or write genicam:FILE.cti,SERIAL"
        )
    return found


class NodeFeatures:
    """Features of a GenApi node map."""

    def __init__(self, nodes: Any) -> None:
        from genicam.genapi import GenericException

        self._nodes = nodes
        self._error = GenericException

    def has(self, name: str) -> bool:
        return bool(self._nodes.has_node(name)) and self._nodes.get_node(name).get_access_mode() in _READABLE

    def read(self, name: str) -> str:
        return str(self._nodes.get_node(name).to_string())

    def write(self, name: str, value: str) -> None:
        try:
            self._nodes.get_node(name).from_string(value)
        except self._error as error:
            raise FeatureRefusedError(first_line(error)) from error

    def choices(self, name: str) -> Sequence[str]:
        return _value(lambda: list(self._nodes.get_node(name).symbolics)) or []

    def bounds(self, name: str) -> tuple[float, float] | None:
        node = self._nodes.get_node(name)
        least, most = _value(lambda: node.min), _value(lambda: node.max)
        return None if least is None or most is None else (least, most)


def not_attached(serial: str, attached: Iterable[str]) -> SourceAbsentError:
    found = ", ".join(attached) or "none"
    return SourceAbsentError(
        f"got no camera with the serial number {serial!r}, expected one of those attached: {found}; check the cable, "
        "and that no other program holds it"
    )


def _loaded(files: Sequence[str]) -> Harvester:
    """With the list of its devices. SourceError where none of the files can be loaded."""
    from harvesters.core import Harvester

    harvester = Harvester()
    faults = []
    for file in files:
        try:
            harvester.add_file(file, check_existence=True, check_validity=True)
        except OSError as error:
            faults.append(f"{file} ({error})")
    if len(faults) == len(files):
        raise SourceError(f"got {'; '.join(faults)}, expected a GenTL producer that loads")
    harvester.update()
    return harvester


def _device(harvester: Harvester, serial: str) -> Any:
    devices = list(harvester.device_info_list)
    for names in (_serial, lambda device: _text(device, "user_defined_name"), lambda device: _text(device, "id_")):
        if found := [device for device in devices if names(device) == serial]:
            return found[0]
    raise not_attached(serial, (_serial(device) for device in devices))


def _serial(device: Any) -> str:
    """What names it: its serial number, else its id."""
    return _text(device, "serial_number") or _text(device, "id_")


def _text(device: Any, name: str) -> str:
    """A property of a device; "" where the producer does not say."""
    return _value(lambda: getattr(device, name)) or ""


def _value(get: Callable[[], Any]) -> Any:
    """None where the producer, or the camera, does not say."""
    with contextlib.suppress(Exception):  # every producer has its own way of not having something
        return get()
    return None
