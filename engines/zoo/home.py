"""Home cells: what a classifier's last layer reads of some cells of the laboratories that it knows, blasts among them.

They lie beside the card as NAME.home.npz, so that a laboratory that adapts the classifier to its own cells can see what
becomes of those at home without their pictures. `python -m tools.export home NAME` makes the file.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engines.base import CardError

SUFFIX = ".home.npz"
_STEPS = 255


@dataclass(frozen=True, slots=True, eq=False)
class HomeCells:
    """n cells that did not train the classifier."""

    features: npt.NDArray[np.float32]
    """(n, F), the mean over the looks at each cell: a linear layer makes of it what it pools of the looks."""
    classes: tuple[str, ...]
    """Of each cell, as a person named it; blasts also where the classifier has no such class."""
    model_sha256: str
    """Of the classifier's file that the features are of."""

    def to_bytes(self) -> bytes:
        """The file: each feature in 256 steps of its range."""
        low, high = self.features.min(0), self.features.max(0)
        step = np.maximum((high - low) / _STEPS, 1e-12)
        names = sorted(set(self.classes))
        out = io.BytesIO()
        np.savez_compressed(
            out,
            levels=np.rint((self.features - low) / step).astype(np.uint8),
            low=low.astype(np.float32),
            step=step.astype(np.float32),
            classes=np.array([names.index(name) for name in self.classes], np.uint8),
            names=np.array(names),
            model_sha256=np.array(self.model_sha256),
        )
        return out.getvalue()


def read_home(data: bytes, where: str, *, model_sha256: str | None) -> HomeCells:
    """Of a file; CardError for what is none, and for that of another model."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            names: Sequence[str] = file["names"].tolist()
            features = file["levels"].astype(np.float32) * file["step"] + file["low"]
            classes = tuple(names[i] for i in file["classes"].tolist())
            home = HomeCells(features, classes, str(file["model_sha256"]))
    except (ValueError, KeyError, IndexError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise CardError(f"{where}: got no file of home cells ({error}), expected one; make it again") from error
    if features.ndim != 2 or len(features) != len(classes):
        raise CardError(f"{where}: got {features.shape} features of {len(classes)} cells, expected a row each")
    if model_sha256 is not None and home.model_sha256 != model_sha256:
        raise CardError(
            f"{where}: got the home cells of another model ({home.model_sha256[:12]}…), expected those of "
            f"{model_sha256[:12]}…; make them again: python -m tools.export home NAME, or take the file away"
        )
    return home
