"""From PyTorch to the files that ship: the ONNX graph and the text of its card."""

from __future__ import annotations

import copy
import io
import json
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

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
            buffer,
            input_names=["images"],
            output_names=list(outputs),
            dynamic_axes={name: dict(free) for name in ("images", *outputs)},
            opset_version=OPSET,
            dynamo=False,
        )
    model = onnx.load_from_string(buffer.getvalue())
    onnx.checker.check_model(model)
    return model


def toml_value(value: Any) -> str:
    """A string, number, bool or list of them as TOML; TypeError for what TOML can't hold (None among it)."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    raise TypeError(f"card value: got {type(value).__name__}, expected a string, number, bool or list")


def toml(tables: Mapping[str, Any]) -> str:
    """TOML text of nested mappings; lists of mappings become arrays of tables, values that are None are left out."""
    lines: list[str] = []

    def write(table: Mapping[str, Any], name: str) -> None:
        for key, value in table.items():
            if value is not None and not _is_table(value):
                lines.append(f"{key} = {toml_value(value)}")
        for key, value in table.items():
            path = f"{name}.{key}" if name else key
            if isinstance(value, Mapping):
                if any(not _is_table(v) for v in value.values()):
                    lines.extend(("", f"[{path}]"))
                write(value, path)
            elif _is_table(value):
                for row in value:
                    lines.extend(("", f"[[{path}]]"))
                    write(row, path)

    write(tables, "")
    return "\n".join(lines) + "\n"


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping) or (
        isinstance(value, list) and bool(value) and all(isinstance(row, Mapping) for row in value)
    )
