"""Which server is asked, when again, and when this machine takes over: minutes of faults without a clock."""

from __future__ import annotations

import pytest

from streamer.inference.dispatch import GIVE_UP_MS, Dispatcher, GiveUp, Prepare, Send
from streamer.inference.latency import CEILING_MS, FLOOR_MS, UNMEASURED_MS, Latency
from tests.streamer.inference.served import ENGINE, OTHER, SHA

A, B = "tcp://a:1", "tcp://b:1"


class Driven:
    """A dispatcher with the clock in hand; servers say each second how they do, unless they are `dead`."""

    def __init__(self, *endpoints: str) -> None:
        self.now_ns = 0
        self.dispatcher = Dispatcher(endpoints)
        self.dead: set[str] = set()
        self.number = 0
        self.dispatcher.want(ENGINE)
        for endpoint in endpoints:
            self.status(endpoint)
            self.dispatcher.prepared(endpoint, ENGINE)

    def status(self, endpoint: str, process: str = "1", draining: bool = False, sha: str = SHA) -> list:
        return self.dispatcher.said_status(endpoint, process, "0.1", [sha], draining, self.now_ns)

    def ask(self) -> list:
        self.number += 1
        return self.dispatcher.ask(self.number, ENGINE, self.now_ns)

    def answer(self, sent: Send) -> bool:
        return self.dispatcher.answered(sent.server, sent.number, sent.attempt, self.now_ns)

    def after(self, ms: float) -> list:
        """What is due within so many milliseconds, in steps of one."""
        actions = []
        for _ in range(round(ms)):
            self.now_ns += 1_000_000
            if self.now_ns % 1_000_000_000 == 0:
                for endpoint in self.dispatcher.endpoints:
                    if endpoint not in self.dead:
                        actions += self.status(endpoint)
            actions += self.dispatcher.step(self.now_ns)
        return actions

    def measured(self, endpoint: str, ms: float, times: int = 20) -> None:
        for _ in range(times):
            self.dispatcher._servers[endpoint].of(ENGINE).add(ms)

    def state(self, endpoint: str) -> str:
        return self.dispatcher.status()[endpoint].state


def test_an_answer_is_taken_once() -> None:
    driven = Driven(A)
    [sent] = driven.ask()
    assert sent == Send(A, 1, 0, GIVE_UP_MS)
    assert driven.answer(sent)
    assert not driven.answer(sent)
    assert driven.dispatcher.late == 1
    assert driven.dispatcher.status()[A].outstanding == 0


def test_an_overdue_answer_is_asked_of_another_server_and_either_is_taken() -> None:
    for first_is_late in (True, False):
        driven = Driven(A, B)
        [first] = driven.ask()
        [second] = driven.after(UNMEASURED_MS)
        assert (second.server, second.number, second.attempt) == (B if first.server == A else A, 1, 1)
        early, late = (second, first) if first_is_late else (first, second)
        assert driven.answer(early)
        assert not driven.answer(late)
        assert (driven.dispatcher.resent, driven.dispatcher.late) == (1, 1)


def test_the_only_server_is_waited_for_until_the_question_is_given_up() -> None:
    driven = Driven(A)
    driven.ask()
    assert driven.after(GIVE_UP_MS - 1) == []
    assert driven.after(1) == [GiveUp(1, "no answer in time")]
    assert driven.dispatcher.due_ns() is None


def test_a_server_that_comes_meanwhile_is_asked_what_is_overdue() -> None:
    driven = Driven(A)
    driven.ask()
    assert driven.after(700) == []
    driven.dispatcher.use([A, B], driven.now_ns)
    driven.status(B)
    driven.dispatcher.prepared(B, ENGINE)
    [second] = driven.after(1)
    assert (second.server, second.number, second.attempt) == (B, 1, 1)


def test_nothing_is_waited_for_where_nobody_is_left() -> None:
    driven = Driven(A, B)
    [first] = driven.ask()
    [second] = driven.dispatcher.lost(first.server, "connection lost", driven.now_ns)
    assert second.server != first.server
    assert driven.dispatcher.lost(second.server, "connection lost", driven.now_ns) == [GiveUp(1, "connection lost")]
    assert driven.ask() == [GiveUp(2, "no server")]


def test_a_wrong_answer_goes_elsewhere_and_that_server_rests_for_the_engine() -> None:
    driven = Driven(A, B)
    [first] = driven.ask()
    [second] = driven.dispatcher.wrong(first.server, 1, 0, "got NaN", driven.now_ns)
    assert second.server != first.server
    assert driven.answer(second)
    assert {driven.ask()[0].server for _ in range(5)} == {second.server}
    again = driven.after(30_001)
    assert Prepare(first.server, ENGINE) not in again, "it is prepared still, and only waits"
    assert first.server in driven.dispatcher.fit(ENGINE, driven.now_ns)


def test_the_timeout_follows_what_was_measured_between_a_floor_and_a_ceiling() -> None:
    latency = Latency()
    assert latency.timeout_ms == UNMEASURED_MS
    for _ in range(50):
        latency.add(5.0)
    assert latency.timeout_ms == FLOOR_MS
    for _ in range(50):
        latency.add(300.0)
    assert 300 < latency.timeout_ms < 500
    for _ in range(50):
        latency.add(5000.0)
    assert latency.timeout_ms == CEILING_MS
    quick = Latency()
    quick.add(1.0)
    before = quick.timeout_ms
    quick.timed_out()
    assert quick.timeout_ms == 2 * before, "a server under load is not asked everything twice"
    quick.add(1.0)
    assert quick.timeout_ms == before


