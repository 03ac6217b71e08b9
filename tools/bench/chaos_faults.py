"""What is done in `chaos`, and to whom: drawn from a seed, so that it can be done again."""

from __future__ import annotations

import math
import random
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from tools.bench.chaos_actors import Child, Head, Microscope, kill_all
from tools.bench.faulty_network import FaultyLink

EVERY_S = (2.0, 8.0)
"""Between two faults: at least, at most."""

HEAD_PAUSE_S = 60.0
"""Between two losses of Ray's head at least: it takes some 20 s to have a fleet again."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A way to disturb."""

    name: str
    weight: float
    lasts_s: tuple[float, float] = (0.0, 0.0)
    needs_ray: bool = False


KINDS = (
    Kind("server killed", 3),
    Kind("server frozen", 2, (0.5, 6.0)),
    Kind("server told to end", 1),
    Kind("all servers killed", 1),
    Kind("network cut", 3, (0.2, 6.0)),
    Kind("network delayed", 3, (1.0, 8.0)),
    Kind("network frozen", 3, (0.5, 8.0)),
    Kind("microscope killed", 2),
    Kind("ray server killed", 2, needs_ray=True),
    Kind("ray server frozen", 1, (0.5, 6.0), needs_ray=True),
    Kind("fleet actor killed", 0.5, needs_ray=True),
    Kind("ray head killed", 1, (2.0, 8.0), needs_ray=True),
)


@dataclass(slots=True)
class Fault:
    """What was done, and to whom."""

    kind: str
    after_s: float
    """Since the fault before it."""
    target: int
    """Which of those there are, by a number that is taken modulo how many there are."""
    lasts_s: float
    delay_s: float
    at_s: float = 0.0
    done: bool = False
    """Whether somebody was there to be disturbed."""


def faults(seed: int, *, with_ray: bool) -> Iterator[Fault]:
    """Without end; the same for the same seed."""
    chance = random.Random(seed)
    kinds = [kind for kind in KINDS if with_ray or not kind.needs_ray]
    while True:
        (kind,) = chance.choices(kinds, [one.weight for one in kinds])
        yield Fault(
            kind.name,
            after_s=round(chance.uniform(*EVERY_S), 2),
            target=chance.randrange(1 << 16),
            lasts_s=round(chance.uniform(*kind.lasts_s), 2),
            delay_s=round(math.exp(chance.uniform(math.log(0.05), math.log(1.5))), 3),
        )


@dataclass(slots=True)
class Scene:
    """All there is to be disturbed, and what is to be undone."""

    microscopes: Sequence[Microscope]
    servers: Sequence[Child]
    links: Sequence[FaultyLink]
    head: Head | None
    undo: list[tuple[float, Callable[[], object]]] = field(default_factory=list)
    last_head_s: float = -math.inf
    began_s: float = 0.0
    """When faults began, by the monotonic clock."""

    @property
    def suppliers(self) -> list[Child]:
        return [*self.servers, *([self.head] if self.head else [])]

    @property
    def children(self) -> list[Child]:
        return [*self.microscopes, *self.suppliers]

    def look(self, now_s: float) -> None:
        self.look_after(self.children, now_s)

    def look_after(self, children: Sequence[Child], now_s: float) -> None:
        """Start again what has ended, and undo what has lasted long enough."""
        for child in children:
            child.look(now_s)
        for one in [one for one in self.undo if one[0] <= now_s]:
            self.undo.remove(one)
            one[1]()

    def disturb(self, fault: Fault, now_s: float) -> bool:
        """Whether somebody was there."""
        what, _, how = fault.kind.rpartition(" ")
        if fault.kind == "all servers killed":
            return self._kill_all_servers()
        if what == "network":
            return self._disturb_network(fault, how, now_s)
        if what == "ray head":
            if self.head is None or not self.head.has_fleet or now_s - self.last_head_s < HEAD_PAUSE_S:
                return False
            self.last_head_s = now_s
            return self.head.lose(fault.lasts_s)
        if what in ("ray server", "fleet actor"):
            return self._disturb_actor("_Server" if what == "ray server" else "_Fleet", fault, how, now_s)
        those: Sequence[Child] = self.microscopes if what == "microscope" else self.servers
        one = those[fault.target % len(those)]
        if how == "frozen":
            self.undo.append((now_s + fault.lasts_s, lambda: one.send(signal.SIGCONT)))
        return one.send({"killed": signal.SIGKILL, "frozen": signal.SIGSTOP}.get(how, signal.SIGTERM))

    def heal(self) -> None:
        for _, undo in self.undo:
            undo()
        self.undo.clear()

    def _kill_all_servers(self) -> bool:
        killed = [one.send(signal.SIGKILL) for one in self.servers]
        if self.head is not None:
            kill_all(self.head.actors("_Server"))
        return any(killed)

    def _disturb_network(self, fault: Fault, how: str, now_s: float) -> bool:
        link = self.links[fault.target % len(self.links)]
        if how == "delayed":
            link.delay(fault.delay_s)
        else:
            (link.cut if how == "cut" else link.freeze)()
        self.undo.append((now_s + fault.lasts_s, link.heal))
        return True

    def _disturb_actor(self, class_name: str, fault: Fault, how: str, now_s: float) -> bool:
        there = [] if self.head is None else sorted(self.head.actors(class_name))
        if not there:
            return False
        one = there[fault.target % len(there)]
        kill_all([one], signal.SIGSTOP if how == "frozen" else signal.SIGKILL)
        if how == "frozen":
            self.undo.append((now_s + fault.lasts_s, lambda: kill_all([one], signal.SIGCONT)))
        return True
