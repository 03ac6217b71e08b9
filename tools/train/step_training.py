"""Training a detector step by step on tiles that follow from step and seed alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, Generic

import torch
from torch import Tensor, nn

from tools.data.tiles import TileMaker
from tools.train.detection import batch_tensors
from tools.train.loop import NetworkT, channels_last, descend, one_cycle

WARM_UP = 100
"""Steps over which a falling rate rises first."""


class StepTrainer(ABC, Generic[NetworkT]):
    """Trains `network` on the tiles of `maker`; state and step continue a run exactly.

    precision: "bf16" runs the network in autocast. cosine_steps: the rate rises and falls over so many; None: it stays.
    """

    def __init__(
        self,
        network: NetworkT,
        maker: TileMaker,
        optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
        *,
        rate: float,
        batch: int,
        seed: int,
        device: str,
        precision: str,
        cosine_steps: int | None,
    ) -> None:
        self.device = torch.device(device)
        self.network = channels_last(network.to(self.device))
        self.maker, self.batch, self.seed, self.rate = maker, batch, seed, rate
        self.precision, self.cosine_steps = precision, cosine_steps
        self.optimizer = optimizer(network.parameters())
        self.step_number = 0

    @abstractmethod
    def forward(self, images: Tensor) -> Any:
        """What the network makes of images in training; in autocast where the precision says so."""

    @abstractmethod
    def losses(self, made: Any, targets: Any, known: Any) -> tuple[Tensor, dict[str, float]]:
        """The loss of what `forward` made, and its terms."""

    def step(self) -> dict[str, float]:
        """One optimiser step; the loss and its terms."""
        first = self.step_number * self.batch
        tiles = [self.maker.make(self.seed, first + i) for i in range(self.batch)]
        images, targets, known = batch_tensors(tiles, self.device)
        if self.cosine_steps is not None:
            for group in self.optimizer.param_groups:
                group["lr"] = self.rate * one_cycle(self.step_number, self.cosine_steps, WARM_UP)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            made = self.forward(images)
        loss, terms = self.losses(made, targets, known)
        reached = descend(loss, self.network, self.optimizer, clip=10.0)
        self.step_number += 1
        return {"loss": reached, **terms}

    def state(self) -> dict[str, Any]:
        """What `restore` takes."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step_number,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step_number = state["step"]
