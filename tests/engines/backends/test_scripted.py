"""The scripted engine keeps to the protocol that it stands in for."""

from __future__ import annotations

import numpy as np
import pytest

from engines.backends.scripted import ScriptedEngine, candidates, detector_specs
from engines.base import Engine, EngineError, TensorMismatchError


def images(n: int, fill: int = 0) -> dict[str, np.ndarray]:
    return {"images": np.full((n, 32, 64, 3), fill, np.uint8)}


def test_answers_by_call_then_says_that_the_script_is_over() -> None:
    first = candidates([[((1, 2, 3, 4), 0.5, 1), ((5, 6, 7, 8), 0.9, 0)]], top_k=3)
    engine = ScriptedEngine(*detector_specs(32, 64, 3), [first, EngineError("out of memory")], concurrency=2)
    assert isinstance(engine, Engine)
    answer = engine.infer(images(1, 7))
    assert answer["boxes"].tolist() == [[[5, 6, 7, 8], [1, 2, 3, 4], [0, 0, 0, 0]]]
    assert answer["scores"][0].tolist() == pytest.approx([0.9, 0.5, 0])
    assert answer["classes"].tolist() == [[0, 1, 0]]
    with pytest.raises(EngineError, match="out of memory"):
        engine.infer(images(1))
    with pytest.raises(EngineError, match="got call 3, expected 2"):
        engine.infer(images(1))
    assert [int(feeds["images"][0, 0, 0, 0]) for feeds in engine.calls] == [7, 0, 0]


def test_answers_by_a_function_of_what_it_is_fed() -> None:
    def script(feeds: object) -> dict[str, np.ndarray]:
        return candidates([[((0, 0, 1, 1), float(image.max()) / 255, 0)] for image in feeds["images"]], top_k=1)  # type: ignore[index]

    engine = ScriptedEngine(*detector_specs(32, 64, 1), script)
    assert engine.infer(images(2, 255))["scores"].tolist() == [[1], [1]]


def test_refuses_what_a_real_engine_refuses() -> None:
    engine = ScriptedEngine(*detector_specs(32, 64), [])
    with pytest.raises(TensorMismatchError, match=r"expected uint8 \(N,32,64,3\)"):
        engine.infer({"images": np.zeros((1, 64, 32, 3), np.uint8)})
    engine.close()
    with pytest.raises(EngineError, match="after close"):
        engine.infer(images(1))
