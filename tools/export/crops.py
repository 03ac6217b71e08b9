"""What the graphs of our classifiers of crops give, and how their cards say it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from engines.backends.onnxruntime import OnnxRuntimeEngine
from engines.graphs.graph import add_uint8_input
from engines.models.classifier import Classifier
from engines.zoo.card import parse_card
from engines.zoo.toml import toml
from tools.data.crops import ATTRIBUTES
from tools.graphs.conversion import to_onnx

CLASS_OFFSETS = {"immature granulocyte": -0.7, "erythroblast": -0.7, "platelet": -0.7}
"""Added to logits. PBC has 18 % immature granulocytes and 14 % erythroblasts, a smear seldom 1 %, and a false one of
these raises a flag; what a detector calls a white cell is seldom a platelet: half the odds. On validation PBC crops
and whole pictures of eight types lose .004, nearly all of it by immature granulocytes."""
MIDDLE_SHARE = 0.5
"""Of the shares .5, .65 and .8 of a picture's side, and all of them together, half beside the whole was best on whole
pictures of pbc (validation) and no worse than others elsewhere."""
ATTRIBUTES_OF = ("basophil", "eosinophil", "lymphocyte", "monocyte", "neutrophil")
"""The classes whose cells WBCAtt describes; what the network says of others nobody can measure."""
KINDS = {"platelet": "platelet", "erythroblast": "nucleated red", "artefact": "other"}
OUTPUTS = ("class_probabilities", "subclass_probabilities", "attribute_probabilities", "novelty")


def offsets(class_names: Sequence[str]) -> Tensor:
    """float32 (classes,): what is added to the logits."""
    return torch.tensor([CLASS_OFFSETS.get(name, 0.0) for name in class_names])


def graph_of(whole: nn.Module, outputs: Sequence[str], input_px: int) -> onnx.ModelProto:
    """The graph that ships: `images` uint8 (N, px, px, 3) BGR in, `outputs` out; N is free."""
    graph = to_onnx(whole, torch.rand(2, 3, input_px, input_px), tuple(outputs), {0: "N"})
    return add_uint8_input(graph, scale=1 / 255, channels="bgr")


def class_tables(class_names: Sequence[str], subclasses: Mapping[str, str], *, attributes: bool) -> dict[str, Any]:
    """What a card says of classes, subclasses (name -> parent) and, where the graph gives them, attributes."""
    described = {
        "attributes_of": list(ATTRIBUTES_OF),
        "attributes": [{"name": name, "values": list(values)} for name, values in ATTRIBUTES.items()],
    }
    return {
        "classes": [{"name": name, "kind": KINDS.get(name, "white")} for name in class_names],
        "subclasses": [{"name": name, "parent": parent} for name, parent in subclasses.items()],
        **(described if attributes else {}),
    }


def classifier_of(graph: onnx.ModelProto, values: Mapping[str, Any]) -> Classifier:
    """A graph with its card, ready to run on the CPU."""
    name = str(values["name"])
    return Classifier(parse_card(toml(values), name, stem=name), OnnxRuntimeEngine(graph))
