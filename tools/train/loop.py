"""The one training loop: steps, a moving average of the weights, checkpoints by the clock, results, resuming.

What is trained is a `Task`. Every step draws its batch from (seed, step) alone, so that a run resumed at any step
takes the same steps as one that was never stopped. A run ends by its last step, by SIGTERM or by Ctrl-C; the last two
finish the step at hand and leave a checkpoint first, and a run that is killed loses what came after its last one.
"""

from __future__ import annotations

import contextlib
import copy
import json
import math
import os
import random
import signal
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from streamer.run.tuning import keep_all_freed_memory

T = TypeVar("T")
NetworkT = TypeVar("NetworkT", bound=nn.Module)
LAST, BEST, RESULTS = "last.pt", "best.pt", "results.jsonl"
MEAN_OF = "mean_of"
"""The key under which a checkpoint that is the mean of two runs says of which (tools.train average)."""
_REWARMED_STEPS = 300
"""Over so many steps the rate rises again where a packed checkpoint brought no state of the optimizer."""
_ORDER = 1
"""Seeds the orders of epochs apart from the steps."""


class Task(ABC, Generic[NetworkT]):
    """What a run trains: `network`, on its device."""

    network: NetworkT

    @abstractmethod
    def optimizer(self) -> torch.optim.Optimizer:
        """A new optimizer; its groups' peak rates are their `peak`, else their `lr`."""

    @abstractmethod
    def loss(self, step: int, rng: np.random.Generator) -> tuple[Tensor, Mapping[str, float]]:
        """The loss of the batch of a step (0-based), drawn from `rng`, and its terms for the log; the network is in
        training mode."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What makes it this run and no other; a checkpoint of other settings is refused."""

    def measure(self, network: NetworkT) -> dict[str, Any]:
        """What a network in evaluation mode, the average where one is kept, reaches now; ready for JSON."""
        return {}

    def score(self, results: Mapping[str, Any]) -> float | None:
        """How good measured results are, for the best checkpoint; None where no one is kept."""
        return None


@dataclass(frozen=True)
class Schedule:
    """How long a run is and when it does what, in steps.

    warmup_steps: over so many the rates rise, then they fall along half a cosine; None: they stay at their peaks.
    average_decay: of the moving average of the weights; None: none is kept. logged_every: between lines of results,
    of which not all need be measured; None: as often as measured. patience: a run ends so many steps after its best
    score; None: at its last step. clip: the norm of the gradient at most.
    """

    steps: int
    measured_every: int
    warmup_steps: int | None = None
    average_decay: float | None = None
    logged_every: int | None = None
    patience: int | None = None
    checkpoint_s: float = 1200.0
    clip: float | None = 5.0
    seed: int = 0


