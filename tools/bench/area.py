"""What looking only at what is new saves, beside `--every-frame`: pixels, frames a second, cells, memory, cameras.

    python -m tools.bench area --json area.json
    python -m tools.bench area --quick
    python -m tools.bench area --parts live --cameras 8

Each figure is that of `leukostream run` in a process of its own (tools/bench/area_run.py); rounds take turns, and what
is said are medians. The parts:
films    the simulated slide at its default motion, a pan over a mosaic of real pictures (`chula_wbc`, skipped where it
         is not), and a raster of fields that hardly overlap: pixels of input tensors a frame, padding and audit among
         them, and frames a second; with `--before TREE` those of an earlier commit's `run`, too (`git worktree add`)
counts   unique cells, classes and verdict on `--seeds` simulated slides, at usual and at three times noise and blur,
         and on the mosaics; beside it how far two runs of `--every-frame` differ when a grey level of noise is added
growth   processor time, feeder apart, and peak memory of 1 to `--slides` slides, and a straight line through them
live     cameras of 640 x 480 at 30 frames/s, fed from frames painted before, until one frame is dropped or 1 % are
         published after more than 100 ms; the feeder's processor time is said apart
processes
         two films at once, by one run and by a run each: what the interpreter's lock costs where sources share it
loop     with `--against-ultralytics PYTHON` only: frames/s of `run` beside Ultralytics' own loop (AGPL-3.0, measured
         and no part of this): its YOLOv5n of the same input, detection alone, on the same JPEG files of 1440 x 900.
         PYTHON is that of a virtual environment of its own: `python -m venv V && V/bin/pip install ultralytics`
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import cv2
from rich.console import Console
from rich.table import Table

from engines.base import LeukostreamError, usable_cores
from tools.bench import area_run
from tools.bench.area_film import Image, over_mosaic, painted, with_noise, write_film
from tools.bench.area_results import Agreement, Line, Run, agreement, card_arithmetic, ratio, read_run
from tools.bench.area_ultralytics import LONG_SIDE_PX, loop_rate
from tools.commands import command_parser
from tools.data.readers import data_root

PARTS = ("films", "counts", "growth", "live", "processes", "loop")
EVERY = ("--every-frame",)
"""Words of the reference."""
CELLS = 60
"""White cells of a simulated slide: 330 frames."""
RASTER = "overlap=0.05,dwell=1,travel=1"
HARD = "noise=3,blur=3"
LARGE = "width=1440,height=900,red=60"
FPS = 30
MOST_LATE_MS = 100.0
CARD = 64
"""Cameras on one card, the most that `tools.bench gpu` tries: every frame of theirs is looked at whole."""


@dataclass(frozen=True, slots=True)
class Bench:
    """Where the runs keep their files."""

    folder: Path

    def run(self, sources: Sequence[str], words: Sequence[str] = (), tree: Path | None = None) -> Run:
        """`tree`: a checkout whose `leukostream` runs; None: this one's. LeukostreamError with what it said where it
        fails."""
        lines, figures = self.folder / "messages.jsonl", self.folder / "figures.json"
        lines.unlink(missing_ok=True)
        command = ["run", "--source", *sources, "--jsonl", str(lines), "--no-dashboard", *words]
        done = subprocess.run(
            [sys.executable, "-P", area_run.__file__, str(figures), *command],
            env={**os.environ, "PYTHONPATH": str(tree or Path(__file__).parents[2])},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise LeukostreamError(f"leukostream {' '.join(command)}: got {done.stderr.strip()}, expected a run")
        return read_run(lines, figures)

    def film(self, name: str, frames: Iterable[Image]) -> str:
        """The address of a film, which replaces an earlier one of that name."""
        path = self.folder / f"{name}.npy"
        write_film(path, frames)
        return f"film:{path}"

    def in_turns(
        self, sources: Sequence[str], rounds: int, before: Path | None
    ) -> tuple[list[Run], list[Run], list[Run]]:
        """(as it is, at every frame, with `before`), `rounds` each; none of the last without such a checkout."""
        new, every, earlier = [], [], []
        for _ in range(rounds):
            new.append(self.run(sources))
            every.append(self.run(sources, EVERY))
            if before is not None:
                earlier.append(self.run(sources, tree=before))
        return new, every, earlier


def mosaics(only: int | None = None) -> Iterator[tuple[str, Callable[[], Iterator[Image]]]]:
    """Of the real slides that are here, those with most pictures first: name, and what pans over it."""
    places = data_root() / "chula_wbc" / "unique_cells.json"
    if not places.exists():
        print(f"no mosaic of real pictures: {places.parent} is not here (python -m tools.data get)")
        return
    slides = json.loads(places.read_text())
    names = sorted(slides, key=lambda name: -len(slides[name]["positions"]))
    for name in names[:only]:
        yield name, lambda name=name: over_mosaic(data_root(), name)  # type: ignore[misc]


def measure_films(bench: Bench, rounds: int, cells: int, before: Path | None = None) -> list[dict[str, Any]]:
    films: list[tuple[str, Callable[[], Iterator[Image]]]] = [
        ("simulated", lambda: painted(f"sim:cells={cells}")),
        *((f"mosaic {name}", frames) for name, frames in mosaics(only=1)),
        ("raster", lambda: painted(f"sim:cells={3 * cells},{RASTER}")),
    ]
    rows = []
    for name, frames in films:
        new, every, earlier = bench.in_turns([bench.film("film", frames())], rounds, before)
        rows.append(
            {
                "film": name,
                "frames": new[0].frames,
                "pixels": ratio([run.input_px for run in new], [run.input_px for run in every]),
                "speed": ratio([run.frames_per_s for run in new], [run.frames_per_s for run in every]),
                "agreement": asdict(agreement(new[-1], every[-1])),
                "runs": [run.figures() for run in new],
                "every_frame": [run.figures() for run in every],
            }
        )
        if earlier:
            rates = [[run.frames_per_s for run in runs] for runs in (new, earlier)]
            rows[-1] |= {"speed_beside_before": ratio(*rates), "before": [run.figures() for run in earlier]}
    return rows


def measure_counts(bench: Bench, seeds: int, cells: int) -> list[dict[str, Any]]:
    """Each film twice, with other noise: the first as it is and at every frame, the second at every frame."""
    kinds: dict[str, list[Callable[[], Iterator[Image]]]] = {"usual": [], "three times noise and blur": []}
    for seed in range(1, seeds + 1):
        for kind, more in zip(kinds, ("", f",{HARD}"), strict=True):
            address = f"sim:seed={seed},cells={cells},immature=3,erythroblasts=3{more}"
            kinds[kind].append(lambda address=address: painted(address))  # type: ignore[misc]
    kinds["mosaics"] = [frames for _, frames in mosaics(only=seeds)]
    rows = []
    for kind, films in kinds.items():
        found: list[tuple[Agreement, Agreement]] = []
        for frames in films:
            first = bench.film("film", with_noise(frames(), 1))
            new, every = bench.run([first]), bench.run([first], EVERY)
            other = bench.run([bench.film("film", with_noise(frames(), 2))], EVERY)
            found.append((agreement(new, every), agreement(other, every)))
        if found:
            ours, noise = zip(*found, strict=True)
            row = {"films": kind, "new_beside_every_frame": ours, "other_noise_beside_every_frame": noise}
            totals = {name: Agreement.total(parts) for name, parts in row.items() if name != "films"}
            rows.append({**row, **{f"{name}_total": one for name, one in totals.items()}})
    return [json.loads(json.dumps(row, default=asdict)) for row in rows]


def measure_growth(bench: Bench, slides: int, cells: int) -> dict[str, Any]:
    """The slide is painted while it is read, however large it is; what that takes is the feeder's."""
    sizes = sorted({1 + (slides - 1) * step // 4 for step in range(5)})
    runs = [bench.run([f"painted:cells={size * cells}"]) for size in sizes]
    fields = [run.fields for run in runs]
    report: dict[str, Any] = {
        "slides": sizes,
        "fields": fields,
        "processor_s": [run.processor_ms * run.frames / 1000 for run in runs],
        "feeder_s": [run.feeder_ms * run.frames / 1000 for run in runs],
        "peak_mb": [run.peak_mb for run in runs],
    }
    if len(set(fields)) > 1:
        report |= {
            "processor_line": asdict(Line.through(fields, report["processor_s"])),
            "memory_line": asdict(Line.through(fields, report["peak_mb"])),
        }
    return report


def measure_live(bench: Bench, most: int, seconds: float) -> list[dict[str, Any]]:
    """Each camera shows the same slide from another place on; one more camera until they are too many."""
    frames, apart = round(seconds * FPS), 37
    film = bench.film("cameras", painted("sim:cells=2000", frames + most * apart))
    rows: list[dict[str, Any]] = []
    for name, words in (("new area", ()), ("every frame", EVERY)):
        for count in range(1, most + 1):
            cameras = [f"cam{i}={film},fps={FPS},first={i * apart},count={frames}" for i in range(count)]
            run = bench.run(cameras, words)
            carried = not run.dropped and run.latency_ms["p99"] <= MOST_LATE_MS
            rows.append({"way": name, "cameras": count, "carried": carried, **run.figures()})
            if not carried:
                break
    return rows


def measure_processes(bench: Bench, rounds: int, cells: int) -> dict[str, Any]:
    """Frames/s of two sources in one process, and in two at the same time."""
    film = bench.film("film", painted(f"sim:cells={cells}"))
    places = [Bench(bench.folder / name) for name in ("first", "second")]
    for place in places:
        place.folder.mkdir(exist_ok=True)
    together, apart = list[float](), list[float]()
    for _ in range(rounds):
        together.append(bench.run([f"{place.folder.name}={film}" for place in places]).frames_per_s)
        with ThreadPoolExecutor(len(places)) as pool:
            apart.append(sum(run.frames_per_s for run in pool.map(lambda place: place.run([film]), places)))
    return {"together_fps": together, "apart_fps": apart, "speed": ratio(apart, together)}


def measure_loop(bench: Bench, python: str, rounds: int, cells: int) -> list[dict[str, Any]]:
    """`run` and Ultralytics' loop over the same files, in turns."""
    rows = []
    for name, address in (
        ("single frames", f"sim:{LARGE},cells={3 * cells},{RASTER}"),
        ("film", f"sim:{LARGE},cells={cells}"),
    ):
        folder = bench.folder / name.replace(" ", "-")
        folder.mkdir(exist_ok=True)
        for number, image in enumerate(painted(address)):
            cv2.imwrite(str(folder / f"{number:05}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 90])
        words = "--long-side-px", str(LONG_SIDE_PX)
        pairs = [(bench.run([str(folder)], words).frames_per_s, loop_rate(python, folder)) for _ in range(rounds)]
        ours, theirs = zip(*pairs, strict=True)
        rows.append({"frames": name, "ours_fps": ours, "ultralytics_fps": theirs, "speed": ratio(ours, theirs)})
    return rows


def main(arguments: Sequence[str]) -> int:
    parser = command_parser("tools.bench area", __doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help="(default all)")
    parser.add_argument("--quick", action="store_true", help="little of each, in a minute or two: noise")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="of films and loop (default 5)")
    parser.add_argument("--seeds", type=int, default=10, metavar="N", help="slides to compare counts on (default 10)")
    parser.add_argument("--slides", type=int, default=16, metavar="N", help="the growth's largest size (default 16)")
    parser.add_argument("--cameras", type=int, default=8, metavar="N", help="at most (default 8)")
    parser.add_argument("--seconds", type=float, default=20.0, metavar="S", help="of each live run (default 20)")
    parser.add_argument(
        "--before", type=Path, metavar="TREE", help="a checkout of an earlier commit; films show its rate"
    )
    parser.add_argument("--against-ultralytics", metavar="PYTHON", help="interpreter that has it, for the part loop")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="for films (default: one that goes again)")
    parser.add_argument("--note", help="kept with the figures: what else the machine did")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    options = parser.parse_args(arguments)
    cells = CELLS
    if options.quick:
        options.rounds, options.seeds, options.slides, options.seconds = 1, 1, 2, 3.0
        options.cameras, cells = min(options.cameras, 2), 10
    if options.keep is not None:
        options.keep.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {
        "bench": "area",
        "machine": {"cores": usable_cores(), "processor": platform.processor() or platform.machine()},
        "note": options.note,
    }
    with nullcontext(str(options.keep)) if options.keep else tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name))
        parts: dict[str, Callable[[], Any]] = {
            "films": lambda: measure_films(bench, options.rounds, cells, options.before),
            "counts": lambda: measure_counts(bench, options.seeds, cells),
            "growth": lambda: measure_growth(bench, options.slides, cells),
            "live": lambda: measure_live(bench, options.cameras, options.seconds),
            "processes": lambda: measure_processes(bench, options.rounds, cells),
        }
        if options.against_ultralytics:
            parts["loop"] = lambda: measure_loop(bench, options.against_ultralytics, options.rounds, cells)
        for part in (part for part in parts if part in options.parts):
            report[part] = parts[part]()
            show(part, report[part])
            if options.json:  # what was measured stays, whatever becomes of the next part
                options.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


