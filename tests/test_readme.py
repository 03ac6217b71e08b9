"""The README is short, and every command of it and of the list of commands is one that works."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from streamer.cli import main, parse
from tests.cases import textured_slide

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
LONGEST = 150
"""Lines of the README: what is longer belongs into docs/."""


def commands_of(text: str) -> list[list[str]]:
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL))
    return [shlex.split(line, comments=True)[1:] for line in blocks.splitlines() if line.startswith("leukostream ")]


COMMANDS = commands_of((ROOT / "docs" / "commands.md").read_text())


def command(*starts_with: str) -> list[str]:
    """The only command of the list that starts so."""
    found = [words for words in COMMANDS if words[: len(starts_with)] == list(starts_with)]
    assert len(found) == 1, f"docs/commands.md: {starts_with}: {found}"
    return found[0]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_the_command_line_takes_it(words):
    parse(words)


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_a_newcomer_meets_the_same_three_commands(page):
    commands = commands_of((ROOT / page).read_text())
    assert [words[0] for words in commands] == ["demo", "run", "report"]
    for words in commands:
        parse(words)


LABORATORY = ("reading-a-result", "my-camera", "known-laboratory", "troubleshooting")


@pytest.mark.parametrize("page", LABORATORY)
def test_commands_in_the_text_for_the_laboratory_can_be_typed(page):
    spans = re.findall(r"`leukostream ([^`\n]+)`", (ROOT / "docs" / f"{page}.md").read_text())
    assert spans
    for words in map(shlex.split, spans):
        parse(words)


def test_the_readme_is_read_in_five_minutes():
    assert len(README.splitlines()) <= LONGEST


@pytest.mark.lengthy
def test_the_example_in_python(folders, capfd):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    pytest.importorskip("pandas")
    exec(compile(code, "README.md", "exec"), {})
    out = capfd.readouterr().out
    assert out.startswith("0.jpg ")
    assert "do not use" in out, "blobs are no cells"
    assert "neutrophil" in out


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """A working directory with the folders that the README speaks of."""
    monkeypatch.chdir(tmp_path)
    slide = textured_slide(width=640)
    for name in ("fields", "cells"):
        (tmp_path / name).mkdir()
        for i in range(2):
            cv2.imwrite(str(tmp_path / name / f"{i}.jpg"), slide[:, 60 * i : 60 * i + 320])
    return tmp_path


def test_a_folder_of_fields_to_json_lines(folders, capfd):
    assert main(command("run", "--source", "slide7=fields/")) == 0
    assert (folders / "slide7.jsonl").read_text().count('"type":"frame"') == 2
    assert "differential of slide7" in capfd.readouterr().out


def test_pictures_of_single_cells(folders, capfd):
    assert main(command("classify")) == 0
    assert len(capfd.readouterr().out.splitlines()) == 2


def test_a_recording_its_replay_its_messages_and_the_picture_of_the_slide(folders, free_port, capfd):
    assert main(command("run", "--source", "fields/", "--journal")) == 0
    assert main(command("mosaic")) == 0
    assert "1 island, 2 frames" in capfd.readouterr().out
    assert cv2.imread(str(folders / "slide.png")).shape[1] > 380
    assert main(command("run", "--source", "fields/", "--record")) == 0
    assert "recorded 2 frames" in capfd.readouterr().out
    assert main(command("run", "--source", "replay:slide.rec")) == 0
    assert "in 2 frames" in capfd.readouterr().out
    words = [word.replace("5555", str(free_port)) for word in command("play")]
    assert main([*words, "--speed", "max", "--wait-s", "0"]) == 0
    assert "of fields" in capfd.readouterr().out


def test_where_the_evidence_lies(folders, capfd):
    assert main(command("explain")) == 0
    assert sorted(path.name for path in (folders / "overlays").iterdir()) == ["0.png", "1.png", "explained.jsonl"]


@pytest.mark.parametrize("name", ["models", "doctor"])
def test_what_is_here(name, capfd):
    assert main(command(name)) == 0
    assert "yolov5n-blood" in capfd.readouterr().out


def test_publish_subscribe_and_watch(free_port):
    """The three commands that meet at one address, on a port that is free here."""

    def started(words):
        words = [word.replace("5555", str(free_port)) for word in words]
        return subprocess.Popen([sys.executable, "-m", "streamer", *words], stdout=subprocess.PIPE, text=True)

    watching = started(command("watch"))
    subscribed = started([*command("subscribe"), "--count", "3"])
    publishing = started(command("run", "--source", "sim:seed=3,cells=100"))
    assert publishing.wait(timeout=600) == 0
    out, _ = subscribed.communicate(timeout=30)
    assert [line.startswith('{"type":"differential"') for line in out.splitlines()] == [True] * 3
    shown, _ = watching.communicate(timeout=30)
    assert "differential of sim" in shown
    publishing.stdout.close()
