"""A camera for hours, unplugged again and again: python -m tools.bench soak SOURCE --minutes 30 --json FILE

Reads SOURCE as a run does, with nothing behind it but the conversion of its pixels. At random times the process of the
camera's driver is killed (as if its library crashed) or stopped (as if it hung). With `--sender COMMAND` a program that
is the camera is disturbed in its place, and started or let go on after a while. Says whether frames came again each
time, what was lost by reason, and how memory grew. Exit status 1 where they did not come again, or the reader failed.

    python -m tools.bench soak rtsp://127.0.0.1:8554/scope --sender "python -m tools.bench.rtsp_camera 8554"
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import random
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from engines.base import usable_cores
from streamer.records import Frame
from streamer.run.ring import Ring
from streamer.sources import Source, open_source, parse_source
from streamer.sources.reconnection import SourceReader
from tools.bench.sender_process import SenderProcess
from tools.bench.wire import resident_mib
from tools.commands import command_parser

EVERY_S = (8.0, 25.0)
"""Between a frame that came after one fault, and the next fault: at least, at most."""

AWAY_S = (1.0, 20.0)
"""A sender is so long away, at least and at most."""

HANGS_S = 60.0
"""A source that gives no frame for so long after a fault has not come again. A driver that hangs is found within 8 s,
the pause before it is opened again takes 5 s at most (of a stream that was away for 20 s 16 s), and opening it some
seconds."""

_LAST_FRAMES_S = 0.3
"""What was sent before a fault is read by then."""

_SAMPLED_EVERY_S = 1.0
_SETTLED_AFTER = 0.2
"""Memory is compared from this share of the run on: libraries and buffers are loaded by then."""


@dataclass(slots=True)
class DriverFault:
    """What was done to the process of the driver or the sender."""

    kind: str
    """"killed" or "stopped"."""
    at_s: float
    frame_after_s: float | None = None
    """Until the next frame, from when a sender was there again; None: there was none."""
    away_s: float | None = None
    """How long a sender was away; None: it was the driver's process, which nobody brings back but the source."""


@dataclass(slots=True)
class Memory:
    """Resident megabytes of one of the processes; None: it was not measured."""

    settled_mb: float | None = None
    last_mb: float | None = None
    most_mb: float | None = None

    def add(self, value_mb: float, *, settled: bool) -> None:
        if settled and self.settled_mb is None:
            self.settled_mb = value_mb
        self.last_mb = value_mb
        self.most_mb = max(self.most_mb or 0.0, value_mb)


@dataclass(slots=True)
class Soak:
    """One run."""

    source: str
    minutes: float
    seed: int
    sender: str | None = None
    """The command that is the camera; None: the driver is disturbed."""
    frames: int = 0
    skipped: Mapping[str, int] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)
    reopened: int = 0
    faults: list[DriverFault] = field(default_factory=list)
    longest_without_frame_s: float = 0.0
    memory_here: Memory = field(default_factory=Memory)
    memory_of_driver: Memory = field(default_factory=Memory)
    """Of its processes one after the other."""
    settings: Mapping[str, str] = field(default_factory=dict)
    failure: str | None = None
    """Why the reader ended; None: it did not."""
    last_fault: str | None = None
    """What the reader said last; None: nothing."""

    @property
    def hung(self) -> int:
        """How many faults no frame followed."""
        return sum(fault.frame_after_s is None for fault in self.faults)


