"""An archive analysed again over several workers, some of which are killed:
python -m tools.bench archive --recordings 200 --workers 4 --json docs/benchmarks/archive.json

Makes so many short recordings of a simulated slide, counts each by `streamer.count`, one after the other, then all by
`leukostream reanalyse`, while its workers are killed at random, and once, half-way, the command itself; the same line
is given again until it is through. Journals must be equal, row by row, but for ids, times and hosts. Then a few of them
with 1, 2 and 4 workers, in peace: seconds, and what a slide costs of a processor, a process of its own included.

Exit status 1 where a journal differs. Linux.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import platform
import random
import resource
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import streamer
from engines.base import LeukostreamError, usable_cores
from streamer.recording import Recorder, TrackInfo
from streamer.records import Frame
from streamer.sources.simulated.parameters import SlideParameters
from streamer.sources.simulated.slide import VirtualSlide
from tools.bench.chaos_actors import PROGRAM, adopt_orphans, command_of, descendants, kill_all
from tools.bench.journals_alike import difference, tables_of
from tools.commands import command_parser

SLIDE = "seed=5,density=0.7,width=256,height=192,red=26,dwell=3,travel=2"
FRAMES = 12
"""Of a recording."""
LONG_SIDE_PX = 320
OPTIONS = ("--long-side-px", str(LONG_SIDE_PX))

DONE_BETWEEN_KILLS = (3, 10)
"""Slides that get done between two kills, at least and at most: a slide whose worker is killed three times fails, and
is done when the line is given again."""

_CALLS_MAX = 20
_LOOK_S = 0.05


@dataclass(frozen=True, slots=True)
class Scaled:
    """A few slides in peace."""

    workers: int
    slides: int
    seconds: float
    processor_s_a_slide: float
    load: float
    """How many processes wanted the machine at its end, others' among them."""


def main(arguments: Sequence[str]) -> int:
    parser = command_parser("tools.bench archive", __doc__)
    parser.add_argument("--recordings", type=int, default=20, help="(default 20)")
    parser.add_argument("--workers", type=int, default=4, help="where some are killed (default 4)")
    parser.add_argument("--seed", type=int, default=1, help="of the kills (default 1)")
    parser.add_argument("--scaling", type=int, default=0, metavar="N", help="recordings with 1, 2 and 4 workers")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args(arguments)
    adopt_orphans()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        recordings = recorded(folder / "cellar", options.recordings)
        alone_s, alone_processor_s = one_by_one(recordings, folder / "alone")
        killed = with_kills(folder / "cellar", folder / "killed", options.workers, random.Random(options.seed))
        differences = {
            path.stem: found
            for path in recordings
            if (found := _difference(folder / "alone" / path.stem, folder / "killed" / f"{path.stem}.journal"))
        }
        scaled = [in_peace(recordings[: options.scaling], folder, n) for n in (1, 2, 4) if options.scaling]
    report: dict[str, Any] = {
        "command": f"python -m tools.bench archive --recordings {options.recordings} --workers {options.workers}"
        f" --seed {options.seed}" + (f" --scaling {options.scaling}" if options.scaling else ""),
        "machine": {"cores": usable_cores(), "python": platform.python_version(), "load": os.getloadavg()[1]},
        "recordings": options.recordings,
        "frames_each": FRAMES,
        "journals_equal": not differences,
        "differences": differences,
        "one_by_one": {"seconds": alone_s, "processor_s_a_slide": round(alone_processor_s / len(recordings), 2)},
        "killed": {"workers": options.workers, **killed},
        "scaling": [asdict(one) for one in scaled],
    }
    print(json.dumps(report, indent=1))
    if options.json:
        Path(options.json).write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    return 1 if differences else 0


