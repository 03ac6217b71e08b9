"""Train DeepLabv3 on Xception to tell nucleus, cytoplasm and background of a white cell, by the publication's protocol.

    python -m tools.train_segmenter --out runs/deeplabv3-xception
    python -m tools.train_segmenter --out runs/deeplabv3-xception --input-px 96 --epochs 10 --augment --resume

Stochastic gradient descent with momentum, batches of 10, 40 epochs, from nothing. The cells of each laboratory of
wbc_masks are dealt at random, by class, into 70 % training, 10 % validation and 20 % test. Writes last.pt, log.jsonl
and results.json (accuracies and IoU on the test cells, over all and by laboratory) into --out.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from tools import training
from tools.architectures.deeplabv3 import CLASSES, DeepLabV3
from tools.classification.published import TEST, published_split
from tools.datasets import TRAIN, VALIDATION, data_root

SHARES = (0.7, 0.1, 0.2)


@dataclass(frozen=True, eq=False)
class MaskedCells:
    """n cells: images uint8 (n, px, px, 3) BGR, masks uint8 (n, px, px) of the labels of `CLASSES`, the laboratory and
    the part of each."""

    images: np.ndarray
    masks: np.ndarray
    laboratories: list[str]
    parts: list[str]

    def select(self, part: str) -> np.ndarray:
        """Indices of the cells of one part."""
        return np.flatnonzero(np.array(self.parts) == part)


def load_cells(root: Path, input_px: int, seed: int) -> MaskedCells:
    """All cells of wbc_masks, resized to squares."""
    with open(root / "wbc_masks" / "labels.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    images, masks = [], []
    for row in rows:
        image = cv2.imread(str(root / "wbc_masks" / row["image"]), cv2.IMREAD_COLOR)
        mask = cv2.imread(str(root / "wbc_masks" / row["mask"]), cv2.IMREAD_GRAYSCALE)
        if image is None or mask is None or mask.shape != image.shape[:2] or mask.max(initial=0) >= len(CLASSES):
            raise ValueError(
                f"{row['image']}: got no picture with a mask of 0, 1 and 2 of its size; fetch wbc_masks again"
            )
        images.append(cv2.resize(image, (input_px, input_px), interpolation=cv2.INTER_AREA))
        masks.append(cv2.resize(mask, (input_px, input_px), interpolation=cv2.INTER_NEAREST))
    laboratories = [row["image"].split("/")[0] for row in rows]
    kinds = [f"{laboratory} {row['class']}" for laboratory, row in zip(laboratories, rows, strict=True)]
    parts = published_split(kinds, [row["image"] for row in rows], SHARES, seed)
    return MaskedCells(np.stack(images), np.stack(masks), laboratories, parts)


def batch_of(cells: MaskedCells, chosen: np.ndarray, rng: np.random.Generator | None) -> tuple[Tensor, Tensor]:
    """float32 (n, 3, px, px) in 0..1 and int64 (n, px, px); turned and mirrored at random with `rng`."""
    images, masks = cells.images[chosen], cells.masks[chosen]
    if rng is not None:
        turned = []
        for image, mask in zip(images, masks, strict=True):
            turns, mirrored = int(rng.integers(4)), rng.random() < 0.5
            image, mask = np.rot90(image, turns), np.rot90(mask, turns)
            turned.append((image[:, ::-1], mask[:, ::-1]) if mirrored else (image, mask))
        images, masks = (np.stack(part) for part in zip(*turned, strict=True))
    x = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 255
    return x, torch.from_numpy(np.ascontiguousarray(masks)).long()


def figures(table: np.ndarray) -> dict[str, Any]:
    """Global and mean accuracy, IoU by class, mean and weighted by the class's pixels, of a confusion table of pixels
    (true, predicted)."""
    hits, true, named = np.diag(table).astype(float), table.sum(1), table.sum(0)
    iou = hits / np.maximum(true + named - hits, 1)
    return {
        "global_accuracy": float(hits.sum() / table.sum()),
        "mean_accuracy": float((hits / np.maximum(true, 1)).mean()),
        "iou": dict(zip(CLASSES, iou.tolist(), strict=True)),
        "mean_iou": float(iou.mean()),
        "weighted_iou": float((iou * true).sum() / true.sum()),
    }


@torch.no_grad()
def confusion(
    network: nn.Module, cells: MaskedCells, chosen: Sequence[int] | np.ndarray, device: torch.device
) -> np.ndarray:
    """int64 (3, 3) pixels by true and predicted class."""
    network.eval()
    table = np.zeros((len(CLASSES), len(CLASSES)), np.int64)
    for index in chosen:
        x, truth = batch_of(cells, np.array([index]), None)
        found = network(x.to(device)).argmax(1).cpu().numpy()
        np.add.at(table, (truth.numpy().ravel(), found.ravel()), 1)
    return table


class SegmenterTrainer:
    """One run in `out`, resumed at the start of an epoch."""

    def __init__(
        self,
        network: nn.Module,
        cells: MaskedCells,
        out: Path,
        *,
        rate: float,
        momentum: float,
        batch: int,
        seed: int,
        augment: bool = False,
        resume: bool = False,
        device: str = "cpu",
    ) -> None:
        self.device = torch.device(device)
        self.network = network.to(self.device)
        self.cells, self.out, self.batch, self.seed, self.augment = cells, out, batch, seed, augment
        self.optimizer = torch.optim.SGD(network.parameters(), lr=rate, momentum=momentum)
        self.epoch = 0
        if resume and (out / "last.pt").exists():
            state = training.load_checkpoint(out / "last.pt")
            self.network.load_state_dict(state["network"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.epoch = state["epoch"]

    def run_epoch(self) -> dict[str, Any]:
        """One pass over the training cells; the line of log.jsonl."""
        rng = training.seed_everything(self.seed, self.epoch)
        order = rng.permutation(self.cells.select(TRAIN))
        started, losses = time.monotonic(), []
        self.network.train()
        for start in range(0, len(order), self.batch):
            chosen = order[start : start + self.batch]
            if len(chosen) < 2:  # the mean of the pyramid's image branch can't be normalised over one cell
                continue
            x, truth = batch_of(self.cells, chosen, rng if self.augment else None)
            loss = nn.functional.cross_entropy(self.network(x.to(self.device)), truth.to(self.device))
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            losses.append(float(loss.detach()))
        self.epoch += 1
        held = confusion(self.network, self.cells, self.cells.select(VALIDATION), self.device)
        line = {
            "epoch": self.epoch,
            "loss": float(np.mean(losses)),
            "validation_mean_iou": figures(held)["mean_iou"] if held.any() else None,
            "seconds": round(time.monotonic() - started, 1),
        }
        state = {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "epoch": self.epoch,
        }
        training.save_checkpoint(self.out / "last.pt", state)
        training.append_result(self.out / "log.jsonl", line)
        return line


def results(network: nn.Module, cells: MaskedCells, device: torch.device) -> dict[str, Any]:
    """Figures of the test cells, over all and by laboratory."""
    tested = cells.select(TEST)
    of = {name: [i for i in tested if cells.laboratories[i] == name] for name in sorted(set(cells.laboratories))}
    tables = {name: confusion(network, cells, members, device) for name, members in of.items()}
    return {"all": figures(np.sum(list(tables.values()), 0)), **{name: figures(t) for name, t in tables.items()}}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--input-px", type=int, default=224)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--rate", type=float, default=1e-2)
    parser.add_argument("--momentum", type=float, default=0.9)
    parser.add_argument("--augment", action="store_true", help="quarter turns and mirroring; the publication has none")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    cells = load_cells(data_root(), options.input_px, options.seed)
    trainer = SegmenterTrainer(
        DeepLabV3(),
        cells,
        options.out,
        rate=options.rate,
        momentum=options.momentum,
        batch=options.batch,
        seed=options.seed,
        augment=options.augment,
        resume=options.resume,
        device=options.device,
    )
    while trainer.epoch < options.epochs:
        print(trainer.run_epoch(), flush=True)
    found = results(trainer.network, cells, trainer.device)
    settings = {k: str(v) if isinstance(v, Path) else v for k, v in vars(options).items()}
    (options.out / "results.json").write_text(json.dumps({"settings": settings, **found}, indent=1))
    print(f"mean IoU {found['all']['mean_iou']:.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
