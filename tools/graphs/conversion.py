"""From PyTorch to the ONNX graphs that ship."""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Mapping, Sequence

import onnx
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

OPSET = 17


def fuse_normalisation(network: nn.Module) -> nn.Module:
    """A copy in float32 on the CPU, every batch normalisation folded into the convolution before it."""
    fused = copy.deepcopy(network).cpu().float().eval()
    for module in fused.modules():
        if isinstance(module, nn.Sequential) and len(module) >= 2:
            conv, norm = module[0], module[1]
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                module[0], module[1] = fuse_conv_bn_eval(conv, norm), nn.Identity()
    return fused


def to_onnx(network: nn.Module, example: Tensor, outputs: Sequence[str], free: Mapping[int, str]) -> onnx.ModelProto:
    """The network as a checked ONNX model with input `images`; `free` names the axes that stay free, by number."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore", DeprecationWarning)  # the trace exporter keeps the names and free axes
        torch.onnx.export(
            fuse_normalisation(network),
            (example,),
            buffer,  # type: ignore[arg-type]
            input_names=["images"],
            output_names=list(outputs),
            dynamic_axes={name: dict(free) for name in ("images", *outputs)},
            opset_version=OPSET,
            dynamo=False,
        )
    model = onnx.load_from_string(buffer.getvalue())
    onnx.checker.check_model(model)
    return model
