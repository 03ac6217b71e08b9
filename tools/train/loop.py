"""The one training loop: steps, a moving average of the weights, checkpoints by the clock, results, resuming.

What is trained is a `Task`. Every step draws its batch from (seed, step) alone, so that a run resumed at any step
takes the same steps as one that was never stopped. A run ends by its last step, by SIGTERM or by Ctrl-C; the last two
finish the step at hand and leave a checkpoint first, and a run that is killed loses what came after its last one.
"""

from __future__ import annotations

import copy
import json
import math
import os
import random
import signal
import time
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

T = TypeVar("T")
NetworkT = TypeVar("NetworkT", bound=nn.Module)
LAST, RESULTS = "last.pt", "results.jsonl"
_REWARMED_STEPS = 300
"""Over so many steps the rate rises again where a packed checkpoint brought no state of the optimizer."""


class Task(Protocol):
    """What a run trains."""

    @property
    def network(self) -> nn.Module:
        """What learns."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        """For AdamW: `params`, `weight_decay` and the group's own peak rate as `peak`."""

    def loss(self, rng: np.random.Generator) -> Tensor:
        """The loss of one batch, drawn from `rng`; the network is in training mode."""

    def measure(self, network: nn.Module) -> dict[str, Any]:
        """What the averaged network reaches now, ready for JSON."""

    def settings(self) -> dict[str, Any]:
        """What makes it this run and no other; a checkpoint of other settings is refused."""


@dataclass(frozen=True)
class Schedule:
    """How long a run is and when it does what."""

    steps: int
    warmup_steps: int
    average_decay: float
    measured_every: int
    checkpoint_s: float = 1200.0
    clip: float = 5.0
    seed: int = 0


class Loop:
    """One run in the folder `out`: `run()` takes the steps that are still missing."""

    def __init__(
        self,
        task: Task,
        schedule: Schedule,
        out: Path,
        *,
        now_s: Callable[[], float] = time.monotonic,
        say: Callable[[str], None] = lambda line: print(line, flush=True),
    ) -> None:
        self.task, self.schedule, self.out = task, schedule, out
        self._now_s, self._say = now_s, say
        self.average = MovingAverage(task.network, schedule.average_decay)
        self.optimizer = torch.optim.AdamW(task.parameter_groups(), lr=0.0)
        self.step = 0
        self._rewarmed_from = -_REWARMED_STEPS
        self._losses: list[float] = []
        self._stopped = False

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint, a packed one too. ValueError where it is of other settings."""
        state = load_checkpoint(path)
        if state["settings"] != self.task.settings():
            raise ValueError(
                f"settings: got {self.task.settings()}, expected those of {path}: {state['settings']}; "
                "give the same options, or train anew in another folder"
            )
        self.task.network.load_state_dict(_whole(state["network"]))
        average = state["average"]
        self.average.load_state_dict({"network": _whole(average["network"]), "updates": average["updates"]})
        self.step = int(state["step"])
        if state.get("optimizer") is None:
            self._rewarmed_from = self.step
        else:
            self._rewarmed_from = state.get("rewarmed_from", -_REWARMED_STEPS)
            self.optimizer.load_state_dict(state["optimizer"])

    def stop(self) -> None:
        """Finish the step at hand, leave a checkpoint and return from `run`."""
        self._stopped = True

    def run(self) -> bool:
        """Train up to the last step, or until `stop`; whether the last step was taken."""
        saved_s = began_s = self._now_s()
        began = self.step
        while self.step < self.schedule.steps and not self._stopped:
            self._take_step()
            if self.step % self.schedule.measured_every == 0 or self.step == self.schedule.steps:
                self._report((self._now_s() - began_s) / (self.step - began))
            if self._now_s() - saved_s >= self.schedule.checkpoint_s:
                self.save()
                saved_s = self._now_s()
        self.save()
        return self.step >= self.schedule.steps

    def rate(self) -> float:
        """Factor of the peak rates at the present step."""
        schedule = self.schedule
        factor = one_cycle(self.step, schedule.steps, schedule.warmup_steps)
        return factor * min(1.0, (self.step - self._rewarmed_from + 1) / _REWARMED_STEPS)

    def save(self) -> None:
        """Write the checkpoint."""
        save_checkpoint(self.out / LAST, {**self._state(), "optimizer": self.optimizer.state_dict()})

    def _state(self) -> dict[str, Any]:
        return {
            "settings": self.task.settings(),
            "network": self.task.network.state_dict(),
            "average": self.average.state_dict(),
            "step": self.step,
            "rewarmed_from": self._rewarmed_from,
        }

    def _take_step(self) -> None:
        rng = seed_everything(self.schedule.seed, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * self.rate()
        self.task.network.train()
        loss = self.task.loss(rng)
        reached = descend(loss, self.task.network, self.optimizer, self.schedule.clip)
        self.average.update(self.task.network)
        self.step += 1
        self._losses.append(reached)

    def _report(self, seconds_a_step: float) -> None:
        mean = sum(self._losses) / max(1, len(self._losses))
        self._losses.clear()
        found = self.task.measure(self.average.network)
        line = {"step": self.step, "loss": mean, "seconds_a_step": round(seconds_a_step, 3), "results": found}
        append_result(self.out / RESULTS, line)
        self._say(f"{self.step:6}/{self.schedule.steps}  loss {mean:.4f}  {seconds_a_step:.2f} s a step")


class Stepping(Protocol):
    """A run that takes its steps itself, its state everything that a resumed run needs."""

    step_number: int
    optimizer: torch.optim.Optimizer

    def step(self) -> dict[str, float]:
        """One step of the optimiser; the loss and its terms."""

    def state(self) -> dict[str, Any]:
        """For `torch.save`."""


def descend(loss: Tensor, network: nn.Module, optimizer: torch.optim.Optimizer, clip: float | None = None) -> float:
    """One step of the optimiser down a loss, the norm of its gradient at most `clip`; the loss."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    if clip is not None:
        nn.utils.clip_grad_norm_(network.parameters(), clip)
    optimizer.step()
    return float(loss.detach())


