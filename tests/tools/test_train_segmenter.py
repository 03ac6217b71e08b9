"""Segmentation of a cell: the data, the figures, a run that goes on exactly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the network is written in PyTorch")
torch.set_num_threads(1)

from torch import nn  # noqa: E402

from tools.segmentation import figures  # noqa: E402
from tools.train_segmenter import SegmenterTrainer, batch_of, confusion, drawn, load_cells, results  # noqa: E402


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Cells of two laboratories: a dark nucleus in a grey cytoplasm on a light ground."""
    lines = ["image,mask,class"]
    for laboratory in ("jtsc", "cellavision"):
        folder = tmp_path / "wbc_masks" / laboratory
        folder.mkdir(parents=True)
        for i in range(10):
            mask = np.zeros((60, 60), np.uint8)
            cv2.circle(mask, (30, 30), 20 + i % 3, 1, -1)
            cv2.circle(mask, (32, 28), 9, 2, -1)
            shade = np.array([230, 150, 40], np.uint8)[mask]
            cv2.imwrite(str(folder / f"{i}.png"), np.stack([shade] * 3, 2))
            cv2.imwrite(str(folder / f"{i}-mask.png"), mask)
            lines.append(f"{laboratory}/{i}.png,{laboratory}/{i}-mask.png,monocyte")
    (tmp_path / "wbc_masks" / "labels.csv").write_text("\n".join(lines))
    return tmp_path


class Tiny(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 1))


def trainer(root: Path, out: Path, **options) -> SegmenterTrainer:
    torch.manual_seed(0)
    return SegmenterTrainer(Tiny(), load_cells(root, 32, 0), out, rate=0.3, momentum=0.9, batch=4, seed=1, **options)


def test_cells_are_dealt_by_laboratory(root: Path) -> None:
    cells = load_cells(root, 32, 0)
    assert cells.images.shape == (20, 32, 32, 3)
    assert set(np.unique(cells.masks)) == {0, 1, 2}
    for laboratory in ("jtsc", "cellavision"):
        mine = [part for part, where in zip(cells.parts, cells.laboratories, strict=True) if where == laboratory]
        assert (mine.count("train"), mine.count("validation"), mine.count("test")) == (7, 1, 2)


def test_pictures_and_masks_turn_together(root: Path) -> None:
    cells = load_cells(root, 32, 0)
    chosen = np.arange(12)
    x, truth = batch_of(cells, chosen, np.random.default_rng(0))
    dark = x.mean(1) < 0.3
    assert (dark == (truth == 2)).float().mean() > 0.97
    plain, _ = batch_of(cells, chosen, None)
    assert not torch.equal(x, plain)


def test_figures_by_hand() -> None:
    got = figures(np.array([[80, 10, 0], [0, 5, 0], [5, 0, 0]]))
    assert got["global_accuracy"] == pytest.approx(0.85)
    assert got["mean_accuracy"] == pytest.approx((80 / 90 + 1 + 0) / 3)
    assert got["iou"] == pytest.approx({"background": 80 / 95, "cytoplasm": 5 / 15, "nucleus": 0})
    assert got["mean_iou"] == pytest.approx(1 / 6)
    assert got["mean_iou_of_three"] == pytest.approx((80 / 95 + 1 / 3) / 3)
    assert got["f1"] == pytest.approx((160 / 175 + 10 / 20) / 3)
    assert got["weighted_iou"] == pytest.approx((80 / 95 * 90 + 1 / 3 * 5) / 100)


def test_a_run_learns_and_goes_on_exactly(root: Path, tmp_path: Path) -> None:
    whole = trainer(root, tmp_path / "whole", augment=True)
    lines = [whole.run_epoch() for _ in range(25)]
    assert lines[-1]["loss"] < 0.5 * lines[0]["loss"]
    trainer(root, tmp_path / "parted", augment=True).run_epoch()
    parted = trainer(root, tmp_path / "parted", augment=True, resume=True)
    assert parted.epoch == 1
    for _ in range(24):
        parted.run_epoch()
    for a, b in zip(whole.network.parameters(), parted.network.parameters(), strict=True):
        assert torch.equal(a, b)
    found = results(whole.network, whole.cells, whole.device)
    assert set(found) == {"all", "cellavision", "jtsc"}
    assert found["all"]["mean_iou"] > 0.8
    tested = whole.cells.select("test")
    assert confusion(whole.network, whole.cells, tested, whole.device).sum() == len(tested) * 32 * 32


def test_an_epoch_with_as_many_cells_of_each_laboratory(root: Path) -> None:
    cells = load_cells(root, 32, 0)
    own = [i for i in cells.select("train").tolist() if cells.laboratories[i] == "jtsc"]
    assert cells.laboratories[12] == "cellavision"
    parts = ["train" if i in own or i == 12 else "test" for i in range(20)]
    chosen = drawn(replace(cells, parts=parts), np.random.default_rng(0)).tolist()
    assert len(own) == 7
    assert sorted(chosen)[4:] == [12] * 4
    assert len(set(chosen) & set(own)) == 4


def test_crops_turn_with_their_masks(root: Path) -> None:
    cells = load_cells(root, 48, 0, margin=1.3)
    assert cells.images.shape == (20, 48, 48, 3)
    assert cells.wide is not None
    assert cells.wide[0].shape == (20, 96, 96, 3)
    _, plain = batch_of(cells, np.arange(20), None)
    filled = (plain > 0).float().mean((1, 2))
    assert ((filled > 0.4) & (filled < 0.5)).all()  # a disc in a square of 1.3 times its side: pi / 4 / 1.69
    x, truth = batch_of(cells, np.arange(20), np.random.default_rng(0))
    inside, outside = (
        torch.stack([x[i].mean(0)[pick[i]].mean() for i in range(20)]) for pick in (truth == 2, truth == 0)
    )
    assert (inside < outside).all()


def test_a_mask_that_is_none(root: Path) -> None:
    cv2.imwrite(str(root / "wbc_masks" / "jtsc" / "3-mask.png"), np.full((60, 60), 7, np.uint8))
    with pytest.raises(ValueError, match=r"jtsc/3\.png: got no picture with a mask"):
        load_cells(root, 32, 0)
