"""How many servers a fleet has: a minute of fleet at once, without Ray or clock."""

from __future__ import annotations

from dataclasses import replace

import pytest

from streamer.inference.fleet_plan import (
    DRAIN_S,
    GROW_MS,
    HOLD_S,
    NO_ROOM_S,
    OVERLAP_S,
    PAUSE_S,
    SHRINK_S,
    SILENT_S,
    FleetSpec,
    FleetState,
    Member,
    Planner,
    ServerReport,
)
from streamer.inference.wire import StatusReply

SPEC = FleetSpec(generation="1", kind="cpu", least=2, most=4, models=("m",))


class Cluster:
    """Servers that begin at once, answer, and end when they are told to."""

    def __init__(self, spec: FleetSpec = SPEC, room: int = 100) -> None:
        self.room = room
        self.now_s = 100.0
        self.members: dict[str, Member] = {}
        self.planner = Planner.of(spec, 0, self.now_s)
        self.made = 0
        self.load_ms = 0.0
        self.rate = 10.0
        """Answers a second of all servers together."""
        self.least_ready = 1 << 30

    def use(self, spec: FleetSpec) -> None:
        present = sum(one.generation == spec.generation for one in self.members.values())
        self.planner = Planner.of(spec, present, self.now_s)

    def step(self, seconds: int = 1) -> None:
        for _ in range(seconds):
            self.now_s += 1.0
            begun = [one for one in self.members.values() if one.report is not None]
            for one in self.members.values():
                if one.report is not None or len(begun) < self.room:
                    one.take(self.report(one, len(begun)), self.now_s)
                    begun = [member for member in self.members.values() if member.report is not None]
            steps = self.planner.step(list(self.members.values()), self.now_s)
            for _ in range(steps.start):
                self.made += 1
                name = f"server {self.planner.spec.generation} {self.made}"
                self.members[name] = Member(name, self.planner.spec.generation, self.now_s)
            for name in steps.drain:
                self.members[name].told_to_end_s = self.now_s
            for name in steps.end:
                del self.members[name]
            self.least_ready = min(self.least_ready, len(self.ready))

    def report(self, one: Member, ready: int) -> ServerReport:
        answered = 0 if one.report is None else one.report.status.answered + round(self.rate / max(1, ready))
        ending = one.told_to_end_s is not None
        status = StatusReply(
            server="s",
            release="1",
            models=(),
            draining=ending,
            uptime_s=1.0,
            waiting=0,
            queue_age_ms=self.load_ms,
            answered=answered,
            faults={},
        )
        return ServerReport(
            name=one.name, spec=SPEC, endpoint=one.name, node="n", process=1, status=status, is_over=ending
        )

    @property
    def ready(self) -> list[Member]:
        return [one for one in self.members.values() if one.answers(self.now_s) and one.told_to_end_s is None]


def test_it_has_as_many_servers_as_were_asked_for():
    cluster = Cluster()
    cluster.step(5)
    assert len(cluster.ready) == cluster.made == 2
    cluster.step(60)
    assert cluster.made == 2


def test_it_grows_while_all_servers_have_too_much_and_no_farther_than_told():
    cluster = Cluster()
    cluster.step(round(PAUSE_S) + 2)
    cluster.load_ms = GROW_MS + 1
    cluster.step(round(HOLD_S))
    assert len(cluster.ready) == 2, "a short rush is none"
    cluster.step(4)
    assert len(cluster.ready) == 3
    cluster.step(200)
    assert len(cluster.ready) == 4


def test_one_server_with_too_much_is_no_reason_to_grow():
    cluster = Cluster()
    cluster.step(round(PAUSE_S) + 2)
    cluster.load_ms = 2 * GROW_MS
    for _ in range(60):
        cluster.now_s += 1.0
        first, *rest = cluster.members.values()
        first.take(cluster.report(first, 2), cluster.now_s)
        for one in rest:
            one.take(replace(cluster.report(one, 2), status=Cluster().report(one, 2).status), cluster.now_s)
        assert cluster.planner.step(list(cluster.members.values()), cluster.now_s).start == 0


def test_it_shrinks_only_where_those_left_can_do_it():
    cluster = Cluster()
    cluster.rate = 90.0
    cluster.step(round(PAUSE_S) + 2)
    cluster.load_ms = GROW_MS + 1
    cluster.step(round(HOLD_S) + 5)
    assert len(cluster.ready) == 3
    cluster.load_ms = 0.0
    cluster.step(2 * round(SHRINK_S))
    assert len(cluster.ready) == 3, "two were full with 45 answers a second each"
    cluster.rate = 30.0
    cluster.step(2 * round(SHRINK_S))
    assert len(cluster.ready) == 2
    cluster.step(4 * round(SHRINK_S))
    assert len(cluster.ready) == 2, "never below what was asked for"


def test_an_update_has_new_servers_answer_before_old_ones_end():
    cluster = Cluster()
    cluster.step(5)
    cluster.least_ready = 1 << 30
    cluster.use(replace(SPEC, generation="2"))
    cluster.step(round(OVERLAP_S))
    assert [one.generation for one in cluster.ready] == ["1", "1", "2", "2"]
    cluster.step(5)
    assert [one.generation for one in cluster.members.values()] == ["2", "2"]
    assert cluster.least_ready >= 2


def test_an_update_without_room_goes_one_by_one():
    cluster = Cluster(room=2)
    cluster.step(5)
    cluster.least_ready = 1 << 30
    cluster.use(replace(SPEC, generation="2"))
    cluster.step(round(NO_ROOM_S) - 2)
    assert {one.generation for one in cluster.ready} == {"1"}
    cluster.step(2 * round(NO_ROOM_S))
    assert {one.generation for one in cluster.members.values()} == {"2"}
    assert cluster.least_ready == 1


def test_a_server_that_does_not_end_is_ended():
    planner = Planner.of(SPEC, 0, 0.0)
    cluster = Cluster()
    one = Member("server 0 1", "0", 0.0, told_to_end_s=100.0)
    one.take(replace(cluster.report(one, 1), is_over=False), 100.0)
    assert planner.step([one], 100.0 + DRAIN_S - 1).end == ()
    assert planner.step([one], 100.0 + DRAIN_S + 1).end == ("server 0 1",)


def test_microscopes_are_given_those_that_report():
    cluster = Cluster()
    cluster.step(5)
    members = tuple(cluster.members.values())
    now_s = cluster.now_s
    state = FleetState(SPEC, 2, members, now_s, None)
    assert state.endpoints == [one.name for one in members]
    members[0].reported_s = now_s - SILENT_S - 1
    assert state.endpoints == [members[1].name]


@pytest.mark.parametrize("present", [0, 3, 9])
def test_a_fleet_actor_that_was_started_again_keeps_what_is_there(present):
    assert Planner.of(SPEC, present, 0.0).wanted == min(max(present, 2), 4)