def run_epochs(
    trainer: Stepping,
    out: Path,
    description: Mapping[str, Any],
    *,
    steps: int,
    epoch_steps: int,
    take: Callable[[], dict[str, float]] | None = None,
    measure: Callable[[], tuple[dict[str, Any], float]] | None = None,
    measure_every: int = 1,
    say: Callable[[str], None] = lambda line: print(line, flush=True),
) -> None:
    """Train up to `steps`; every epoch leaves a checkpoint with the run's `description`, and a line in log.jsonl.

    `take` is one step, else the trainer's own. `measure` gives figures and how good they are: the best so far, also of
    the run that this one goes on with, leaves best.pt and best.json.
    """
    best_file = out / "best.json"
    goes_on = trainer.step_number > 0 and best_file.exists()
    best = float(json.loads(best_file.read_text())["score"]) if goes_on else -1.0
    take = take or trainer.step
    while trainer.step_number < steps:
        began, began_s = trainer.step_number, time.monotonic()
        count = min(epoch_steps - began % epoch_steps, steps - began)
        sums: dict[str, float] = {}
        for _ in progress(range(count), count, f"steps to {began + count}"):
            for key, value in take().items():
                sums[key] = sums.get(key, 0.0) + value
        epoch = -(-trainer.step_number // epoch_steps)
        line: dict[str, Any] = {
            "step": trainer.step_number,
            "epoch": epoch,
            "lr": trainer.optimizer.param_groups[0]["lr"],
            "seconds": round(time.monotonic() - began_s, 1),
            **{key: round(value / count, 5) for key, value in sums.items()},
        }
        state = {**trainer.state(), "description": dict(description)}
        save_checkpoint(out / LAST, state)
        if measure is not None and (epoch % measure_every == 0 or trainer.step_number >= steps):
            line["validation"], score = measure()
            if score > best:
                best = score
                save_checkpoint(out / "best.pt", state)
                best_file.write_text(json.dumps({"score": best, **line}, indent=1))
        append_result(out / "log.jsonl", line)
        say("  ".join(f"{key} {value:.4g}" for key, value in line.items() if key != "validation"))


def plain_settings(options: Namespace) -> dict[str, Any]:
    """The options of a command as a checkpoint or JSON keeps them."""
    return {
        key: str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
        for key, value in vars(options).items()
    }


def stops_on_signals(loop: Loop) -> None:
    """SIGTERM and Ctrl-C stop a loop after its step; a second Ctrl-C ends the process at once."""

    def handle(number: int, frame: FrameType | None) -> None:
        loop.stop()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)


def pack(path: Path, out: Path) -> None:
    """A checkpoint in a quarter of its size, for keeping in a repository: weights and their average in half precision,
    no state of the optimizer."""
    state = load_checkpoint(path)
    halved = {
        **state,
        "network": _half(state["network"]),
        "average": {**state["average"], "network": _half(state["average"]["network"])},
        "optimizer": None,
    }
    save_checkpoint(out, halved)


def _half(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Running variances may lie outside what half precision can hold: bfloat16 keeps their range."""
    kept = {True: torch.bfloat16, False: torch.float16}
    return {
        name: value.to(kept[name.endswith("running_var")]) if value.dtype == torch.float32 else value
        for name, value in tensors.items()
    }


def _whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.float() if value.dtype.is_floating_point else value for name, value in tensors.items()}


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


def channels_last(network: NetworkT) -> NetworkT:
    """The network, its weights laid out channels last: up to 1.7 times faster on a CPU."""
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


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
