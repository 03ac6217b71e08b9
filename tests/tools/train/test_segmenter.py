"""Segmentation of a cell: the data, the figures, a run that goes on exactly."""

from __future__ import annotations

import json
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the network is written in PyTorch")
torch.set_num_threads(1)

from torch import nn  # noqa: E402

from tools.data import masks  # noqa: E402
from tools.data.augment import Augmentation  # noqa: E402
from tools.data.masked_cells import Changes, batch_of, drawn, load_cells, surrounded  # noqa: E402
from tools.data.masks import CELL, figures  # noqa: E402
from tools.train.loop import LAST, RESULTS, Loop  # noqa: E402
from tools.train.segmenter import (  # noqa: E402
    SegmenterTask,
    chosen_changes,
    chosen_sets,
    confusion,
    cross_entropy,
    loss_of,
    main,
    results,
    schedule_of,
)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Cells of two laboratories: a dark nucleus in a grey cytoplasm on a light ground. They look alike and are not the
    same."""
    monkeypatch.setattr(masks, "hash_links", lambda names, signs: [])
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


BOTH = ("wbc_masks", "krd")


@pytest.fixture
def root_with_krd(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same cells in ten fields of krd, larger and beside the middle, their masks of 0 and 255 with a speck."""
    lines, parts = ["file,class,x1,y1,x2,y2"], {}
    folder = root / "krd" / "images" / "monocyte"
    folder.mkdir(parents=True)
    for i in range(10):
        mask = np.zeros((120, 120), np.uint8)
        cv2.circle(mask, (40, 70), 22, 1, -1)
        cv2.circle(mask, (43, 67), 10, 2, -1)
        shade = np.array([230, 150, 40], np.uint8)[mask]
        cv2.imwrite(str(folder / f"{i}.jpg"), np.stack([shade] * 3, 2))
        whole = np.where(mask > 0, 255, 0).astype(np.uint8)
        whole[2:4, 2:4] = 255
        cv2.imwrite(str(folder / f"{i}.mask.png"), whole)
        lines.append(f"images/monocyte/{i}.jpg,monocyte,18,48,63,93")
        parts[f"krd/images/monocyte/{i}.jpg"] = "validation" if i < 2 else "holdout" if i < 5 else "train"
    (root / "krd" / "labels.csv").write_text("\n".join(lines))
    monkeypatch.setattr(masks, "load_splits", lambda root: parts)
    return root


class Tiny(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 1))


def loop_of(root: Path, out: Path, epochs: int, **options: Any) -> Loop[Tiny]:
    torch.manual_seed(0)
    task = SegmenterTask(
        network=Tiny(), cells=load_cells(root, 32, 0), rate=0.1, momentum=0.9, batch=4, seed=1, **options
    )
    return Loop(task, schedule_of(task, epochs), out, say=lambda line: None)


def losses(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / RESULTS).read_text().splitlines()]


def test_cells_are_dealt_by_laboratory(root: Path) -> None:
    cells = load_cells(root, 32, 0)
    assert cells.images.shape == (20, 32, 32, 3)
    assert set(np.unique(cells.masks)) == {0, 1, 2}
    for laboratory in ("jtsc", "cellavision"):
        own = [part for part, where in zip(cells.parts, cells.laboratories, strict=True) if where == laboratory]
        assert (own.count("train"), own.count("validation"), own.count("test")) == (7, 1, 2)


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
    assert got["cell_iou"] == pytest.approx(5 / (5 + 10 + 5))


def test_figures_of_whole_cells_by_hand() -> None:
    table = np.array([[80, 3, 2], [0, 0, 0], [0, 0, 0], [5, 6, 4]])
    assert figures(table) == pytest.approx({"global_accuracy": 90 / 100, "cell_iou": 10 / 20})
    parted = np.array([[80, 10, 0], [0, 5, 0], [5, 0, 0]])
    assert figures(np.vstack([parted, [0, 0, 0]])) == figures(parted)


