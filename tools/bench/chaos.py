"""Microscopes whose servers, network, Ray and own processes are killed and cut at random:
python -m tools.bench chaos --minutes 60 --seed 1 --json docs/benchmarks/chaos.json

Each microscope counts a simulated slide of its own in analysis mode, slowly, as `run --resume` that is started again
whenever it ends. Two of three ask two inference servers through a network that fails, the third the servers of a Ray
fleet (--no-ray: all ask the two). The same slides are counted undisturbed at the same time, in one process. At the end
each journal must equal that of the undisturbed run, row by row, but for ids, times and hosts, and no microscope may
have stopped for longer than two seconds, unless its own process was killed: how long that took is said apart. Where the
undisturbed run stood still at the same time, the machine was busy, and that time is taken off.

Exit status 1 where a journal differs, or a microscope stopped for too long. Linux.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing, nullcontext
from pathlib import Path
from statistics import median
from typing import Any

from engines.base import LeukostreamError, usable_cores
from streamer.config import DEFAULT_CLASSIFIER, DEFAULT_DETECTOR
from streamer.sources.simulated.parameters import SlideParameters
from streamer.sources.simulated.slide import VirtualSlide
from tools.bench.chaos_actors import (
    PROGRAM,
    Child,
    Head,
    Microscope,
    adopt_orphans,
    ended_at_last,
    free_port,
    prefer,
)
from tools.bench.chaos_faults import Fault, Scene, faults
from tools.bench.faulty_network import FaultyNetwork
from tools.bench.journals_alike import difference, tables_of
from tools.bench.stops import Stop, longest_during, published_ns, stops
from tools.commands import command_parser

LIMIT_S = 2.0
"""No microscope stops counting for longer."""

SLIDE = "density=0.7,width=256,height=192,red=26,dwell=12,travel=6,paced=1"
"""Small pictures, shown slowly: all of it shares two cores."""

OPTIONS = ("--mode", "analysis", "--every-frame", "--workers", "1", "--long-side-px", "320", "--no-dashboard")
"""Servers are asked at every frame, so that no fault goes by unnoticed."""

_COVERED = 0.85
"""Share of the time that an undisturbed slide takes: disturbed ones take longer."""
_STARTS_WITHIN_S = 300.0
_ENDS_WITHIN_S = 1800.0
_LOOK_S = 0.05


def main(arguments: Sequence[str]) -> int:
    parser = command_parser("tools.bench chaos", __doc__)
    parser.add_argument("--minutes", type=float, default=3.0, help="of faults (default 3)")
    parser.add_argument("--seed", type=int, default=1, help="of the faults (default 1)")
    parser.add_argument("--microscopes", type=int, default=3)
    parser.add_argument("--fps", type=float, default=2.0, help="of each microscope (default 2)")
    parser.add_argument("--no-ray", action="store_true", help="without the microscope that asks a Ray fleet")
    parser.add_argument("--keep", metavar="DIR", help="journals and what all processes said")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))  # all that was started is ended first
    with ExitStack() as stack:
        folder = Path(options.keep or stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        report = chaos(
            folder,
            minutes=options.minutes,
            seed=options.seed,
            microscopes=options.microscopes,
            fps=options.fps,
            with_ray=not options.no_ray,
        )
    print(_lines(report))
    if options.json:
        Path(options.json).write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    return 0 if report["journals_equal"] and not report["stopped_too_long"] else 1


def chaos(
    folder: Path, *, minutes: float, seed: int, microscopes: int = 3, fps: float = 2.0, with_ray: bool = True
) -> dict[str, Any]:
    """Journals and logs go to `folder`, which has none. What was found, as the file of --json has it."""
    sources = {
        f"scope{number}": slide_of(seed=100 + number, fps=fps, frames=round(60 * minutes * fps * _COVERED))
        for number in range(microscopes)
    }
    adopt_orphans()
    prefer(os.getpid())
    began_s = time.monotonic()
    with FaultyNetwork() as network, _ShortFolder() if with_ray else nullcontext("") as temporary:
        scene = _scene(folder, sources, network, temporary)
        with ended_at_last(scene.children):
            _started(scene)
            with _Undisturbed(folder, sources) as alone:
                _counting(scene, folder)
                done = _disturbed(scene, minutes, seed, with_ray=with_ray)
                _until_all_end(scene, alone)
    return {
        "command": f"python -m tools.bench chaos --minutes {minutes:g} --seed {seed}"
        + (f" --fps {fps:g}" if fps != 2.0 else "")
        + (f" --microscopes {microscopes}" if microscopes != 3 else "")
        + ("" if with_ray else " --no-ray"),
        "machine": {
            "cores": usable_cores(),
            "python": platform.python_version(),
            "load": os.getloadavg()[2],
            "priority": _priority(),
        },
        "minutes": minutes,
        "faults_until_minute": round(done[-1].at_s / 60, 1) if done else 0.0,
        "took_minutes": round((time.monotonic() - began_s) / 60, 1),
        "sources": sources,
        **found(folder, scene.microscopes, round(scene.began_s * 1e9)),
        "starts": {child.name: child.starts for child in scene.children},
        "faults": Counter(fault.kind for fault in done if fault.done),
        "faults_without_target": Counter(fault.kind for fault in done if not fault.done),
        "fault_list": [
            [fault.at_s, fault.kind, fault.target, fault.lasts_s, fault.delay_s] for fault in done if fault.done
        ],
    }


def _priority() -> int:
    """Of these processes beside others: Linux shares a machine out by session first, so that of the session counts."""
    try:
        return -int(Path("/proc/self/autogroup").read_text().rpartition(" ")[2])
    except (OSError, ValueError):
        return -os.nice(0)


def slide_of(seed: int, fps: float, frames: int) -> str:
    """A simulated slide of about so many frames."""
    text = f"sim:seed={seed},fps={fps:g},{SLIDE}"
    few, many = (len(VirtualSlide(SlideParameters.parse(f"{text},cells={cells}"))) for cells in (10, 50))
    return f"{text},cells={max(1, round(10 + (frames - few) * 40 / (many - few)))}"


def _scene(folder: Path, sources: Mapping[str, str], network: FaultyNetwork, temporary: str) -> Scene:
    """`temporary`: of Ray; empty: there is none."""
    ports = [free_port() for _ in range(2)]
    servers = [
        Child(
            f"server{number}",
            [*PROGRAM, "serve", "--bind", f"tcp://127.0.0.1:{port}", "--workers", "1"],
            folder / f"server{number}.log",
            pause_s=1.0,
        )
        for number, port in enumerate(ports)
    ]
    links = [network.link(port) for port in ports]
    endpoints = ",".join(f"tcp://127.0.0.1:{link.port}" for link in links)
    head = None
    if temporary:
        os.environ["RAY_AUTH_MODE"] = "disabled"  # nothing of it is left in the home folder
        head = Head(folder, 2, (DEFAULT_DETECTOR, DEFAULT_CLASSIFIER), temporary)
    elsewhere = dict.fromkeys(sources, endpoints)
    if head is not None:
        elsewhere[list(sources)[-1]] = f"ray://127.0.0.1:{head.port}"
    asking = (*OPTIONS, "--insecure")  # Ray has an address of its own for this machine
    microscopes = [Microscope(name, source, elsewhere[name], asking, folder) for name, source in sources.items()]
    return Scene(microscopes, servers, links, head)


class _Undisturbed:
    """All slides in one process that nobody disturbs."""

    def __init__(self, folder: Path, sources: Mapping[str, str]) -> None:
        words = [*PROGRAM, "run", "--source", *(f"{name}={source}" for name, source in sources.items()), *OPTIONS]
        self._words = [*words, "--journal", str(folder / "undisturbed.journal")]
        self._log = folder / "undisturbed.log"

    def __enter__(self) -> subprocess.Popen[bytes]:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(self._words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        prefer(self._process.pid)
        return self._process

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()


def _started(scene: Scene) -> None:
    """All servers, before there is a microscope."""
    until_s = time.monotonic() + _STARTS_WITHIN_S
    while not (all(one.is_running for one in scene.servers) and (scene.head is None or scene.head.has_fleet)):
        scene.look_after(scene.suppliers, time.monotonic())
        if time.monotonic() > until_s:
            raise LeukostreamError(f"chaos: got no servers in {_STARTS_WITHIN_S:.0f} s, expected them; see --keep DIR")
        time.sleep(_LOOK_S)


def _counting(scene: Scene, folder: Path) -> None:
    """Until every microscope, and the undisturbed run of each, has loaded its models and says what it counts."""
    names = [one.name for one in scene.microscopes]
    waiting = {(folder / f"{log}.log", name) for name in names for log in (name, "undisturbed")}
    until_s = time.monotonic() + _STARTS_WITHIN_S
    while waiting:
        scene.look(time.monotonic())
        waiting = {(log, name) for log, name in waiting if not _says_frames(log, name)}
        if time.monotonic() > until_s:
            raise LeukostreamError(f"chaos: got no frames in {_STARTS_WITHIN_S:.0f} s, expected some; see --keep DIR")
        time.sleep(_LOOK_S)


def _says_frames(log: Path, name: str) -> bool:
    """A journal is its writer's alone while it runs; what a run says to people is not."""
    said = log.read_text("utf-8", "replace") if log.exists() else ""
    return re.search(rf"^{name}: .* of .* frames", said, re.MULTILINE) is not None


