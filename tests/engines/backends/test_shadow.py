"""The shadow check: which images it takes, what it counts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from engines.backends.scripted import ScriptedEngine, classifier_specs
from engines.backends.shadow import ShadowCounts, ShadowedEngine, ShadowTally
from engines.base import Engine, EngineError
from engines.graphs.parity import Parity, classifier_parity


def classifier(wrong_from: int = 1000) -> ScriptedEngine:
    """Class 0, and class 1 for images whose first byte is `wrong_from` or more."""

    def answer(feeds: object) -> dict[str, np.ndarray]:
        images = feeds["images"]  # type: ignore[index]
        return {"class_probabilities": np.eye(2, dtype=np.float32)[(images[:, 0, 0, 0] >= wrong_from).astype(int)]}

    inputs, outputs = classifier_specs(2, 2, 2)
    return ScriptedEngine(inputs, outputs, answer, concurrency=3, max_batch=8)


def compare(reference: Engine, candidate: Engine, batches: Sequence[np.ndarray]) -> Parity:
    return classifier_parity(reference, candidate, batches)


def images(*firsts: int) -> dict[str, np.ndarray]:
    batch = np.zeros((len(firsts), 2, 2, 3), np.uint8)
    batch[:, 0, 0, 0] = firsts
    return {"images": batch}


def test_every_so_many_images_are_asked_twice() -> None:
    reference = classifier()
    tally = ShadowTally(images_per_check=4)
    engine = ShadowedEngine(classifier(), reference, compare, tally)
    assert isinstance(engine, Engine)
    for start in (0, 3, 6, 9):
        outputs = engine.infer(images(start, start + 1, start + 2))
        assert outputs["class_probabilities"].shape == (3, 2)
    assert [int(call["images"][0, 0, 0, 0]) for call in reference.calls] == [0, 4, 8]
    assert tally.counts == ShadowCounts(3, 3, 3, 0, 0)
    assert (engine.backend, engine.concurrency, engine.max_batch) == ("scripted", 3, 8)


def test_disagreement_is_counted() -> None:
    tally = ShadowTally(images_per_check=1)
    engine = ShadowedEngine(classifier(wrong_from=2), classifier(), compare, tally)
    for first in range(4):
        engine.infer(images(first))
    assert tally.counts == ShadowCounts(4, 4, 2, 0, 0)


def test_a_failing_reference_does_not_stop_the_stream() -> None:
    inputs, outputs = classifier_specs(2, 2, 2)
    broken = ScriptedEngine(inputs, outputs, lambda feeds: EngineError("out of order"))
    tally = ShadowTally(images_per_check=2)
    engine = ShadowedEngine(classifier(), broken, compare, tally)
    engine.infer(images(0, 1, 2))
    assert tally.counts == ShadowCounts(0, 0, 0, 0, 1)


def test_both_are_closed() -> None:
    fast, reference = classifier(), classifier()
    ShadowedEngine(fast, reference, compare, ShadowTally()).close()
    assert (fast.closed, reference.closed) == (True, True)


def test_images_per_check_needs_to_be_a_number_of_images() -> None:
    with pytest.raises(ValueError, match="images_per_check: got 0"):
        ShadowTally(images_per_check=0)


def test_boxes_lost_changed_and_extra_are_told_apart() -> None:
    """Of ten boxes eight are found again, six of these with their class, and three are new."""
    tally = ShadowTally()
    tally.add(Parity(pictures=1, compared=10, matched=0.8, same_class=0.75, extra=0.3))
    assert tally.counts == ShadowCounts(1, 10, 6, 3, 0)


def test_engines_of_several_sizes_share_the_count() -> None:
    tally = ShadowTally(images_per_check=3)
    references = [classifier(), classifier()]
    engines = [ShadowedEngine(classifier(), reference, compare, tally) for reference in references]
    for number in range(8):
        engines[number % 2].infer(images(number))
    assert [len(reference.calls) for reference in references] == [2, 1]
