"""Plans on disk: what each was built from and for, written beside it, and checked before it is used."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import glob
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engines.backends.tensorrt.device import Environment
from engines.backends.tensorrt.errors import PlanError
from engines.backends.tensorrt.flavour import PORTABLE
from engines.zoo.store import cache_folder

_FORMAT = 2
_OLD = 1
"""Its key was of CUDA's release and the driver's too, so that every update of a driver cost a build; still read."""
_SPARE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class PlanSpec:
    """What is to be built, whatever the machine."""

    model: str
    """Name of the model, for the file name."""
    model_sha256: str
    """Of the ONNX file that the plan comes from, before its sizes and precision were set."""
    precision: str
    height: int
    width: int
    batch: tuple[int, int, int]
    """Smallest, usual and largest batch of the optimisation profile."""
    calibration_sha256: str = ""
    """Of the calibration's ranges; empty where the precision needs none."""
    version_compatible: bool = False
    hardware_compatible: bool = False
    backend: str = "tensorrt"
    """The library that it is for, by the name of its Flavour."""
    compute_capabilities: tuple[str, ...] = ()
    """Of a portable plan, those it is for, as "8.6"; empty for one that is of the GPU it was built on."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """Beside each plan, as JSON: what it was built from, for and with."""

    spec: PlanSpec
    environment: Environment
    plan_sha256: str = ""
    workspace_mib: int = 0
    parity: str = ""
    """What the comparison with fp32 gave, in words; empty where nothing was compared."""
    notes: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """SHA-256 of everything that the plan depends on, in hexadecimal."""
        return self._key(_FORMAT)

    def _key(self, version: int) -> str:
        spec, environment = dataclasses.asdict(self.spec), dataclasses.asdict(self.environment)
        for name in _SINCE_FORMAT_2 if version == _OLD else ():
            del spec[name]
        for name in _NOTES if version != _OLD else ():
            del environment[name]
        return hashlib.sha256(json.dumps([version, spec, environment]).encode()).hexdigest()

    @property
    def stem(self) -> str:
        """File name without suffix: plans of different things and GPUs never share one."""
        spec = self.spec
        chip = "any" if spec.hardware_compatible else f"sm{self.environment.compute_capability}"
        if spec.compute_capabilities:
            chip = "rtx" if spec.compute_capabilities == PORTABLE else f"rtx-sm{'-'.join(spec.compute_capabilities)}"
        name = re.sub(r"[^A-Za-z0-9_.-]", "_", spec.model)
        batch = "-".join(str(n) for n in spec.batch)
        return f"{name}-{spec.precision}-{spec.width}x{spec.height}-b{batch}-{chip}"

    def stale(self, wanted: Manifest) -> list[str]:
        """Why a plan of this manifest can't stand for `wanted`, a phrase for each difference; empty where it can."""
        reasons = []
        for own, other in ((self.spec, wanted.spec), (self.environment, wanted.environment)):
            for entry in dataclasses.fields(own):
                before, now = getattr(own, entry.name), getattr(other, entry.name)
                if (
                    entry.name not in _NOTES
                    and before != now
                    and not self._tolerates(entry.name, str(before), str(now))
                ):
                    reasons.append(f"{_WORDS.get(entry.name, entry.name)} was {_short(before)}, is {_short(now)}")
        return reasons

    def _tolerates(self, name: str, before: str, now: str) -> bool:
        """A version-compatible plan runs on later releases, a hardware-compatible one on any GPU since Ampere."""
        if name == "tensorrt" and self.spec.version_compatible:
            return _numbers(now) >= _numbers(before)
        if self.spec.hardware_compatible:
            return name == "gpu" or (name == "compute_capability" and int(now) >= 80)
        return False

    def to_json(self) -> str:
        return json.dumps({"format": _FORMAT, "key": self.key, **dataclasses.asdict(self)}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """ValueError for what is no manifest of this format."""
        try:
            document: dict[str, Any] = json.loads(text)
            version = document["format"]
            if version not in (_OLD, _FORMAT):
                raise ValueError(f"format {version}, expected {_FORMAT}")
            lists = {name: tuple(document["spec"].get(name, ())) for name in ("batch", "compute_capabilities")}
            spec = {**document["spec"], **lists}
            rest = {name: document[name] for name in ("plan_sha256", "workspace_mib", "parity", "notes")}
            manifest = cls(PlanSpec(**spec), Environment(**document["environment"]), **rest)
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"no manifest of a plan: {error!r}") from error
        if manifest._key(version) != document.get("key"):
            raise ValueError("the key does not fit the rest: changed by hand")
        return manifest


_NOTES = ("cuda", "driver")
"""Of the environment: told to people, and no reason for another build. TensorRT refuses a plan that a driver can't take
when it loads it, and says so; most updates change nothing."""
_SINCE_FORMAT_2 = ("backend", "compute_capabilities")
_WORDS = {
    "model_sha256": "the model file",
    "calibration_sha256": "the calibration",
    "tensorrt": "TensorRT",
    "gpu": "the GPU",
    "compute_capability": "its compute capability",
    "backend": "the library",
    "compute_capabilities": "the compute capabilities",
    "version_compatible": "version compatibility",
    "hardware_compatible": "hardware compatibility",
}