class Loop(Generic[NetworkT]):
    """One run in the folder `out`: `run()` takes the steps that are still missing. `description`: what else its
    checkpoints say of it."""

    def __init__(
        self,
        task: Task[NetworkT],
        schedule: Schedule,
        out: Path,
        *,
        description: Mapping[str, Any] | None = None,
        now_s: Callable[[], float] = time.monotonic,
        say: Callable[[str], None] = lambda line: print(line, flush=True),
    ) -> None:
        self.task, self.schedule, self.out, self.description = task, schedule, out, description
        self._now_s, self._say = now_s, say
        decay = schedule.average_decay
        self.average = None if decay is None else MovingAverage(task.network, decay)
        self.optimizer = task.optimizer()
        for group in self.optimizer.param_groups:
            group.setdefault("peak", group["lr"])
        self.step, self.best, self.best_step = 0, -math.inf, 0
        self._rewarmed_from = -_REWARMED_STEPS
        self._sums: Counter[str] = Counter()
        self._summed_steps, self._summed_s = 0, 0.0
        self._stopped = False

    @property
    def network(self) -> NetworkT:
        """What is measured and exported, in evaluation mode: the average where one is kept."""
        network = self.task.network if self.average is None else self.average.network
        return network.eval()

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint, a packed one too. ValueError where it is of other settings, or a mean of runs."""
        state = load_checkpoint(path)
        if MEAN_OF in state:
            raise ValueError(
                f"{path}: got the mean of two runs, whose normalisations have no statistics of pictures, expected a "
                "run; go on from one of the two"
            )
        if "settings" not in state or ("average" in state) != (self.average is not None):
            raise ValueError(
                f"{path}: got {', '.join(state)}, expected settings and {'an' if self.average else 'no'} average; "
                "give the same options, or train anew in another folder"
            )
        given, kept = self.task.settings(), state["settings"]
        changed = [key for key in {**kept, **given} if given.get(key) != kept.get(key)]
        if changed:
            got, expected = ({key: values.get(key) for key in changed} for values in (given, kept))
            raise ValueError(
                f"settings: got {got}, expected those of {path}: {expected}; "
                "give the same options, or train anew in another folder"
            )
        self.task.network.load_state_dict(_whole(state["network"]))
        if self.average is not None:
            average = state["average"]
            self.average.load_state_dict({"network": _whole(average["network"]), "updates": average["updates"]})
        self.step = int(state["step"])
        self.best, self.best_step = state.get("best", -math.inf), state.get("best_step", 0)
        if state.get("optimizer") is None:
            self._rewarmed_from = self.step
        else:
            self._rewarmed_from = state.get("rewarmed_from", -_REWARMED_STEPS)
            # Rates and decay are the task's own: a longer run, or one at other rates, may go on.
            groups = self.optimizer.state_dict()["param_groups"]
            self.optimizer.load_state_dict({"state": state["optimizer"]["state"], "param_groups": groups})

    def stop(self) -> None:
        """Finish the step at hand, leave a checkpoint and return from `run`."""
        self._stopped = True

    @property
    def is_over(self) -> bool:
        """The last step was taken, or the best score is too long ago."""
        patience = self.schedule.patience
        gave_up = patience is not None and self.best_step > 0 and self.step - self.best_step >= patience
        return gave_up or self.step >= self.schedule.steps

    def run(self) -> bool:
        """Train until the run is over, or until `stop`; whether it is over."""
        steps, saved_s = self.schedule.steps, self._now_s()
        for _ in progress(range(self.step, steps), max(0, steps - self.step), f"{steps} steps"):
            if self._stopped or self.is_over:
                break
            began_s = self._now_s()
            self._sums.update(self.take_step())
            self._summed_steps += 1
            self._summed_s += self._now_s() - began_s
            if self._is_due(self.schedule.logged_every or self.schedule.measured_every):
                self._report()
            if self._now_s() - saved_s >= self.schedule.checkpoint_s:
                self.save()
                saved_s = self._now_s()
        self.save()
        return self.is_over

    def rate(self) -> float:
        """Factor of the peak rates at the present step."""
        schedule = self.schedule
        warmup_steps = schedule.warmup_steps
        factor = 1.0 if warmup_steps is None else one_cycle(self.step, schedule.steps, warmup_steps)
        return factor * min(1.0, (self.step - self._rewarmed_from + 1) / _REWARMED_STEPS)

    def take_step(self) -> dict[str, float]:
        """One step of the optimizer; the loss and its terms."""
        rng = seed_everything(self.schedule.seed, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * self.rate()
        self.task.network.train()
        loss, terms = self.task.loss(self.step, rng)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if self.schedule.clip is not None:
            nn.utils.clip_grad_norm_(self.task.network.parameters(), self.schedule.clip)
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.task.network)
        self.step += 1
        return {"loss": float(loss.detach()), **terms}

    def save(self, name: str = LAST) -> None:
        """Write a checkpoint into the run's folder."""
        state: dict[str, Any] = {
            "settings": self.task.settings(),
            "network": self.task.network.state_dict(),
            "step": self.step,
            "rewarmed_from": self._rewarmed_from,
            "optimizer": self.optimizer.state_dict(),
        }
        if self.average is not None:
            state["average"] = self.average.state_dict()
        if self.description is not None:
            state["description"] = dict(self.description)
        if self.best_step:
            state |= {"best": self.best, "best_step": self.best_step}
        save_checkpoint(self.out / name, state)

    def _is_due(self, every_steps: int) -> bool:
        return self.step % every_steps == 0 or self.step == self.schedule.steps

    def _report(self) -> None:
        means = {name: total / self._summed_steps for name, total in self._sums.items()}
        seconds_a_step = self._summed_s / self._summed_steps
        self._sums.clear()
        self._summed_steps, self._summed_s = 0, 0.0
        line = {
            "step": self.step,
            **{name: round(mean, 5) for name, mean in means.items()},
            "lr": self.optimizer.param_groups[0]["lr"],
            "seconds_a_step": round(seconds_a_step, 3),
        }
        said = "  ".join(f"{name} {mean:.4f}" for name, mean in means.items())
        if self._is_due(self.schedule.measured_every):
            line["results"] = self.task.measure(self.network)
            score = self.task.score(line["results"])
            if score is not None:
                line["score"] = score
                said += f"  score {score:.4f}"
                if score > self.best:
                    self.best, self.best_step = score, self.step
                    self.save(BEST)
        append_result(self.out / RESULTS, line)
        self._say(f"{self.step:6}/{self.schedule.steps}  {said}  {seconds_a_step:.2f} s a step")


