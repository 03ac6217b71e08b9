"""Measure a review and its report: corrections until a subscriber has them, scrolling, the page of a report.

    python -m tools.bench review --cells 200 2000 10000
    python -m tools.bench review --cells 2000 --only report

Slides are made up, the commands are the real ones, each in a process of its own. One JSON object a measurement:

* correction: from the request of the page (`POST /api/v1/cells/ID/class`) until a subscriber of `review --publish` has
  the differential that follows from it, in milliseconds; `answered`, until the page has its answer. The journal waits
  for the disk before anything is published.
* scroll: milliseconds between the frames that Chromium draws while the page of the review is scrolled through all
  cells, a screen every four frames; `at_rest`, while nothing moves: what this machine can do.
* report: its size, the processor time that it takes, and until Chromium paints it first. `--pdf` makes it a PDF too.

`scroll` and `report` need Chromium, and Playwright's package.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import queue
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np

from engines.base import LeukostreamError
from streamer.network.subscriber import Subscriber
from streamer.protocol.messages import DifferentialMessage
from tools.bench.made_slide import write_slide
from tools.commands import command_parser

PATIENCE_S = 120.0
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = ("--no-sandbox", "--disable-gpu", "--no-first-run")
WIDTH, HEIGHT = 1280, 860
"""Of the window."""
LOADS = 5
"""Of a report."""
UNTIMED = 10
"""Corrections, before those that are timed."""
NAMES = ("neutrophil", "lymphocyte", "monocyte", "eosinophil")


def main(arguments: Sequence[str]) -> None:
    parser = command_parser("tools.bench review", __doc__)
    parser.add_argument("--cells", type=int, nargs="+", default=[200, 2000, 10000], help="of the slides")
    parser.add_argument("--corrections", type=int, default=300, help="timed")
    parser.add_argument("--only", choices=("correction", "scroll", "report"))
    parser.add_argument("--pdf", action="store_true", help="time the report's PDF too (pip install 'leukostream[pdf]')")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        for cells in options.cells:
            journal = write_slide(Path(folder) / f"{cells}.db", cells)
            if options.only in (None, "report"):
                _say("report", cells, report(journal, pdf=options.pdf))
            if options.only in (None, "scroll"):
                with reviewed(journal) as (address, _):
                    _say("scroll", cells, scroll(address))
            if options.only in (None, "correction"):
                with reviewed(journal) as (address, endpoint):
                    _say("correction", cells, correction(address, endpoint, options.corrections))


def _say(measurement: str, cells: int, found: dict[str, object]) -> None:
    print(json.dumps({"measurement": measurement, "cells": cells, **found}), flush=True)


@contextlib.contextmanager
def reviewed(journal: Path) -> Iterator[tuple[str, str]]:
    """`leukostream review` of a journal: the address of its page, and the endpoint where it publishes."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        endpoint = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    words = ["review", str(journal), "--reviewer", "AB", "--publish", endpoint, "--linger", "0"]
    with subprocess.Popen(
        [sys.executable, "-m", "streamer", *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            line = "" if process.stdout is None else process.stdout.readline()
            address = next((word for word in line.split() if word.startswith("http")), None)
            if address is None:
                raise LeukostreamError(f"review: got {line!r}, expected the address of its page")
            yield address, endpoint
        finally:
            process.terminate()


class Page:
    """The requests of a page, over one line."""

    def __init__(self, address: str) -> None:
        url = urlsplit(address)
        (token,) = parse_qs(url.query)["token"]
        self._head = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._line = http.client.HTTPConnection(url.hostname or "", url.port, timeout=PATIENCE_S)

    def ask(self, method: str, path: str, body: object = None) -> Any:
        self._line.request(method, f"/api/v1/{path}", None if body is None else json.dumps(body), self._head)
        answer = self._line.getresponse()
        read = answer.read()
        if answer.status != 200:
            raise LeukostreamError(f"{path}: got {answer.status} {read[:200]!r}, expected 200")
        return json.loads(read)

    def close(self) -> None:
        self._line.close()


def correction(address: str, endpoint: str, corrections: int) -> dict[str, object]:
    """Milliseconds of each correction, one after the other."""
    arrived: queue.SimpleQueue[tuple[str, float]] = queue.SimpleQueue()
    over = threading.Event()

    def follow() -> None:
        with Subscriber(endpoint, ["differential."]) as subscriber:
            while not over.is_set():
                got = subscriber.receive(0.1)
                if got is not None and isinstance(got.message, DifferentialMessage) and got.message.review is not None:
                    arrived.put((got.message.review.at or "", time.perf_counter()))

    page, thread = Page(address), threading.Thread(target=follow, daemon=True)
    numbers = [one["cell_id"] for one in page.ask("GET", "cells")]
    thread.start()
    published, answered = [], []
    try:
        newest, _ = arrived.get(timeout=PATIENCE_S)  # the slide as it stood: the subscriber has joined
        for turn, cell_id in enumerate(np.random.default_rng(0).choice(numbers, corrections + UNTIMED).tolist()):
            began = time.perf_counter()
            page.ask("POST", f"cells/{cell_id}/class", {"class": NAMES[turn % len(NAMES)]})
            answered.append(1000 * (time.perf_counter() - began))
            at, when = arrived.get(timeout=PATIENCE_S)
            while at <= newest:
                at, when = arrived.get(timeout=PATIENCE_S)
            newest = at
            published.append(1000 * (when - began))
    finally:
        over.set()
        thread.join()
        page.close()
    return {
        "corrections": corrections,
        "subscriber_ms": _spread(published[UNTIMED:]),
        "answered_ms": _spread(answered[UNTIMED:]),
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    median, late = np.percentile(values, (50, 99))
    return {"median": round(float(median), 1), "p99": round(float(late), 1), "largest": round(max(values), 1)}


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """A page of it, in a window of its own. LeukostreamError where there is none."""
    program = next((found for name in CHROMIUM if (found := shutil.which(name))), None)
    if program is None:
        raise LeukostreamError(f"got none of {', '.join(CHROMIUM)}, expected one: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=program, args=OPTIONS) as browser:
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.set_default_timeout(1000 * PATIENCE_S)
        yield page


SCROLL = """
async (screens) => {
  const box = document.querySelector("#gallery"), gaps = [];
  let before = await new Promise(requestAnimationFrame);
  for (let frame = 0; frame < 240; frame += 1) {
    if (screens && frame % 4 === 0) {
      const end = box.scrollHeight - box.clientHeight;
      box.scrollTop = box.scrollTop >= end - 1 ? 0 : Math.min(end, box.scrollTop + box.clientHeight);
    }
    const now = await new Promise(requestAnimationFrame);
    gaps.push(now - before);
    before = now;
  }
  return gaps;
}
"""


def scroll(address: str) -> dict[str, object]:
    with chromium() as page:
        began = time.perf_counter()
        page.goto(address)
        page.wait_for_selector("body.ready")
        ready_s = time.perf_counter() - began
        page.wait_for_timeout(1000)
        at_rest, moved = page.evaluate(SCROLL, False), page.evaluate(SCROLL, True)
        tiles = page.locator(".tile").count()
    return {"ready_s": round(ready_s, 2), "tiles": tiles, "frame_ms": _spread(moved), "at_rest_ms": _spread(at_rest)}


PAINTED = "performance.getEntriesByName('first-contentful-paint').map((one) => one.startTime)"


def report(journal: Path, *, pdf: bool) -> dict[str, object]:
    out = journal.with_suffix(".html")
    found: dict[str, object] = {"cpu_s": _processor_s(["report", str(journal), "-o", str(out), "--no-mosaic"])}
    found["mb"] = round(out.stat().st_size / 1e6, 2)
    with chromium() as page:
        times = []
        for _ in range(LOADS):
            page.goto(out.as_uri())
            page.wait_for_function(f"{PAINTED}.length")
            times.append(page.evaluate(PAINTED)[0])
    found["first_paint_ms"] = {"median": round(float(np.median(times))), "largest": round(max(times))}
    if pdf:
        paper = journal.with_suffix(".pdf")
        words = ["report", str(journal), "-o", str(out), "--no-mosaic", "--pdf", str(paper)]
        found |= {"pdf_cpu_s": _processor_s(words), "pdf_mb": round(paper.stat().st_size / 1e6, 2)}
    return found


def _processor_s(words: Sequence[str]) -> float:
    """Of a command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "streamer", *words], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1)
