"""Records and factories with known contents, for the tests of messages and their transport."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from streamer.protocol.factory import Looks, MessageFactory
from streamer.protocol.messages import AnyMessage, FrameMessage
from streamer.records import (
    Cell,
    Classifications,
    ClassShare,
    Detections,
    Differential,
    Flag,
    Frame,
    FrameQuality,
    Health,
    ModelHealth,
    Observation,
    ShadowStatus,
    SourceStatus,
    StagePosition,
)

START_NS = 5_000_000_000
START_UTC_NS = 1_700_000_000_123_456_789  # 2023-11-14T22:13:20.123456Z


class Clock:
    """Monotonic nanoseconds that a test sets."""

    def __init__(self, now_ns: int = START_NS) -> None:
        self.now_ns = now_ns

    def __call__(self) -> int:
        return self.now_ns


def make_factory(
    source: str = "cam", *, run_id: str = "run-1", clock: Callable[[], int] | None = None, next_session_seq: int = 0
) -> MessageFactory:
    return MessageFactory(
        source,
        session="slide-1",
        run_id=run_id,
        next_session_seq=next_session_seq,
        monotonic_ns=Clock() if clock is None else clock,
        utc_ns=lambda: START_UTC_NS,
    )


def make_frame(file: str | None = None) -> Frame:
    return Frame("cam", 7, START_NS - 40_000_000, np.zeros((480, 640, 3), np.uint8), file)


def make_detections() -> Detections:
    """Two white cells, a red cell and a platelet."""
    return Detections(
        boxes_px=np.array(
            [[10.04, 20.06, 60.33, 70], [100, 110, 150, 160], [1, 2, 3, 4.45], [500, 400, 640, 480]], np.float32
        ),
        scores=np.array([0.91239, 0.8, 0.70001, 0.5], np.float32),
        labels=np.array([0, 0, 1, 2], np.intp),
        label_names=("WBC", "RBC", "platelet"),
        kinds=("white", "red", "platelet"),
        truncated=False,
    )


def make_observations() -> list[Observation]:
    return [
        Observation(cell_id=3, is_new=True, counted=True),
        Observation(cell_id=None, is_new=False, counted=False),
        Observation(cell_id=9, is_new=False, counted=True),
        Observation(cell_id=None, is_new=False, counted=True),
    ]


def make_looks() -> Looks:
    """A look at the first of the two white cells."""
    return Looks(
        rows=[0],
        classifications=Classifications(
            probabilities=np.array([[0.33333, 0.33333, 0.33334]], np.float32),
            class_names=("lymphocyte", "monocyte", "neutrophil"),
            subclass_probabilities=np.zeros((1, 0), np.float32),
            subclass_names=(),
            subclass_parents=(),
        ),
        classes=["unclassified"],
    )


def make_cell(cell_id: int = 3) -> Cell:
    return Cell(
        cell_id=cell_id,
        island=0,
        x_px=135.26,
        y_px=45.0,
        kind="white",
        class_name="neutrophil",
        subclass="band neutrophil",
        top_class="neutrophil",
        class_probabilities={"lymphocyte": 0.05, "monocyte": 0.05, "neutrophil": 0.9},
        looks=2,
        partial=False,
        first_frame_id=5,
        last_frame_id=7,
    )


def make_differential(total: int = 1, *, final: bool = False) -> Differential:
    return Differential(
        total=total,
        classes={
            "neutrophil": ClassShare(total, 100.0, 2.5, 100.0),
            "monocyte": ClassShare(0, 0.0, 0.0, 97.5),
        },
        limits_method="clopper-pearson",
        limits_note="limits are of sampling only",
        unclassified=0,
        nrbc=1,
        nrbc_per_100_wbc=100.0 / 3,
        not_seen={"monocyte": 97.5},
        flags=(Flag(code="seen", text="nucleated red cell seen", class_="erythroblast", direction="seen", count=1),),
        not_assessed=("blast",),
        rbc_seen=120,
        platelets_seen=8,
        frames=8,
        frames_accepted=7,
        final=final,
    )


def make_health() -> Health:
    source = SourceStatus(
        state="open",
        mode="live",
        fps=29.9876,
        captured=300,
        published=290,
        dropped={"queue full": 10},
        skipped={},
        queue=1,
        reopened=0,
        latency_ms={"p50": 31.23456, "p95": 40.0, "p99": 55.0},
        behind_s=0.12345,
    )
    return Health(
        ModelHealth("scripted", "fake", shadow={"detector": ShadowStatus(3, 40, 39, extra=2, failed=1)}),
        uptime_s=10.00049,
        sources={"cam": source},
    )


def frame_message(factory: MessageFactory, file: str | None = None) -> FrameMessage:
    return factory.frame(
        make_frame(file),
        make_detections(),
        stage=StagePosition(island=0, x_px=100.123, y_px=-20.0, quality=0.98765),
        quality=FrameQuality(focus=12.5, accepted=True),
        observations=make_observations(),
        looks=make_looks(),
        cells={3: make_cell()},
        timings_ms={"detect": 20.00049},
    )


def one_of_each(factory: MessageFactory) -> list[AnyMessage]:
    return [
        frame_message(factory),
        factory.cell(make_cell()),
        factory.differential(make_differential()),
        factory.health(make_health()),
    ]
