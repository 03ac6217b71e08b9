"""`python -m tools.train NAME`: train a model, or prepare a training."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tools.commands import dispatch

NAMES = {
    "classifier": "the classifier of white cells, abnormal ones among them",
    "eight-types": "MobileNetV3-Small on the eight types of PBC and their subclasses",
    "published": "a published classifier of the five types",
    "svm": "support vector machines on the features of a trained DarkNet-53",
    "detector": "the detector of blood cells",
    "leukocyte-detector": "YOLOv5 whose classes are the kinds of leukocyte",
    "yolov2": "the YOLOv2 localiser of the leukaemia system",
    "faster-rcnn": "ML-CNN's first level, a Faster R-CNN",
    "segmenter": "DeepLabv3 on Xception: nucleus, cytoplasm and background",
    "pack": "a checkpoint in a quarter of its size, to resume from",
    "average": "the mean of the weights of checkpoints",
    "label-fields": "let a trained detector label what people left out in chula_wbc",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; the exit status."""
    return dispatch("train", NAMES, arguments)


if __name__ == "__main__":
    sys.exit(main())
