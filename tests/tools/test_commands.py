"""Every command of the tools that a document, a card or a module's first lines name is one that they take."""

import ast
import importlib
import re
import shlex
import tomllib
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path

import pytest

from engines.zoo.registry import zoo_names

pytest.importorskip("torch", reason="whatever trains or exports needs it")

from tools.evaluate import __main__ as evaluate

ROOT = Path(__file__).parents[2]
ROOMS = [f"python -m tools.{room}" for room in ("bench", "data", "export", "report", "train")]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
CARDS = sorted((ROOT / "engines" / "zoo").rglob("*.toml"))
MODULES = sorted((ROOT / "tools").rglob("*.py"))


def _of_text(text: str) -> Iterator[str]:
    """Commands in indented or fenced lines, and between backticks, where a line may end within."""
    joined = re.sub(r"\\\n\s*", " ", text)
    yield from re.findall(r"^\s*(python -m tools\.[a-z].*)$", joined, re.MULTILINE)
    for quoted in re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", joined, flags=re.DOTALL)):
        words = " ".join(quoted.split())
        if re.match(r"python -m tools\.[a-z]", words):
            yield words


def _of_values(value: object) -> Iterator[str]:
    """Commands in the strings of a card; what follows in brackets is for people."""
    if isinstance(value, str):
        yield from re.findall(r"python -m tools\.(?:(?! \(| && |, with |; ).)*", value)
    elif isinstance(value, dict):
        for entry in value.values():
            yield from _of_values(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from _of_values(entry)


def _commands() -> list[str]:
    found: set[str] = set()
    for path in DOCUMENTS:
        found.update(command.partition("; ")[0] for command in _of_text(path.read_text()))
    for path in CARDS:
        found.update(_of_values(tomllib.loads(path.read_text())))
    for path in MODULES:
        found.update(_of_text(ast.get_docstring(ast.parse(path.read_text())) or ""))
    return sorted(found)


class Taken(BaseException):
    """The options were understood: the work itself is not for this test."""


@pytest.mark.parametrize("command", _commands())
def test_it_is_taken(command, monkeypatch, capsys):
    real = ArgumentParser.parse_args

    def parse_only(self, args=None, namespace=None):
        given = real(self, args, namespace)
        if self.prog not in ROOMS:
            raise Taken
        return given

    monkeypatch.setattr(ArgumentParser, "parse_args", parse_only)
    known = evaluate.task_of

    def task_of(model):
        return known(Path(model).stem) if Path(model).stem in zoo_names() else _task_of_file(model)

    monkeypatch.setattr(evaluate, "task_of", task_of)
    form = re.sub(r"\[[^]]*\.\.\.\]", "", command)  # what may be given several times, or not at all
    module, *words = [word.strip("[]") for word in shlex.split(form, comments=True)[2:]]
    words = ["100" if word == "FRAMES" else word for word in words]
    if not set(words) - {"NAME", "RUN", "MODEL", "…", "--help"}:
        words = ["--help"]  # the form of a command, or a room alone
    main = importlib.import_module(f"{module}.__main__").main
    try:
        status = main(words)
    except Taken:
        return
    except SystemExit as end:
        status = end.code
    assert status == 0, capsys.readouterr().err


_RUNS = {"leukocyte": "leukocyte-detector", "blood": "detector"}


def _task_of_file(model: str) -> str:
    """What the files that the documents speak of would hold."""
    if model.endswith(".pt"):
        return next((task for word, task in _RUNS.items() if word in model), "eight-types")
    return "eight-types" if Path(model).name.startswith("before-txl") else "classifier"


def test_there_are_commands_of_every_room():
    rooms = {command.split()[2] for command in _commands()}
    assert rooms >= {f"tools.{room}" for room in ("bench", "data", "evaluate", "export", "report", "train")}