def test_a_run_learns_and_goes_on_exactly(root: Path, tmp_path: Path) -> None:
    whole = loop_of(root, tmp_path / "whole", 25, augment=True)
    whole.run()
    lines = losses(tmp_path / "whole")
    assert len(lines) == 25
    assert lines[-1] < 0.5 * lines[0]
    first = loop_of(root, tmp_path / "parted", 1, augment=True)
    first.run()
    assert first.step == 4  # fourteen cells in batches of four
    parted = loop_of(root, tmp_path / "parted", 25, augment=True)
    parted.resume(tmp_path / "parted" / LAST)
    parted.run()
    for a, b in zip(whole.network.parameters(), parted.network.parameters(), strict=True):
        assert torch.equal(a, b)
    task = whole.task
    assert isinstance(task, SegmenterTask)
    found = results(whole.network, task.cells, task.device)
    assert set(found) == {"all", "cellavision", "jtsc"}
    assert found["all"]["mean_iou"] > 0.8
    assert [found[name]["cells"] for name in ("all", "cellavision", "jtsc")] == [4, 2, 2]
    tested = task.cells.select("test")
    assert confusion(whole.network, task.cells, tested, task.device).sum() == len(tested) * 32 * 32


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


def test_bending_moves_pictures_and_masks_alike(root: Path) -> None:
    cells = load_cells(root, 48, 0, margin=1.3)
    light = Augmentation().weakened(0)
    straight, bent = (
        batch_of(replace(cells, changes=Changes(bend=bend, light=light)), np.arange(20), np.random.default_rng(0))
        for bend in (0.0, 0.03)
    )
    assert (straight[1] != bent[1]).float().mean() > 0.01
    shades = torch.tensor([230, 150, 40])[bent[1]] / 255
    assert ((bent[0].mean(1) - shades).abs() < 0.1).float().mean() > 0.9  # but where two shades mix at an edge


def test_a_cell_in_the_surroundings_of_another() -> None:
    truth, occupied = np.zeros((2, 40, 40), np.uint8)
    truth[10:20, 10:20] = 2
    occupied[15:30, 15:30] = 1
    crop, other = np.full((40, 40, 3), 200, np.uint8), np.full((40, 40, 3), 190, np.uint8)
    crop[truth > 0], other[occupied > 0], other[32:, 32:] = 90, 20, 120
    got = surrounded(crop, truth, other, occupied, np.random.default_rng(0))
    assert (got[truth > 0] == 90).all()
    assert (got[34:, 34:] == 120).all()
    assert (got[:5, :5] == 190).all()
    assert got.min() >= 90  # the other's cell isn't there
    darker = other // 2
    assert np.array_equal(surrounded(crop, truth, darker, occupied, np.random.default_rng(0)), crop)


def test_surroundings_are_of_one_laboratory_and_of_training(root: Path) -> None:
    cells = load_cells(root, 48, 0, margin=1.3)
    assert cells.wide is not None
    images = cells.wide[0].copy()
    training = [i for i, part in enumerate(cells.parts) if part == "train"]
    for i in range(20):  # in the blue channel of the ground, which cell it is
        images[i, ..., 0][cells.wide[1][i] == 0] = 220 + i
    changes = Changes(swap=1.0, zoom=(1.0, 1.0), light=Augmentation().weakened(0))
    marked = replace(cells, wide=(images, cells.wide[1]), changes=changes)
    for seed in range(10):
        x, _ = batch_of(marked, np.arange(20), np.random.default_rng(seed))
        for i in range(20):
            seen = round(float(x[i, 0, 0, 0]) * 255) - 220
            assert seen != i
            assert seen in training
            assert cells.laboratories[seen] == cells.laboratories[i]


def test_the_shift_is_of_the_cell(root: Path) -> None:
    cells = load_cells(root, 48, 0, margin=1.3)
    for shift, farthest in ((0.0, 1.0), (0.3, 0.3 * 2**0.5 * 48 / 1.3 + 1)):
        changes = Changes(zoom=(1.0, 1.0), shift=shift, light=Augmentation().weakened(0))
        _, truth = batch_of(replace(cells, changes=changes), np.arange(20), np.random.default_rng(0))
        moves = [np.hypot(*(np.argwhere(mask.numpy() > 0).mean(0) - 23.5)) for mask in truth]
        assert max(moves) < farthest
        assert shift == 0 or max(moves) > 5