def show(part: str, found: Any) -> None:
    """As a table."""
    columns, lines = LINES[part](found)
    table = Table(*columns, title=part)
    for line in lines:
        table.add_row(*line)
    console = Console()
    console.print(table)
    if part == "films":
        for row in found:
            console.print(
                f"{row['film']}: {processor_line(row['runs'])}; every frame: {processor_line(row['every_frame'])}"
            )
            if "before" in row:
                rate = median(run["frames_per_s"] for run in row["before"])
                console.print(f"{row['film']}: before {rate:.1f} frames/s, now {row['speed_beside_before']:.2f} times")
        console.print(card_arithmetic(CARD, found[0]["pixels"]))
    elif part == "growth" and "processor_line" in found:
        time, memory = found["processor_line"], found["memory_line"]
        console.print(
            f"{1000 * time['slope']:.1f} ms of processor time a field, off a straight line by "
            f"{time['largest_miss']:.1%} of its rise; {1000 * memory['slope']:.1f} kB of memory a field, off by "
            f"{memory['largest_miss']:.1%}"
        )


def processor_line(runs: Sequence[dict[str, Any]]) -> str:
    """Of each kind of thread, in words."""
    names = dict.fromkeys(name for run in runs for name in run["threads_ms"])
    threads = ", ".join(f"{name} {median(run['threads_ms'].get(name, 0.0) for run in runs):.2f}" for name in names)
    loading = median(run["loading_ms"] for run in runs)
    return f"ms of processor time a frame by thread: {threads}; loading the models {loading:.2f}"


