"""Cells -> Classifications, with any engine that ends in probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engines.base import Array, CardError, Classifications, Engine, ModelFormatError, TensorMismatchError
from engines.geometry import Boxes, Image, crop_squares
from engines.graphs.graph import ATTRIBUTE_PROBABILITIES, CLASS_PROBABILITIES, INPUT, NOVELTY, SUBCLASS_PROBABILITIES
from engines.zoo.card import Card
from engines.zoo.crops import CropInput, even_batches, filled

_LARGEST_BATCH = 32
"""Crops a call where the engine names no limit: enough for any field, little memory."""


class Classifier:
    """A classifier with its card. Safe from several threads at once."""

    def __init__(self, card: Card, engine: Engine) -> None:
        """ModelFormatError or CardError unless `engine` is a classifier of the card's size and classes."""
        if not isinstance(card.input, CropInput) or card.task != "classifier":
            raise CardError(f"model {card.name!r}: got a {card.task}, expected a classifier")
        self.card = card
        self.engine = engine
        self.input = card.input
        self._size = card.input.size
        self.class_names = card.class_names
        self._subclass_names = tuple(entry.name for entry in card.subclasses)
        self._subclass_parents = tuple(entry.parent for entry in card.subclasses)
        self._attribute_values = sum(len(one.values) for one in card.attributes)
        self._further = (ATTRIBUTE_PROBABILITIES,) * bool(card.attributes)
        self._further += (NOVELTY,) * (card.thresholds.novelty is not None)
        self._batch = engine.max_batch or _LARGEST_BATCH
        self.input.check(card.name, engine)
        _check_outputs(card, engine)

    @property
    def threshold(self) -> float:
        """The probability below which a cell is "unclassified"."""
        return self.card.thresholds.operating

    @property
    def margins(self) -> tuple[float, ...]:
        """Of the looks at a cell in a frame of unknown magnification; the second one is mirrored."""
        second = self.input.mirrored_margin
        return (self.input.crop_margin,) if second is None else (self.input.crop_margin, second)

    @property
    def shares(self) -> tuple[float, ...]:
        """What is looked at of a single-cell picture, as shares of its side: the whole and its middle."""
        return 1.0, self.input.middle_share

    def classify(self, frame: Image, boxes_px: Boxes, rbc_px: float | None = None) -> Classifications:
        """Classify the cells in boxes (n,4) of a frame uint8 (H,W,3) BGR; no boxes give empty arrays. `rbc_px`: the
        usual diameter of red cells in px of the frame, None where it is not known."""
        return self.classify_batch(self.crop(frame, boxes_px, rbc_px))

    def crop(self, frame: Image, boxes_px: Boxes, rbc_px: float | None = None) -> Image:
        """(n,k,h,w,3) crops as the classifier was trained on, k looks at each cell (`CropInput`); batches over frames
        are made of these."""
        looks = []
        for look in range(self.input.looks):
            squares_px, margin = self.input.looked_at(look, boxes_px, rbc_px)
            looks.append(self._looked(frame, squares_px, margin, mirrored=self.input.is_mirrored(look, rbc_px)))
        return np.stack(looks, axis=1)

    def crop_pictures(self, pictures: Sequence[Image]) -> Image:
        """(n,2,h,w,3) two looks (`shares`) at each of n pictures that show one cell, uint8 (H,W,3) BGR of any size."""
        crops = np.empty((len(pictures), len(self.shares), *self._size, 3), np.uint8)
        for i, picture in enumerate(pictures):
            if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8 or not picture.size:
                raise TensorMismatchError(
                    f"picture {i}: got {picture.dtype} {picture.shape}, expected uint8 (H,W,3) BGR"
                )
            whole = np.array([[0, 0, picture.shape[1], picture.shape[0]]], np.float32)
            for look, share in enumerate(self.shares):
                mirrored = self.input.is_mirrored(look, None)
                crops[i, look] = self._looked(picture, whole, share, mirrored=mirrored)[0]
        return crops

    def classify_crops(self, pictures: Sequence[Image]) -> Classifications:
        """Classify pictures that each show one cell, uint8 (H,W,3) BGR of any size.

        Nobody says how much of a picture its cell fills, so each is looked at twice, whole and its middle, and the
        looks are pooled: a look that cuts the cell, or shows it small, is less sure.
        """
        return self.classify_batch(self.crop_pictures(pictures))

    def _looked(self, frame: Image, boxes_px: Boxes, margin: float, *, mirrored: bool) -> Image:
        crops: Image = crop_squares(frame, boxes_px, self._size, margin, self.input.border)
        return crops[:, :, ::-1] if mirrored else crops

    def classify_batch(self, crops: Image) -> Classifications:
        """Classify crops uint8 (n,h,w,3) of the card's size, in as many calls as the engine's batch wants; of k looks
        at each cell (n,k,h,w,3) the pooled ones."""
        if crops.ndim == 5:
            n, looks, *shape = crops.shape
            return self.classify_batch_with(crops.reshape(n * looks, *shape), ())[0].pooled(looks)
        return self.classify_batch_with(crops, ())[0]

    def classify_batch_with(self, crops: Image, names: Sequence[str]) -> tuple[Classifications, dict[str, Array]]:
        """`classify_batch`, with further outputs of the engine by name, each (n, …)."""
        n = len(crops)
        wanted = (*names, *self._further)
        further: dict[str, list[Array]] = {name: [] for name in wanted}
        probabilities = np.empty((n, len(self.class_names)), np.float32)
        subclass_probabilities = np.empty((n, len(self._subclass_names)), np.float32)
        for part in even_batches(n, self._batch):
            outputs = self.engine.infer({INPUT: filled(crops[part], self.engine)})
            count = part.stop - part.start
            probabilities[part] = outputs[CLASS_PROBABILITIES][:count]
            if self._subclass_names:
                subclass_probabilities[part] = outputs[SUBCLASS_PROBABILITIES][:count]
            for name in wanted:
                further[name].append(outputs[name][:count])
        sums = probabilities.sum(1)
        if not (np.abs(sums - 1) < 1e-3).all():  # false for NaN too
            raise ModelFormatError(
                f"model {self.card.name!r}: got class probabilities that sum to {sums[np.abs(sums - 1).argmax()]:.4g}, "
                "expected 1; end the graph in a softmax"
            )
        given = {name: np.concatenate(parts) for name, parts in further.items() if parts}
        if n == 0:
            given |= {
                ATTRIBUTE_PROBABILITIES: np.zeros((0, self._attribute_values), np.float32),
                NOVELTY: np.zeros(0, np.float32),
            }
        looks = Classifications(
            probabilities=probabilities,
            class_names=self.class_names,
            subclass_probabilities=subclass_probabilities,
            subclass_names=self._subclass_names,
            subclass_parents=self._subclass_parents,
            attribute_probabilities=given[ATTRIBUTE_PROBABILITIES] if self.card.attributes else None,
            attributes=self.card.attributes,
            novelty=given[NOVELTY] if NOVELTY in self._further else None,
        )
        return looks, {name: given[name] for name in names}

    def close(self) -> None:
        self.engine.close()