def test_options_make_the_changes() -> None:
    options = {"zoom": [0.9, 1.1], "gamma": 0.2, "brightness": 0.1, "shift": 0.05, "bend": 0.01, "swap": 0.3}
    whole = chosen_changes(Namespace(**options, strength=1.0))
    assert (whole.zoom, whole.shift, whole.bend, whole.swap) == ((0.9, 1.1), 0.05, 0.01, 0.3)
    assert (whole.light.gamma, whole.light.brightness, whole.light.cut_share) == (0.2, 0.1, 0)
    half = chosen_changes(Namespace(**options, strength=0.5))
    assert (half.light.gamma, half.light.blur_share) == (0.1, 0.5 * whole.light.blur_share)
    assert (half.zoom, half.shift) == (whole.zoom, whole.shift)


def test_the_loss_of_overlap_by_hand() -> None:
    truth = torch.tensor([[[0, 1], [1, 2]]])
    sure = 100.0 * nn.functional.one_hot(truth, 3).permute(0, 3, 1, 2)
    assert loss_of(sure, truth, 1.0) == pytest.approx(0, abs=1e-6)
    found = torch.tensor([[[0, 1], [2, 2]]])
    logits = 100.0 * nn.functional.one_hot(found, 3).permute(0, 3, 1, 2)
    plain = loss_of(logits, truth, 0.0)
    assert plain == pytest.approx(100 / 4)
    # one of two pixels of cytoplasm, one of two that are or are called nucleus; both sides of the fraction plus 1
    assert loss_of(logits, truth, 3.0) - plain == pytest.approx(3 * (1 - 2 / 3), abs=1e-4)


def published_loss(logits: torch.Tensor, truth: torch.Tensor, overlap: float) -> torch.Tensor:
    """As it was before masks of whole cells: what the published weights learned by."""
    loss = nn.functional.cross_entropy(logits, truth)
    if not overlap:
        return loss
    likely = logits.softmax(1)[:, 1:]
    true = nn.functional.one_hot(truth, 3).permute(0, 3, 1, 2)[:, 1:].to(likely.dtype)
    both = (likely * true).sum((0, 2, 3))
    either = (likely + true).sum((0, 2, 3)) - both
    return loss + overlap * (1 - (both + 1) / (either + 1)).mean()


@pytest.mark.parametrize("overlap", [0.0, 0.5])
def test_the_loss_of_wbc_masks_alone_is_to_the_bit_what_it_was(overlap: float) -> None:
    torch.manual_seed(0)
    truth = torch.randint(0, 3, (10, 32, 32))
    for layout in (torch.contiguous_format, torch.channels_last):
        given = (5 * torch.randn(10, 3, 32, 32)).to(memory_format=layout)
        logits, before = (given.clone().requires_grad_() for _ in range(2))
        loss, expected = loss_of(logits, truth, overlap), published_loss(before, truth, overlap)
        loss.backward()
        expected.backward()
        assert torch.equal(loss, expected)
        assert logits.grad is not None
        assert before.grad is not None
        assert torch.equal(logits.grad, before.grad)


def test_the_cross_entropy_of_whole_cells_by_hand() -> None:
    shares = torch.tensor([0.5, 0.3, 0.2])  # of background, cytoplasm, nucleus, in each of four pixels
    logits = shares.log().reshape(1, 3, 1, 1).expand(1, 3, 2, 2)
    for label, likely in ((0, 0.5), (1, 0.3), (2, 0.2), (CELL, 0.5)):
        assert cross_entropy(logits, torch.full((1, 2, 2), label)) == pytest.approx(-np.log(likely))
    mixed = cross_entropy(logits, torch.tensor([[[0, 1], [2, CELL]]]))
    assert mixed == pytest.approx(-np.log(0.5 * 0.3 * 0.2 * 0.5) / 4)
    truth = torch.randint(0, 3, (2, 8, 8))
    many = torch.randn(2, 3, 8, 8)
    assert cross_entropy(many, truth) == pytest.approx(float(nn.functional.cross_entropy(many, truth)))


