"""The one training loop: it may be stopped at any step, by anything, and goes on as if it had not been."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra `train`")

from torch import Tensor, nn  # noqa: E402

from tools.train import loop as module  # noqa: E402
from tools.train.loop import BEST, LAST, RESULTS, Loop, MovingAverage, Schedule, Task, stopped_by_signals, train  # noqa: E402
from tools.train.pack import pack  # noqa: E402

SCHEDULE = Schedule(steps=12, warmup_steps=3, average_decay=0.9, measured_every=5, seed=7)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


class TinyTask(Task[nn.Sequential]):
    """Learns the sum of eight numbers; batches and dropout are random, statistics run along."""

    def __init__(self, width: int = 16, before: Callable[[int], None] = lambda step: None) -> None:
        torch.manual_seed(1)
        self.width, self.before, self.steps = width, before, 0
        self.network = nn.Sequential(nn.Linear(8, width), nn.BatchNorm1d(width), nn.Dropout(0.3), nn.Linear(width, 1))

    def optimizer(self) -> torch.optim.Optimizer:
        weights = [p for p in self.network.parameters() if p.ndim > 1]
        others = [p for p in self.network.parameters() if p.ndim <= 1]
        groups = [
            {"params": weights, "weight_decay": 0.02, "peak": 1e-2},
            {"params": others, "weight_decay": 0.0, "peak": 3e-2},
        ]
        return torch.optim.AdamW(groups, lr=0.0)

    def loss(self, step: int, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        self.before(self.steps)
        self.steps += 1
        x = torch.from_numpy(rng.normal(size=(16, 8)).astype(np.float32))
        return nn.functional.mse_loss(self.network(x)[:, 0], x.sum(1)), {"at": step}

    def measure(self, network: nn.Module) -> dict[str, Any]:
        assert not network.training
        return {"weight": float(next(network.parameters()).abs().sum())}

    def settings(self) -> dict[str, Any]:
        return {"width": self.width}


def quiet(task: TinyTask, out: Path, schedule: Schedule = SCHEDULE, **more: Any) -> Loop[nn.Sequential]:
    return Loop(task, schedule, out, say=lambda line: None, **more)


def averaged(loop: Loop[nn.Sequential]) -> MovingAverage[nn.Sequential]:
    assert loop.average is not None
    return loop.average


def everything(loop: Loop[nn.Sequential]) -> dict[str, Tensor]:
    states = {"network": loop.task.network.state_dict(), "average": averaged(loop).network.state_dict()}
    found = {f"{part} {name}": value for part, state in states.items() for name, value in state.items()}
    for number, state in loop.optimizer.state_dict()["state"].items():
        found |= {f"optimizer {number} {name}": value for name, value in state.items()}
    return found


def assert_same(one: Loop[nn.Sequential], other: Loop[nn.Sequential]) -> None:
    assert one.step == other.step
    assert averaged(one).updates == averaged(other).updates
    here, there = everything(one), everything(other)
    assert here.keys() == there.keys()
    for name, value in here.items():
        assert torch.equal(value, there[name]), name


def stopping_at(step: int) -> tuple[TinyTask, list[Loop[nn.Sequential]]]:
    """A task that stops its loop, put into the list, during a step."""
    loops: list[Loop[nn.Sequential]] = []
    return TinyTask(before=lambda n: loops[0].stop() if n == step else None), loops


@pytest.mark.parametrize("stop", range(SCHEDULE.steps))
def test_a_run_that_was_stopped_ends_with_the_same_bits(tmp_path: Path, stop: int) -> None:
    whole = quiet(TinyTask(), tmp_path / "whole")
    assert whole.run()
    task, loops = stopping_at(stop)
    loops.append(quiet(task, tmp_path / "parts"))
    assert loops[0].run() is (stop == SCHEDULE.steps - 1)
    assert loops[0].step == stop + 1  # the step at hand was finished
    resumed = quiet(TinyTask(), tmp_path / "parts")
    resumed.resume(tmp_path / "parts" / LAST)
    assert resumed.run()
    assert_same(resumed, whole)


def test_steps_learn_and_the_rate_warms_up_and_falls(tmp_path: Path) -> None:
    losses: list[float] = []

    class Told(TinyTask):
        def loss(self, step: int, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
            loss, terms = super().loss(step, rng)
            losses.append(float(loss.detach()))
            return loss, terms

    loop = quiet(Told(), tmp_path, replace(SCHEDULE, steps=150, measured_every=150))
    rates = []
    for loop.step in (0, 1, 2, 3, 75, 149):
        rates.append(loop.rate())
    loop.step = 0
    assert rates[:3] == pytest.approx([1 / 3, 2 / 3, 1])
    assert rates[3] > rates[4] > rates[5] > 0
    loop.run()
    assert np.mean(losses[-20:]) < 0.6 * np.mean(losses[:10])
    groups = loop.optimizer.param_groups
    assert groups[1]["lr"] == pytest.approx(3 * groups[0]["lr"])


def test_results_are_written_whenever_the_run_is_measured_and_at_its_end(tmp_path: Path) -> None:
    said: list[str] = []
    Loop(TinyTask(), SCHEDULE, tmp_path, say=said.append).run()
    lines = [json.loads(line) for line in (tmp_path / RESULTS).read_text().splitlines()]
    assert [line["step"] for line in lines] == [5, 10, 12]
    assert all(line["loss"] > 0 and line["results"]["weight"] > 0 for line in lines)
    assert [line["at"] for line in lines] == [2, 7, 10.5]  # the mean over the steps since the line before
    assert [line.split()[0] for line in said] == ["5/12", "10/12", "12/12"]


@pytest.mark.parametrize(
    ("step_s", "saved_at"), [(90.0, [12]), (400.0, [3, 6, 9, 12, 12]), (1300.0, [*range(1, 13), 12])]
)
def test_checkpoints_by_the_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step_s: float, saved_at: list[int]
) -> None:
    saved: list[int] = []
    monkeypatch.setattr(module, "save_checkpoint", lambda path, state: saved.append(state["step"]))
    task = TinyTask()
    quiet(task, tmp_path, now_s=lambda: task.steps * step_s).run()
    assert saved == saved_at


class Scored(TinyTask):
    """Its scores are those given, one a measuring, which takes 100 s of the clock `seconds`; a step takes one."""

    def __init__(self, *scores: float) -> None:
        super().__init__(before=lambda step: self.pass_time(1.0))
        self.scores, self.seconds = list(scores), 0.0

    def pass_time(self, seconds: float) -> None:
        self.seconds += seconds

    def measure(self, network: nn.Module) -> dict[str, Any]:
        self.pass_time(100.0)
        return {}

    def score(self, results: Mapping[str, Any]) -> float:
        return self.scores.pop(0)


def test_the_best_checkpoint_is_kept_also_by_a_run_that_goes_on(tmp_path: Path) -> None:
    schedule = replace(SCHEDULE, steps=4, measured_every=1)
    quiet(Scored(0.4, 0.7, 0.7, 0.5), tmp_path, schedule).run()
    assert module.load_checkpoint(tmp_path / BEST)["step"] == 2
    for scores, step in ((0.6, 2), (0.8, 6)):
        longer = quiet(Scored(0.1, scores), tmp_path, replace(schedule, steps=6))
        longer.resume(tmp_path / LAST)
        longer.step = 4
        longer.run()
        assert module.load_checkpoint(tmp_path / BEST)["step"] == longer.best_step == step
    assert longer.best == 0.8


def test_a_run_without_a_better_score_ends_early(tmp_path: Path) -> None:
    loop = quiet(Scored(0.4, 0.7, 0.7, 0.5, 0.9), tmp_path, replace(SCHEDULE, measured_every=2, patience=4))
    assert loop.run()
    assert (loop.step, loop.best_step) == (8, 4)
    unscored = quiet(TinyTask(), tmp_path / "unscored", replace(SCHEDULE, measured_every=2, patience=4))
    assert unscored.run()
    assert unscored.step == SCHEDULE.steps
    assert not (tmp_path / "unscored" / BEST).exists()


def test_lines_between_measurements_and_the_seconds_of_steps_alone(tmp_path: Path) -> None:
    task = Scored(0.4, 0.7)
    schedule = replace(SCHEDULE, steps=8, measured_every=4, logged_every=2)
    quiet(task, tmp_path, schedule, now_s=lambda: task.seconds).run()
    lines = [json.loads(line) for line in (tmp_path / RESULTS).read_text().splitlines()]
    assert [(line["step"], "results" in line) for line in lines] == [(2, False), (4, True), (6, False), (8, True)]
    assert [line["seconds_a_step"] for line in lines] == [1.0] * 4


def test_without_a_warm_up_the_rate_stays_and_without_a_decay_no_average_is_kept(tmp_path: Path) -> None:
    loop = quiet(TinyTask(), tmp_path, Schedule(steps=3, measured_every=3))
    loop.run()
    assert [group["lr"] for group in loop.optimizer.param_groups] == [1e-2, 3e-2]
    assert loop.network is loop.task.network
    assert "average" not in module.load_checkpoint(tmp_path / LAST)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_a_checkpoint_that_goes_on(tmp_path: Path, number: signal.Signals) -> None:
    task = TinyTask(before=lambda step: os.kill(os.getpid(), number) if step == 4 else None)
    loop, before = quiet(task, tmp_path), signal.getsignal(number)
    with stopped_by_signals(loop):
        assert not loop.run()
    assert signal.getsignal(number) is before
    assert module.load_checkpoint(tmp_path / LAST)["step"] == loop.step == 5
    assert not list(tmp_path.glob("*.part"))
    resumed = quiet(TinyTask(), tmp_path)
    resumed.resume(tmp_path / LAST)
    assert resumed.run()
    whole = quiet(TinyTask(), tmp_path / "whole")
    whole.run()
    assert_same(resumed, whole)


def test_a_run_that_a_signal_stops_says_how_to_go_on(tmp_path: Path) -> None:
    task = TinyTask(before=lambda step: os.kill(os.getpid(), signal.SIGTERM) if step == 4 else None)
    with pytest.raises(SystemExit, match=r"stopped after 5 of 12 steps; --resume goes on from .*last\.pt"):
        train(task, SCHEDULE, tmp_path)
    loop = train(TinyTask(), SCHEDULE, tmp_path, resume=tmp_path / LAST, description={"classes": 3})
    assert loop.step == SCHEDULE.steps
    assert module.load_checkpoint(tmp_path / LAST)["description"] == {"classes": 3}


def test_a_second_ctrl_c_ends_at_once(tmp_path: Path) -> None:
    def twice(step: int) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    loop = quiet(TinyTask(before=twice), tmp_path)
    with pytest.raises(KeyboardInterrupt), stopped_by_signals(loop):
        loop.run()
    assert not (tmp_path / LAST).exists()


def test_other_settings_and_no_checkpoint_are_refused(tmp_path: Path) -> None:
    quiet(TinyTask(width=16), tmp_path).save()
    other = quiet(TinyTask(width=8), tmp_path)
    before = everything(other)
    with pytest.raises(ValueError, match=r"settings: got \{'width': 8\}, expected those of .*last.pt: \{'width': 16\}"):
        other.resume(tmp_path / LAST)
    assert all(torch.equal(value, before[name]) for name, value in everything(other).items())
    unaveraged = quiet(TinyTask(), tmp_path, replace(SCHEDULE, average_decay=None))
    with pytest.raises(ValueError, match=r"got settings, network, .*average, expected settings and no average; give"):
        unaveraged.resume(tmp_path / LAST)
    with pytest.raises(FileNotFoundError, match=r"got no file at .*; start the training without --resume"):
        other.resume(tmp_path / "nowhere" / LAST)


def stopped(out: Path, step: int, width: int = 16) -> Loop[nn.Sequential]:
    task, loops = stopping_at(step)
    loops.append(quiet(task, out))
    loops[0].run()
    return loops[0]


def test_a_packed_checkpoint_is_small_and_keeps_the_weights(tmp_path: Path) -> None:
    task = TinyTask(width=2048)
    loop = quiet(task, tmp_path, replace(SCHEDULE, steps=3))
    loop.run()
    task.network[1].running_var[0] = 1e6  # more than half precision holds
    loop.save()
    pack(tmp_path / LAST, tmp_path / "packed" / "small.pt")
    sizes = [path.stat().st_size for path in (tmp_path / LAST, tmp_path / "packed" / "small.pt")]
    assert sizes[1] < 0.35 * sizes[0]
    resumed = quiet(TinyTask(width=2048), tmp_path, replace(SCHEDULE, steps=3))
    resumed.resume(tmp_path / "packed" / "small.pt")
    assert (resumed.step, averaged(resumed).updates) == (3, 3)
    for name, value in everything(resumed).items():
        assert value.dtype in (torch.float32, torch.int64)
        torch.testing.assert_close(value, everything(loop)[name], rtol=1e-2, atol=1e-6)


def test_a_packed_average_is_smaller_still_and_is_what_goes_on(tmp_path: Path) -> None:
    loop = quiet(TinyTask(width=2048), tmp_path, replace(SCHEDULE, steps=3))
    loop.run()
    pack(tmp_path / LAST, tmp_path / "both.pt")
    pack(tmp_path / LAST, tmp_path / "average.pt", average=True)
    assert (tmp_path / "average.pt").stat().st_size < 0.6 * (tmp_path / "both.pt").stat().st_size
    resumed = quiet(TinyTask(width=2048), tmp_path, replace(SCHEDULE, steps=3))
    resumed.resume(tmp_path / "average.pt")
    mean = averaged(loop).network.state_dict()
    for network in (resumed.task.network, averaged(resumed).network):
        for name, value in network.state_dict().items():
            torch.testing.assert_close(value, mean[name], rtol=1e-2, atol=1e-6)


def test_a_packed_checkpoint_goes_on_with_a_rate_that_rises_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_REWARMED_STEPS", 4)
    last = stopped(tmp_path, 5)
    pack(tmp_path / LAST, tmp_path / "small.pt")
    resumed, plain = quiet(TinyTask(), tmp_path / "on"), quiet(TinyTask(), tmp_path / "plain")
    resumed.resume(tmp_path / "small.pt")
    plain.resume(tmp_path / LAST)
    assert resumed.step == plain.step == last.step == 6
    shares = []
    for resumed.step in range(6, 12):
        plain.step = resumed.step
        shares.append(resumed.rate() / plain.rate())
    assert shares == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1])
    resumed.step = 6
    assert resumed.run()


def test_the_rate_rises_on_where_a_resumed_run_is_stopped_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_REWARMED_STEPS", 5)
    stopped(tmp_path, 3)
    pack(tmp_path / LAST, tmp_path / "small.pt")
    whole = quiet(TinyTask(), tmp_path / "whole")
    whole.resume(tmp_path / "small.pt")
    whole.run()
    task, loops = stopping_at(1)
    loops.append(quiet(task, tmp_path / "parts"))
    loops[0].resume(tmp_path / "small.pt")
    loops[0].run()
    again = quiet(TinyTask(), tmp_path / "parts")
    again.resume(tmp_path / "parts" / LAST)
    again.run()
    assert_same(again, whole)
