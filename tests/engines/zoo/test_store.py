"""Models that do not ship: found in a clone or the cache folder, pulled with their hash checked, and what to do without
them."""

from __future__ import annotations

import functools
import hashlib
import http.server
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from engines.base import CardError, ModelNotFoundError
from engines.models.loading import load_detector
from engines.zoo import registry
from engines.zoo.store import PUBLISHED, cache_folder, pull
from streamer.cli import main
from tests.engines.small_detector import detector

CARD = """
task = "detector"
summary = "a detector that does not ship"
sha256 = "{digest}"
build = ["python -m tools.train_this --out runs/this", "python -m tools.export_this runs/this"]
[[classes]]
name = "WBC"
kind = "white"
[[classes]]
name = "RBC"
kind = "red"
[[classes]]
name = "platelet"
kind = "platelet"
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of the model `large`, whose card alone is in the zoo, as where leukostream was installed."""
    given = tmp_path / "given"
    given.mkdir()
    (given / "large.onnx").write_bytes(detector(batch=1).SerializeToString())
    digest = hashlib.sha256((given / "large.onnx").read_bytes()).hexdigest()
    zoo = tmp_path / "zoo"
    zoo.mkdir()
    (zoo / PUBLISHED).mkdir()
    (zoo / PUBLISHED / "large.toml").write_text(CARD.format(digest=digest))
    monkeypatch.setattr(registry, "_zoo", lambda: zoo)
    monkeypatch.setenv("LEUKOSTREAM_CACHE", str(tmp_path / "cache"))
    return given / "large.onnx"


@pytest.fixture
def served(file: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    handler = functools.partial(Quiet, directory=str(file.parent))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_missing_model_says_how_to_get_it(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = (
        "fetch it with: leukostream models pull large --from CLONE|URL (of leukostream's repository), "
        "or make it with the commands under `build` of its card"
    )
    with pytest.raises(ModelNotFoundError) as raised:
        load_detector("large")
    assert str(raised.value) == f"large: got its card but not large.onnx; {expected}"
    assert main(["models", "show", "large"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "large detector, not here: a detector that does not ship" in said
    assert expected in said


def test_a_clone_has_it_by_name(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(file, registry._zoo() / PUBLISHED)
    assert load_detector("large", backend="onnxruntime").card.name == "large"
    assert main(["models", "show", "large"]) == 0
    assert "large detector, in the clone:" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("way", ["clone", "address of a clone", "folder", "file", "address", "address of the file"])
def test_a_pulled_model_is_found_by_name(file: Path, served: str, way: str, capsys: pytest.CaptureFixture[str]) -> None:
    if "clone" in way:
        within = file.parent / "engines" / "zoo" / PUBLISHED
        within.mkdir(parents=True)
        file = file.rename(within / file.name)
    source = {
        "clone": str(file.parents[3]),
        "address of a clone": served,
        "folder": str(file.parent),
        "file": str(file),
        "address": f"{served}/",
        "address of the file": f"{served}/large.onnx",
    }[way]
    assert main(["models", "pull", "large", "--from", source]) == 0
    assert [path.name for path in cache_folder().iterdir()] == ["large.onnx"]
    assert str(cache_folder() / "large.onnx") in capsys.readouterr().out
    assert load_detector("large", backend="onnxruntime").card.name == "large"
    assert main(["models", "show", "large"]) == 0
    assert "large detector, in the cache folder:" in " ".join(capsys.readouterr().out.split())


def test_another_file_is_refused_and_not_kept(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_bytes(file.read_bytes() + b" ")
    assert main(["models", "pull", "large", "--from", str(file)]) == 1
    assert "nothing was kept" in capsys.readouterr().err
    assert list(cache_folder().iterdir()) == []


def test_a_file_that_was_changed_in_the_cache_is_not_loaded(file: Path) -> None:
    cache_folder().mkdir(parents=True)
    (cache_folder() / "large.onnx").write_bytes(file.read_bytes() + b" ")
    with pytest.raises(CardError, match="got sha256"):
        load_detector("large")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["larg", "--from", "."], "did you mean 'large'?"),
        (["large", "--from", "/nowhere/at/all"], "got no file, expected large.onnx"),
        (["large", "--from", "ftp://a/b"], "expected a clone, a folder, a file or an http(s) address"),
        (["large"], "--from"),
    ],
)
def test_what_can_not_be_pulled_is_one_line_and_status_2(
    file: Path, arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "pull", *arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert expected in lines[0]


def test_an_address_without_the_file(served: str) -> None:
    card = registry.zoo_card("large")
    with pytest.raises(ModelNotFoundError, match=r"nothing/large.onnx: got (HTTP Error 404: )?File not found"):
        pull(card, f"{served}/nothing")
    assert not list(cache_folder().glob("*"))


def test_a_card_without_a_hash_can_not_be_pulled(file: Path) -> None:
    card = registry.zoo_card("large")
    with pytest.raises(CardError, match="got a card without sha256"):
        pull(replace(card, sha256=None), str(file))