@pytest.mark.parametrize("size", [100.0, 1e4])
def test_the_cross_entropy_of_whole_cells_is_safe_where_the_network_is_sure(size: float) -> None:
    logits = torch.tensor([[size, 0.0, 0.0], [0.0, size, 0.0], [0.0, 0.0, size]]).reshape(3, 3, 1, 1).requires_grad_()
    truth = torch.full((3, 1, 1), CELL)
    loss = cross_entropy(logits, truth)
    assert loss.detach() == pytest.approx((size - np.log(2)) / 3)
    loss.backward()
    assert logits.grad is not None
    expected = torch.tensor([[1.0, -0.5, -0.5], [0, 0, 0], [0, 0, 0]]) / 3
    assert torch.allclose(logits.grad[..., 0, 0], expected, atol=1e-3)


def test_the_loss_of_overlap_of_whole_cells_by_hand() -> None:
    truth = torch.tensor([[[0, 1], [1, 2]], [[0, CELL], [CELL, 0]]])
    found = torch.tensor([[[0, 1], [2, 2]], [[0, 2], [0, 1]]])
    logits = 100.0 * nn.functional.one_hot(found, 3).permute(0, 3, 1, 2)
    plain = loss_of(logits, truth, 0.0, whole_cells=True)
    assert plain == pytest.approx((100 + 100 - np.log(2) + 100) / 8)
    # cytoplasm: 1 of 3 (the second cell's wrong one counts, its background is known); nucleus: 1 of 2, that in the
    # second cell counts neither way; the whole cell: 4 of 6. All sides of the fractions plus 1.
    expected = 1 - (2 / 4 + 2 / 3 + 5 / 7) / 3
    assert loss_of(logits, truth, 3.0, whole_cells=True) - plain == pytest.approx(3 * expected, abs=1e-4)
    sure = torch.tensor([[[0, 1], [1, 2]], [[0, 2], [1, 0]]])
    right = 100.0 * nn.functional.one_hot(sure, 3).permute(0, 3, 1, 2)
    assert loss_of(right, truth, 1.0, whole_cells=True) == pytest.approx(0, abs=1e-6)


def test_pixels_of_whole_cells_pull_no_class_before_the_other() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 8, 8)
    logits[:, 2] = logits[:, 1]  # both classes as likely
    logits.requires_grad_()
    truth = torch.zeros(2, 8, 8, dtype=torch.long)
    truth[:, 2:6, 2:6] = CELL
    loss_of(logits, truth, 0.5, whole_cells=True).backward()
    assert logits.grad is not None
    background, cytoplasm, nucleus = logits.grad.unbind(1)
    inside = truth == CELL
    assert torch.allclose(cytoplasm[inside], nucleus[inside])
    assert (background[inside] > 0).all()
    assert (cytoplasm[inside] < 0).all()
    assert (background[~inside] < 0).all()
    assert torch.isfinite(logits.grad).all()


def test_cells_of_krd_are_cropped_like_the_others(root_with_krd: Path) -> None:
    cells = load_cells(root_with_krd, 48, 0, 1.3, BOTH)
    assert cells.laboratories[:20] == load_cells(root_with_krd, 48, 0, 1.3).laboratories
    assert cells.laboratories[20:] == ["krd"] * 10
    assert cells.whole.tolist() == [False] * 20 + [True] * 10
    assert cells.parts[20:] == ["validation"] * 2 + ["test"] * 3 + ["train"] * 5
    assert set(np.unique(cells.masks[:20])) == {0, 1, 2}
    assert set(np.unique(cells.masks[20:])) == {0, CELL}
    for seed in (None, 0):
        x, truth = batch_of(cells, np.arange(20, 30), None if seed is None else np.random.default_rng(seed))
        filled = (truth == CELL).float().mean((1, 2))
        assert ((filled > 0.2) & (filled < 0.75)).all()
        if seed is None:  # a disc in a square of 1.3 times its side, the shade of the ground outside it
            assert ((filled > 0.4) & (filled < 0.5)).all()
            assert ((x.mean(1) < 0.75) == (truth == CELL)).float().mean() > 0.97


