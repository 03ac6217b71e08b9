"""The mean of two classifiers: folded first, the same as the mean of their graphs, and honest about what it is."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch", reason="the networks are written in PyTorch")
torch.set_num_threads(1)

from torch import nn  # noqa: E402

from engines.graphs.storage import narrowed  # noqa: E402
from tools.export.cards import write_files  # noqa: E402
from tools.export.classifier import Fitted, build_graph, values_of  # noqa: E402
from tools.graphs.conversion import fuse_normalisation  # noqa: E402
from tools.train import __main__ as command  # noqa: E402
from tools.train.average import mean_checkpoint  # noqa: E402
from tools.train.classifier import Recipe, build_network, load_network  # noqa: E402
from tools.train.loop import (  # noqa: E402
    LAST,
    MEAN_OF,
    Loop,
    Schedule,
    Task,
    load_checkpoint,
    save_checkpoint,
)
from tools.train.pack import pack  # noqa: E402

SMALL = Recipe(architecture="mobilenetv3-small", crops=640, input_px=32)
LATER = dataclasses.replace(SMALL, apart=1.2, seed=1)
FIRST = "python -m tools.train classifier --out runs/{}classifier --architecture mobilenetv3-small --crops 640"


def pictures(seed: int) -> torch.Tensor:
    """Pictures of a few colours each, which a network without training tells apart."""
    few = torch.rand(16, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return few.repeat_interleave(8, 2).repeat_interleave(8, 3)


def left_by_a_run(path: Path, recipe: Recipe = SMALL, seed: int = 0) -> nn.Module:
    """A network as training leaves one, in a checkpoint whose unaveraged weights are others; the network."""
    torch.manual_seed(seed)
    network = build_network(recipe, pretrained=False)
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, 0.1)
        if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
            nn.init.normal_(module.bias, 0, 0.3)  # of tensors that are equal a graph keeps one
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # plain means, so that a few batches settle the statistics
            nn.init.uniform_(module.weight, 0.6, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
    with torch.no_grad():
        for batch in range(3):
            network(pictures(batch))
    network.eval()
    other = {name: torch.zeros_like(value) for name, value in network.state_dict().items()}
    average = {"network": network.state_dict(), "updates": 10}
    settings = dataclasses.asdict(recipe)
    save_checkpoint(path, {"settings": settings, "network": other, "step": 10, "optimizer": {}, "average": average})
    return network


def exported(network: nn.Module, folder: Path, recipe: Recipe = SMALL, mean_of: Any = None) -> Path:
    """The graph of a network as it ships, in half precision, its card beside it."""
    data = narrowed(build_graph(network, recipe, Fitted())).SerializeToString()
    return write_files(values_of("small", recipe, 10, data, Fitted(), mean_of), data, folder)[0]


def says(network: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat(network(pictures(9)), 1)


def folded(network: nn.Module) -> dict[str, torch.Tensor]:
    return fuse_normalisation(network).state_dict()


def averaged_by_the_command(first: Path, second: Path, out: Path, *more: str) -> nn.Module:
    assert command.main(["average", str(first), str(second), *more, "--out", str(out)]) == 0
    return load_network(out)[0]


@pytest.mark.parametrize("architecture", ["mobilenetv3-small", "efficientnet-lite0"])
def test_the_mean_of_a_network_and_itself_is_that_network(architecture: str, tmp_path: Path) -> None:
    recipe = dataclasses.replace(SMALL, architecture=architecture)
    network = left_by_a_run(tmp_path / LAST, recipe)
    mean = averaged_by_the_command(tmp_path / LAST, tmp_path / LAST, tmp_path / "mean.pt", "--share", "0.3")
    assert says(network).std(0).max() > 0.05  # the pictures differ
    torch.testing.assert_close(says(mean), says(network), atol=1e-3, rtol=1e-3)
    for name, value in folded(mean).items():
        torch.testing.assert_close(value, folded(network)[name], atol=1e-5, rtol=1e-5)


def test_the_mean_of_two_checkpoints_is_that_of_their_folded_weights(tmp_path: Path) -> None:
    first = left_by_a_run(tmp_path / "first.pt")
    second = left_by_a_run(tmp_path / "second.pt", LATER, seed=1)
    mean = averaged_by_the_command(
        tmp_path / "first.pt", tmp_path / "second.pt", tmp_path / "mean.pt", "--share", ".25"
    )
    one, other = folded(first), folded(second)
    for name, value in folded(mean).items():
        torch.testing.assert_close(value, 0.75 * one[name] + 0.25 * other[name], atol=1e-5, rtol=1e-5)
    for module in mean.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert not module.running_mean.any()
            torch.testing.assert_close(module.weight, (module.running_var + module.eps).sqrt())
    state = load_checkpoint(tmp_path / "mean.pt")
    assert (state["settings"], state["step"]) == (dataclasses.asdict(LATER), 10)


def test_a_graph_and_a_packed_checkpoint_give_the_mean_of_what_they_hold(tmp_path: Path) -> None:
    first = left_by_a_run(tmp_path / "first.pt")
    second = left_by_a_run(tmp_path / "second.pt", LATER, seed=1)
    pack(tmp_path / "second.pt", tmp_path / "packed.pt", average=True)
    graph = exported(first, tmp_path)
    mean = folded(averaged_by_the_command(graph, tmp_path / "packed.pt", tmp_path / "mean.pt"))
    one, other = folded(first), folded(second)
    for name, value in mean.items():
        wanted = (one[name] + other[name]) / 2
        assert float((value - wanted).abs().max()) < 4e-3 * float(wanted.abs().max()), name  # both were rounded
    again = exported(load_network(tmp_path / "mean.pt")[0], tmp_path / "mean", LATER)
    names = {one.name.removesuffix("/half") for one in onnx.load(again).graph.initializer}
    assert names == {one.name.removesuffix("/half") for one in onnx.load(graph).graph.initializer}


def test_the_card_of_a_mean_says_how_its_weights_came_about(tmp_path: Path) -> None:
    first = left_by_a_run(tmp_path / "first.pt")
    left_by_a_run(tmp_path / "second.pt", LATER, seed=1)
    graph = exported(first, tmp_path)
    mean = mean_checkpoint(graph, tmp_path / "second.pt", 0.5)
    training = values_of("small", LATER, 10, b"", Fitted(), mean[MEAN_OF])["training"]
    assert training["command"].split("; ") == [
        f"{FIRST.format('first/')} --input-px 32",
        f"{FIRST.format('second/')} --input-px 32 --apart 1.2 --seed 1",
        "python -m tools.train average runs/first/classifier/last.pt runs/second/classifier/last.pt --share 0.5 "
        "--out runs/classifier/last.pt",
    ]
    assert hashlib.sha256(graph.read_bytes()).hexdigest() in training["notes"][-1]
    assert "mean of those of two runs" in training["notes"][-2]
    plain = values_of("small", LATER, 10, b"", Fitted())["training"]
    assert plain["command"] == f"{FIRST.format('')} --input-px 32 --apart 1.2 --seed 1"
    assert plain["notes"] == training["notes"][:-2]


def test_of_a_mean_of_means_every_run_has_a_folder_of_its_own(tmp_path: Path) -> None:
    left_by_a_run(tmp_path / "first.pt")
    left_by_a_run(tmp_path / "second.pt", LATER, seed=1)
    save_checkpoint(tmp_path / "mean.pt", mean_checkpoint(tmp_path / "first.pt", tmp_path / "second.pt", 0.5))
    whole = mean_checkpoint(tmp_path / "mean.pt", tmp_path / "second.pt", 0.5)[MEAN_OF]
    training = values_of("small", LATER, 10, b"", Fitted(), whole)["training"]
    folders = [one.partition(" --out ")[2].split()[0] for one in training["command"].split("; ")]
    assert folders == [
        "runs/first/first/classifier",
        "runs/first/second/classifier",
        "runs/first/classifier/last.pt",
        "runs/second/classifier",
        "runs/classifier/last.pt",
    ]
    assert len(training["notes"]) == len(values_of("small", LATER, 10, b"", Fitted())["training"]["notes"]) + 1


def test_no_run_goes_on_from_a_mean(tmp_path: Path) -> None:
    class OneStep(Task[nn.Module]):
        network = nn.Linear(1, 1)

        def optimizer(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.network.parameters(), 0.1)

        def loss(self, step: int, rng: np.random.Generator) -> tuple[torch.Tensor, dict[str, float]]:
            raise AssertionError

        def settings(self) -> dict[str, Any]:
            return {}

    left_by_a_run(tmp_path / LAST)
    save_checkpoint(tmp_path / "mean.pt", mean_checkpoint(tmp_path / LAST, tmp_path / LAST, 0.5))
    with pytest.raises(ValueError, match=r"mean\.pt: got the mean of two runs"):
        Loop(OneStep(), Schedule(steps=1, measured_every=1), tmp_path).resume(tmp_path / "mean.pt")


def test_what_cannot_be_averaged_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(first: Path, second: Path) -> str:
        status = command.main(["average", str(first), str(second), "--out", str(tmp_path / "mean.pt")])
        assert status == 1
        assert not (tmp_path / "mean.pt").exists()
        (line,) = capsys.readouterr().err.splitlines()
        return line

    small, other, without, alien = (tmp_path / f"{name}.pt" for name in ("small", "other", "without", "alien"))
    network = left_by_a_run(small)
    left_by_a_run(other, dataclasses.replace(SMALL, architecture="efficientnet-lite0"))
    left_by_a_run(without, dataclasses.replace(SMALL, without="deepapl"))
    save_checkpoint(alien, {"settings": {"epochs": 3}, "average": {"network": {}}})
    assert "weights: got two different networks, expected two runs of the same one" in refused(small, other)
    assert "without: got '' of the first run and 'deepapl' of the second" in refused(small, without)
    assert "alien.pt: got no run of tools.train classifier" in refused(small, alien)
    assert "alien.pt: got no run of tools.train classifier" in refused(alien, small)
    graph = exported(network, tmp_path)
    assert "weights: got two different networks" in refused(graph, other)
    graph.write_bytes(narrowed(build_graph(left_by_a_run(small, seed=3), SMALL, Fitted())).SerializeToString())
    assert "got sha256" in refused(graph, small)
    graph.with_suffix(".toml").unlink()
    assert "small.toml" in refused(graph, small)
    save_checkpoint(alien, {"description": {}, "average": {"network": {}}})
    assert "small.onnx: got a graph, expected a checkpoint of tools.train detector" in refused(graph, alien)