def _disturbed(scene: Scene, minutes: float, seed: int, *, with_ray: bool) -> list[Fault]:
    """The faults of so many minutes, or until all slides are counted."""
    done: list[Fault] = []
    began_s = due_s = scene.began_s = time.monotonic()
    coming = faults(seed, with_ray=with_ray)
    fault = next(coming)
    due_s += fault.after_s
    while (now_s := time.monotonic()) < began_s + 60 * minutes and not all(one.is_over for one in scene.microscopes):
        scene.look(now_s)
        if now_s >= due_s:
            fault.at_s = round(now_s - began_s, 2)
            fault.done = scene.disturb(fault, now_s)
            done.append(fault)
            fault = next(coming)
            due_s = now_s + fault.after_s
        time.sleep(_LOOK_S)
    scene.heal()
    return done


def _until_all_end(scene: Scene, alone: subprocess.Popen[bytes]) -> None:
    until_s = time.monotonic() + _ENDS_WITHIN_S
    while alone.poll() is None or not all(one.is_over for one in scene.microscopes):
        scene.look(time.monotonic())
        if time.monotonic() > until_s:
            raise LeukostreamError(f"chaos: got slides that did not end within {_ENDS_WITHIN_S:.0f} s of calm")
        time.sleep(_LOOK_S)
    if alone.returncode:
        raise LeukostreamError(f"chaos: got exit status {alone.returncode} of the undisturbed run, expected 0")


