"""Which server a question goes to, when it is asked again, when the CPU here takes over. No clock, thread or socket.

Each question has a number; asked again, it keeps it, so that an answer is taken once and a late one changes nothing. It
goes to the server with the least to do for its speed, is asked again elsewhere when an answer is overdue, and is given
up after `give_up_ms`, or as soon as there is nobody left to ask.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from engines.base import EngineId
from streamer.inference.latency import KEPT, Latency, percentiles_ms
from streamer.records import InferenceServerStatus

GIVE_UP_MS = 1000.0
"""After so long a question is answered on this machine: a microscope stops for less than two seconds, half a second
between two frames and its own work on one included (2.5 s were seen with 1200, of two frames a second on a busy
machine). All questions of a frame have so long together."""

LEAST_PATIENCE_MS = 100.0
"""What a question has where those before it have used up the time of their frame: servers that do well answer in it,
and others are left alone for a while after it."""

SILENT_MS = 2500.0
"""A server that says nothing for so long, not even how it does, is asked nothing."""

TIMEOUTS_IN_A_ROW = 3
"""After so many, a server that goes on saying how it does is left alone for a while: its engines hang."""

RESENDS_PER_ANSWER, RESENDS_MAX = 0.1, 10.0
"""Of overdue questions a tenth is asked twice, beyond the first ten: where all servers have too much to do, asking
again would give them twice as much."""

FADES_S = 5.0
"""Half of what was measured of a server that is not asked counts after so long."""

REST_MS, REST_MAX_MS = 1000.0, 30_000.0
WRONG_REST_MS = 30_000.0
"""So long a server whose answer was wrong is not asked for that engine."""

_SETTLED_KEPT = 1000

State = Literal["connecting", "ready", "silent", "resting", "draining", "other version", "refused"]


@dataclass(frozen=True, slots=True)
class Send:
    """Ask a server."""

    server: str
    number: int
    attempt: int
    within_ms: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Nobody answers that question: this machine has to."""

    number: int
    reason: str


@dataclass(frozen=True, slots=True)
class Prepare:
    """Have a server load an engine."""

    server: str
    engine: EngineId


Action = Send | GiveUp | Prepare


@dataclass(slots=True)
class _Try:
    server: str
    sent_ns: int
    due_ns: int
    is_over: bool = False
    """Timed out, refused or lost; a late answer is still welcome."""


@dataclass(slots=True)
class _Question:
    number: int
    engine: EngineId
    asked_ns: int
    give_up_ms: float
    tries: list[_Try] = field(default_factory=list)


@dataclass(slots=True)
class _Server:
    endpoint: str
    state: State = "connecting"
    process: str | None = None
    """Its id, new with every process; None before it said one."""
    release: str | None = None
    detail: str | None = None
    heard_ns: int = 0
    models: frozenset[str] = frozenset()
    prepared: set[EngineId] = field(default_factory=set)
    preparing: set[EngineId] = field(default_factory=set)
    unfit_until_ns: dict[EngineId, int] = field(default_factory=dict)
    latency: dict[EngineId, Latency] = field(default_factory=dict)
    recent_ms: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))
    outstanding: int = 0
    asked_ns: int = 0
    rest_until_ns: int = 0
    rest_ms: float = REST_MS
    timeouts_in_a_row: int = 0
    requests: int = 0
    answered: int = 0
    faults: Counter[str] = field(default_factory=Counter)

    def of(self, engine: EngineId) -> Latency:
        return self.latency.setdefault(engine, Latency())