Lines = tuple[tuple[str, ...], list[tuple[str, ...]]]


def _film_lines(rows: Sequence[dict[str, Any]]) -> Lines:
    columns = "film", "frames", "px a frame", "share", "frames/s", "every frame", "speed", "cells"
    return columns, [
        (
            row["film"],
            str(row["frames"]),
            f"{median(run['detector_px'] + run['classifier_px'] for run in row['runs']):,.0f}",
            f"{row['pixels']:.3f}",
            f"{median(run['frames_per_s'] for run in row['runs']):.1f}",
            f"{median(run['frames_per_s'] for run in row['every_frame']):.1f}",
            f"{row['speed']:.2f}",
            f"{row['agreement']['first']} of {row['agreement']['second']}",
        )
        for row in rows
    ]


def _count_lines(rows: Sequence[dict[str, Any]]) -> Lines:
    columns = "films", "beside every frame", "cells", "of", "more", "fewer", "other class", "serious lost"
    return columns, [
        (
            row["films"],
            what,
            *(str(row[key][name]) for name in ("first", "second", "only_first", "only_second", "class_differs")),
            str(row[key]["serious_lost"]),
        )
        for row in rows
        for what, key in (
            ("new area", "new_beside_every_frame_total"),
            ("every frame, other noise", "other_noise_beside_every_frame_total"),
        )
    ]


