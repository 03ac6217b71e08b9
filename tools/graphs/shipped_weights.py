"""The weights of a graph that ships, so that training goes on from it where its checkpoint is gone.

Export folds every batch normalisation into the convolution before it. Here the convolution keeps the folded weights,
and the normalisation after it is set to undo itself: its running mean and variance are those of what the convolution
gives for training pictures, scale and shift put them back. So the network says what the graph says, and its
normalisations go on learning from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from engines.graphs.storage import widened
from engines.zoo.card import Card, parse_card

GRAPH = ".onnx"


def weights_of(path: Path, prefix: str = "") -> dict[str, Tensor]:
    """float32 tensors of the graph by name, of those whose name begins with `prefix`, without it.

    FileNotFoundError where there is no file, ValueError where it holds no such tensor.
    """
    if not path.is_file():
        raise FileNotFoundError(f"weights to begin with: got no file at {path}, expected an ONNX file or a checkpoint")
    graph = widened(onnx.load(path)).graph
    arrays = {one.name: numpy_helper.to_array(one) for one in graph.initializer if one.name.startswith(prefix)}
    found = {name.removeprefix(prefix): torch.from_numpy(np.array(value, np.float32)) for name, value in arrays.items()}
    if not found:
        raise ValueError(f"{path}: got no tensor {prefix}…, expected a graph that this project's commands exported")
    return found


def card_beside(path: Path) -> Card:
    """The card beside a graph, or at `path` itself. FileNotFoundError or CardError where there is none."""
    card = path.with_suffix(".toml")
    return parse_card(card.read_text("utf-8"), str(card), stem=card.stem)


def begin_with_graph(network: nn.Module, weights: Mapping[str, Tensor], batches: Iterable[Tensor]) -> None:
    """Make `network`, untrained, give what the graph of `weights` gives; `batches` are float32 inputs as in training.

    ValueError where the network has a tensor that the graph lacks, or of another shape.
    """
    folded = put_folded(network, weights)
    for name, (mean, variance) in _statistics(network, folded, batches).items():
        _set(folded[name], mean, variance, weights[f"{name}.bias"])


def put_folded(network: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, nn.BatchNorm2d]:
    """Make `network` give what the graph of `weights` gives in evaluation mode; by the name of each convolution that
    has a folded normalisation the one after it, which adds its bias and knows no pictures yet (mean 0, variance 1).

    ValueError where the network has a tensor that the graph lacks, or of another shape.
    """
    state = network.state_dict()
    names = {module: name for name, module in network.named_modules()}
    folded = {
        name: norm
        for name, norm in _normalised(network).items()
        if f"{name}.bias" in weights and f"{names[norm]}.weight" not in weights
    }
    of_norms = {names[norm] for norm in folded.values()}
    for name, value in state.items():
        module = name.rpartition(".")[0]
        if module in of_norms or name.endswith(".num_batches_tracked"):
            continue
        if module in folded and name.endswith(".bias"):
            value.zero_()  # the normalisation has it
            continue
        given = weights.get(name)
        if given is None or given.shape != value.shape:
            got = "none" if given is None else tuple(given.shape)
            raise ValueError(f"weights {name}: got {got}, expected {tuple(value.shape)}; begin with the same network")
        value.copy_(given)
    for name, norm in folded.items():
        _set(norm, torch.zeros(norm.num_features), torch.ones(norm.num_features), weights[f"{name}.bias"])
    return folded


def _normalised(network: nn.Module) -> dict[str, nn.BatchNorm2d]:
    """By the name of each convolution the normalisation that follows it."""
    found = {}
    for name, module in network.named_modules():
        if isinstance(module, nn.Sequential):
            parts = list(module.named_children())
            for (first, before), (_, after) in pairwise(parts):
                if isinstance(before, nn.Conv2d) and isinstance(after, nn.BatchNorm2d):
                    found[f"{name}.{first}" if name else first] = after
    return found


@torch.no_grad()
def _set(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor, bias: Tensor) -> None:
    """Statistics of `norm`, and scale and shift that undo them but for the bias of the convolution."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)
    norm.weight.copy_((variance + norm.eps).sqrt())
    norm.bias.copy_(mean + bias)


@torch.no_grad()
def _statistics(
    network: nn.Module, norms: Mapping[str, nn.BatchNorm2d], batches: Iterable[Tensor]
) -> dict[str, tuple[Tensor, Tensor]]:
    """Mean and variance of each channel before each normalisation, over all batches."""
    sums: dict[str, list[Tensor]] = {}

    def keep(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0].double()
            part = torch.stack([x.mean((0, 2, 3)), x.square().mean((0, 2, 3))])
            sums.setdefault(name, []).append(part)

        return hook

    hooks = [norm.register_forward_pre_hook(keep(name)) for name, norm in norms.items()]
    was_training = network.training
    network.eval()
    for batch in batches:
        network(batch)
    network.train(was_training)
    for hook in hooks:
        hook.remove()
    if norms and not sums:
        raise ValueError("pictures to begin with: got none, expected at least one batch")
    means = {name: torch.stack(parts).mean(0) for name, parts in sums.items()}
    return {name: (m[0].float(), (m[1] - m[0].square()).clamp(min=0).float()) for name, m in means.items()}
