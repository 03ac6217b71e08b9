"""Records to messages: numbers, dates and rounding."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.base import Detections, UsageError
from streamer.protocol.factory import Looks, MessageFactory, rounded_probabilities
from streamer.protocol.messages import decode, encode
from streamer.records import AttributeValue, FrameQuality, Health, ModelHealth, Observation
from tests.streamer.protocol.message_cases import (
    START_NS,
    START_UTC_NS,
    Clock,
    frame_message,
    make_cell,
    make_detections,
    make_differential,
    make_factory,
    make_frame,
    make_health,
    make_looks,
    make_observations,
    one_of_each,
)


def test_seq_counts_each_topic_and_session_seq_the_session() -> None:
    factory = make_factory()
    messages = [*one_of_each(factory), *one_of_each(factory), factory.cell(make_cell())]
    assert [m.seq for m in messages] == [0, 0, 0, 0, 1, 1, 1, 1, 2]
    assert [m.session_seq for m in messages] == list(range(9))
    assert {(m.session, m.run_id, m.source) for m in messages} == {("slide-1", "run-1", "cam")}


def test_a_resumed_session_goes_on_counting() -> None:
    first = make_factory()
    one_of_each(first)
    resumed = make_factory(run_id="run-2", next_session_seq=first.next_session_seq)
    message = resumed.cell(make_cell())
    assert (message.seq, message.session_seq, message.session) == (0, 4, "slide-1")


def test_an_end_names_the_newest_of_the_other_types() -> None:
    factory = make_factory()
    one_of_each(factory)
    factory.cell(make_cell())
    ends = [factory.end("stopped", "by SIGTERM"), factory.end("failed", "no \udcff room")]
    assert [end.last_seq for end in ends] == [{"frame": 0, "cell": 1, "differential": 0, "health": 0}] * 2
    assert [(end.seq, end.session_seq, end.state, end.reason) for end in ends] == [
        (0, 5, "stopped", "by SIGTERM"),
        (1, 6, "failed", "no \N{REPLACEMENT CHARACTER} room"),
    ]


def test_a_message_that_can_not_be_made_takes_no_number() -> None:
    factory = make_factory()
    with pytest.raises(ValueError, match="got 0 observations for 4 detections"):
        factory.frame(
            make_frame(), make_detections(), stage=None, quality=FrameQuality(None, True), observations=[], looks=None
        )
    assert frame_message(factory).session_seq == 0


def test_one_offset_dates_everything_whatever_is_done_to_the_wall_clock() -> None:
    clock, wall = Clock(), iter([START_UTC_NS, START_UTC_NS - 3_600_000_000_000])
    factory = MessageFactory("cam", session="s", run_id="r", monotonic_ns=clock, utc_ns=lambda: next(wall))
    clock.now_ns += 1_500_000_000
    message = frame_message(factory)
    assert message.published_ns == START_NS + 1_500_000_000
    assert message.published_utc == "2023-11-14T22:13:21.623456Z"
    assert message.captured_utc == "2023-11-14T22:13:20.083456Z"


def test_a_film_that_says_when_it_was_begun_has_its_own_time() -> None:
    frame = replace(make_frame(), captured_utc_ns=1_772_600_767_250_000_000)
    message = make_factory().frame(
        frame,
        make_detections(),
        stage=None,
        quality=FrameQuality(None, True),
        observations=make_observations(),
        looks=make_looks(),
    )
    assert message.captured_utc == "2026-03-04T05:06:07.250000Z"
    assert message.captured_ns == frame.captured_ns


def test_times_on_the_full_second_keep_their_microseconds() -> None:
    factory = MessageFactory("cam", session="s", run_id="r", monotonic_ns=lambda: 0, utc_ns=lambda: 0)
    assert factory.utc(0) == "1970-01-01T00:00:00.000000Z"


@pytest.mark.parametrize("name", ["", "7cam", "cam.1", "cam 1", "käm", "cam\n"])
def test_a_source_name_that_topics_can_not_carry(name: str) -> None:
    with pytest.raises(UsageError, match="expected letters"):
        make_factory(name)


def test_a_frame_in_full() -> None:
    sent = json.loads(encode(frame_message(make_factory(), "A 1.jpg")))
    detections = sent.pop("detections")
    assert sent == {
        "type": "frame",
        "version": "2.0",
        "session": "slide-1",
        "run_id": "run-1",
        "source": "cam",
        "seq": 0,
        "session_seq": 0,
        "published_ns": 5_000_000_000,
        "published_utc": "2023-11-14T22:13:20.123456Z",
        "frame_id": 7,
        "captured_ns": 4_960_000_000,
        "captured_utc": "2023-11-14T22:13:20.083456Z",
        "width": 640,
        "height": 480,
        "file": "A 1.jpg",
        "stage": {"island": 0, "x_px": 100.12, "y_px": -20.0, "quality": 0.9877},
        "merged_islands": [],
        "focus": 12.5,
        "accepted": True,
        "reasons": [],
        "truncated": False,
        "timings_ms": {"detect": 20.0},
        "looked_share": 1.0,
        "stage_um": None,
        "um_per_px": None,
    }
    assert detections == [
        {
            "box_px": [10.0, 20.1, 60.3, 70.0],
            "label": "WBC",
            "kind": "white",
            "score": 0.9124,
            "counted": True,
            "cell_id": 3,
            "is_new": True,
            "look_class": "unclassified",
            "look_probabilities": {"lymphocyte": 0.3333, "monocyte": 0.3333, "neutrophil": 0.3334},
            "class": "neutrophil",
            "class_probabilities": {"lymphocyte": 0.05, "monocyte": 0.05, "neutrophil": 0.9},
        },
        {
            "box_px": [100.0, 110.0, 150.0, 160.0],
            "label": "WBC",
            "kind": "white",
            "score": 0.8,
            "counted": False,
            "cell_id": None,
            "is_new": False,
            "look_class": None,
            "look_probabilities": None,
            "class": None,
            "class_probabilities": None,
        },
        {
            "box_px": [1.0, 2.0, 3.0, 4.4],
            "label": "RBC",
            "kind": "red",
            "score": 0.7,
            "counted": True,
            "cell_id": 9,
            "is_new": False,
        },
        {
            "box_px": [500.0, 400.0, 640.0, 480.0],
            "label": "platelet",
            "kind": "platelet",
            "score": 0.5,
            "counted": True,
            "cell_id": None,
            "is_new": False,
        },
    ]


def test_a_frame_of_nothing() -> None:
    empty = Detections(
        np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.intp), ("WBC",), ("white",), True
    )
    quality = FrameQuality(None, False, ("blurred",))
    message = make_factory().frame(make_frame(), empty, stage=None, quality=quality, observations=[])
    assert (message.detections, message.stage, message.focus, message.truncated) == ([], None, None, True)
    assert (message.accepted, message.reasons, message.timings_ms) == (False, ["blurred"], {})
    assert decode(encode(message)) == message


@pytest.mark.parametrize("part", ["boxes_px", "scores"])
def test_what_is_not_finite_is_refused(part: str) -> None:
    detections = make_detections()
    getattr(detections, part)[1] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        make_factory().frame(
            make_frame(), detections, stage=None, quality=FrameQuality(None, True), observations=make_observations()
        )


def test_looks_and_their_rows_must_be_as_many() -> None:
    looks = make_looks()
    with pytest.raises(ValueError, match="zip"):
        make_factory().frame(
            make_frame(),
            make_detections(),
            stage=None,
            quality=FrameQuality(None, True),
            observations=make_observations(),
            looks=Looks([0, 1], looks.classifications, ["monocyte", "monocyte"]),
        )


def test_numpy_scalars_in_records_become_plain_numbers() -> None:
    cell = msgspec.structs.asdict(make_factory().cell(make_cell()))
    observations = [Observation(np.int64(3), np.bool_(True), np.bool_(True))] * 4  # type: ignore[arg-type]
    message = make_factory().frame(
        make_frame(),
        make_detections(),
        stage=None,
        quality=FrameQuality(np.float32(0.5), np.bool_(True)),  # type: ignore[arg-type]
        observations=observations,
    )
    sent = json.loads(encode(message))
    assert (sent["focus"], sent["accepted"]) == (0.5, True)
    assert (sent["detections"][0]["cell_id"], sent["detections"][0]["is_new"]) == (3, True)
    assert cell["cell_id"] == 3


def test_a_file_name_that_is_no_utf8() -> None:
    message = frame_message(make_factory(), b"caf\xe9 \xc3\xa9.png".decode("utf-8", "surrogateescape"))
    assert json.loads(encode(message))["file"] == "caf\N{REPLACEMENT CHARACTER} é.png"


def test_a_cell() -> None:
    message = make_factory().cell(make_cell())
    assert (message.cell_id, message.island, message.x_px, message.y_px) == (3, 0, 135.3, 45.0)
    assert (message.class_, message.subclass, message.top_class) == ("neutrophil", "band neutrophil", "neutrophil")
    assert (message.looks, message.partial, message.first_frame_id, message.last_frame_id) == (2, False, 5, 7)
    assert json.loads(encode(message))["class"] == "neutrophil"
    assert (message.counted, message.joined_to) == (True, None)
    assert (message.unclassified_reason, message.attributes) == (None, None)


def test_a_cell_in_words() -> None:
    said = {
        "nucleus_shape": AttributeValue("segmented-multilobed", 0.912345),
        "granularity": AttributeValue("yes", 1.0),
    }
    message = make_factory().cell(replace(make_cell(), attributes=said))
    assert json.loads(encode(message))["attributes"] == {
        "nucleus_shape": {"value": "segmented-multilobed", "confidence": 0.9123},
        "granularity": {"value": "yes", "confidence": 1.0},
    }
    unlike = replace(make_cell(), class_name="unclassified", unclassified_reason="unlike the training cells")
    assert make_factory().cell(unlike).unclassified_reason == "unlike the training cells"


@pytest.mark.parametrize("joined_to", [None, 8])
def test_a_cell_that_is_taken_back(joined_to: int | None) -> None:
    message = make_factory().cell(make_cell(), counted=False, joined_to=joined_to)
    assert (message.cell_id, message.counted, message.joined_to) == (3, False, joined_to)
    assert decode(encode(message)) == message


def test_a_differential_is_not_rounded() -> None:
    message = make_factory().differential(make_differential(3, final=True))
    assert message.nrbc_per_100_wbc == 100.0 / 3
    assert decode(encode(message)) == message
    assert {name: (s.count, s.percent, s.low, s.high) for name, s in message.classes.items()} == {
        "neutrophil": (3, 100.0, 2.5, 100.0),
        "monocyte": (0, 0.0, 0.0, 97.5),
    }
    assert (message.total, message.unclassified, message.nrbc, message.final) == (3, 0, 1, True)
    assert ([flag.text for flag in message.flags], message.not_assessed) == (["nucleated red cell seen"], ("blast",))
    assert (message.rbc_seen, message.platelets_seen, message.frames, message.frames_accepted) == (120, 8, 8, 7)


def test_health() -> None:
    message = make_factory().health(make_health())
    status = message.sources["cam"]
    assert (message.backend, message.detector, message.classifier, message.uptime_s) == ("scripted", "fake", None, 10.0)
    assert (status.state, status.mode, status.fps, status.queue, status.reopened) == ("open", "live", 29.99, 1, 0)
    assert (status.captured, status.published, status.dropped, status.skipped) == (300, 290, {"queue full": 10}, {})
    assert status.latency_ms == {"p50": 31.235, "p95": 40.0, "p99": 55.0}
    assert status.detail is None
    assert message.shadow is not None
    shadow = message.shadow["detector"]
    assert (shadow.checked, shadow.compared, shadow.agreed, shadow.extra, shadow.failed) == (3, 40, 39, 2, 1)
    bare = make_factory().health(Health(ModelHealth("b", "d", "c"), 0.0))
    assert (bare.sources, bare.shadow) == ({}, None)


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=20).filter(lambda weights: sum(weights) > 1e-3))
def test_rounded_probabilities_keep_sum_and_order(weights: list[float]) -> None:
    probabilities = (np.array(weights) / sum(weights)).astype(np.float32).tolist()
    names = [f"class {i}" for i in range(len(weights))]
    rounded = rounded_probabilities(names, probabilities)
    assert list(rounded) == names
    assert math.isclose(sum(rounded.values()), 1.0, abs_tol=1e-9)
    for exact, value in zip(probabilities, rounded.values(), strict=True):
        assert abs(exact - value) <= 1e-4
        assert value == round(value, 4)
    for i, j in zip(np.argsort(probabilities), np.argsort(probabilities)[1:], strict=False):
        assert rounded[names[i]] <= rounded[names[j]] or probabilities[i] == probabilities[j]


def test_eight_equal_thirds_of_a_class_still_sum_to_one() -> None:
    rounded = rounded_probabilities("abc", [1 / 3, 1 / 3, 1 / 3])
    assert sorted(rounded.values()) == [0.3333, 0.3333, 0.3334]
