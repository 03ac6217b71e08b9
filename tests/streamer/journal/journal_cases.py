"""A short walk over a slide for the journal's tests: two islands that turn out to be one, a jump, a return, a frame
twice, a blank one, cells cut by the edge. Models are scripted, so that a run takes a second.

As a program, it runs `leukostream` with these models: each line of its standard input is a JSON array of arguments,
run in a process of its own that is forked from this one, so that the imports are paid once. It answers with the
process's number, and with its exit status, negative for a signal, when it has ended. `limit BYTES` before the arguments
bounds the files that the run writes; `full SECONDS JOURNAL` lets none grow beyond the journal's size at that moment, as
a disk does that another program fills.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import cv2
import numpy as np

from engines.backends.scripted import ScriptedEngine, classifier_specs
from engines.base import Array, Attribute
from engines.models.classifier import Classifier
from engines.models.detector import Detector
from streamer.analysis.analyser import Analysed, Analyser
from streamer.counting.decision import ClassDecision
from streamer.journal import GivenCommand, Journal, SessionJournal, rules_of
from streamer.protocol.factory import MessageFactory
from streamer.records import Frame, Reclassification, SlideInfo
from streamer.run.session import SlideSession
from tests.cases import FIVE, HEIGHT, WIDTH, card, find_by_script, stamped, textured_slide

BLANK = 23
"""The frame without any texture."""

PLACES = (
    *(1000, 1080),  # the first island
    *range(0, 1000, 60),  # a jump, and the way back to it
    *(960, 960),  # the same frame twice
    *range(960, 1280, 50),
    *range(500, 250, -50),  # a return
)


def images() -> list[np.ndarray]:
    slide = textured_slide()
    frames = [stamped(slide[:, x : x + WIDTH], 100 if x == 960 else i) for i, x in enumerate(PLACES)]
    frames[BLANK] = stamped(np.full((HEIGHT, WIDTH, 3), 200, np.uint8), BLANK)
    return frames


def detector() -> Detector:
    """Knows sixteen white cells, twenty red ones and ten platelets of the slide, in whatever frame they are."""
    rng = np.random.default_rng(11)
    things = [(rng.uniform(0, 1560), rng.uniform(0, 220), size, label) for n, size, label in KINDS for _ in range(n)]
    script = {}
    for i, x in enumerate(PLACES):
        number = 100 if x == 960 else i
        boxes = []
        for left, top, size, label in things:
            jitter = rng.normal(0, 0.5, 2) if x != 960 else np.zeros(2)
            box = np.array([left - x, top, left - x + size, top + size]) + np.tile(jitter, 2)
            box = np.clip(box, 0, [WIDTH, HEIGHT] * 2)
            if box[2] - box[0] > 5 and box[3] - box[1] > 5 and i != BLANK:
                boxes.append((tuple(box.tolist()), float(rng.uniform(0.45, 0.95)), label))
        script[number] = boxes
    return find_by_script(script)


KINDS = ((16, 36, 0), (20, 22, 1), (10, 8, 2))


def classifier() -> Classifier:
    """Calls a crop by its mean colour: another frame gives another look at the same cell. Describes two classes, and
    finds one look in four novel."""

    def answer(feeds: dict[str, Array]) -> dict[str, Array]:
        means = feeds["images"].reshape(len(feeds["images"]), -1).mean(1, dtype=np.float64)
        logits = np.cos(means[:, None] * np.arange(1, 6)) * 3
        odds = np.exp(logits)
        values = 0.5 + np.sin(means[:, None] * np.arange(1, 3)) / 3
        return {
            "class_probabilities": (odds / odds.sum(1, keepdims=True)).astype(np.float32),
            "attribute_probabilities": np.stack([values, 1 - values], 2).reshape(-1, 4).astype(np.float32),
            "novelty": (means * 7 % 1).astype(np.float32),
        }

    plain = card("classifier", FIVE, ["white"] * 5, 0.5)
    telling = replace(
        plain,
        attributes=(Attribute("nucleus_shape", ("round", "bent")), Attribute("cell_size", ("small", "big"))),
        attributes_of=FIVE[:2],
        thresholds=replace(plain.thresholds, novelty=0.75),
    )
    specs = classifier_specs(32, 32, 5, attribute_values=4, novelty=True)
    return Classifier(telling, ScriptedEngine(*specs, answer))


def write_images(folder: Path) -> Path:
    """The walk as files, with one among them that is no image."""
    folder.mkdir()
    for i, image in enumerate(images()):
        cv2.imwrite(str(folder / f"frame{i}.png"), image)
    (folder / "frame7a.png").write_bytes(b"no image")
    return folder


def analysed() -> list[Analysed]:
    analyser = Analyser(detector(), classifier())
    return analyser.analyse([Frame("slide", i, 1000 * i, image, f"{i}.png") for i, image in enumerate(images())])


def rules():
    return rules_of(detector(), classifier())


def session_of(kept: SessionJournal | None, run_id: str = "run", **how: Any) -> SlideSession:
    factory = MessageFactory(
        "slide",
        session=kept.stored.id if kept else "session",
        run_id=run_id,
        next_session_seq=kept.stored.next_seq if kept else 0,
    )
    if kept is not None:
        kept.begin_run(run_id, "{}")
    return SlideSession(factory, ClassDecision.of(classifier()), operating_score=0.5, journal=kept, **how)


def new_session(journal: Journal) -> SessionJournal:
    return journal.new_session("slide", "session", address="path:/frames", live=False, rules=rules())


def write_walk(path: Path, given: Sequence[str] = (), *, finish: bool = True, slide: SlideInfo | None = None) -> Path:
    """A journal of the whole walk in which people gave the first counted cells these classes."""
    journal = Journal(path)
    session = session_of(new_session(journal), slide=slide)
    for one in analysed():
        session.update(one)
    cells = [cell.cell_id for cell in session.count.cells() if cell.counted]
    for cell_id, name in zip(cells, given, strict=False):
        words = Reclassification(cell_id, name)
        body = json.dumps({"cell_id": cell_id, "class": name})
        session.reclassify(words, GivenCommand("run", "owner", f"request {cell_id}", "reclassify", body))
    if finish:
        session.finish("finished", "end of the source")
    journal.close()
    return path


def _serve() -> None:
    session.CHECKPOINT_EVERY_FRAMES = 5
    models.load_detector = lambda *_, **__: detector()
    models.load_classifier = lambda *_, **__: classifier()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the runs print goes to standard error
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _run(json.loads(line))
        print(child, file=answers, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=answers, flush=True)


def _limit_files(size: int) -> None:
    room_to_say_so = os.fstat(2).st_size + 65536
    resource.setrlimit(resource.RLIMIT_FSIZE, (max(size, room_to_say_so),) * 2)


def _size(journal: str) -> int:
    return max((path.stat().st_size for path in (Path(journal), Path(f"{journal}-wal")) if path.exists()), default=0)


def _run(arguments: list[str]) -> NoReturn:
    status = 70
    try:
        if arguments[0] == "limit":
            _limit_files(int(arguments[1]))
            arguments = arguments[2:]
        elif arguments[0] == "full":
            nowhere = os.open(os.devnull, os.O_WRONLY)  # what is said needs room, too, and soon more than the journal
            os.dup2(nowhere, 1)
            os.dup2(nowhere, 2)
            timer = threading.Timer(float(arguments[1]), lambda journal: _limit_files(_size(journal)), arguments[2:3])
            timer.daemon = True
            timer.start()
            arguments = arguments[3:]
        status = main(arguments)
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


if __name__ == "__main__":
    import resource

    from streamer.analysis import models
    from streamer.cli import main
    from streamer.run import session

    _serve()
