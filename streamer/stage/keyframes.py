"""Where the stage has been: keyframes, their relative positions, and the islands that they form.

Every measured shift between two keyframes is a link. `settle` finds the positions that fit all links of an island best,
which spreads drift over a loop when it closes. Links that no other link agrees with lose their weight.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import scipy.sparse
import scipy.sparse.linalg

from streamer.stage.hidden import Mask
from streamer.stage.joins import Joins
from streamer.stage.placement import Correction
from streamer.stage.preparation import PreparedFrame, forgotten, restored, without_spectrum
from streamer.stage.registration import Shift
from streamer.stage.static_mask import visible

LOCAL = 48
"""Keyframes that settle together when one more is linked to them."""

SPECTRA_KEPT = 128
"""Keyframes whose spectrum stays in memory (0.3 MB each); others are computed again when needed. Of 700 fields of a
slide in a serpentine 512 took no less time (52.9 s of processor time, 52.4 with 128), of 300 in disorder 2 % less."""

PICTURES_KEPT = 8192
"""Keyframes whose picture stays in memory (0.08 MB each). A place without its picture is not recognised again."""


@dataclass(slots=True, eq=False)
class Keyframe:
    """One place of the map. Its position changes; its number never does."""

    number: int
    island: int
    x_px: float
    y_px: float
    frame: PreparedFrame
    links: dict[int, Link] = field(default_factory=dict)
    announced_px: tuple[float, float] = (0.0, 0.0)
    """Position and island of the last announcement; of the published island, see joins.py."""
    announced_island: int = 0


@dataclass(frozen=True, slots=True)
class KeyframeState:
    """All of a keyframe but its picture, to be stored outside the map."""

    number: int
    island: int
    x_px: float
    y_px: float
    announced_px: tuple[float, float]
    announced_island: int
    links: tuple[Link, ...]
    """In the order in which they were found, which is the order of the sums in the least squares."""


@dataclass(frozen=True, slots=True)
class Link:
    """A measured shift: slide position of `to` minus that of the keyframe that holds it."""

    to: int
    x_px: float
    y_px: float
    weight: float


class StageMap:
    """Keyframes by number and by place. Positions are slide pixels of a keyframe's upper left corner."""

    def __init__(self, announce_px: float) -> None:
        """Keyframes that moved less than `announce_px` since the last correction are not announced."""
        self._announce_px = announce_px
        self._keyframes: list[Keyframe] = []
        self._by_place: dict[tuple[int, int, int], list[int]] = defaultdict(list)
        self._hidden: Mask | None = None
        self._ready: OrderedDict[int, PreparedFrame] = OrderedDict()
        """Pictures to correlate, of the keyframes that were used last."""
        self._smears: dict[int, float] = {}
        self._with_picture: OrderedDict[int, None] = OrderedDict()
        self.forgotten = 0
        """Keyframes whose picture was dropped to bound memory."""
        self._islands: dict[int, list[int]] = {}
        self._moved: set[int] = set()
        self._new: set[int] = set()
        """Keyframes made since the last corrections: no earlier position of theirs was announced."""
        self._next_island = 0
        self._changed: set[int] = set()
        self.joins = Joins()
        """Under which island each is published; changed by `join` and `part` alone."""

    def __len__(self) -> int:
        return len(self._keyframes)

    def __getitem__(self, number: int) -> Keyframe:
        return self._keyframes[number]

    @property
    def islands(self) -> tuple[int, ...]:
        return tuple(self._islands)

    @property
    def with_spectrum(self) -> tuple[int, ...]:
        """Numbers of the keyframes whose spectrum is in memory, the last used one last."""
        return tuple(self._ready)

    def members(self, island: int) -> list[int]:
        """Numbers of an island's keyframes, oldest first."""
        return self._islands[island]

    def new_island(self) -> int:
        island = self._next_island
        self._next_island += 1
        self._islands[island] = []
        return island

    def add(self, frame: PreparedFrame, island: int, x_px: float, y_px: float) -> Keyframe:
        """`frame`: with nothing at the places that are hidden."""
        number, picture = len(self._keyframes), without_spectrum(frame)
        published, *place = self.joins.published(island, x_px, y_px)
        keyframe = Keyframe(
            number, island, x_px, y_px, picture, announced_px=(place[0], place[1]), announced_island=published
        )
        if frame.spectrum is not None:
            self._ready[number] = frame
        self._new.add(keyframe.number)
        self._keyframes.append(keyframe)
        self._islands[island].append(keyframe.number)
        self._by_place[self._place(keyframe)].append(keyframe.number)
        self._remember(keyframe)
        self._changed.add(keyframe.number)
        return keyframe

    @property
    def next_island(self) -> int:
        return self._next_island

    def take_changed(self) -> list[KeyframeState]:
        """The keyframes that are new or changed since the last call."""
        changed, self._changed = sorted(self._changed), set()
        return [_state_of(self._keyframes[number]) for number in changed]

    def restore(self, keyframes: Iterable[tuple[KeyframeState, PreparedFrame]], next_island: int) -> None:
        """Fill an empty map with all keyframes of another one, in the order of their numbers. ValueError where one
        is missing, or linked to none."""
        self._next_island = next_island
        members: dict[int, list[int]] = defaultdict(list)
        for state, frame in keyframes:
            keyframe = Keyframe(
                number=state.number,
                island=state.island,
                x_px=state.x_px,
                y_px=state.y_px,
                frame=frame,
                links={link.to: link for link in state.links},
                announced_px=state.announced_px,
                announced_island=state.announced_island,
            )
            self._keyframes.append(keyframe)
            self._by_place[self._place(keyframe)].append(keyframe.number)
            self._remember(keyframe)
            members[keyframe.island].append(keyframe.number)
            if keyframe.number != len(self._keyframes) - 1 or not 0 <= keyframe.island < next_island:
                raise ValueError(f"got keyframe {keyframe.number} of island {keyframe.island}, expected all in a row")
        for keyframe in self._keyframes:
            self.check(keyframe.links)
        self._islands = {island: members[island] for island in sorted(members)}

    def check(self, numbers: Iterable[int]) -> None:
        """ValueError unless each is that of a keyframe."""
        for number in numbers:
            if not 0 <= number < len(self._keyframes):
                raise ValueError(f"got keyframe {number}, expected 0 to {len(self._keyframes) - 1}")

    def hide(self, hidden: Mask | None) -> None:
        """From now on nothing is registered by what keyframes show at these places of their pictures."""
        self._hidden = hidden
        self._ready.clear()
        self._smears.clear()

    def frame(self, number: int) -> PreparedFrame:
        """A keyframe's picture, ready to correlate."""
        if number not in self._ready:
            self._ready[number] = restored(visible(self._keyframes[number].frame, self._hidden))
        self._remember(self._keyframes[number])
        return self._ready[number]

    def smear(self, number: int) -> float:
        """Of a keyframe's picture."""
        if number not in self._smears:
            self._smears[number] = visible(self._keyframes[number].frame, self._hidden).smear
        return self._smears[number]

    def overlap(self, number: int, frame: PreparedFrame, x_px: float, y_px: float) -> float:
        """Share of `frame`, lying at (x_px, y_px), that a keyframe of the same island sees too."""
        keyframe = self._keyframes[number]
        across = frame.width - abs(x_px - keyframe.x_px)
        down = frame.height - abs(y_px - keyframe.y_px)
        return max(0.0, across) * max(0.0, down) / (frame.width * frame.height)

    def around(self, island: int, frame: PreparedFrame, x_px: float, y_px: float) -> list[tuple[float, int]]:
        """(overlap, number) of the keyframes that see part of `frame` lying there, largest overlap first."""
        column, row = int(x_px // frame.width), int(y_px // frame.height)
        overlaps = [
            (self.overlap(number, frame, x_px, y_px), number)
            for i in (-1, 0, 1)
            for j in (-1, 0, 1)
            for number in self._by_place.get((island, column + i, row + j), ())
        ]
        return sorted((pair for pair in overlaps if pair[0] > 0), key=lambda pair: (-pair[0], pair[1]))

    def nearest(self, island: int, x_px: float, y_px: float) -> list[int]:
        """All keyframes: those of `island` by distance from a place, then the others, newest first."""
        own = self._islands.get(island, [])
        places = np.array([(self._keyframes[n].x_px, self._keyframes[n].y_px) for n in own]).reshape(-1, 2)
        order = np.argsort(np.hypot(places[:, 0] - x_px, places[:, 1] - y_px), kind="stable")
        others = [k.number for k in reversed(self._keyframes) if k.island != island]
        return [own[i] for i in order] + others

    def link(self, a: int, b: int, shift: Shift) -> float:
        """Record that `b` lies `shift` from `a`. Returns how far the map is from that, in pixels."""
        smear = max(self.smear(a), self.smear(b), 1.0)
        # A smeared picture fits anywhere along its smear, so it holds an island together only where no sharp one does.
        weight = shift.overlap * max(shift.ncc, 0.1) / smear**8
        self._keyframes[a].links[b] = Link(b, shift.x_px, shift.y_px, weight)
        self._keyframes[b].links[a] = Link(a, -shift.x_px, -shift.y_px, weight)
        self._changed.update((a, b))
        first, second = self._keyframes[a], self._keyframes[b]
        return float(np.hypot(second.x_px - first.x_px - shift.x_px, second.y_px - first.y_px - shift.y_px))

    def settle(self, island: int, around: int | None = None) -> None:
        """Least squares over an island's links; its first keyframe stays fixed.

        With `around`, only the LOCAL keyframes nearest to it by links move. That suits small disagreements, and its
        cost does not grow with the island.
        """
        members = self._islands[island]
        free = set(members) if around is None else self._linked(around, LOCAL)
        free.discard(members[0])
        if not free:
            return
        numbers = sorted(free | {to for number in free for to in self._keyframes[number].links})
        index = {number: i for i, number in enumerate(numbers)}
        links = [
            (index[number], index[link.to], link)
            for number in sorted(free)
            for link in self._keyframes[number].links.values()
            if link.to > number or link.to not in free
        ]
        ends = np.array([(a, b) for a, b, _ in links])
        shifts = np.array([(link.x_px, link.y_px) for *_, link in links])
        weights = np.array([link.weight for *_, link in links])
        places = np.array([(self._keyframes[n].x_px, self._keyframes[n].y_px) for n in numbers])
        movable = np.array([number in free for number in numbers])
        settled = _solve(ends, shifts, weights, places, movable)
        for _ in range(3):
            residuals = np.linalg.norm(settled[ends[:, 1]] - settled[ends[:, 0]] - shifts, axis=1)
            if residuals.max() < 2.0:
                break
            settled = _solve(ends, shifts, weights / np.maximum(1.0, residuals) ** 2, places, movable)
        for i in np.nonzero(movable)[0].tolist():
            self._move(self._keyframes[numbers[i]], island, float(settled[i, 0]), float(settled[i, 1]))

    def _linked(self, start: int, most: int) -> set[int]:
        """Up to `most` keyframes that are fewest links away from `start`, itself included."""
        reached, edge = {start}, [start]
        while edge and len(reached) < most:
            links = dict.fromkeys(to for number in edge for to in self._keyframes[number].links)
            edge = [to for to in links if to not in reached][: most - len(reached)]
            reached.update(edge)
        return reached

    def merge(self, gone: int, into: int, x_px: float, y_px: float) -> None:
        """Island `gone` turns out to lie at (x_px, y_px) in island `into`."""
        for number in self._islands.pop(gone):
            keyframe = self._keyframes[number]
            self._move(keyframe, into, keyframe.x_px + x_px, keyframe.y_px + y_px)
            self._islands[into].append(number)
        self._islands[into].sort()
        self._publish_anew(self.joins.merge(gone, into, x_px, y_px))

    def join(self, island: int, into: int, dx_px: float, dy_px: float) -> None:
        """Publish an island, and what is published under it, as part of another one that is not joined itself."""
        self._publish_anew(self.joins.put(island, into, dx_px, dy_px))

    def part(self, island: int) -> None:
        """Publish a joined island by itself again."""
        self.joins.part(island)
        self._publish_anew([island])

    def _publish_anew(self, islands: Iterable[int]) -> None:
        for island in islands:
            self._moved.update(self._islands[island])

    def corrections(self) -> tuple[Correction, ...]:
        """The keyframes that were already there at the last call and have moved since."""
        corrections = []
        for number in sorted(self._moved):
            keyframe = self._keyframes[number]
            island, x, y = self.joins.published(keyframe.island, keyframe.x_px, keyframe.y_px)
            dx, dy = x - keyframe.announced_px[0], y - keyframe.announced_px[1]
            elsewhere = keyframe.announced_island != island
            if elsewhere or max(abs(dx), abs(dy)) >= self._announce_px or number in self._new:
                keyframe.announced_px = (x, y)
                keyframe.announced_island = island
                self._changed.add(number)
                if number not in self._new:
                    corrections.append(Correction(number, island, dx, dy))
        self._moved.clear()
        self._new.clear()
        return tuple(corrections)

    def _place(self, keyframe: Keyframe) -> tuple[int, int, int]:
        frame = keyframe.frame
        return keyframe.island, int(keyframe.x_px // frame.width), int(keyframe.y_px // frame.height)

    def _move(self, keyframe: Keyframe, island: int, x_px: float, y_px: float) -> None:
        self._moved.add(keyframe.number)
        before = self._place(keyframe)
        keyframe.island, keyframe.x_px, keyframe.y_px = island, x_px, y_px
        self._changed.add(keyframe.number)
        after = self._place(keyframe)
        if after != before:
            self._by_place[before].remove(keyframe.number)
            self._by_place[after].append(keyframe.number)

    def _remember(self, keyframe: Keyframe) -> None:
        """Drop the least recently used spectra and pictures."""
        if keyframe.frame.fine.size == 0:
            return
        if keyframe.number in self._ready:
            self._ready.move_to_end(keyframe.number)
            if len(self._ready) > SPECTRA_KEPT:
                self._ready.popitem(last=False)
        self._with_picture[keyframe.number] = None
        self._with_picture.move_to_end(keyframe.number)
        if len(self._with_picture) > PICTURES_KEPT:
            oldest = self._keyframes[self._with_picture.popitem(last=False)[0]]
            oldest.frame = forgotten(oldest.frame)
            self._ready.pop(oldest.number, None)
            self.forgotten += 1


def _state_of(keyframe: Keyframe) -> KeyframeState:
    return KeyframeState(
        keyframe.number,
        keyframe.island,
        keyframe.x_px,
        keyframe.y_px,
        keyframe.announced_px,
        keyframe.announced_island,
        tuple(keyframe.links.values()),
    )


def _solve(
    ends: npt.NDArray[np.intp],
    shifts: npt.NDArray[np.float64],
    weights: npt.NDArray[np.float64],
    places: npt.NDArray[np.float64],
    movable: npt.NDArray[np.bool_],
) -> npt.NDArray[np.float64]:
    """(n, 2) places that minimise the weighted squares of place[b] - place[a] - shift; only `movable` ones move."""
    rows = np.arange(len(ends))
    signs = scipy.sparse.csc_array(
        (np.r_[-np.ones(len(ends)), np.ones(len(ends))], (np.r_[rows, rows], np.r_[ends[:, 0], ends[:, 1]])),
        shape=(len(ends), len(places)),
    )
    free = signs[:, np.nonzero(movable)[0]]
    weighted = free.T @ scipy.sparse.diags_array(weights)
    solve = scipy.sparse.linalg.factorized((weighted @ free).tocsc())
    right = weighted @ (shifts - signs @ np.where(movable[:, None], 0.0, places))
    settled = places.copy()
    settled[movable, 0], settled[movable, 1] = solve(right[:, 0]), solve(right[:, 1])
    return settled
