"""`python -m tools.export NAME RUN`: make the files that ship, NAME.onnx and NAME.toml, from a run."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tools.commands import dispatch

NAMES = {
    "classifier": "of `tools.train classifier`",
    "eight-types": "of `tools.train eight-types`, or fitted anew to a graph that ships",
    "published": "of `tools.train published`: the whole system as one graph",
    "svm": "of `tools.train svm`: network, kernels and probabilities as one graph",
    "detector": "of `tools.train detector`",
    "leukocyte-detector": "of `tools.train leukocyte-detector` or `yolov2`",
    "faster-rcnn": "of `tools.train faster-rcnn`",
    "segmenter": "of `tools.train segmenter`",
    "weights": "of a model file, stored anew in half precision or int8",
    "refit": "of a classifier that ships, with the offsets and thresholds fitted anew",
    "appearances": "how the pictures look that trained a classifier, into its card",
    "home": "what a classifier reads of cells from home, beside its card",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; the exit status."""
    return dispatch("export", NAMES, arguments)


if __name__ == "__main__":
    sys.exit(main())
