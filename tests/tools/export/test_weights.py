"""Storing a file anew: what it costs is measured first, and said in the card."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest

pytest.importorskip("torch", reason="measuring needs PyTorch")

from engines.models.loading import load_detector
from engines.zoo.card import parse_card
from tests.engines.small_detector import detector, pictures
from tools.export import weights

CARD = """name = "small"
task = "detector"
sha256 = "{digest}"

[[classes]]
name = "WBC"
kind = "white"

[[classes]]
name = "RBC"
kind = "red"

[[classes]]
name = "platelet"
kind = "platelet"

[[figures]]
dataset = "pbc"
part = "validation"
command = "measure"
map50 = 0.9
"""


@pytest.fixture
def card(tmp_path: Path) -> Path:
    onnx.save(detector(batch=1), tmp_path / "small.onnx")
    digest = hashlib.sha256((tmp_path / "small.onnx").read_bytes()).hexdigest()
    (tmp_path / "small.toml").write_text(CARD.format(digest=digest))
    return tmp_path / "small.toml"


def measured(monkeypatch: pytest.MonkeyPatch, *values: float, cells: int | None = None) -> None:
    given = iter(values)
    steps = {} if cells is None else {"pbc": 1 / cells}
    monkeypatch.setattr(weights, "figures_of", lambda model, limit: ("map50", {"pbc": next(given)}, steps))


def test_file_and_card_are_replaced_where_it_costs_little(
    card: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = parse_card(card.read_text(), "small", stem="small")
    (expected,) = load_detector(str(card)).detect([pictures(1)[0]])
    size = card.with_suffix(".onnx").stat().st_size
    measured(monkeypatch, 0.9, 0.8995)
    assert weights.main([str(card)]) == 0
    assert "map50: pbc 0.9000 -> 0.8995" in capsys.readouterr().out
    after = parse_card(card.read_text(), "small", stem="small")
    assert card.with_suffix(".onnx").stat().st_size < size
    assert after.figures == before.figures
    assert after.storage["was"] == before.sha256 != after.sha256
    assert (after.storage["before"], after.storage["stored"]) == ([0.9], [0.8995])
    (found,) = load_detector(str(card)).detect([pictures(1)[0]])
    np.testing.assert_allclose(found.boxes_px, expected.boxes_px, atol=1)
    measured(monkeypatch, 0.8995, 0.8995)
    assert weights.main([str(card), "--weights", "int8"]) == 0
    again = parse_card(card.read_text(), "small", stem="small")
    assert (again.storage["weights"], again.storage["was"]) == ("int8", before.sha256)


def test_one_cell_a_set_is_passed_over_and_two_are_not(card: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured(monkeypatch, 0.98, 0.96, cells=50)
    assert weights.main([str(card), "--weights", "int8"]) == 0
    measured(monkeypatch, 0.98, 0.94, cells=50)
    with pytest.raises(ValueError, match=r"got 0.0200 less map50 as int8, expected at most 0.001"):
        weights.main([str(card), "--weights", "int8"])


def test_nothing_is_replaced_where_it_costs_more(card: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = card.read_text(), card.with_suffix(".onnx").read_bytes()
    measured(monkeypatch, 0.9, 0.8985)
    with pytest.raises(ValueError, match=r"got 0.0015 less map50 as int8, expected at most 0.001"):
        weights.main([str(card), "--weights", "int8"])
    assert (card.read_text(), card.with_suffix(".onnx").read_bytes()) == kept


def test_the_card_says_from_which_size_layers_are_int8(card: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured(monkeypatch, 0.9, 0.9)
    assert weights.main([str(card), "--weights", "int8", "--int8-from", "577"]) == 0
    storage = parse_card(card.read_text(), "small", stem="small").storage
    assert (storage["weights"], storage["int8_from"]) == ("int8", 577)
    held = {tensor.name for tensor in onnx.load(card.with_suffix(".onnx")).graph.initializer}
    assert "down4_w/half" in held
    assert not [name for name in held if name.endswith("/int8")]