def test_a_slow_server_is_given_less() -> None:
    driven = Driven(A, B)
    driven.measured(A, 200.0)
    driven.measured(B, 20.0)
    servers = [driven.ask()[0].server for _ in range(22)]
    assert servers.count(A) == 2
    assert servers.index(A) == 9, "once ten wait for the one that is ten times as fast"


def test_where_all_have_too_much_to_do_little_is_asked_twice() -> None:
    driven = Driven(A, B)
    for _ in range(200):
        [sent] = driven.ask()
        driven.after(sent.within_ms - 300)
        driven.answer(sent)
    assert 10 <= driven.dispatcher.resent <= 30


def test_a_server_that_is_new_or_was_slow_is_tried() -> None:
    driven = Driven(A, B)
    driven.measured(A, 20.0)
    assert [driven.ask()[0].server for _ in range(4)] == [B, A, A, A], "one question until it is measured"
    driven = Driven(A, B)
    driven.measured(A, 100.0)
    driven.measured(B, 20.0)
    servers = []
    for _ in range(15):
        [sent] = driven.ask()
        servers.append(sent.server)
        driven.after(19 if sent.server == B else 99)
        driven.answer(sent)
        driven.after(1000)
    assert 1 <= servers.count(A) <= 2, "now and then"


def test_a_server_whose_engines_hang_is_left_alone_and_tried_again() -> None:
    driven = Driven(A)
    driven.ask()
    driven.after(GIVE_UP_MS)
    assert driven.state(A) == "resting"
    assert driven.ask() == [GiveUp(2, "no server")]
    assert not driven.dispatcher.is_answered(ENGINE, driven.now_ns)
    driven.after(1000)
    assert not driven.dispatcher.is_answered(ENGINE, driven.now_ns), "it is tried again, and that is all"
    [trial] = driven.ask()
    assert driven.ask() == [GiveUp(4, "no server")], "one question at a time"
    assert driven.answer(trial)
    assert driven.state(A) == "ready"


def test_a_late_answer_ends_the_rest() -> None:
    driven = Driven(A)
    [sent] = driven.ask()
    driven.after(GIVE_UP_MS + 100)
    assert driven.state(A) == "resting"
    assert not driven.answer(sent)
    assert driven.state(A) == "ready"


@pytest.mark.parametrize("is_dead", [True, False])
def test_no_frame_waits_two_seconds_for_servers_that_hang(is_dead: bool) -> None:
    driven = Driven(A, B)
    driven.dead.update((A, B) if is_dead else ())
    longest_ms, asked = 0, 0
    while driven.now_ns < 120e9:
        began_ns = driven.now_ns
        for _ in range(3):  # a detector, and two batches of a classifier
            actions = driven.ask()
            asked += isinstance(actions[0], Send)
            while not any(isinstance(action, GiveUp) for action in actions):
                actions = driven.after(1)
        longest_ms = max(longest_ms, (driven.now_ns - began_ns) // 1_000_000)
        driven.after(30)
    assert longest_ms <= GIVE_UP_MS + 100
    assert asked < 40, "and they are asked ever more rarely"


def test_a_silent_server_is_asked_nothing_until_it_speaks() -> None:
    driven = Driven(A)
    driven.dead.add(A)
    driven.after(2502)
    assert driven.state(A) == "silent"
    assert driven.ask() == [GiveUp(1, "no server")]
    driven.dead.clear()
    driven.after(1000)
    assert driven.state(A) == "ready"
    assert isinstance(driven.ask()[0], Send)


def test_a_server_that_was_started_again_is_prepared_again() -> None:
    driven = Driven(A)
    [sent] = driven.ask()
    assert driven.status(A, process="2") == [GiveUp(1, "restarted"), Prepare(A, ENGINE)]
    assert not driven.answer(sent)
    assert driven.ask() == [GiveUp(2, "no server")], "until it is"
    driven.dispatcher.prepared(A, ENGINE)
    assert isinstance(driven.ask()[0], Send)


def test_a_server_without_the_model_or_at_its_end_is_not_asked() -> None:
    driven = Driven(A)
    driven.dispatcher = Dispatcher([A])
    assert driven.dispatcher.want(ENGINE) == []
    assert driven.status(A, sha=OTHER.sha256) == []
    assert driven.status(A) == [Prepare(A, ENGINE)]
    assert driven.status(A) == [], "once"
    driven.dispatcher.prepared(A, ENGINE)
    driven.status(A, draining=True)
    assert driven.ask() == [GiveUp(1, "no server")]


def test_a_refused_question_goes_elsewhere() -> None:
    driven = Driven(A, B)
    [first] = driven.ask()
    [second] = driven.dispatcher.refused(first.server, 1, 0, "busy", "256 requests wait", driven.now_ns)
    assert second.server != first.server
    assert driven.dispatcher.status()[first.server].faults == {"busy": 1}
    assert driven.dispatcher.refused(second.server, 1, 1, "busy", "so do here", driven.now_ns) == [GiveUp(1, "busy")]


def test_servers_that_are_left_out_lose_their_questions_to_others() -> None:
    driven = Driven(A, B)
    [first] = driven.ask()
    other = B if first.server == A else A
    [second] = driven.dispatcher.use([other], driven.now_ns)
    assert (second.server, second.number) == (other, 1)
    assert driven.dispatcher.endpoints == (other,)
    assert not driven.answer(first)
    assert driven.answer(second)


def test_joins_and_leaves_leave_nothing_behind() -> None:
    driven = Driven(A)
    for number in range(10_000):
        driven.dispatcher.use([A, f"tcp://c:{number}"], driven.now_ns)
        [sent] = driven.ask()
        assert driven.answer(sent)
    driven.dispatcher.use([A], driven.now_ns)
    assert driven.dispatcher.endpoints == (A,)
    assert len(driven.dispatcher._settled) <= 1000
    assert driven.dispatcher._questions == {}
