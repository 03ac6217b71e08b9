"""The shadow check: which images it takes, what it counts."""

from __future__ import annotations

import numpy as np
import pytest

from engines.base import Engine, EngineError
from engines.parity import Parity, classifier_parity
from engines.scripted import ScriptedEngine, classifier_specs
from engines.shadow import ShadowCounts, ShadowedEngine


def classifier(wrong_from: int = 1000) -> ScriptedEngine:
    """Class 0, and class 1 for images whose first byte is `wrong_from` or more."""

    def answer(feeds: object) -> dict[str, np.ndarray]:
        images = feeds["images"]  # type: ignore[index]
        return {"class_probabilities": np.eye(2, dtype=np.float32)[(images[:, 0, 0, 0] >= wrong_from).astype(int)]}

    inputs, outputs = classifier_specs(2, 2, 2)
    return ScriptedEngine(inputs, outputs, answer, concurrency=3, max_batch=8)


def compare(reference: Engine, candidate: Engine, image: np.ndarray) -> Parity:
    return classifier_parity(reference, candidate, [image])


def images(*firsts: int) -> dict[str, np.ndarray]:
    batch = np.zeros((len(firsts), 2, 2, 3), np.uint8)
    batch[:, 0, 0, 0] = firsts
    return {"images": batch}


def test_every_so_many_images_are_asked_twice() -> None:
    reference = classifier()
    engine = ShadowedEngine(classifier(), reference, compare, every=4)
    assert isinstance(engine, Engine)
    for start in (0, 3, 6, 9):
        outputs = engine.infer(images(start, start + 1, start + 2))
        assert outputs["class_probabilities"].shape == (3, 2)
    assert [int(call["images"][0, 0, 0, 0]) for call in reference.calls] == [0, 4, 8]
    assert engine.counts == ShadowCounts(3, 3, 3.0, 0)
    assert (engine.backend, engine.concurrency, engine.max_batch) == ("scripted", 3, 8)


def test_disagreement_is_counted() -> None:
    engine = ShadowedEngine(classifier(wrong_from=2), classifier(), compare, every=1)
    for first in range(4):
        engine.infer(images(first))
    assert engine.counts == ShadowCounts(4, 4, 2.0, 0)


def test_a_failing_reference_does_not_stop_the_stream() -> None:
    inputs, outputs = classifier_specs(2, 2, 2)
    broken = ScriptedEngine(inputs, outputs, lambda feeds: EngineError("out of order"))
    engine = ShadowedEngine(classifier(), broken, compare, every=2)
    engine.infer(images(0, 1, 2))
    assert engine.counts == ShadowCounts(0, 0, 0.0, 1)


def test_both_are_closed() -> None:
    fast, reference = classifier(), classifier()
    ShadowedEngine(fast, reference, compare).close()
    assert (fast.closed, reference.closed) == (True, True)


def test_every_needs_to_be_a_number_of_images() -> None:
    with pytest.raises(ValueError, match="every: got 0"):
        ShadowedEngine(classifier(), classifier(), compare, every=0)