def main(arguments: Sequence[str]) -> int:
    parser = command_parser("tools.bench soak", __doc__)
    parser.add_argument("source", metavar="SOURCE", help="as of run --source: pylon:SERIAL, genicam:…, mm:…")
    parser.add_argument("--minutes", type=float, default=30.0, help="(default 30)")
    parser.add_argument("--seed", type=int, default=1, help="of the times and kinds of faults (default 1)")
    parser.add_argument(
        "--hangs-after", type=float, default=HANGS_S, metavar="S", help="without a frame (default 60; more if busy)"
    )
    parser.add_argument("--no-faults", action="store_true", help="leave the driver alone")
    parser.add_argument(
        "--sender", metavar="COMMAND", help="what is the camera: prints a line once it is there; disturbed in its place"
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures there too; what it holds already is kept")
    options = parser.parse_args(arguments)
    chance = None if options.no_faults else random.Random(options.seed)
    sender = None if options.sender is None else SenderProcess(options.sender)
    try:
        found = soaked(
            options.source, options.minutes, options.seed, chance=chance, sender=sender, hangs_s=options.hangs_after
        )
    finally:
        if sender is not None:
            sender.close()
    print(_lines(found))
    if options.json:
        _keep(Path(options.json), found)
    return 1 if found.hung or found.failure else 0


def soaked(
    source_text: str,
    minutes: float,
    seed: int,
    *,
    chance: random.Random | None = None,
    sender: SenderProcess | None = None,
    hangs_s: float = HANGS_S,
) -> Soak:
    """Read a source for so many minutes. `chance`: of the times and kinds of faults; None: there are none."""
    address = parse_source(source_text)
    source = open_source(address)
    found = Soak(
        f"{address.kind}:{Path(address.shown).name}", minutes, seed, None if sender is None else sender.command
    )
    ring: Ring[Frame] = Ring(4, "drop_oldest")
    stop = threading.Event()
    reader = SourceReader(source, ring, stop)
    thread = threading.Thread(target=reader.run, daemon=True)
    consumer = threading.Thread(target=_consume, args=(ring,), daemon=True)
    thread.start()
    consumer.start()
    _watch(found, source, reader, thread, chance, sender, hangs_s)
    stop.set()
    thread.join(15.0)
    status = reader.status
    found.frames, found.reopened, found.settings = status.captured, status.reopened, status.settings
    found.skipped, found.dropped = status.skipped, {**status.dropped, **ring.dropped}
    found.failure = None if reader.failure is None else str(reader.failure)
    found.last_fault = status.fault
    return found


def _watch(
    found: Soak,
    source: Source,
    reader: SourceReader,
    thread: threading.Thread,
    chance: random.Random | None,
    sender: SenderProcess | None,
    hangs_s: float,
) -> None:
    """Until its time is over, or the reader ends."""
    begun_s = time.monotonic()
    ends_s = begun_s + 60 * found.minutes
    frames, framed_s, sampled_s = 0, begun_s, 0.0
    next_fault_s = float("inf")
    while thread.is_alive():
        now_s = time.monotonic()
        captured = reader.status.captured
        if sender is not None and found.faults and sender.is_away(now_s):
            frames = captured  # what was sent before
            found.faults[-1].away_s = round(
                time.monotonic() - begun_s - found.faults[-1].at_s, 2
            )  # starting it takes time too
            time.sleep(0.02)
            continue
        waits = bool(found.faults) and found.faults[-1].frame_after_s is None
        since_s = now_s - begun_s - found.faults[-1].at_s - (found.faults[-1].away_s or 0.0) if waits else 0.0
        if now_s >= ends_s and not (waits and since_s < hangs_s):
            return
        if captured > frames:
            found.longest_without_frame_s = round(max(found.longest_without_frame_s, now_s - framed_s), 2)
            if waits:
                found.faults[-1].frame_after_s = round(since_s, 2)
            if chance is not None and (waits or not frames):
                next_fault_s = now_s + chance.uniform(*EVERY_S)
            frames, framed_s = captured, now_s
        pid: int | None = getattr(source, "pid", None)
        is_there = pid is not None or sender is not None
        if chance is not None and is_there and not waits and next_fault_s <= now_s < ends_s:
            found.faults.append(_disturb(now_s - begun_s, pid, sender, chance))
            time.sleep(_LAST_FRAMES_S)
            frames = reader.status.captured
            continue
        if waits and since_s >= hangs_s:
            return
        if now_s - sampled_s >= _SAMPLED_EVERY_S:
            sampled_s = now_s
            settled = now_s - begun_s >= _SETTLED_AFTER * 60 * found.minutes
            _sample(found.memory_here, os.getpid(), settled=settled)
            _sample(found.memory_of_driver, pid, settled=settled)
        time.sleep(0.02)


def _disturb(at_s: float, pid: int | None, sender: SenderProcess | None, chance: random.Random) -> DriverFault:
    fault = DriverFault(chance.choice(("killed", "stopped")), round(at_s, 2))
    signal_number = signal.SIGKILL if fault.kind == "killed" else signal.SIGSTOP
    if sender is not None:
        fault.away_s = round(chance.uniform(*AWAY_S), 2)
        sender.disturb(signal_number, fault.away_s)
    elif pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal_number)
    return fault


def _consume(ring: Ring[Frame]) -> None:
    while (frame := ring.get()) is not None:
        _ = frame.image


def _sample(memory: Memory, pid: int | None, *, settled: bool) -> None:
    """Where the system shows it."""
    if pid is not None:
        with contextlib.suppress(OSError, IndexError):  # it ended meanwhile
            memory.add(resident_mib(pid), settled=settled)


def _lines(found: Soak) -> str:
    waits = [fault.frame_after_s for fault in found.faults if fault.frame_after_s is not None]
    who = "driver" if found.sender is None else "sender"
    by_kind = {kind: sum(fault.kind == kind for fault in found.faults) for kind in ("killed", "stopped")}
    return "\n".join(
        [
            f"{found.source}: {found.frames} frames in {found.minutes:g} minutes, opened again {found.reopened} times",
            f"{who} {', '.join(f'{kind} {count} times' for kind, count in by_kind.items())}; frames came again after "
            f"{max(waits, default=0):.1f} s at most, {found.hung} times not at all",
            f"lost: {dict(found.dropped)}, skipped: {dict(found.skipped)}",
            f"memory here {found.memory_here.settled_mb} MB, at the end {found.memory_here.last_mb}; "
            f"of the driver {found.memory_of_driver.settled_mb}, at the end {found.memory_of_driver.last_mb}",
            *([f"the reader ended: {found.failure}"] if found.failure else []),
            *([f"it said last: {found.last_fault}"] if found.hung and found.last_fault else []),
        ]
    )


def _keep(file: Path, found: Soak) -> None:
    """Beside what was kept of other sources."""
    kept = json.loads(file.read_text("utf-8")) if file.exists() else {"soaks": []}
    soaks = [soak for soak in kept["soaks"] if soak["source"] != found.source]
    sender = "" if found.sender is None else f' --sender "{found.sender}"'
    soaks.append({"command": f"python -m tools.bench soak SOURCE --minutes {found.minutes:g}{sender}", **asdict(found)})
    machine = {"machine": platform.machine(), "cores": usable_cores(), "python": platform.python_version()}
    file.write_text(json.dumps({**machine, "soaks": soaks}, indent=1) + "\n", "utf-8")
