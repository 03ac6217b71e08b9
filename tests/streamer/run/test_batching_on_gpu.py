"""Cameras through the batcher onto TensorRT's double: whatever the interleaving, each source gets its own, in order."""

from __future__ import annotations

import threading

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.backends.onnxruntime import OnnxRuntimeEngine, Threads
from engines.backends.tensorrt.libraries import Libraries
from engines.backends.tensorrt.runtime import TensorRTEngine
from engines.models.detector import Detector, Engines
from engines.zoo.card import Card, ClassEntry, DetectorInput, Thresholds
from streamer.analysis.analyser import Analyser
from streamer.records import Frame
from streamer.run.batcher import Batcher, InOrder, SequencedFrame
from streamer.run.ring import Ring
from tests.engines.backends.tensorrt.test_runtime import plan
from tests.engines.backends.tensorrt_double import World
from tests.engines.small_detector import detector, pictures

CARD = Card(
    "small",
    "detector",
    DetectorInput(long_side_px=96),
    tuple(ClassEntry(name, "white") for name in "abc"),
    Thresholds(0.3, 0.5),
    "small.onnx",
)
PICTURES = pictures(6)
CPU = Detector(CARD, Engines(lambda height, width: OnnxRuntimeEngine(detector(1), threads=Threads(1), device="cpu")))
EXPECTED = [one.boxes_px for one in CPU.detect(list(PICTURES))]


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 1 << 30),
    frames=st.lists(st.integers(0, 7), min_size=1, max_size=4),
    workers=st.integers(1, 3),
    slots=st.integers(1, 3),
    max_frames=st.integers(1, 6),
    capacity=st.integers(1, 3),
)
def test_every_frame_comes_back_to_its_source_in_order(
    seed: int, frames: list[int], workers: int, slots: int, max_frames: int, capacity: int
) -> None:
    world = World(seed=seed)
    engine = TensorRTEngine(plan(world), libraries=Libraries(world.trt, world.cuda), slots=slots)
    analyser = Analyser(Detector(CARD, Engines(lambda height, width: engine), batch=max_frames), None)
    rings: dict[str, Ring[Frame]] = {f"camera{i}": Ring(capacity, "block") for i in range(len(frames))}
    batcher = Batcher(rings, now_ns=lambda: 0, max_frames=max_frames, max_wait_ms=1.0, group=analyser.group)
    in_order: InOrder[np.ndarray] = InOrder()
    came: dict[str, list[np.ndarray]] = {name: [] for name in rings}
    lock = threading.Lock()
    faults: list[BaseException] = []

    def read(name: str, count: int) -> None:
        for number in range(count):
            rings[name].put(Frame(name, number, -(10**9), PICTURES[number % len(PICTURES)]))
        rings[name].close()

    def work() -> None:
        try:
            while (batch := batcher.next_batch()) is not None:
                results = analyser.detector.detect([one.frame.image for one in batch])
                with lock:
                    for one, found in zip(batch, results, strict=True):
                        give(one, found.boxes_px)
        except BaseException as error:
            faults.append(error)

    def give(one: SequencedFrame, boxes: np.ndarray) -> None:
        came[one.frame.source] += in_order.put(one.frame.source, one.order, boxes)

    threads = [threading.Thread(target=read, args=pair) for pair in zip(rings, frames, strict=True)]
    threads += [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [thread for thread in threads if thread.is_alive()] == []
    assert faults == []
    for name, count in zip(rings, frames, strict=True):
        assert len(came[name]) == count
        for number, boxes in enumerate(came[name]):
            np.testing.assert_array_equal(boxes, EXPECTED[number % len(PICTURES)])
    engine.close()
    world.check_clean()
