"""What is shown of servers and microscopes."""

from __future__ import annotations

import dataclasses
import json

import msgspec
from rich.console import Console

from streamer.commands.fleet.metrics import write_targets
from streamer.commands.fleet.status import microscopes_table, servers_table
from streamer.fleet.microscopes import SILENT_S, Microscopes
from streamer.fleet.servers import rows_of
from streamer.records import SlideInfo, Verdict
from tests.streamer.fleet.fleet_cases import fleet, member
from tests.streamer.protocol.message_cases import make_differential, make_factory, make_health
from tests.streamer.sinks.test_metrics import make_inference

ENDPOINT, OTHER = "tcp://127.0.0.1:5", "tcp://127.0.0.1:6"


def shown(table) -> str:
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115  # the console's for the test
    console.print(table)
    return console.export_text()


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_a_microscope_is_as_it_said_last_until_it_is_silent():
    clock, factory = Clock(), make_factory()
    factory.slide = SlideInfo(name="B-17")
    health = dataclasses.replace(
        make_health(), models=msgspec.structs.replace(make_health().models, inference=make_inference())
    )
    verdict = Verdict(state="incomplete", reasons=())
    with Microscopes([ENDPOINT, OTHER], now_s=clock) as microscopes:
        assert [(one.endpoint, one.source, one.state) for one in microscopes.rows()] == [
            (ENDPOINT, None, "no answer"),
            (OTHER, None, "no answer"),
        ]
        microscopes.take(ENDPOINT, factory.health(health))
        microscopes.take(ENDPOINT, factory.differential(msgspec.structs.replace(make_differential(5), verdict=verdict)))
        one, _ = microscopes.rows()
        assert (one.source, one.slide, one.state, one.white_cells, one.verdict) == (
            "cam",
            "B-17",
            "open",
            5,
            "incomplete",
        )
        assert (one.frames_per_s, one.dropped, one.servers, one.local_share) == (29.99, 10, "1 of 1", 0.1)
        assert "B-17" in shown(microscopes_table([one]))
        clock.now_s = SILENT_S + 1
        assert next(microscopes.rows()).state == "silent"
        microscopes.take(ENDPOINT, factory.end("finished", "its source has ended"))
        clock.now_s = 60.0
        assert next(microscopes.rows()).state == "finished", "it is over, and need not say so again"


def test_a_server_is_shown_with_its_state_models_and_rate():
    rows = rows_of(fleet())
    assert [row.state for row in rows] == ["ready", "silent", "ending", "starting"]
    text = shown(servers_table(rows))
    assert "yolov5n-blood a1b2c3d4" in text
    assert "tcp://10.0.0.1:1" in text
    one = member("1")
    report = one.report
    assert report is not None
    one.take(dataclasses.replace(report, status=msgspec.structs.replace(report.status, answered=30)), 102.0)
    assert one.rate == 10.0
    one.take(dataclasses.replace(report, process=8), 104.0)
    assert one.rate == 10.0, "it began anew: what it answered before is not what it answered since"


def test_prometheus_is_told_where_servers_are(tmp_path):
    rows = [
        dataclasses.replace(row, metrics=None if row.endpoint is None else "gpu-1:40001") for row in rows_of(fleet())
    ]
    write_targets(str(tmp_path / "fleet.json"), rows)
    found = json.loads((tmp_path / "fleet.json").read_text())
    assert found == 3 * [{"targets": ["gpu-1:40001"], "labels": {"node": "gpu-1"}}]


def test_what_others_say_of_themselves_is_no_markup():
    state = fleet()
    report = state.members[0].report
    assert report is not None
    evil = dataclasses.replace(report, node="[red]x[/red]\x1b[2J")
    state.members[0].report = evil
    text = shown(servers_table(rows_of(state)))
    assert "[red]x[/red]" in text
    assert "\x1b" not in text