class Dispatcher:
    """The state of all servers and questions of one process. One thread owns it; what it returns is to be done."""

    def __init__(self, endpoints: Iterable[str], give_up_ms: float = GIVE_UP_MS) -> None:
        self._give_up_ms = give_up_ms
        self._servers = {endpoint: _Server(endpoint) for endpoint in endpoints}
        self._questions: dict[int, _Question] = {}
        self._settled: dict[int, _Question] = {}
        """Those whose late answers may still come, oldest first."""
        self._wanted: list[EngineId] = []
        self._resends = RESENDS_MAX
        """Overdue questions that may be asked of another server too, now."""
        self.resent = 0
        self.late = 0
        """Answers to what was answered already."""

    @property
    def endpoints(self) -> tuple[str, ...]:
        return tuple(self._servers)

    def use(self, endpoints: Iterable[str], now_ns: int) -> list[Action]:
        """From now on these servers; questions to those that are left out are asked elsewhere."""
        wanted = list(dict.fromkeys(endpoints))
        actions: list[Action] = []
        for endpoint in [one for one in self._servers if one not in wanted]:
            actions += self.lost(endpoint, "left out", now_ns)
            del self._servers[endpoint]
        for endpoint in wanted:
            self._servers.setdefault(endpoint, _Server(endpoint))
        return actions

    def want(self, engine: EngineId) -> list[Action]:
        """An engine that questions will be of."""
        if engine not in self._wanted:
            self._wanted.append(engine)
        return self._prepare_all()

    def fit(self, engine: EngineId, now_ns: int) -> list[str]:
        """Servers that may be asked for it now."""
        return [one.endpoint for one in self._servers.values() if self._may_ask(one, engine, now_ns)]

    def is_answered(self, engine: EngineId, now_ns: int) -> bool:
        """Whether a server answers for it: not one that is only tried again."""
        return any(one.state == "ready" and self._may_ask(one, engine, now_ns) for one in self._servers.values())

    def ask(self, number: int, engine: EngineId, now_ns: int, give_up_ms: float | None = None) -> list[Action]:
        """`give_up_ms`: of this question; None: as of all."""
        give_up_ms = self._give_up_ms if give_up_ms is None else give_up_ms
        self._questions[number] = question = _Question(number, engine, now_ns, give_up_ms)
        return self._next_try(question, "no server", now_ns)

    def answered(self, server: str, number: int, attempt: int, now_ns: int) -> bool:
        """Whether that answer is to be taken: it is the first one to its question."""
        one = self._servers.get(server)
        question, one_try = self._find(server, number, attempt)
        if one is None or question is None or one_try is None:
            return False
        ms = (now_ns - one_try.sent_ns) / 1e6
        self._settle_try(one, one_try)
        one.recent_ms.append(ms)
        one.of(question.engine).add(ms)
        one.heard_ns = now_ns
        one.timeouts_in_a_row, one.rest_ms = 0, REST_MS
        if one.state in ("resting", "silent"):
            one.state = "ready"
        if number not in self._questions:
            self.late += 1
            return False
        one.answered += 1
        self._resends = min(self._resends + RESENDS_PER_ANSWER, RESENDS_MAX)
        self._finish(question)
        return True

    def wrong(self, server: str, number: int, attempt: int, reason: str, now_ns: int) -> list[Action]:
        """An answer that can't be what was asked for: that server is not asked for the engine for a while."""
        question = self._questions.get(number)
        one = self._servers.get(server)
        if one is not None and question is not None:
            one.unfit_until_ns[question.engine] = now_ns + round(WRONG_REST_MS * 1e6)
            one.detail = reason
        return self._failed(server, number, attempt, "wrong answer", now_ns)

    def refused(self, server: str, number: int, attempt: int, code: str, reason: str, now_ns: int) -> list[Action]:
        """A server says that it does not answer a question."""
        one, question = self._servers.get(server), self._questions.get(number)
        if one is not None:
            one.detail = reason
            if code == "draining":
                one.state = "draining"
            elif code == "version":
                one.state = "other version"
            elif question is not None and code in ("engine failed", "unknown model", "malformed"):
                one.prepared.discard(question.engine)
                one.unfit_until_ns[question.engine] = now_ns + round(one.rest_ms * 1e6)
        return self._failed(server, number, attempt, code, now_ns)

    def not_prepared(self, server: str, engine: EngineId, code: str, reason: str, now_ns: int) -> None:
        """A server did not load an engine, or has another one of that id."""
        one = self._servers.get(server)
        if one is None:
            return
        one.preparing.discard(engine)
        one.prepared.discard(engine)
        one.detail = reason
        one.faults[code] += 1
        if code == "draining":
            one.state = "draining"
        else:
            rest_ms = REST_MS if code == "busy" else WRONG_REST_MS
            one.unfit_until_ns[engine] = now_ns + round(rest_ms * 1e6)

    def prepared(self, server: str, engine: EngineId) -> None:
        one = self._servers.get(server)
        if one is not None:
            one.preparing.discard(engine)
            one.prepared.add(engine)

    def said_status(
        self, server: str, process: str, release: str, models: Iterable[str], draining: bool, now_ns: int
    ) -> list[Action]:
        """How a server does: it is there, and has these models, by hash."""
        one = self._servers.get(server)
        if one is None:
            return []
        actions: list[Action] = []
        if one.process not in (None, process):  # it was started again, and nothing is left of the one before
            actions += self.lost(server, "restarted", now_ns)
            one.latency.clear()
            one.unfit_until_ns.clear()
        one.process, one.release, one.models = process, release, frozenset(models)
        one.heard_ns = now_ns
        if draining:
            one.state = "draining"
        elif one.state != "resting":  # that ends with an answer
            one.state = "ready"
        return actions + self._prepare_all()

    def other_version(self, server: str, reason: str) -> None:
        one = self._servers.get(server)
        if one is not None:
            one.state, one.detail = "other version", reason

    def not_let_in(self, server: str, reason: str) -> None:
        one = self._servers.get(server)
        if one is not None:
            one.state, one.detail = "refused", reason

    def lost(self, server: str, reason: str, now_ns: int) -> list[Action]:
        """The connection broke: what was asked there is asked elsewhere at once."""
        one = self._servers.get(server)
        if one is None:
            return []
        one.prepared.clear()
        one.preparing.clear()
        if one.state not in ("refused", "other version"):
            one.state, one.detail = "connecting", reason
        actions: list[Action] = []
        for question in list(self._questions.values()):
            for attempt, one_try in enumerate(question.tries):
                if one_try.server == server and not one_try.is_over:
                    actions += self._failed(server, question.number, attempt, reason, now_ns)
        return actions

    def step(self, now_ns: int) -> list[Action]:
        """What is overdue."""
        actions: list[Action] = []
        for one in self._servers.values():
            if one.state == "ready" and now_ns - one.heard_ns > SILENT_MS * 1e6:
                one.state, one.detail = "silent", f"nothing heard for {SILENT_MS / 1000:g} s"
            for engine in [engine for engine, until_ns in one.unfit_until_ns.items() if until_ns <= now_ns]:
                del one.unfit_until_ns[engine]
                actions += self._prepare(one)
        for question in list(self._questions.values()):
            if now_ns - question.asked_ns >= question.give_up_ms * 1e6:
                for one_try in question.tries:
                    if not one_try.is_over:
                        self._time_out(one_try, question.engine, now_ns)
                    # So that the next question, of the same frame perhaps, does not wait as long again.
                    self._rest(self._servers.get(one_try.server), now_ns)
                self._finish(question)
                actions.append(GiveUp(question.number, "no answer in time"))
                continue
            for one_try in question.tries:
                if not one_try.is_over and one_try.due_ns <= now_ns:
                    self._time_out(one_try, question.engine, now_ns)
            if all(one_try.is_over for one_try in question.tries):  # a server may have come meanwhile
                actions += self._next_try(question, "no answer in time", now_ns, may_wait=True)
        return actions

    def due_ns(self) -> int | None:
        """When `step` has something to do, as far as questions go."""
        due = [
            min(
                [question.asked_ns + round(question.give_up_ms * 1e6)]
                + [t.due_ns for t in question.tries if not t.is_over]
            )
            for question in self._questions.values()
        ]
        return min(due, default=None)

    def give_up_all(self, reason: str) -> list[Action]:
        """At the end."""
        numbers = list(self._questions)
        self._questions.clear()
        return [GiveUp(number, reason) for number in numbers]

    def status(self) -> dict[str, InferenceServerStatus]:
        return {
            one.endpoint: InferenceServerStatus(
                state=one.state,
                release=one.release,
                requests=one.requests,
                answered=one.answered,
                outstanding=one.outstanding,
                faults=dict(one.faults),
                latency_ms=percentiles_ms(one.recent_ms),
                detail=None if one.state == "ready" and not one.unfit_until_ns else one.detail,
            )
            for one in self._servers.values()
        }

    def _may_ask(self, one: _Server, engine: EngineId, now_ns: int) -> bool:
        if one.state == "resting" and now_ns >= one.rest_until_ns and not one.outstanding:
            return engine in one.prepared  # one question, to see whether it answers again
        return one.state == "ready" and engine in one.prepared and engine not in one.unfit_until_ns

    def _next_try(self, question: _Question, reason: str, now_ns: int, *, may_wait: bool = False) -> list[Action]:
        """Ask the best server that was not asked yet. `may_wait`: those asked may still answer, and the question is
        only overdue."""
        asked = {one_try.server for one_try in question.tries}
        fit = [one for one in self.fit(question.engine, now_ns) if one not in asked]
        may_come = may_wait and any(self._servers[one].state == "ready" for one in asked if one in self._servers)
        if may_come and (not fit or self._resends < 1):
            return []
        if not fit:
            self._finish(question)
            return [GiveUp(question.number, reason)]
        self._resends -= may_wait
        one = min((self._servers[name] for name in fit), key=lambda s: self._burden(s, question.engine, now_ns))
        left_ms = question.give_up_ms - (now_ns - question.asked_ns) / 1e6
        wait_ms = min(one.of(question.engine).timeout_ms, left_ms)
        question.tries.append(_Try(one.endpoint, now_ns, now_ns + round(wait_ms * 1e6)))
        one.requests += 1
        one.outstanding += 1
        one.asked_ns = now_ns
        self.resent += len(question.tries) > 1
        return [Send(one.endpoint, question.number, len(question.tries) - 1, left_ms)]

    @staticmethod
    def _burden(one: _Server, engine: EngineId, now_ns: int) -> tuple[float, int]:
        """How long it would take to answer one more; of equals, whoever was asked least.

        What was measured long ago counts for less and less, so that a server that was slow once is tried again. One
        that was never measured is tried first, with one question.
        """
        smoothed = one.of(engine).smoothed_ms
        if smoothed is None:
            return math.inf if one.outstanding else 0.0, one.requests
        faded = 0.5 ** ((now_ns - one.asked_ns) / 1e9 / FADES_S)
        return (one.outstanding + 1) * smoothed * faded, one.requests

    def _failed(self, server: str, number: int, attempt: int, reason: str, now_ns: int) -> list[Action]:
        one = self._servers.get(server)
        question, failed = self._find(server, number, attempt)
        if one is None or question is None or failed is None:
            return []
        one.faults[reason] += 1
        self._settle_try(one, failed)
        if number not in self._questions or not all(one_try.is_over for one_try in question.tries):
            return []
        return self._next_try(question, reason, now_ns)

    def _find(self, server: str, number: int, attempt: int) -> tuple[_Question | None, _Try | None]:
        """A question, settled or not, and its try with that server; None for what was never asked."""
        question = self._questions.get(number) or self._settled.get(number)
        tries = question.tries if question else []
        known = attempt < len(tries) and tries[attempt].server == server
        return (question, tries[attempt]) if known else (None, None)

    def _time_out(self, one_try: _Try, engine: EngineId, now_ns: int) -> None:
        one = self._servers[one_try.server]  # `use` has settled the tries with servers that are gone
        one.faults["no answer in time"] += 1
        one.of(engine).timed_out()
        self._settle_try(one, one_try)
        one.timeouts_in_a_row += 1
        if one.timeouts_in_a_row >= TIMEOUTS_IN_A_ROW:
            self._rest(one, now_ns)

    @staticmethod
    def _rest(one: _Server | None, now_ns: int) -> None:
        if one is None or one.state not in ("ready", "resting") or now_ns < one.rest_until_ns:
            return
        one.state, one.detail = "resting", "its answers do not come in time"
        one.rest_until_ns = now_ns + round(one.rest_ms * 1e6)
        one.rest_ms = min(2 * one.rest_ms, REST_MAX_MS)

    @staticmethod
    def _settle_try(one: _Server, one_try: _Try) -> None:
        if not one_try.is_over:
            one_try.is_over = True
            one.outstanding -= 1

    def _finish(self, question: _Question) -> None:
        self._questions.pop(question.number, None)
        for one_try in question.tries:
            one = self._servers.get(one_try.server)
            if one is not None:
                self._settle_try(one, one_try)
        self._settled[question.number] = question
        while len(self._settled) > _SETTLED_KEPT:
            del self._settled[next(iter(self._settled))]

    def _prepare_all(self) -> list[Action]:
        return [action for one in self._servers.values() for action in self._prepare(one)]

    def _prepare(self, one: _Server) -> list[Action]:
        if one.state not in ("ready", "resting"):
            return []
        wanted = [
            engine
            for engine in self._wanted
            if engine.sha256 in one.models
            and engine not in one.prepared | one.preparing
            and engine not in one.unfit_until_ns
        ]
        one.preparing.update(wanted)
        return [Prepare(one.endpoint, engine) for engine in wanted]