def found(folder: Path, microscopes: Sequence[Microscope], began_ns: int = 0) -> dict[str, Any]:
    """What the journals say. `began_ns`: of the faults, by the monotonic clock."""
    undisturbed = folder / "undisturbed.journal"
    expected = tables_of(undisturbed)
    differences: dict[str, str] = {}
    rows: Counter[str] = Counter()
    each: dict[str, Any] = {}
    too_long: list[dict[str, Any]] = []
    for one in microscopes:
        tables = tables_of(one.journal).get(one.name, {})
        rows.update({table: len(of_table) for table, of_table in tables.items()})
        differs = difference(expected[one.name], tables)
        if differs is not None:
            differences[one.name] = differs
        frames = published_ns(one.journal, one.name)
        frames_ns = [published for published in frames if published >= began_ns]
        alone_ns = [published for published in published_ns(undisturbed, one.name) if published >= began_ns]
        every = stops(frames_ns, one.killed_ns)
        period_s = median(stop.seconds for stop in stops(alone_ns))
        pauses = [stop for stop in every if stop.restarted_s is None]
        for stop in pauses:
            of_machine_s = _of_machine_s(stop, alone_ns, period_s)
            if stop.seconds - of_machine_s > LIMIT_S:
                at_s = round((stop.began_ns - began_ns) / 1e9, 2)
                too_long.append(
                    {"microscope": one.name, "at_s": at_s, "seconds": stop.seconds, "of_machine_s": of_machine_s}
                )
        restarts = [stop.restarted_s for stop in every if stop.restarted_s is not None]
        each[one.name] = {
            "frames": len(frames),
            "longest_stop_s": _longest(pauses),
            "stops_over_limit": sum(stop.seconds > LIMIT_S for stop in pauses),
            "longest_stop_undisturbed_s": _longest(stops(alone_ns)),
            "restarts": len(restarts),
            "restart_s": {"median": round(median(restarts), 2), "longest": round(max(restarts), 2)} if restarts else {},
            "ended_by_itself": one.failures,
            "inference": _inference(one),
        }
    return {
        "journals_equal": not differences,
        "differences": differences,
        "rows_compared": rows,
        "stopped_too_long": too_long,
        "microscopes": each,
    }


