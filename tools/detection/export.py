"""From the trained network to the ONNX file that ships: raw maps first, then the uint8 prefix and the compact
head."""

from __future__ import annotations

import io
import warnings

import onnx
import torch
from torch import nn

from tools.architectures.yolov5 import YOLOv5

RAW_OUTPUTS = ("p3", "p4", "p5")


def fuse_normalisation(network: YOLOv5) -> YOLOv5:
    """A copy with every batch normalisation folded into the convolution before it."""
    import copy

    from torch.nn.utils.fusion import fuse_conv_bn_eval

    fused = copy.deepcopy(network).cpu().float().eval()
    for module in fused.modules():
        if isinstance(module, nn.Sequential) and len(module) >= 2:
            conv, norm = module[0], module[1]
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                module[0], module[1] = fuse_conv_bn_eval(conv, norm), nn.Identity()
    return fused


def export_raw(network: YOLOv5) -> onnx.ModelProto:
    """Input `images` float32 (N,3,H,W) in 0..1, outputs the raw logit maps p3, p4, p5; N, H, W free (H, W
    multiples of 32)."""
    free = {0: "N", 2: "H", 3: "W"}
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the trace exporter keeps the maps' names and free axes
        torch.onnx.export(
            fuse_normalisation(network),
            (torch.zeros(1, 3, 64, 64),),
            buffer,
            input_names=["images"],
            output_names=list(RAW_OUTPUTS),
            dynamic_axes=dict.fromkeys(("images", *RAW_OUTPUTS), free),
            opset_version=17,
            dynamo=False,
        )
    model = onnx.load_from_string(buffer.getvalue())
    onnx.checker.check_model(model)
    return model
