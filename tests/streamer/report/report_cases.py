"""Journals as a run would have written them, of as many cells as a test wants, without a model that runs; and a page as
a reader finds it: its texts, links, pictures."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import cv2
import msgspec
import numpy as np

from engines.models.explainer import CellMaps
from engines.zoo.crops import CropInput
from streamer.analysis.analyser import Analysed
from streamer.config import Config
from streamer.counting.decision import ClassDecision
from streamer.journal import Journal, Rules, decision_of
from streamer.protocol.factory import MessageFactory
from streamer.protocol.messages import EndState
from streamer.records import (
    Classifications,
    Detections,
    Frame,
    FrameQuality,
    Health,
    ModelHealth,
    SlideInfo,
    SourceProgress,
)
from streamer.run.session import SlideSession
from streamer.run.slide_stage import STAGE
from streamer.stage.tracker import StageTracker
from tests.streamer.journal import journal_cases

WIDTH, HEIGHT = 640, 480
COLUMNS, ROWS, SIDE = 5, 4, 84
A_FRAME = COLUMNS * ROWS


@dataclass(frozen=True, slots=True, kw_only=True)
class Slide:
    source: str = "slide"
    cells: int = 60
    address: str = "camera:0"
    explain: bool = False
    rejected: int = 2
    """Frames that are out of focus, after the others."""
    ends: EndState | None = "finished"
    """None: it has not ended."""
    reason: str = "end of the source"
    info: SlideInfo | None = None


def write_journal(path: Path, slides: Sequence[Slide] = (Slide(),), rules: Rules | None = None) -> Path:
    """Each frame lies by itself and shows `A_FRAME` cells; what they look like is drawn at random."""
    rules = rules or journal_cases.rules()
    journal = Journal(path)
    for number, slide in enumerate(slides):
        kept = journal.new_session(
            slide.source,
            f"session{number}",
            address=slide.address,
            live=slide.address.startswith("camera"),
            rules=rules,
        )
        configuration = msgspec.json.encode(Config(source=(slide.address,))).decode()
        kept.begin_run(f"run{number}", configuration)
        factory = MessageFactory(slide.source, session=kept.stored.id, run_id=f"run{number}")
        decision = decision_of(rules)
        assert decision is not None
        session = SlideSession(
            factory, decision, operating_score=0.5, journal=kept, known=rules.known, slide=slide.info
        )
        rng = np.random.default_rng(number)
        tracker = StageTracker(STAGE)
        counts = [A_FRAME] * (slide.cells // A_FRAME) + [slide.cells % A_FRAME] * (slide.cells % A_FRAME > 0)
        for frame_id, cells in enumerate([*counts, *[0] * slide.rejected]):
            analysed = _analysed(rng, tracker, decision, slide, frame_id, cells)
            session.update(analysed, SourceProgress(None, lost={"stale": 1}))
        session.health(Health(ModelHealth("onnxruntime cpu", "scripted-detector", "scripted-classifier"), 1.0))
        if slide.ends is not None:
            session.finish(slide.ends, slide.reason, SourceProgress(None, lost={"stale": 1}))
    journal.close()
    return path


def _analysed(
    rng: np.random.Generator, tracker: StageTracker, decision: ClassDecision, slide: Slide, frame_id: int, cells: int
) -> Analysed:
    image = np.full((HEIGHT, WIDTH, 3), 232, np.float32)
    for x, y, radius in rng.uniform((0, 0, 12), (WIDTH, HEIGHT, 18), (160, 3)).astype(int).tolist():
        cv2.circle(image, (x, y), radius, (185, 165, 200), -1, cv2.LINE_AA)
    shifts = rng.integers(-15, 16, (A_FRAME, 2)).tolist()  # or all frames would look alike to the stage tracker
    places = zip(itertools.product(range(ROWS), range(COLUMNS)), shifts, strict=True)
    corners = [(20 + 124 * x + dx, 18 + 116 * y + dy) for (y, x), (dx, dy) in places][:cells]
    for left, top in corners:
        centre = (left + SIDE // 2, top + SIDE // 2)
        cv2.circle(image, centre, SIDE // 2 - 2, (205, 170, 190), -1, cv2.LINE_AA)
        cv2.ellipse(image, (*centre,), (24, 15), rng.uniform(0, 180), 0, 360, (120, 40, 90), -1, cv2.LINE_AA)
    image = np.clip(image + rng.normal(0, 3, image.shape), 0, 255).astype(np.uint8)
    classes = len(decision.class_names)
    likely = rng.choice(classes, cells, p=np.arange(classes, 0, -1) / (classes * (classes + 1) / 2))
    probabilities = rng.dirichlet(np.full(classes, 0.4), cells).astype(np.float32) * 0.6
    probabilities[np.arange(cells), likely] += 0.4
    values = sum(len(attribute.values) for attribute in decision.attributes)
    looks = Classifications(
        probabilities=probabilities,
        class_names=decision.class_names,
        subclass_probabilities=np.zeros((cells, len(decision.subclass_names)), np.float32),
        subclass_names=decision.subclass_names,
        subclass_parents=decision.subclass_parents,
        attribute_probabilities=rng.uniform(0.1, 0.9, (cells, values)).astype(np.float32),
        attributes=decision.attributes,
        novelty=rng.uniform(0, 0.7, cells).astype(np.float32),
    )
    boxes = np.array([(x, y, x + SIDE, y + SIDE) for x, y in corners], np.float32).reshape(-1, 4)
    maps = CellMaps(
        rng.uniform(0, 1, (cells, 1, classes, 4, 4)).astype(np.float32), probabilities[:, None], CropInput(32, 32)
    )
    return Analysed(
        frame=Frame(slide.source, frame_id, 1_000_000_000 * frame_id, image),
        detections=Detections(
            boxes_px=boxes,
            scores=np.full(cells, 0.9, np.float32),
            labels=np.zeros(cells, np.intp),
            label_names=("WBC", "RBC", "platelet"),
            kinds=("white", "red", "platelet"),
            truncated=False,
        ),
        classifications=looks,
        prepared=tracker.prepare(image),
        quality=FrameQuality(0.6, True) if cells else FrameQuality(0.1, False, ("out of focus",)),
        timings_ms={},
        maps=maps if slide.explain else None,
    )


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    text: str = ""
    """Of it and all within, spaces as one."""
    children: list[Element] = field(default_factory=list)

    def all(self, tag: str, class_: str | None = None) -> list[Element]:
        """Those within, in their order."""
        found = []
        for child in self.children:
            if child.tag == tag and (class_ is None or class_ in child.attributes.get("class", "").split()):
                found.append(child)
            found += child.all(tag, class_)
        return found

    def by_id(self, id_: str) -> Element:
        (found,) = (one for one in self.walk() if one.attributes.get("id") == id_)
        return found

    def walk(self) -> list[Element]:
        return [self, *itertools.chain.from_iterable(child.walk() for child in self.children)]

    def section(self, id_: str) -> Element:
        """That which the heading `id_` names."""
        (found,) = (one for one in self.walk() if one.attributes.get("aria-labelledby") == id_)
        return found


VOID = {"meta", "img", "input", "br", "link"}


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("", {})
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open[-1].children.append(Element(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        closed = self.open.pop()
        assert closed.tag == tag, f"</{tag}> closes <{closed.tag}>"
        closed.text = " ".join(closed.text.split())
        self.open[-1].text += f" {closed.text} " if tag not in ("b", "i", "strong") else closed.text

    def handle_data(self, data: str) -> None:
        self.open[-1].text += data


def read(html: str) -> Element:
    """A page; AssertionError where tags don't nest."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == [reader.root], [one.tag for one in reader.open]
    return reader.root