def _check_outputs(card: Card, engine: Engine) -> None:
    widths = {spec.name: spec.shape[-1] for spec in engine.outputs if len(spec.shape) == 2}
    wanted = {CLASS_PROBABILITIES: len(card.classes)}
    if card.subclasses:
        wanted[SUBCLASS_PROBABILITIES] = len(card.subclasses)
    if card.attributes:
        wanted[ATTRIBUTE_PROBABILITIES] = sum(len(one.values) for one in card.attributes)
    shapes = {spec.name: len(spec.shape) for spec in engine.outputs}
    if card.thresholds.novelty is not None and shapes.get(NOVELTY) != 1:
        got = ", ".join(f"{spec.name} {spec.shape}" for spec in engine.outputs)
        raise ModelFormatError(
            f"model {card.name!r}: outputs: got {got}, expected {NOVELTY} float32 (N,) since its card has a threshold "
            "for it; take the threshold out of the card, or export the model with it"
        )
    for name, width in wanted.items():
        if name not in widths:
            got = ", ".join(f"{spec.name} {spec.shape}" for spec in engine.outputs)
            raise ModelFormatError(f"model {card.name!r}: outputs: got {got}, expected {name} float32 (N,{width})")
        if widths[name] not in (width, None):
            raise CardError(
                f"model {card.name!r}: {name}: got {widths[name]} values, expected {width} by its card; "
                "list every class of the network in the card, in its order"
            )