def _growth_lines(found: dict[str, Any]) -> Lines:
    columns = "slides", "fields", "processor s", "feeder s", "peak MB"
    rows = zip(*(found[name] for name in ("slides", "fields", "processor_s", "feeder_s", "peak_mb")), strict=True)
    return columns, [(str(slides), *(f"{value:.1f}" for value in values)) for slides, *values in rows]


def _live_lines(rows: Sequence[dict[str, Any]]) -> Lines:
    columns = "way", "cameras", "carried", "dropped", "p50 ms", "p99 ms", "ms a frame", "feeder ms a frame"
    return columns, [
        (
            row["way"],
            str(row["cameras"]),
            "yes" if row["carried"] else "no",
            str(sum(row["dropped"].values())),
            *(f"{row['latency_ms'][name]:.0f}" for name in ("p50", "p99")),
            f"{row['processor_ms']:.1f}",
            f"{row['feeder_ms']:.2f}",
        )
        for row in rows
    ]


def _loop_lines(rows: Sequence[dict[str, Any]]) -> Lines:
    columns = "frames", "run, frames/s", "Ultralytics, frames/s", "speed"
    return columns, [
        (
            row["frames"],
            f"{median(row['ours_fps']):.1f}",
            f"{median(row['ultralytics_fps']):.1f}",
            f"{row['speed']:.2f}",
        )
        for row in rows
    ]


def _process_lines(found: Mapping[str, Any]) -> Lines:
    figures = (f"{median(found[way]):.1f}" for way in ("together_fps", "apart_fps"))
    return ("two sources in one process", "in a process each", "speed"), [(*figures, f"{found['speed']:.2f}")]


LINES: dict[str, Callable[[Any], Lines]] = {
    "films": _film_lines,
    "counts": _count_lines,
    "growth": _growth_lines,
    "live": _live_lines,
    "processes": _process_lines,
    "loop": _loop_lines,
}
