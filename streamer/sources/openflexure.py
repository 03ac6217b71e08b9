"""OpenFlexure microscopes: motion JPEG and the position of the stage over HTTP.

Written from the public description of the server's web API: version 2 (`/api/v2/streams/mjpeg`,
`/api/v2/instrument/state/stage/position`), version 3 (`/api/v3/camera/mjpeg_stream`, `/api/v3/stage/position`), and the
first servers of version 3, which have the same without `/api/v3`. It was never tried on a microscope.

The stage counts steps of its motors. How far a step goes depends on the microscope, so it has to be said.
"""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from engines.base import UsageError, near
from streamer.records import Frame, Skip, StagePoint
from streamer.sources.base import PassedOnSource, Source, SourceAbsentError, SourceError, SourceLostError
from streamer.sources.stage_track import StagePoller, StageSample
from streamer.sources.stream import StreamSource

PORT = 5000
"""Where the server listens if nobody changed it."""

_TIMEOUT_S = 2.0
_ASKED_EVERY_S = 0.1
_ON_ITS_WAY_NS = 100_000_000
"""A frame was exposed within this time before it came: exposure, JPEG and network."""

_ANSWER_MAX_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Api:
    """Where a version of the server has what."""

    stream: str
    position: str


APIS = (
    Api("/api/v3/camera/mjpeg_stream", "/api/v3/stage/position"),
    Api("/api/v2/streams/mjpeg", "/api/v2/instrument/state/stage/position"),
    Api("/camera/mjpeg_stream", "/stage/position"),
)
"""The newest first."""

_NUMBERS = {"um_per_step": "0.09", "um_per_z_step": "0.05", "um_per_px": "0.12"}
"""Settings by name, with an example."""