def _short(value: object) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return f"{text[:8]}…" if re.fullmatch(r"[0-9a-f]{64}", text) else text or "none"


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]


def default_folder() -> Path:
    """Where plans are kept."""
    return cache_folder("plans")


@dataclass(frozen=True, slots=True)
class PlanStore:
    """A folder of plans. Several processes may use it at once: files appear whole, builds of one plan take turns."""

    folder: Path

    def plan_path(self, manifest: Manifest) -> Path:
        return self.folder / f"{manifest.stem}.plan"

    def manifest_path(self, manifest: Manifest) -> Path:
        return self.folder / f"{manifest.stem}.json"

    def find(self, wanted: Manifest) -> tuple[bytes | None, str]:
        """The plan for `wanted`, or None; and in one line why not ("" where it is there)."""
        try:
            kept = Manifest.from_json(self.manifest_path(wanted).read_text("utf-8"))
            plan = self.plan_path(wanted).read_bytes()
        except FileNotFoundError:
            return None, "no plan was built yet"
        except (OSError, ValueError) as error:
            return None, f"the plan's files can't be read ({error})"
        reasons = kept.stale(wanted)
        if reasons:
            return None, "; ".join(reasons)
        if hashlib.sha256(plan).hexdigest() != kept.plan_sha256:
            return None, "the plan's file is damaged"
        return plan, ""

    def of_model(self, name: str) -> list[Manifest]:
        """Manifests of all plans of a model, whatever for; the most recently built first."""
        found: list[tuple[int, Manifest]] = []
        for path in self.folder.glob("*.json"):
            with contextlib.suppress(OSError, ValueError):
                kept = Manifest.from_json(path.read_text("utf-8"))
                if kept.spec.model == name:
                    found.append((path.stat().st_mtime_ns, kept))
        return [kept for _, kept in sorted(found, key=lambda pair: -pair[0])]

    def remove(self, manifest: Manifest) -> None:
        """Remove a plan, its manifest and the kernels that were made of it."""
        kernels = self.folder.glob(f"{glob.escape(manifest.stem)}@*.kernels")
        for path in (self.manifest_path(manifest), self.plan_path(manifest), *kernels):
            path.unlink(missing_ok=True)

    def save(self, plan: bytes, manifest: Manifest) -> Manifest:
        """Write plan and manifest, each whole or not at all; returns the manifest with the plan's checksum."""
        manifest = dataclasses.replace(manifest, plan_sha256=hashlib.sha256(plan).hexdigest())
        self._write(self.plan_path(manifest), plan)
        self._write(self.manifest_path(manifest), manifest.to_json().encode())
        return manifest

    def runtime_cache_path(self, manifest: Manifest, gpu: str) -> Path:
        """Of a portable plan: the kernels that were made of it for one kind of GPU."""
        return self.folder / f"{manifest.stem}@{re.sub(r'[^A-Za-z0-9_.-]', '_', gpu)}.kernels"

    def runtime_cache(self, manifest: Manifest, gpu: str) -> bytes:
        """What `save_runtime_cache` kept; empty where there is nothing."""
        try:
            return self.runtime_cache_path(manifest, gpu).read_bytes()
        except OSError:
            return b""

    def save_runtime_cache(self, manifest: Manifest, gpu: str, data: bytes) -> None:
        self._write(self.runtime_cache_path(manifest, gpu), data)

    def timing_cache_path(self, environment: Environment) -> Path:
        return self.folder / f"timing-{environment.tensorrt}-sm{environment.compute_capability}.cache"

    def save_timing_cache(self, environment: Environment, data: bytes) -> None:
        self._write(self.timing_cache_path(environment), data)

    def timing_cache(self, environment: Environment) -> bytes:
        """What earlier builds measured; empty where there is nothing."""
        try:
            return self.timing_cache_path(environment).read_bytes()
        except OSError:
            return b""

    @contextlib.contextmanager
    def building(self, manifest: Manifest) -> Iterator[None]:
        """Only one process at a time is inside, for one plan; the others wait. Look again for the plan inside."""
        import fcntl  # TensorRT's Python packages are for Linux, and so is this

        self._make_folder()
        with open(self.folder / f"{manifest.stem}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise PlanError(
                f"{self.folder}: can't be made ({error.strerror}), expected a folder for plans; set LEUKOSTREAM_CACHE"
            ) from error

    def _write(self, path: Path, data: bytes) -> None:
        self._make_folder()
        free = shutil.disk_usage(self.folder).free
        if free < len(data) + _SPARE_BYTES:
            raise _no_room(path, len(data), free)
        handle, temporary = tempfile.mkstemp(dir=self.folder, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise _no_room(path, len(data), free) from error
            raise PlanError(f"{path}: can't be written ({error.strerror}); set LEUKOSTREAM_CACHE") from error
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)


def _no_room(path: Path, needed: int, free: int) -> PlanError:
    return PlanError(
        f"{path}: no space for the plan: got {free / 2**20:.0f} MiB free, expected {needed / 2**20:.0f} MiB; "
        "free some, or set LEUKOSTREAM_CACHE to a folder on another disk"
    )