def recorded(folder: Path, count: int) -> list[Path]:
    """Consecutive frames of one slide, cut into recordings."""
    folder.mkdir()
    slide = _slide_of(count * FRAMES)
    paths = []
    for number in range(count):
        path = folder / f"r{number:03}.rec"
        recorder = Recorder(path, [TrackInfo("cam", "sim:", "analysis")], run_id=f"run{number}", utc_offset_ns=0)
        writing = threading.Thread(target=recorder.run)
        writing.start()
        for frame_id in range(FRAMES):
            image = slide.render(number * FRAMES + frame_id)
            recorder.frame(Frame("cam", frame_id, 1_000_000_000 * frame_id, image))
        recorder.close()
        writing.join()
        paths.append(path)
    return paths


def _slide_of(frames: int) -> VirtualSlide:
    """Of so many frames at least."""
    cells = 5
    while True:
        slide = VirtualSlide(SlideParameters.parse(f"sim:{SLIDE},cells={cells}"))
        if len(slide) >= frames:
            return slide
        cells *= 2


def one_by_one(recordings: Sequence[Path], out: Path) -> tuple[float, float]:
    """Counted in this process, one after the other: seconds, and those of the processor."""
    out.mkdir()
    began_s, processor_s = time.monotonic(), time.process_time()
    for path in recordings:
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            streamer.count(f"{path.stem}=replay:{path}", journal=str(out / path.stem), long_side_px=LONG_SIDE_PX)
    return round(time.monotonic() - began_s, 1), time.process_time() - processor_s


def with_kills(cellar: Path, out: Path, workers: int, chance: random.Random) -> dict[str, int | float]:
    """`reanalyse` until it is through: how often it was called, and what was killed."""
    calls = killed = 0
    is_command_killed = False
    slides = len(list(cellar.iterdir()))
    began_s = time.monotonic()
    status: int | None = 1
    while status != 0:
        calls += 1
        if calls > _CALLS_MAX:
            raise LeukostreamError(f"reanalyse: got exit status {status} in {_CALLS_MAX} calls, expected 0 at last")
        process = _reanalyse([str(cellar)], out, workers)
        due = _done(out) + chance.randint(*DONE_BETWEEN_KILLS)
        while (status := process.poll()) is None:
            time.sleep(_LOOK_S)
            done = _done(out)
            if done >= slides / 2 and not is_command_killed:
                is_command_killed = True
                process.kill()
            elif done >= due and (those := _workers_of(process.pid)):
                kill_all([chance.choice(those)])
                killed += 1
                due = done + chance.randint(*DONE_BETWEEN_KILLS)
        for pid in descendants(os.getpid()):  # workers that notice that their command is gone
            while command_of(pid):
                time.sleep(_LOOK_S)
    return {
        "calls": calls,
        "workers_killed": killed,
        "commands_killed": int(is_command_killed),
        "seconds": round(time.monotonic() - began_s, 1),
    }


def in_peace(recordings: Sequence[Path], folder: Path, workers: int) -> Scaled:
    out = folder / f"peace-{workers}"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began_s = time.monotonic()
    process = _reanalyse([str(path) for path in recordings], out, workers)
    if process.wait():
        raise LeukostreamError(f"reanalyse --workers {workers}: got exit status {process.returncode}, expected 0")
    seconds = time.monotonic() - began_s
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    shutil.rmtree(out)
    return Scaled(workers, len(recordings), round(seconds, 1), round(used_s / len(recordings), 2), os.getloadavg()[0])


def _reanalyse(sources: Sequence[str], out: Path, workers: int) -> subprocess.Popen[bytes]:
    words = [*PROGRAM, "reanalyse", *sources, "-o", str(out), "--workers", str(workers), *OPTIONS]
    return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _done(out: Path) -> int:
    """Slides whose last table is written."""
    return len(list((out / "differential").glob("*.parquet")))


def _workers_of(pid: int) -> list[int]:
    return sorted(one for one in descendants(pid) if "spawn_main" in command_of(one))


def _difference(alone: Path, again: Path) -> str | None:
    if not again.exists():
        return "got no journal, expected one"
    (mine,), (theirs,) = tables_of(alone).values(), tables_of(again).values()
    return difference(mine, theirs)
