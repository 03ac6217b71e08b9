"""What every training command needs: seeds, moving averages of weights, checkpoints, results, a progress bar."""

from __future__ import annotations

import copy
import json
import math
import os
import random
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

T = TypeVar("T")


def seed_everything(seed: int, epoch: int) -> np.random.Generator:
    """Seed torch, numpy and random for one epoch, and return the generator that the epoch's data is drawn from.

    Every epoch starts from (seed, epoch) alone, so a run resumed at an epoch's start takes the same steps.
    """
    mixed = int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])
    random.seed(mixed)
    torch.manual_seed(mixed)
    return np.random.default_rng([seed, epoch])


class MovingAverage:
    """Exponential moving average of a network's weights and running statistics, in `network`.

    The decay grows with the number of updates, (1 + n) / (10 + n), until it reaches `decay`.
    """

    def __init__(self, network: nn.Module, decay: float = 0.999) -> None:
        self.network = copy.deepcopy(network).eval()
        self.decay = decay
        self.updates = 0
        for parameter in self.network.parameters():
            parameter.requires_grad_(False)

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take one step towards `network`; counters (whole numbers) are copied."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        new = network.state_dict()
        for name, value in self.network.state_dict().items():
            if value.dtype.is_floating_point:
                value.lerp_(new[name].to(value.dtype), 1 - decay)
            else:
                value.copy_(new[name])

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` takes."""
        return {"network": self.network.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
        self.network.load_state_dict(state["network"])
        self.updates = int(state["updates"])


def one_cycle(step: int, steps: int, warmup_steps: int, final: float = 0.01) -> float:
    """Factor of the peak learning rate at a step: linear warm-up, then half a cosine down to `final`."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    along = (step - warmup_steps) / max(1, steps - warmup_steps)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(1.0, along)))


def parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weights with decay; biases and normalisation without."""
    decayed = [p for p in network.parameters() if p.requires_grad and p.ndim > 1]
    plain = [p for p in network.parameters() if p.requires_grad and p.ndim <= 1]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]


def begin_with(network: nn.Module, state: Mapping[str, Any]) -> tuple[int, int]:
    """Take over the tensors of `state` whose name and shape agree, in place; how many they were, and of how many.
    ValueError where none agrees."""
    own = network.state_dict()
    taken = {name: value for name, value in state.items() if name in own and own[name].shape == value.shape}
    if not taken:
        raise ValueError("weights to begin with: got no tensor whose name and shape agree, expected some")
    network.load_state_dict(taken, strict=False)
    return len(taken), len(own)


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write beside, then rename: a run that is killed leaves the last whole checkpoint."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    torch.save(dict(state), part)
    part.replace(path)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint on the CPU. Raises FileNotFoundError that says what to do."""
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint: got no file at {path}; start the training without --resume")
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def parse_shares(text: str, defaults: Mapping[str, float]) -> dict[str, float]:
    """ "a=.5,b=.5" over the defaults; ValueError where a part is not NAME=NUMBER or a name is unknown."""
    shares = dict(defaults)
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        if name not in shares:
            raise ValueError(f"--shares: got {name!r}, expected one of {', '.join(shares)}")
        try:
            shares[name] = float(value)
        except ValueError:
            raise ValueError(f"--shares {name}: got {value!r}, expected a number") from None
    return shares


def append_result(path: Path, result: Mapping[str, Any]) -> None:
    """One JSON line an epoch."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as file:
        file.write(json.dumps(dict(result)) + "\n")


def progress(items: Iterable[T], total: int, title: str) -> Iterator[T]:
    """Items with a progress bar on standard error where it is a terminal, else plainly."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    if not console.is_terminal:
        return iter(items)
    return iter(track(items, total=total, description=title, console=console, transient=True))