@dataclass(frozen=True, slots=True)
class OpenFlexureAddress:
    """What stands behind `openflexure:`."""

    host: str
    port: int = PORT
    um_per_step: float | None = None
    """Of x and y. None: where a frame was taken can't be said in micrometres, and is not."""
    um_per_z_step: float | None = None
    um_per_px: float | None = None
    """Of a frame as it is streamed; None: nobody said."""

    @classmethod
    def parse(cls, target: str) -> OpenFlexureAddress:
        """`HOST[:PORT][,um_per_step=F,um_per_z_step=F,um_per_px=F]`; UsageError for anything else."""
        what = f"--source openflexure:{target}"
        place, *parts = (part.strip() for part in target.split(","))
        found = re.fullmatch(r"(\[[0-9A-Fa-f:]+\]|[\w.-]+)(?::(\d{1,5}))?", place)
        if found is None or not 0 < int(found[2] or PORT) < 65536:
            raise UsageError(f"{what}: got {place!r}, expected HOST[:PORT], such as microscope.local:5000")
        given: dict[str, float] = {}
        for part in parts:
            key, _, value = (piece.strip() for piece in part.partition("="))
            if key not in _NUMBERS:
                hint = near(key, _NUMBERS) or f"; expected one of {', '.join(_NUMBERS)}"
                raise UsageError(f"{what}: got the setting {key!r}, which does not exist{hint}")
            if not re.fullmatch(r"\d+(\.\d+)?", value) or not float(value):
                raise UsageError(f"{what}: got {key} {value!r}, expected one such as {key}={_NUMBERS[key]}")
            given[key] = float(value)
        return cls(found[1].strip("[]"), int(found[2] or PORT), **given)

    @property
    def netloc(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def open_openflexure(
    name: str, target: str, now_ns: Callable[[], int], *, every_frame: bool = False
) -> OpenFlexureSource:
    """UsageError for a malformed address."""
    address = OpenFlexureAddress.parse(target)
    return OpenFlexureSource(address, now_ns, lambda url: StreamSource(name, url, now_ns, every_frame=every_frame))


class OpenFlexureSource(PassedOnSource):
    """The microscope's stream, each frame with where its stage was."""

    def __init__(
        self, address: OpenFlexureAddress, now_ns: Callable[[], int], open_stream: Callable[[str], Source]
    ) -> None:
        """`open_stream`: the source of a URL, not yet opened."""
        self._address = address
        self._now_ns = now_ns
        self._open_stream = open_stream
        self._api = APIS[0]
        self._stage: StagePoller | None = None
        self._answered = False
        super().__init__(open_stream(self._url(self._api)))

    @property
    def remarks(self) -> list[str]:
        """What whoever starts a run should know."""
        if self._address.um_per_step is not None:
            return []
        return [
            f"microscope {self._address.netloc}: its stage counts steps, and where frames were taken is not used: "
            "add um_per_step=F, micrometres a step of x and y"
        ]

    def open(self) -> None:
        """SourceAbsentError for a microscope that does not answer, SourceError for a server that is none;
        SourceLostError for one that answered before."""
        api = self._find_api()
        if api != self._api:
            self._api = api
            self._source = self._open_stream(self._url(api))
        super().open()
        self._answered = True
        if self._address.um_per_step is not None:
            self._stage = StagePoller(self._where, _ASKED_EVERY_S)
            self._stage.start()

    def read(self) -> Frame | Skip | None:
        item = super().read()
        if not isinstance(item, Frame):
            return item
        frame = replace(item, um_per_px=self._address.um_per_px)
        if self._stage is None:
            return frame
        place = self._stage.during(frame.captured_ns - _ON_ITS_WAY_NS, frame.captured_ns, self._address.um_per_px)
        if place is None:
            return frame
        return replace(frame, stage_um=StagePoint(*place.stage_um), moving=place.moving)

    def close(self) -> None:
        if self._stage is not None:
            stage, self._stage = self._stage, None
            stage.stop()
        super().close()

    def _url(self, api: Api) -> str:
        return f"http://{self._address.netloc}{api.stream}"

    def _find_api(self) -> Api:
        """The version that the server speaks."""
        shown = f"microscope {self._address.netloc}"
        try:
            for api in APIS:
                if _steps(_get(self._address, api.position)) is not None:
                    return api
        except OSError as error:
            lost = SourceLostError if self._answered else SourceAbsentError
            why = error.strerror or str(error) or type(error).__name__
            raise lost(
                f"{shown}: got '{why}', expected an OpenFlexure server; is it on, and the port right?"
            ) from error
        raise (SourceLostError if self._answered else SourceError)(
            f"{shown}: got no position of a stage at {', '.join(api.position for api in APIS)}, expected an "
            "OpenFlexure server of version 2 or 3; without its stage it is http://HOST:PORT and the path of its stream"
        )

    def _where(self) -> StageSample:
        """OSError where the stage does not answer."""
        steps = _steps(_get(self._address, self._api.position))
        at_ns = self._now_ns()
        if steps is None or self._address.um_per_step is None:
            raise OSError("no position")
        x, y, z = steps
        z_um = None if z is None or self._address.um_per_z_step is None else z * self._address.um_per_z_step
        return StageSample(at_ns, x * self._address.um_per_step, y * self._address.um_per_step, z_um)


def _get(address: OpenFlexureAddress, path: str) -> Any:
    """The JSON at a path; None where there is none. OSError where nobody answers."""
    connection = http.client.HTTPConnection(address.host, address.port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", path, headers={"Accept": "application/json"})
        answer = connection.getresponse()
        body = answer.read(_ANSWER_MAX_BYTES)
        return json.loads(body) if answer.status == 200 else None
    except (http.client.HTTPException, ValueError):  # no web server, or no JSON
        return None
    finally:
        connection.close()


def _steps(answer: Any) -> tuple[float, float, float | None] | None:
    """x, y and z of the server's answer, in steps; None where it is no position."""
    if not isinstance(answer, dict):
        return None
    x, y, z = (answer.get(axis) for axis in "xyz")
    if not isinstance(x, int | float) or not isinstance(y, int | float):
        return None
    return float(x), float(y), float(z) if isinstance(z, int | float) else None
