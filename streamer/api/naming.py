"""The name of one cell in a picture."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

import numpy as np

from engines.base import UsageError
from engines.geometry import Image
from engines.models.classifier import Classifier
from engines.models.loading import load_classifier, load_detector
from engines.models.site import find_site
from streamer.analysis.field_search import ENGINES_KEPT, FieldSearch
from streamer.analysis.named_cell import NamedCell
from streamer.commands.classify import LIMITS, named_cells
from streamer.config import DEFAULT_CLASSIFIER, DEFAULT_DETECTOR, Backend
from streamer.sources.base import SourceError
from streamer.sources.images import Unreadable, read_image

MODELS_KEPT = 4
"""Loaded ones, for the next call of `classify`."""


def classify(
    picture: Image | str | os.PathLike[str],
    *,
    classifier: str = DEFAULT_CLASSIFIER,
    site: str | None = None,
    detector: str | None = DEFAULT_DETECTOR,
    backend: Backend = "auto",
) -> NamedCell:
    """Name the cell of a picture, uint8 (H,W,3) blue, green, red as `cv2.imread` gives it, or an image file.

    A picture of 96 px or more may show a field: the detector looks for the white cell in its middle, else the surest.
    `detector`: None: the picture shows one cell. `site`: a folder that `leukostream adapt` wrote, in place of
    `classifier`. Models stay loaded for the next call. UsageError for what is no picture, SourceError for a file that
    can't be read.
    """
    if site is not None and classifier != DEFAULT_CLASSIFIER:
        raise UsageError("site: got a classifier too, expected one of them; the profile is a classifier")
    name = classifier if site is None else find_site(site).model
    models = _models(name, detector, backend)
    return next(iter(named_cells([_pixels(picture)], *models)))


@lru_cache(MODELS_KEPT)
def _models(classifier: str, detector: str | None, backend: Backend) -> tuple[Classifier, FieldSearch | None]:
    named = load_classifier(classifier, backend=backend)
    if detector is None:
        return named, None
    return named, FieldSearch(load_detector(detector, backend=backend, engines_kept=ENGINES_KEPT))


def _pixels(picture: Image | str | os.PathLike[str]) -> Image:
    if isinstance(picture, str | os.PathLike):
        read = read_image(Path(picture), LIMITS)
        if isinstance(read, Unreadable):
            raise SourceError(f"picture {os.fspath(picture)}: got {read.detail}, expected an image file")
        return read.pixels
    if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        got = f"{picture.dtype} {picture.shape}" if isinstance(picture, np.ndarray) else type(picture).__name__
        raise UsageError(
            f"picture: got {got}, expected uint8 (H,W,3) in blue, green, red, or the path of an image file"
        )
    if min(picture.shape[:2]) < LIMITS.min_side_px:
        raise UsageError(f"picture: got {picture.shape}, expected {LIMITS.min_side_px} px or more a side")
    return picture
