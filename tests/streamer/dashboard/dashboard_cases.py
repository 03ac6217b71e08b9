"""Messages as a streamer sends them, with everything that a test doesn't name at a plain value."""

from __future__ import annotations

from typing import Any

import numpy as np

from streamer.counting.differential import share
from streamer.dashboard import DashboardState
from streamer.protocol import messages
from streamer.records import ClassShare, Flag, SourceStatus, StagePosition

HEAD: dict[str, Any] = {
    "session": "s1",
    "run_id": "r1",
    "source": "slide",
    "seq": 0,
    "session_seq": 0,
    "published_ns": 1,
    "published_utc": "2026-01-01T00:00:00.000000Z",
}


def detection(box: tuple[float, float, float, float], kind: str = "white", **given: Any) -> messages.Detection:
    label = {"white": "WBC", "red": "RBC"}.get(kind, kind)
    return messages.Detection(**{"box_px": box, "label": label, "kind": kind, "score": 0.9, "counted": True, **given})


def frame(**given: Any) -> messages.FrameMessage:
    plain: dict[str, Any] = {
        "frame_id": 7,
        "captured_ns": 1,
        "captured_utc": "",
        "width": 640,
        "height": 480,
        "file": None,
        "stage": None,
        "focus": None,
        "accepted": True,
        "reasons": [],
        "truncated": False,
        "detections": [],
        "timings_ms": {},
    }
    return messages.FrameMessage(**{**HEAD, **plain, **given})


def cell(cell_id: int, class_name: str = "neutrophil", **given: Any) -> messages.CellMessage:
    plain: dict[str, Any] = {
        "cell_id": cell_id,
        "island": 0,
        "x_px": 1.0,
        "y_px": 2.0,
        "class_": class_name,
        "subclass": None,
        "top_class": class_name,
        "class_probabilities": {class_name: 0.93},
        "looks": 2,
        "partial": False,
        "first_frame_id": 0,
        "last_frame_id": 1,
    }
    return messages.CellMessage(**{**HEAD, **plain, **given})


def differential(counts: dict[str, int], unclassified: int = 0, **given: Any) -> messages.DifferentialMessage:
    total = sum(counts.values()) + unclassified
    shares = {name: share(count, total) for name, count in counts.items()}
    plain: dict[str, Any] = {
        "total": total,
        "classes": {
            name: ClassShare(count=of.count, percent=of.percent, low=of.low, high=of.high)
            for name, of in shares.items()
        },
        "limits_method": "clopper-pearson",
        "unclassified": unclassified,
        "nrbc": 0,
        "nrbc_per_100_wbc": 0.0 if total else None,
        "flags": [],
        "not_assessed": [],
        "rbc_seen": 0,
        "platelets_seen": 0,
        "frames": 1,
        "frames_accepted": 1,
        "final": False,
    }
    return messages.DifferentialMessage(**{**HEAD, **plain, **given})


def flag(text: str, **given: Any) -> Flag:
    return Flag(code="seen", text=text, **given)


def status(**given: Any) -> SourceStatus:
    plain: dict[str, Any] = {
        "state": "open",
        "mode": "live",
        "fps": 29.97,
        "captured": 12,
        "published": 11,
        "dropped": {},
        "skipped": {},
        "queue": 0,
        "reopened": 0,
        "latency_ms": {"p50": 31.0, "p95": 55.0, "p99": 70.0},
        "detail": None,
    }
    return SourceStatus(**{**plain, **given})


def health(sources: dict[str, SourceStatus], **given: Any) -> messages.HealthMessage:
    plain: dict[str, Any] = {
        "backend": "onnxruntime cpu",
        "detector": "yolov5n-blood",
        "classifier": "mobilenetv3-small",
        "uptime_s": 3725.0,
        "sources": sources,
    }
    return messages.HealthMessage(**{**HEAD, **plain, **given})


FIVE = {"neutrophil": 57, "lymphocyte": 29, "monocyte": 7, "eosinophil": 3, "basophil": 1}


def busy_state() -> DashboardState:
    """A stream in the middle of its work, with pictures of the frame and of the cells."""
    rng = np.random.default_rng(3)
    state = DashboardState(hint="q quit · p picture · tab source")
    detections = [
        detection((100, 100, 180, 190), class_="neutrophil", look_class="neutrophil"),
        detection((400, 300, 470, 380), class_="eosinophil", look_class="eosinophil"),
        detection((600, 10, 639, 60), counted=False, look_class=None, class_=None),
        detection((300, 200, 360, 260), "nucleated red", label="erythroblast"),
        *(detection((x, 220, x + 40, 260), "red") for x in range(0, 600, 45)),
        detection((250, 50, 262, 61), "platelet"),
    ]
    image = rng.integers(0, 256, (480, 640, 3), np.uint8)
    stage = StagePosition(island=1, x_px=120.5, y_px=-33.0, quality=0.9)
    state.update(frame(detections=detections, file="B-53_0103.jpg", stage=stage), image)
    for cell_id in range(30):
        state.update(cell(cell_id, list(FIVE)[cell_id % 5]), rng.integers(0, 256, (50, 44, 3), np.uint8))
    flags = [
        flag("nucleated red cell seen (2 beside 100 white cells)"),
        flag("eosinophil 8 % (8 of 100; limits 3–16)"),
    ]
    state.update(differential(FIVE, 3, flags=flags, nrbc=2, nrbc_per_100_wbc=2.0, not_assessed=["blast"]))
    state.update(health({"slide": status(dropped={"queue full": 12}, skipped={"not an image": 1})}))
    return state
