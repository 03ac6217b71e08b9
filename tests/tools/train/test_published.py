"""The published classifiers: protocols, splits, early stopping, resuming, figures; on a few painted cells."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch", reason="training is written in PyTorch")
torch.set_num_threads(1)

from torch import nn  # noqa: E402

from engines.backends.onnxruntime import OnnxRuntimeEngine, Threads  # noqa: E402
from engines.zoo.toml import toml  # noqa: E402
from tools.architectures.published import CLASSES, Part, assemble, before_temperature, parts_of  # noqa: E402
from tools.data import (  # noqa: E402
    CELL_CLASSES,
    CellPicture,
    typed_cells,
)
from tools.data.augment import Augmentation  # noqa: E402
from tools.data.crops import ATTRIBUTES, StoredCells  # noqa: E402
from tools.data.protocols import PROTOCOLS, Protocol, published_split  # noqa: E402
from tools.data.typed_cells import Cells  # noqa: E402
from tools.export import published as export_published  # noqa: E402
from tools.graphs.conversion import to_onnx  # noqa: E402
from tools.train import published as train_published  # noqa: E402
from tools.train.loop import BEST, LAST, RESULTS, Loop, begin_with  # noqa: E402
from tools.train.published import (  # noqa: E402
    PartTask,
    arguments,
    figures,
    predicted,
    protocol_of,
    start_of,
    summary,
    train_all,
    train_part,
)


def painted(per_class: int = 8) -> StoredCells:
    """Squares of 64 px whose colour says the class."""
    cells, squares, parts = [], [], []
    rng = np.random.default_rng(0)
    for label, name in enumerate(CLASSES):
        for i in range(per_class):
            square = np.full((64, 64, 3), 200, np.uint8)
            square[16:48, 16:48] = (40 * label + 20, 220 - 40 * label, 90)
            squares.append(square + rng.integers(0, 9, square.shape, np.uint8))
            key = f"pbc/images/{name}/{i}.jpg"
            cells.append(CellPicture("pbc", key, Path(key), 64, 64, (16, 16, 48, 48), name))
            parts.append(("train", "train", "train", "validation")[i % 4])
    return StoredCells(
        np.stack(squares),
        np.tile(np.float32([16, 16, 48, 48]), (len(cells), 1)),
        np.array([CELL_CLASSES.index(cell.cell_class) for cell in cells]),
        np.full(len(cells), -1),
        cells,
        parts,
        np.full((len(cells), len(ATTRIBUTES)), -1),
    )


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Conv2d(3, 8, 8, 8), nn.Linear(8, len(CLASSES))

    def forward(self, x):
        return self.head(torch.relu(self.body(x)).mean((2, 3)))

    def body_parameters(self):
        return list(self.body.parameters())


class Pair(Tiny):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(8, 2)


TINY = Part("network", lambda _: Tiny(), {name: i for i, name in enumerate(CLASSES)}, "network.")
QUICK = Protocol("none", 32, 3e-2, 8, 6, None, (0.7, 0.2, 0.1))
EPOCH_STEPS = 3  # 30 cells in batches of 8


def task_of(protocol: Protocol = QUICK, **options) -> PartTask:
    cells = Cells(painted(), ["pbc"], 1.3)
    return PartTask(TINY, cells, cells.parts, protocol, seed=1, **options)


def loop_of(task: PartTask, out: Path, *, resume: bool = False) -> Loop[nn.Module]:
    loop = Loop(task, task.schedule(), out, say=lambda line: None)
    if resume:
        loop.resume(out / LAST)
    return loop


def take_epoch(loop: Loop[nn.Module]) -> None:
    for _ in range(EPOCH_STEPS):
        loop.take_step()


def weights(network: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def test_the_protocols_are_the_publications() -> None:
    for name in ("mobilenetv3-small", "resnet50", "vgg19"):
        p = PROTOCOLS[name]
        assert (p.input_px, p.rate, p.batch, p.epochs, p.patience) == (224, 1e-4, 64, 50, 5)
        assert p.shares == (0.7, 0.2, 0.1)
    p = PROTOCOLS["ml-cnn"]
    assert (p.input_px, p.rate, p.shares, p.repetitions) == (128, 1e-3, (0.7, 0.0, 0.3), 10)
    options = arguments(["--architecture", "vgg19", "--out", "x", "--input-px", "96", "--epochs", "3"])
    assert protocol_of(options) == Protocol(PROTOCOLS["vgg19"].publication, 96, 1e-4, 64, 3, 5, (0.7, 0.2, 0.1))


def test_a_split_keeps_groups_together_and_the_shares_of_every_class() -> None:
    classes = ["a"] * 60 + ["b"] * 20
    groups = [f"g{i // 2}" for i in range(80)]
    parts = published_split(classes, groups, (0.7, 0.2, 0.1), seed=4)
    for i in range(0, 80, 2):
        assert parts[i] == parts[i + 1]
    for start, size in ((0, 60), (60, 20)):
        counted = [parts[start : start + size].count(name) / size for name in ("train", "validation", "test")]
        assert counted == pytest.approx([0.7, 0.2, 0.1])
    assert parts == published_split(classes, groups, (0.7, 0.2, 0.1), seed=4)
    assert parts != published_split(classes, groups, (0.7, 0.2, 0.1), seed=5)
    assert "validation" not in published_split(classes, groups, (0.7, 0.0, 0.3), seed=4)
    with pytest.raises(ValueError, match="expected three that sum to 1"):
        published_split(classes, groups, (0.7, 0.2, 0.2), seed=4)


def test_training_learns_and_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = loop_of(task_of(), tmp_path / "whole")
    whole.run()
    lines = [json.loads(line) for line in (tmp_path / "whole" / RESULTS).read_text().splitlines()]
    assert len(lines) == QUICK.epochs
    assert lines[-1]["loss"] < 0.8 * lines[0]["loss"]
    assert whole.best > 0.3
    first = loop_of(task_of(), tmp_path / "parted")
    for _ in range(EPOCH_STEPS + 1):  # not at an epoch's end
        first.take_step()
    first.save()
    second = loop_of(task_of(), tmp_path / "parted", resume=True)
    assert second.step == EPOCH_STEPS + 1
    second.run()
    assert torch.equal(weights(second.network), weights(whole.network))
    with pytest.raises(ValueError, match=r"settings: got \{'rate': 0.01\}, expected those of .*: \{'rate': 0.03\}"):
        loop_of(task_of(replace(QUICK, rate=1e-2)), tmp_path / "parted", resume=True)
    longer = loop_of(task_of(replace(QUICK, epochs=9)), tmp_path / "parted", resume=True)
    assert (longer.step, longer.schedule.steps) == (6 * EPOCH_STEPS, 9 * EPOCH_STEPS)


def test_an_epoch_shows_every_cell_once_in_an_order_of_its_own() -> None:
    task = task_of(replace(QUICK, batch=10))
    chosen: list[int] = []
    task._pictures = lambda rows, rng: chosen.extend(rows.tolist()) or torch.rand(len(rows), 3, 32, 32)  # type: ignore[method-assign, func-returns-value]
    for step in range(2 * task.epoch_steps):
        task.loss(step, np.random.default_rng(step))
    first, second = chosen[:30], chosen[30:]
    assert sorted(first) == sorted(second) == task.train_cells.tolist()
    assert first != second


def test_the_rate_rises_and_falls_and_such_a_run_keeps_its_length(tmp_path: Path) -> None:
    subject = loop_of(task_of(one_cycle=True), tmp_path)
    rates = []
    while subject.step < subject.schedule.steps:
        subject.take_step()
        rates.append(subject.optimizer.param_groups[0]["lr"])
    subject.save()
    peak = int(np.argmax(rates))
    assert rates[peak] == pytest.approx(QUICK.rate)
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[-1] < 0.05 * QUICK.rate
    with pytest.raises(ValueError, match=r"got \{'epochs': 9\}, expected those of .*: \{'epochs': 6\}"):
        loop_of(task_of(replace(QUICK, epochs=9), one_cycle=True), tmp_path, resume=True)


def test_a_run_can_begin_with_the_weights_of_another(tmp_path: Path) -> None:
    first = task_of()
    train_part(first, tmp_path / "repetition-0" / "network")
    assert start_of(tmp_path, TINY) == start_of(tmp_path, parts_of("ml-cnn")[0])
    second = task_of(start=start_of(tmp_path, TINY))
    assert torch.equal(weights(second.network), weights(first.network))
    pair = Part("pair", lambda _: Pair(), {"monocyte": 0, "lymphocyte": 1}, "network.")
    third = PartTask(pair, first.cells, first.cells.parts, QUICK, seed=2, start=start_of(tmp_path, TINY))
    assert torch.equal(third.network.body.weight, first.network.body.weight)
    assert third.network.head.weight.shape == (2, 8)
    with pytest.raises(FileNotFoundError, match=r"--start: got no network/best\.pt"):
        start_of(tmp_path / "second", TINY)
    with pytest.raises(ValueError, match="got no tensor whose name and shape agree"):
        begin_with(nn.Linear(2, 2), {"weight": torch.zeros(3, 3)})


def shipped(tmp_path: Path) -> Path:
    """An exported five-type MobileNet at 32 px and its card, whose tensors are as training leaves them."""
    (part,) = parts_of("mobilenet")
    torch.manual_seed(5)
    network = part.make(32)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias)
            nn.init.uniform_(module.running_var, 0.5, 2)
    graph = to_onnx(assemble("mobilenet", [network]), torch.rand(2, 3, 32, 32), ("class_probabilities",), {0: "N"})
    path = tmp_path / "shipped.onnx"
    path.write_bytes(graph.SerializeToString())
    card = {"name": "shipped", "task": "classifier", "file": path.name, "build": ["first", "then"]}
    card |= {"input": {"height_px": 32, "width_px": 32}, "thresholds": {"operating": 0.5}}
    card |= {"classes": [{"name": name, "kind": "white"} for name in CLASSES]}
    path.with_suffix(".toml").write_text(toml(card))
    return path


@pytest.mark.parametrize("augment", [False, True])
def test_a_run_can_begin_with_a_graph_that_ships(tmp_path: Path, augment: bool) -> None:
    path = shipped(tmp_path)
    (part,) = parts_of("mobilenet")
    cells = Cells(painted(), ["pbc"], 1.3)

    def begun() -> PartTask:
        given = {"start": start_of(path, part), "seed": 0, "augment": augment}
        return PartTask(part, cells, cells.parts, replace(QUICK, epochs=2), **given)

    subject = begun()
    chosen = np.arange(20)
    engine = OnnxRuntimeEngine(onnx.load(path), device="cpu", threads=Threads(1))
    expected = engine.infer({"images": cells.crops(chosen, 32).numpy()})["class_probabilities"]
    system = assemble("mobilenet", [subject.network])
    np.testing.assert_allclose(predicted(system, cells, chosen, 32, "cpu"), expected, atol=1e-4)
    assert torch.equal(weights(begun().network), weights(subject.network))  # the pictures are drawn from the seed
    loop = loop_of(subject, tmp_path / "run")
    take_epoch(loop)
    loop.save()
    assert not torch.equal(weights(begun().network), weights(subject.network))
    resumed = loop_of(begun(), tmp_path / "run", resume=True)
    assert resumed.step == EPOCH_STEPS
    assert torch.equal(weights(resumed.network), weights(subject.network))
    with pytest.raises(ValueError, match=r"got no tensor gate\.…"):
        PartTask(parts_of("ml-cnn")[0], cells, cells.parts, QUICK, seed=0, start=path)


def test_what_a_run_began_with_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = shipped(tmp_path)
    monkeypatch.setattr(train_published, "data_root", lambda: tmp_path)
    monkeypatch.setattr(train_published, "load_stored", lambda *_, **__: painted())
    given = f"--architecture mobilenet --input-px 32 --epochs 1 --batch 8 --device cpu --split parts --start {path}"
    assert train_published.main([*given.split(), "--out", str(tmp_path / "run")]) == 0
    found = json.loads((tmp_path / "run" / "results.json").read_text())
    assert found["start_build"] == ["first", "then"]
    assert found["start_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    first, then, own = export_published.training_commands(found, "runs/x")
    assert (first, then) == ("first", "then")
    assert f"--out runs/x --input-px 32 --batch 8 --epochs 1 --start {path} --split parts" in own
    path.unlink()
    second = ["--out", str(tmp_path / "second"), "--start", str(tmp_path / "run")]
    assert train_published.main([*given.split()[:-2], *second]) == 0
    later = json.loads((tmp_path / "second" / "results.json").read_text())
    assert "start_build" not in later
    commands = export_published.training_commands(later, "runs/y")
    assert commands[:2] == ["first", "then"]
    assert [
        f"--start {start}" in command for command, start in zip(commands[2:], (path, tmp_path / "run"), strict=True)
    ]


def test_changes_can_be_weaker() -> None:
    none = Augmentation().weakened(0)
    assert (none.scale, none.stain, none.jpeg_share, none.margin) == ((1, 1), 0, 0, 1.3)
    assert Augmentation().weakened(1) == Augmentation()
    assert Augmentation().weakened(0.5).scale == pytest.approx((0.9, 1.15))
    with pytest.raises(ValueError, match="strength: got 2"):
        Augmentation().weakened(2)


def test_training_stops_early_and_keeps_the_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accuracies = iter([0.5, 0.8, 0.7, 0.6, 0.9])
    monkeypatch.setattr(PartTask, "measure", lambda self, network: {"accuracy": next(accuracies)})
    subject = task_of(Protocol("none", 32, 1e-2, 8, 20, 2, (0.7, 0.2, 0.1)))
    network = train_part(subject, tmp_path)
    last, kept = (torch.load(tmp_path / name, weights_only=True) for name in (LAST, BEST))
    assert (last["step"], last["best"], last["best_step"]) == (4 * EPOCH_STEPS, 0.8, 2 * EPOCH_STEPS)
    assert kept["step"] == 2 * EPOCH_STEPS
    assert torch.equal(weights(network)[:9], torch.cat([v.flatten() for v in kept["network"].values()])[:9])


def test_without_validation_the_last_step_is_the_best(tmp_path: Path) -> None:
    cells = Cells(painted(), ["pbc"], 1.3)
    parts = ["train" if part == "train" else "test" for part in cells.parts]
    subject = PartTask(TINY, cells, parts, replace(QUICK, epochs=2, patience=1), seed=1)
    network = train_part(subject, tmp_path)
    best = torch.load(tmp_path / BEST, weights_only=True)
    assert best["step"] == 2 * EPOCH_STEPS
    assert torch.equal(weights(network), torch.cat([v.flatten() for v in best["network"].values()]))


def test_early_layers_stay_while_they_are_frozen(tmp_path: Path) -> None:
    subject = loop_of(task_of(frozen_epochs=1), tmp_path)
    before = subject.network.body.weight.clone()
    head = subject.network.head.weight.clone()
    take_epoch(subject)
    assert torch.equal(subject.network.body.weight, before)
    assert not torch.equal(subject.network.head.weight, head)
    take_epoch(subject)
    assert not torch.equal(subject.network.body.weight, before)


def test_gradient_descent_with_momentum_and_a_rate_that_goes_up_and_down(tmp_path: Path) -> None:
    subject = loop_of(task_of(replace(QUICK, optimizer="sgdm", rate=1.0), one_cycle=True), tmp_path)
    assert isinstance(subject.optimizer, torch.optim.SGD)
    assert subject.optimizer.param_groups[0]["momentum"] == 0.9
    steps = subject.schedule.steps
    assert steps == QUICK.epochs * EPOCH_STEPS
    rates: list[float] = []
    for subject.step in range(steps):
        rates.append(subject.rate())
    assert rates[0] == max(rates) == 1
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.05
    kept = loop_of(task_of(), tmp_path / "kept")
    assert isinstance(kept.optimizer, torch.optim.Adam)
    take_epoch(kept)
    assert kept.optimizer.param_groups[0]["lr"] == QUICK.rate


def test_cells_of_other_groups_do_not_teach_a_groups_network() -> None:
    cells = Cells(painted(), ["pbc"], 1.3)
    _, mononuclear, _ = parts_of("ml-cnn")
    subject = PartTask(mononuclear, cells, cells.parts, QUICK, seed=0)
    assert {cells.classes[i] for i in subject.train_cells} == {"lymphocyte", "monocyte"}
    assert sorted(set(subject.labels[subject.train_cells])) == [0, 1]


def test_crops_are_around_the_box_or_whole() -> None:
    stored = painted(1)
    around = Cells(stored, ["pbc"], 1.0).crops(np.array([0]), 16)
    whole = Cells(stored, ["pbc"], 0.0).crops(np.array([0]), 16)
    assert around.shape == whole.shape == (1, 3, 16, 16)
    assert around[0, 2].mean().item() < 0.4 < 0.6 < whole[0, 2].mean().item()
    both = Cells(stored, ["pbc"], 1.3).looks(np.arange(3), 16, (1.3, 1.5))
    assert both.shape == (3, 2, 16, 16, 3)
    for number, margin in enumerate((1.3, 1.5)):
        alone = Cells(stored, ["pbc"], margin).pictures(np.arange(3), 16)
        np.testing.assert_array_equal(both[:, number], alone[:, :, ::-1] if number else alone)
    with pytest.raises(ValueError, match="--sets: got bcd"):
        Cells(stored, ["bcd"], 1.0)


def test_figures_are_the_macro_means() -> None:
    truth = np.array([0, 0, 0, 1, 1, 4])
    probabilities = np.eye(5)[[0, 0, 1, 1, 1, 4]]
    got = figures(probabilities, truth)
    assert got["accuracy"] == pytest.approx(5 / 6)
    assert got["recall"] == pytest.approx((2 / 3 + 1 + 1) / 3)
    assert got["precision"] == pytest.approx((1 + 2 / 3 + 1) / 3)
    assert got["f1"] == pytest.approx((0.8 + 0.8 + 1) / 3)
    spread = summary([{**got, "accuracy": value} for value in (0.9, 1.0)])["accuracy"]
    assert spread["mean"] == pytest.approx(0.95)
    assert spread["sd"] == pytest.approx(0.0707, abs=1e-4)
    assert summary([got])["f1"]["sd"] == 0


@pytest.mark.parametrize("architecture", ["mobilenetv3-small", "ml-cnn"])
def test_the_whole_system_is_trained_and_measured(
    tmp_path: Path, architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(typed_cells, "build_groups", lambda: {key: [key] for key in keys})
    cells = Cells(painted(), ["pbc"], 1.3)
    keys = cells.keys
    given = f"--architecture {architecture} --out {tmp_path} --input-px 32 --epochs 1 --device cpu --repetitions 2"
    options = arguments([*given.split(), "--batch", "8", "--rate", "0.001", "--augment"])
    found = train_all(options, cells)
    assert [r["measured_on"] for r in found["repetitions"]] == ["test", "test"]
    assert all(0 <= r["accuracy"] <= 1 for r in found["repetitions"])
    names = {"gate", "mononuclear", "polymorphonuclear"} if architecture == "ml-cnn" else {"network"}
    assert {path.parent.name for path in (tmp_path / "repetition-1").glob("*/best.pt")} == names


@pytest.mark.parametrize(("architecture", "choose"), [("mobilenet", True), ("ml-cnn", True), ("ml-cnn", False)])
def test_what_was_before_the_temperatures_is_known(architecture: str, choose: bool) -> None:
    networks = [part.make(64) for part in parts_of(architecture)]
    for network in networks:
        torch.nn.init.normal_([m for m in network.modules() if isinstance(m, nn.Linear)][-1].weight)
    temperatures = [2.0, 0.5, 1.5][: len(networks)]
    x = torch.rand(4, 3, 64, 64)
    with torch.no_grad():
        calibrated = assemble(architecture, networks, temperatures, choose=choose)(x).numpy()
        plain = assemble(architecture, networks, choose=choose)(x).numpy()
    before = before_temperature(architecture, calibrated, temperatures, choose=choose)
    np.testing.assert_allclose(before, plain, atol=2e-5)
    assert not np.allclose(calibrated, plain, atol=1e-3)


def test_an_assembled_system_gives_probabilities() -> None:
    with torch.no_grad():
        for architecture in ("mobilenetv3-small", "ml-cnn"):
            networks = [part.make(64) for part in parts_of(architecture)]
            given = assemble(architecture, networks, [2.0] * len(networks))(torch.rand(3, 3, 64, 64))
            assert given.shape == (3, 5)
            torch.testing.assert_close(given.sum(1), torch.ones(3))
    with pytest.raises(ValueError, match="architecture: got 'alexnet', expected one of"):
        parts_of("alexnet")
