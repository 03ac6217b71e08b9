"""A source that another package brings: the example of examples/source_package, as if it were installed."""

from __future__ import annotations

import importlib
import re
import sys
import tomllib
from pathlib import Path

import pytest

from engines.base import UsageError
from streamer.records import Frame
from streamer.sources import SourceError, open_source, parse_source
from streamer.sources.packages import GROUP, extra, prefixes

EXAMPLE = Path(__file__).parents[3] / "examples" / "source_package"


def install(site: Path, name: str, entry_points: dict[str, str]) -> None:
    """What pip writes of a package."""
    folder = site / f"{name.replace('-', '_')}-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = "".join(f"{prefix} = {value}\n" for prefix, value in entry_points.items())
    (folder / "entry_points.txt").write_text(f"[{GROUP}]\n{lines}")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text("utf-8"))["project"]
    install(tmp_path, project["name"], project["entry-points"][GROUP])
    monkeypatch.syspath_prepend(str(EXAMPLE))
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_its_prefix_is_an_address_and_its_frames_are_frames(installed: Path) -> None:
    assert prefixes() == ("stripes",)
    address = parse_source("stripes:64x48,frames=3")
    assert (address.name, address.kind, address.target) == ("stripes", "package", "stripes:64x48,frames=3")
    clock = iter(range(10, 20))
    source = open_source(parse_source("left=stripes:64x48,frames=3"), now_ns=lambda: next(clock))
    source.open()
    frames = [item for item in iter(source.read, None) if isinstance(item, Frame)]
    assert [(frame.source, frame.frame_id, frame.captured_ns) for frame in frames] == [
        ("left", 0, 10),
        ("left", 1, 11),
        ("left", 2, 12),
    ]
    assert frames[0].image.shape == (48, 64, 3)
    source.close()


def test_what_it_does_not_take_is_its_own_message(installed: Path) -> None:
    with pytest.raises(UsageError, match="expected a size such as 640x480,frames=100"):
        open_source(parse_source("stripes:big"))


def test_without_it_the_prefix_means_nothing() -> None:
    assert prefixes() == ()
    assert parse_source("stripes:64x48").kind == "path"
    with pytest.raises(UsageError, match="got the scheme 'stripes', expected one of rtsp"):
        parse_source("stripes://64x48")


def test_its_scheme_is_among_those_that_are_known(installed: Path) -> None:
    with pytest.raises(UsageError, match=r"openflexure:, stripes:, or a path$"):
        parse_source("strips://64x48")


def test_a_password_in_its_address_is_not_shown(installed: Path) -> None:
    assert parse_source("stripes:http://user:secret@host/a").shown == "stripes:http://host/a"


@pytest.mark.parametrize(
    ("entry_point", "says"),
    [
        ("not_there:open", "got ModuleNotFoundError (No module named 'not_there') from the package broken"),
        ("json:not_there", "got AttributeError"),
        ("json:dumps", "got TypeError"),
    ],
)
def test_one_that_does_not_work_is_one_line(installed: Path, entry_point: str, says: str) -> None:
    install(installed / "more", "broken", {"broken": entry_point})
    (installed / "more" / "broken-1.0.dist-info").rename(installed / "broken-1.0.dist-info")
    with pytest.raises(SourceError) as caught:
        open_source(parse_source("broken:x"))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_package_of_an_extra_that_is_missing_is_one_line() -> None:
    with pytest.raises(SourceError) as caught, extra("wsi", "source wsi:slide.svs"):
        import no_such_package  # type: ignore[import-not-found]  # noqa: F401
    assert str(caught.value) == (
        "source wsi:slide.svs: got no package 'no_such_package', expected it here: pip install 'leukostream[wsi]'"
    )


@pytest.mark.parametrize(
    ("module", "target", "package", "name"),
    [
        ("micromanager", "scope.cfg", "pymmcore_plus", "micromanager"),
        ("genicam", f"{__file__}.cti,0", "harvesters", "genicam"),
        ("pylon", "40012", "pypylon", "pylon"),
    ],
)
def test_the_package_of_a_camera_that_is_missing_is_one_line(
    module: str, target: str, package: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name_of in [package, *(loaded for loaded in sys.modules if loaded.startswith(f"{package}."))]:
        monkeypatch.setitem(sys.modules, name_of, None)
    monkeypatch.setattr("streamer.sources.genicam.producers", lambda named: ["maker.cti"])
    source = importlib.import_module(f"streamer.sources.{module}")
    with pytest.raises(
        SourceError, match=rf"got no package '{package}(\..*)?', expected it here: pip install 'leukostr"
    ):
        source.connect(target)
    if hasattr(source, "attached"):
        with pytest.raises(SourceError, match=rf"pip install 'leukostream\[{name}\]'$"):
            source.attached()


@pytest.mark.parametrize(
    ("source", "package", "says"),
    [
        ("mm:a.cfg", "pymmcore_plus", "pip install 'leukostream[micromanager]'"),
        ("mm:a.cfg,mda=README.md", "useq", "pip install 'leukostream[micromanager]'"),
        ("genicam:1", "harvesters", "pip install 'leukostream[genicam]'"),
        ("genicam:aravis,1", "gi", "apt install gir1.2-aravis-0.8"),
        ("pylon:1", "pypylon", "pip install 'leukostream[pylon]'"),
    ],
)
def test_what_is_missing_is_said_before_a_run_begins(
    source: str, package: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its driver would say it in a process of its own, once models are loaded."""
    monkeypatch.chdir(EXAMPLE.parents[1])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == package else object())
    with pytest.raises(SourceError, match=re.escape(says)) as caught:
        open_source(parse_source(source))
    assert package in str(caught.value)
    assert "\n" not in str(caught.value)
