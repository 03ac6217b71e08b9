"""The documents: what they link to is there, their pictures are what the contracts say, their examples work."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from onnx import ModelProto

from engines.base import Engine, EngineError
from streamer.commands.options import Parser
from streamer.records import Frame, Skip
from streamer.sources import SourceError, SourceLostError

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
CONTRIBUTING = ROOT / "docs" / "contributing"
MADE_BY_EXAMPLES = {
    "streamer/sources/snapshot.py",
    "streamer/commands/probe.py",
    "engines/backends/openvino.py",
    "tests/streamer/sources/test_snapshot.py",
    "tests/streamer/commands/test_probe.py",
}
"""What the reader of docs/contributing/ would write."""


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _without_code(text: str) -> str:
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)


def _anchors(path: Path) -> set[str]:
    """Those that GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.*)$", _without_code(path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=_name)
def test_links_lead_somewhere(path):
    for link in re.findall(r"\]\(([^)\s]+)\)", _without_code(path.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = link.partition("#")
        file = (path.parent / target).resolve() if target else path
        assert file.exists(), f"{link}: no such file"
        assert file.is_relative_to(ROOT), f"{link}: outside the repository"
        assert not anchor or anchor in _anchors(file), f"{link}: no such heading"


@pytest.mark.parametrize("path", DOCUMENTS, ids=_name)
def test_files_that_are_named_are_there(path):
    named = re.findall(r"`((?:engines|streamer|tools|tests|docs|examples)/[\w./-]*)`", path.read_text())
    missing = [name for name in named if not (ROOT / name).exists() and name not in MADE_BY_EXAMPLES]
    assert missing == []


def _layers() -> Mapping[str, list[str]]:
    """By package, the layers of its contract, from the top."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    return {one["containers"][0]: one["layers"] for one in contracts if one["type"] == "layers"}


def _picture(package: str, layers: list[str]) -> str:
    names = [f"{package}{number}" for number in range(1, len(layers) + 1)]
    nodes = [f'  {name}["{layer}"]' for name, layer in zip(names, layers, strict=True)]
    return "\n".join(["```mermaid", "flowchart TB", *nodes, f"  {' --> '.join(names)}", "```"])


@pytest.mark.parametrize("package", _layers())
def test_the_picture_of_the_rooms_is_the_contract(package):
    picture = _picture(package, _layers()[package])
    assert picture in (ROOT / "docs" / "architecture.md").read_text(), f"docs/architecture.md: expected\n{picture}"


@pytest.mark.parametrize("package", _layers())
def test_every_room_is_described(package):
    rows = re.findall(r"^\| (\[.*?) \|", (ROOT / "docs" / "architecture.md").read_text(), re.MULTILINE)
    described = {link for row in rows for link in re.findall(r"\]\(\.\./([^)]*)\)", row)}
    rooms = {room for layer in _layers()[package] for room in layer.split(" | ")} - {"__main__"}
    paths = {f"{package}/{room}" if (ROOT / package / room).is_dir() else f"{package}/{room}.py" for room in rooms}
    assert paths <= described


PAGES = sorted((ROOT / "docs").rglob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_the_site_has_a_place_for_every_page(page):
    named = page.relative_to(ROOT / "docs").as_posix()
    text = re.sub(r"#.*", "", (ROOT / "mkdocs.yml").read_text())
    assert re.search(rf"[ :-] {re.escape(named)}$", text, re.MULTILINE), (
        f"mkdocs.yml: add {named} to nav, by its reader"
    )


@pytest.mark.lengthy
def test_the_site_builds_and_no_link_of_it_is_dead(tmp_path):
    pytest.importorskip("material", reason="no mkdocs-material")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    page = (tmp_path / "architecture" / "index.html").read_text()
    assert '<pre class="mermaid">' in page
    assert 'href="../python/"' in page
    assert "streamer/api" not in page, "the site has no source files to link to"


TUTORIAL = ROOT / "docs" / "tutorial.ipynb"


def test_the_tutorial_is_kept_without_what_it_printed():
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(TUTORIAL, as_version=4)
    nbformat.validate(notebook)
    outputs = [cell for cell in notebook.cells if cell.cell_type == "code" and (cell.outputs or cell.execution_count)]
    assert outputs == []


@pytest.mark.lengthy
def test_the_tutorial_runs(tmp_path):
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    for name in ("ipykernel", "pandas", "matplotlib"):
        pytest.importorskip(name)
    notebook = nbformat.read(TUTORIAL, as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    pictures = [out for cell in notebook.cells for out in cell.get("outputs", ()) if "image/png" in out.get("data", ())]
    assert len(pictures) == 2
    assert list(tmp_path.iterdir()) == [], "it leaves nothing where it was opened"


def test_the_targets_of_make_that_are_named_exist():
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for path in DOCUMENTS:
        assert set(re.findall(r"`make ([\w-]+)`", path.read_text())) <= set(targets), _name(path)


def _example(page: str, file: str, folder: Path) -> ModuleType:
    """The module that a page of docs/contributing/ has the reader write."""
    text = (CONTRIBUTING / page).read_text()
    found = re.search(rf"^## \d\. [^\n]*`{re.escape(file)}`\n.*?```python\n(.*?)```", text, re.DOTALL | re.MULTILINE)
    assert found is not None, f"{page}: no example of {file}"
    return _imported(found[1], folder, Path(file).stem)


def _imported(code: str, folder: Path, stem: str) -> ModuleType:
    path = folder / f"{stem}_of_the_docs.py"
    path.write_text(code)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look there
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[path.stem]
    return module


def test_the_source_of_the_example(tmp_path):
    picture = cv2.imencode(".jpg", np.full((6, 8, 3), 200, np.uint8))[1].tobytes()
    answers: list[Any] = [OSError("refused"), picture, picture, b"words", OSError("gone"), OSError("gone"), picture]

    def fetch(url: str) -> bytes:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    module = _example("source.md", "streamer/sources/snapshot.py", tmp_path)
    source = module.SnapshotSource("scope", "http://me:secret@scope.lab/x", lambda: 7, fetch=fetch)
    with pytest.raises(SourceError, match=r"got refused, expected a picture; check") as never:
        source.open()
    assert not isinstance(never.value, SourceLostError)
    assert "secret" not in str(never.value)
    source.open()
    frame = source.read()
    assert isinstance(frame, Frame)
    assert (frame.source, frame.frame_id, frame.captured_ns, frame.width, frame.height) == ("scope", 0, 7, 8, 6)
    assert isinstance(source.read(), Skip)
    for call in (source.read, source.open):
        with pytest.raises(SourceLostError):
            call()
    source.close()
    source.open()


def test_the_command_of_the_example(tmp_path, capsys):
    module = _example("command.md", "streamer/commands/probe.py", tmp_path)
    parser = Parser()
    module.add_options(parser)
    options = module.Options(**vars(parser.parse_args(["slide=sim:cells=2"])))
    assert module.main(options) == 0
    assert capsys.readouterr().out == "slide: 640 x 480 px, analysis mode\n"


def test_the_engine_of_the_example_has_all_that_an_engine_has(tmp_path, monkeypatch):
    module = _example("backend.md", "engines/backends/openvino.py", tmp_path)
    compiled = SimpleNamespace(inputs=(), outputs=())
    core = SimpleNamespace(read_model=lambda data: data, compile_model=lambda model, device: compiled)
    monkeypatch.setitem(sys.modules, "openvino", SimpleNamespace(Core=lambda: core))
    engine = module.OpenVinoEngine(ModelProto(), concurrent=2)
    assert isinstance(engine, Engine)
    assert (engine.backend, engine.concurrency, engine.max_batch) == ("openvino cpu", 2, None)
    engine.close()
    with pytest.raises(EngineError, match="got a call after close"):
        engine.infer({})


def test_the_measure_of_the_example(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (CONTRIBUTING / "measure.md").read_text(), re.DOTALL)
    code = next(block for block in blocks if block.startswith("def eccentricity"))
    heading = "from __future__ import annotations\nimport math\nimport numpy as np\n"
    measured = _imported(heading + code, tmp_path, "shape").eccentricity
    y, x = np.mgrid[-60:61, -60:61]
    for wide, high in ((50, 50), (50, 30), (20, 55)):
        larger, smaller = max(wide, high), min(wide, high)
        expected = np.sqrt(1 - (smaller / larger) ** 2)
        assert measured((x / wide) ** 2 + (y / high) ** 2 <= 1) == pytest.approx(expected, abs=0.02)
    with pytest.raises(ValueError, match="empty mask"):
        measured(np.zeros((3, 3), bool))