def _of_machine_s(stop: Stop, alone_ns: Sequence[int], period_s: float) -> float:
    """By how much the undisturbed run stood still longer than it does between two frames."""
    ended_ns = stop.began_ns + round(stop.seconds * 1e9)
    return max(0.0, longest_during(alone_ns, stop.began_ns, ended_ns) - period_s)


def _longest(of: Sequence[Stop]) -> float:
    return round(max((stop.seconds for stop in of), default=0.0), 2)


def _inference(one: Microscope) -> dict[str, int]:
    """What its processes counted of questions, up to the last word that each had in the journal."""
    last: dict[str, dict[str, Any]] = {}
    with closing(sqlite3.connect(f"file:{one.journal}?mode=ro", uri=True)) as database:
        query = "SELECT header FROM messages WHERE type = 'health' ORDER BY session_seq"
        for (header,) in database.execute(query):
            message = json.loads(header)
            if message.get("inference"):
                last[message["run_id"]] = message["inference"]
    names = ("remote", "local", "resent", "late")
    return {name: sum(inference[name] for inference in last.values()) for name in names}


class _ShortFolder:
    """A folder for Ray, whose sockets may have paths of some hundred characters only; what its processes still write
    while they end is no fault."""

    def __enter__(self) -> str:
        self._path = tempfile.mkdtemp(prefix="chaos-", dir="/tmp")
        return self._path

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._path, ignore_errors=True)


def _lines(report: Mapping[str, Any]) -> str:
    lines = [
        f"{sum(report['faults'].values())} faults in {report['took_minutes']} minutes: "
        + ", ".join(f"{kind} {count}" for kind, count in sorted(report["faults"].items())),
        "journals: " + ("equal" if report["journals_equal"] else re.sub(r"\s+", " ", str(report["differences"]))),
    ]
    for name, one in report["microscopes"].items():
        restarts = f", started again {one['restarts']} times" + (
            f" within {one['restart_s']['median']} s ({one['restart_s']['longest']} at most)" if one["restarts"] else ""
        )
        lines.append(
            f"{name}: {one['frames']} frames, longest stop {one['longest_stop_s']} s (undisturbed "
            f"{one['longest_stop_undisturbed_s']}){restarts}; {one['inference']}"
        )
        lines += [f"{name} ended by itself: {line}" for line in one["ended_by_itself"]]
    lines += [f"stopped too long: {stop}" for stop in report["stopped_too_long"]]
    return "\n".join(lines)
