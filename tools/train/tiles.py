"""Training a detector on tiles that follow from step and seed alone."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tools.data.tiles import Tile, TileMaker
from tools.train.loop import NetworkT, Schedule, Task, channels_last

CLIP = 10.0
"""The norm of a detector's gradient at most."""
WARM_UP = 100
"""Steps over which a falling rate rises first."""


def batch_tensors(tiles: Sequence[Tile], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Images float (N,3,S,S) in 0..1 channels-last, targets (n,6) with the image index first, known bool
    (N,C,S/8,S/8)."""
    images = torch.from_numpy(np.stack([tile.image for tile in tiles])).to(device)
    images = images.permute(0, 3, 1, 2).float().div_(255).contiguous(memory_format=torch.channels_last)
    rows = [np.insert(tile.targets, 0, index, axis=1) for index, tile in enumerate(tiles)]
    targets = torch.from_numpy(np.concatenate(rows).astype(np.float32)).to(device)
    known = torch.from_numpy(np.stack([tile.known for tile in tiles])).to(device)
    return images, targets, known


@dataclass(frozen=True)
class TileSeries(Dataset[list[Tile]]):
    """The tiles of every step: step n takes numbers n*batch … of the seed's endless series and nothing else is random.

    `large_share` of the steps, drawn by step number, take their tiles from `large_maker` instead, as many as have the
    pixels of a usual batch.
    """

    maker: TileMaker
    batch: int
    seed: int
    large_maker: TileMaker | None = None
    large_share: float = 0.0

    def __getitem__(self, number: int) -> list[Tile]:
        """The batch of step `number` (0-based)."""
        first, tiles, maker = number * self.batch, self.batch, self.maker
        if self.large_maker is not None and np.random.default_rng((self.seed, number, 1)).random() < self.large_share:
            ratio = maker.options.side_px / self.large_maker.options.side_px
            maker, tiles = self.large_maker, max(1, round(tiles * ratio**2))
        return [maker.make(self.seed, first + i) for i in range(tiles)]

    def from_step(self, first: int, workers: int) -> Iterator[list[Tile]]:
        """The batches of steps first … in their order, made ahead by so many processes (0: by this one)."""
        if workers == 0:
            return map(self.__getitem__, count(first))
        numbers: Any = count(first)
        return iter(DataLoader(self, None, sampler=numbers, num_workers=workers, collate_fn=_as_it_is))


def _as_it_is(tiles: list[Tile]) -> list[Tile]:
    return tiles


class TileTask(Task[NetworkT]):
    """`network` on the tiles of `series`.

    loss: of what the network gives, targets (n,6) and known, with its terms. optimizer: makes it of the network.
    precision: "bf16" runs the network in autocast (measured 1.6 times as fast as fp32 on a processor with
    AVX512-BF16), "fp32" does not. class_names: what a checkpoint that goes on must tell apart too.
    """

    def __init__(
        self,
        network: NetworkT,
        series: TileSeries,
        loss: Callable[..., tuple[Tensor, dict[str, float]]],
        optimizer: Callable[[NetworkT], torch.optim.Optimizer],
        class_names: Sequence[str],
        *,
        device: str = "cpu",
        precision: str = "fp32",
    ) -> None:
        self.device = torch.device(device)
        self.network = channels_last(network.to(self.device))
        self.series, self.precision, self.class_names = series, precision, list(class_names)
        self.workers = 0
        """Processes that make the tiles of steps to come; 0: this one makes each step's."""
        self._made_ahead: Iterator[list[Tile]] | None = None
        self._loss, self._optimizer = loss, optimizer

    def optimizer(self) -> torch.optim.Optimizer:
        return self._optimizer(self.network)

    def settings(self) -> dict[str, Any]:
        return {"class_names": self.class_names, "seed": self.series.seed}

    def loss(self, step: int, rng: np.random.Generator) -> tuple[Tensor, Mapping[str, float]]:
        if self._made_ahead is None:
            self._made_ahead = self.series.from_step(step, self.workers)
        tiles = next(self._made_ahead)
        images, targets, known = batch_tensors(tiles, self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            made = self.forward(images)
        return self.losses(made, targets, known, rng)

    def forward(self, images: Tensor) -> Any:
        """What the network makes of images in training; in autocast where the precision says so."""
        return self.network(images)

    def losses(
        self, made: Any, targets: Tensor, known: Tensor, rng: np.random.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        """The loss of what `forward` made, and its terms."""
        return self._loss(made, targets, known)


def anchor_sizes(maker: TileMaker, seed: int, tiles: int = 400) -> np.ndarray:
    """Box sizes (n,2) of sample tiles, for fitting anchors to what the network will be shown."""
    boxes = [maker.make(seed + 1, number).targets for number in range(tiles)]
    return np.concatenate(boxes)[:, 3:5].astype(np.float64)


def add_tile_options(
    parser: argparse.ArgumentParser, *, epochs: int, batch: int, rate: float, rbc_px: tuple[float, float]
) -> None:
    """The options of published detectors, whose epochs show every picture once."""
    parser.add_argument("--epochs", type=int, default=epochs)
    parser.add_argument("--epoch-steps", type=int, help="steps an epoch; else as many as show every picture once")
    parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--rate", type=float, default=rate)
    parser.add_argument("--cosine", action="store_true", help="let the rate fall over the run; else it stays")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--rbc-diameter-px", type=float, nargs=2, default=rbc_px, metavar=("LOW", "HIGH"))
    parser.add_argument("--limit", type=int, default=10**6, help="pictures of a pool at most")
    parser.add_argument("--seed", type=int, default=1)


def epoch_schedule(options: argparse.Namespace, pictures: int, seed: int) -> Schedule:
    """The schedule that those options mean for so many pictures."""
    steps = options.epoch_steps or max(1, pictures // options.batch)
    warmup_steps = WARM_UP if options.cosine else None
    return Schedule(steps * options.epochs, steps, warmup_steps, clip=CLIP, seed=seed)