def train(
    task: Task[NetworkT],
    schedule: Schedule,
    out: Path,
    *,
    resume: Path | None = None,
    description: Mapping[str, Any] | None = None,
) -> Loop[NetworkT]:
    """Train a task to its end, from a checkpoint where one is given. SystemExit where a signal stopped it before."""
    keep_all_freed_memory()
    loop = Loop(task, schedule, out, description=description)
    if resume is not None:
        loop.resume(resume)
    with stopped_by_signals(loop):
        over = loop.run()
    if not over:
        raise SystemExit(f"stopped after {loop.step} of {schedule.steps} steps; --resume goes on from {out / LAST}")
    return loop


@contextlib.contextmanager
def stopped_by_signals(loop: Loop[Any]) -> Iterator[None]:
    """Meanwhile SIGTERM and Ctrl-C stop a loop after its step; a second Ctrl-C ends the process at once."""

    def handle(number: int, frame: FrameType | None) -> None:
        loop.stop()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.float() if value.dtype.is_floating_point else value for name, value in tensors.items()}


def seed_everything(seed: int, step: int) -> np.random.Generator:
    """Seed torch and random for one step, and return the generator that the step's data is drawn from: what is random
    follows from (seed, step) alone."""
    mixed = int(np.random.SeedSequence([seed, step]).generate_state(1)[0])
    random.seed(mixed)
    torch.manual_seed(mixed)
    return np.random.default_rng([seed, step])


def epoch_batch(
    order: Callable[[np.random.Generator], np.ndarray], step: int, steps_an_epoch: int, batch: int, seed: int
) -> np.ndarray:
    """The rows of the batch of a step, where every epoch deals its rows once, in an order of its own."""
    epoch, place = divmod(step, steps_an_epoch)
    rows = order(np.random.default_rng([seed, epoch, _ORDER]))
    return rows[place * batch : (place + 1) * batch]


class MovingAverage(Generic[NetworkT]):
    """Exponential moving average of a network's weights and running statistics, in `network`.

    The decay grows with the number of updates, (1 + n) / (10 + n), until it reaches `decay`.
    """

    def __init__(self, network: NetworkT, decay: float = 0.999) -> None:
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


def append_result(path: Path, result: Mapping[str, Any]) -> None:
    """One JSON line."""
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
