"""`leukostream control` against a publisher with scripted controls."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streamer.cli import main
from streamer.network.publisher import Publisher
from streamer.protocol.requests import NewSlide, Pause, Reclassify, StopAt
from streamer.records import SlideInfo
from tests.streamer.network.service_cases import ScriptedControls, Served
from tests.streamer.protocol.message_cases import make_factory, make_health


@pytest.fixture
def controls() -> ScriptedControls:
    return ScriptedControls()


@pytest.fixture
def server(controls: ScriptedControls) -> Iterator[Served]:
    with Served(lambda: Publisher("tcp://127.0.0.1:*", control=True)) as server:
        server.do(lambda publisher: publisher.obey(controls))
        server.publish(make_factory().health(make_health()))
        yield server


@pytest.mark.parametrize(
    ("arguments", "kind", "fields"),
    [
        (["pause"], Pause, {}),
        (["new-slide", "--source", "cam"], NewSlide, {}),
        (
            ["new-slide", "--slide", "B-18", "--accession", "H2", "--wbc", "6.2", "--wbc-includes-nrbc"],
            *(NewSlide, {"slide": SlideInfo(name="B-18", accession="H2", wbc=6.2, wbc_includes_nrbc=True)}),
        ),
        (["stop-at", "200"], StopAt, {"cells": 200}),
        (["stop-at", "none"], StopAt, {"cells": None}),
        (["reclassify", "7", "monocyte"], Reclassify, {"cell_id": 7, "class_": "monocyte", "subclass": None}),
        (["reclassify", "7", "auto"], Reclassify, {"cell_id": 7, "class_": None}),
        (
            ["reclassify", "7", "neutrophil", "--subclass", "band neutrophil"],
            *(Reclassify, {"class_": "neutrophil", "subclass": "band neutrophil"}),
        ),
    ],
)
def test_a_command_is_given_and_its_reply_printed(
    server: Served,
    controls: ScriptedControls,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    kind: Any,
    fields: dict[str, Any],
) -> None:
    assert main(["control", server.endpoint, *arguments]) == 0
    ((command, by),) = controls.done
    assert (type(command), by, command.source, command.run_id) == (kind, "anyone", "cam", "run-1")
    assert {name: getattr(command, name) for name in fields} == fields
    assert json.loads(capsys.readouterr().out)["reply"] == "done"


def test_a_scanner_names_the_next_slide_and_an_older_streamer_that_knows_no_names_is_said(
    server: Served,
    controls: ScriptedControls,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("S26-991\r\n"))
    assert main(["control", server.endpoint, "new-slide", "--slide", "-"]) == 0
    ((command, _),) = controls.done
    assert isinstance(command, NewSlide)
    assert command.slide == SlideInfo(name="S26-991")
    said = capsys.readouterr().err  # the scripted run answers without a name, as older ones do
    assert "scan or type the name of the next slide, then Enter" in said
    assert "the new slide has no name: that leukostream is older and knows none" in said


def test_more_than_a_request_holds_is_refused_before_it_is_sent(
    server: Served, controls: ScriptedControls, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "slide.toml"
    fields = "\n".join(f'"{n}" = "{"語" * 60}"' for n in range(16))
    file.write_text(f"[fields]\n{fields}\n", encoding="utf-8")
    assert main(["control", server.endpoint, "new-slide", "--slide-info", str(file)]) == 0
    file.write_text("[fields]\n" + fields.replace('" =', f'{"語" * 30}" ='), encoding="utf-8")
    assert main(["control", server.endpoint, "new-slide", "--slide-info", str(file)]) == 2
    assert "expected at most 4096: fewer or shorter fields" in capsys.readouterr().err
    assert len(controls.done) == 1


def test_the_same_id_is_carried_out_once(
    server: Served, controls: ScriptedControls, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert main(["control", server.endpoint, "pause", "--id", "mine"]) == 0
    assert len(controls.done) == 1
    assert [json.loads(line)["repeated"] for line in capsys.readouterr().out.splitlines()] == [False, True]


def test_the_status_and_what_is_refused(
    server: Served, controls: ScriptedControls, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["control", server.endpoint, "status"]) == 0
    assert json.loads(capsys.readouterr().out)["sources"]["cam"]["white_cells"] == 5
    assert main(["control", server.endpoint, "stop-at", "13"]) == 1
    assert "control: got" not in capsys.readouterr().err
    for arguments, words in (
        (["pause", "--source", "elsewhere"], "got --source elsewhere, expected one of: cam"),
        (["stop-at", "no"], "expected a whole number of at least 1, or none"),
        (["new-slide", "--slide", "x" * 81], "--slide 'xxx"),
        (["new-slide", "--wbc", "1e9"], "--wbc: got '1e9', expected white cells in 10^9/L"),
        (["new-slide", "--wbc-includes-nrbc"], "--wbc-includes-nrbc: got no white-cell count"),
        (["new-slide", "--slide-info", "nowhere.toml"], "--slide-info nowhere.toml: got no regular file"),
        (["reclassify", "x", "monocyte"], "got 'x', expected a whole number"),
        (["stopat", "3"], "got the command 'stopat', expected one of status, pause, resume"),
    ):
        assert main(["control", server.endpoint, *arguments]) == 2
        assert words in capsys.readouterr().err
    assert controls.done == []


def test_nobody_answers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["control", "tcp://127.0.0.1:9", "status", "--timeout", "0.01"]) == 1
    assert "expected a leukostream that publishes there" in capsys.readouterr().err