def test_a_run_learns_from_whole_cells_too(root_with_krd: Path, tmp_path: Path) -> None:
    cells = load_cells(root_with_krd, 32, 0, 1.3, BOTH)
    torch.manual_seed(0)
    names = {"rate": 0.1, "momentum": 0.9, "batch": 4, "seed": 1, "overlap": 0.5, "balance": True}
    task = SegmenterTask(network=Tiny(), cells=cells, **names)  # type: ignore[arg-type]
    assert task.epoch_steps == 5  # nineteen cells of training in batches of four
    truth = batch_of(cells, np.arange(20, 24), None)[1]
    loss_of(task.network(batch_of(cells, np.arange(20, 24), None)[0]), truth, 0.5, whole_cells=True).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in task.network.parameters())
    loop = Loop(task, schedule_of(task, 20), tmp_path / "run", say=lambda line: None)
    loop.run()
    lines = [json.loads(line) for line in (tmp_path / "run" / RESULTS).read_text().splitlines()]
    assert lines[-1]["loss"] < 0.5 * lines[0]["loss"]
    assert set(lines[-1]["results"]) == {"mean_iou", "cell_iou"}
    assert min(lines[-1]["results"].values()) > 0.8
    assert "score" not in lines[-1]  # neither chooses
    found = results(loop.network, cells, task.device)
    assert set(found) == {"all", "cellavision", "jtsc", "krd"}
    assert set(found["krd"]) == {"cells", "global_accuracy", "cell_iou"}
    assert found["krd"]["cells"] == 3
    assert found["krd"]["cell_iou"] > 0.9
    without = results(loop.network, load_cells(root_with_krd, 32, 0, 1.3), task.device)
    assert without == {name: found[name] for name in ("all", "cellavision", "jtsc")}
    alone = SegmenterTask(network=Tiny(), cells=load_cells(root_with_krd, 32, 0, 1.3), **names)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="whole_cells"):
        Loop(alone, schedule_of(alone, 20), tmp_path / "run").resume(tmp_path / "run" / LAST)
    assert alone.settings() == {"batch": 4, "seed": 1, "augment": False, "balance": True}
    assert set(alone.measure(loop.network)) == {"mean_iou"}


def test_sets_that_a_network_can_learn_from(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert chosen_sets("wbc_masks", None) == ["wbc_masks"]
    assert chosen_sets("wbc_masks,krd", 1.3) == ["wbc_masks", "krd"]
    for text in ("krd", "wbc_masks,pbc", "wbc_masks,wbc_masks", ""):
        with pytest.raises(ValueError, match=f"--sets: got {text}, expected wbc_masks, alone or with krd"):
            chosen_sets(text, 1.3)
    with pytest.raises(SystemExit) as stopped:
        main(["--out", str(tmp_path / "run"), "--sets", "wbc_masks,krd"])
    assert stopped.value.code == 2
    assert "--sets wbc_masks,krd: got no --margin, expected one" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_decay_shrinks_weights_and_bfloat16_learns(root: Path, tmp_path: Path) -> None:
    plain, decayed = (loop_of(root, tmp_path / str(decay), 1, decay=decay) for decay in (0.0, 0.1))
    for each in (plain, decayed):
        each.run()
    sums = [sum(float(p.detach().square().sum()) for p in each.network.parameters()) for each in (plain, decayed)]
    assert sums[1] < 0.95 * sums[0]
    coarse = loop_of(root, tmp_path / "coarse", 15, bfloat16=True, overlap=0.5)
    coarse.run()
    lines = losses(tmp_path / "coarse")
    assert lines[-1] < 0.5 * lines[0]
    assert {p.dtype for p in coarse.network.parameters()} == {torch.float32}


def test_a_mask_that_is_none(root: Path) -> None:
    cv2.imwrite(str(root / "wbc_masks" / "jtsc" / "3-mask.png"), np.full((60, 60), 7, np.uint8))
    with pytest.raises(ValueError, match=r"jtsc/3\.png: got no picture with a mask"):
        load_cells(root, 32, 0)
