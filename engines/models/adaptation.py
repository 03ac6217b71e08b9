"""A classifier's last layer for one laboratory, from some hundred of its own cells: fitted, guarded, measured, judged.

Every cell is measured by a layer that did not see it, nor any cell of its slide: the cells are cut into `FOLDS` parts,
and for each part everything is done anew with the other parts, the choice of the prior's strength too.

Blasts. A laboratory that corrects a hundred cells seldom has any, and a layer that learns what its lymphocytes look
like must not take blasts for them. So a fitted layer is never used as it is: blasts from home, as they are and moved as
the laboratory's cells are moved, must be called blasts as often as before, and given another name no more often; what
is missing is made up by the bias of the class, then by the threshold. Without blasts from home the class gains whatever
any other class has gained on any of the laboratory's cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from threadpoolctl import threadpool_limits

from engines.base import LeukostreamError
from engines.graphs.last_layer import Floats, LastLayer
from engines.models.last_layer_fit import Cells, Classes, LayerFit, class_weights, folds_of, log_probabilities

BLAST = "blast"
LEAST_CELLS = 20
FOLDS = 5
STRENGTHS = (0.1, 0.3, 1.0, 3.0)
"""Of the prior, among which left-out cells choose; below these the home figures fall, above them little changes."""
ALONE = (1.0, 3.0)
"""Those without home cells, which would hold the layer too."""
RISK = 0.04
"""Of the left-out cells above the threshold, how many may be wrong."""
HIGHEST_THRESHOLD = 0.9
_TEMPERATURE_SPREAD = 0.25
"""Of the logarithm of the temperature: a hundred cells say little of it."""


class AdaptationError(LeukostreamError):
    """Cells from which no classifier can be adapted, or a profile that is refused."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Of some cells, each given its likeliest class."""

    cells: int
    accuracy: float
    balanced_accuracy: float
    """Mean recall over the classes that occur."""
    classified: float
    """Share that is not below the threshold."""
    accuracy_classified: float | None
    """None where nothing is classified."""
    recall: dict[str, float]
    """By class."""
    false_rate: dict[str, float]
    """By class, the share of other classes' cells that are given it."""


@dataclass(frozen=True, slots=True, eq=False)
class HomeData:
    """Cells of the laboratories that the classifier knows; none where no such cells are at hand."""

    replayed: Cells
    """Of the classifier's classes: the fit sees them."""
    measured: Cells
    """Of the classifier's classes: it does not."""
    blasts: Floats
    """(n, F) features, also where the classifier has no such class."""


@dataclass(frozen=True, slots=True, eq=False)
class Adapted:
    """A layer for a laboratory, and how well it does; `refusal` says why it must not be used."""

    layer: LastLayer
    threshold: float
    strength: float
    temperature: float
    """That the fitted layer's logits were divided by."""
    raised: float
    """What the guard added to the bias of `blast`."""
    before: Figures
    """Of the laboratory's cells, by the layer that there was."""
    after: Figures
    """Of the same, each by a layer that did not see it."""
    home_before: Figures | None
    """None: no home cells are at hand."""
    home_after: Figures | None
    blasts_before: float | None
    """Share of the blasts from home that are given another class's name; None: none are at hand."""
    blasts_after: float | None
    refusal: str | None


@dataclass(frozen=True, slots=True, eq=False)
class Adaptation:
    """What is adapted, and with what beside the laboratory's cells."""

    base: LastLayer
    class_names: tuple[str, ...]
    threshold: float
    home: HomeData | None

    # Thousands of products of small matrices: shared out to threads, each waits for a core that is busy.
    @threadpool_limits.wrap(limits=1, user_api="blas")  # type: ignore[untyped-decorator]
    def adapted(self, cells: Cells, slides: Sequence[str]) -> Adapted:
        """For a laboratory with these cells; `slides` (n,) keeps cells that belong together in one part.
        AdaptationError for too few cells or a single class."""
        self._check(cells)
        fit = LayerFit(self.base, cells, None if self.home is None else self.home.replayed)
        folds = folds_of(cells.classes, slides if len(set(slides)) >= FOLDS else _alone(cells), FOLDS)
        left_out = np.empty((len(cells), len(self.class_names)))
        for fold in np.unique(folds):
            inside = np.flatnonzero(folds != fold)
            layer = self._fitted(fit, cells, inside, folds)[0]
            left_out[folds == fold] = log_probabilities(layer, cells.features[folds == fold])
        temperature = _temperature(left_out, cells.classes)
        tempered = _tempered(left_out, temperature)
        layer, strength, raised = self._fitted(fit, cells, np.arange(len(cells)), folds)
        layer = LastLayer(layer.weights / temperature, layer.bias / temperature)
        threshold, covered = self._threshold(layer, cells, tempered)
        before = self.figures(log_probabilities(self.base, cells.features), cells.classes, self.threshold)
        after = self.figures(tempered, cells.classes, threshold)
        found = Adapted(
            layer=layer,
            threshold=threshold,
            strength=strength,
            temperature=temperature,
            raised=raised,
            before=before,
            after=after,
            home_before=self._at_home(self.base, self.threshold),
            home_after=self._at_home(layer, threshold),
            blasts_before=self._misnamed_at_home(self.base, self.threshold),
            blasts_after=self._misnamed_at_home(layer, threshold),
            refusal=None,
        )
        return replace(found, refusal=refusal_of(before, after, covered))

    def figures(self, logs: Floats, truth: Classes, threshold: float) -> Figures:
        """Of log probabilities (n, classes)."""
        said, sure = logs.argmax(1), logs.max(1) >= np.log(threshold) if threshold > 0 else np.ones(len(logs), bool)
        right = said == truth
        recall = {self.class_names[c]: float(right[truth == c].mean()) for c in np.unique(truth).tolist()}
        rates = {
            name: float((said[truth != c] == c).mean()) for c, name in enumerate(self.class_names) if (truth != c).any()
        }
        return Figures(
            cells=len(truth),
            accuracy=float(right.mean()),
            balanced_accuracy=float(np.mean(list(recall.values()))),
            classified=float(sure.mean()),
            accuracy_classified=float(right[sure].mean()) if sure.any() else None,
            recall=recall,
            false_rate=rates,
        )

    def _check(self, cells: Cells) -> None:
        if len(cells) < LEAST_CELLS:
            raise AdaptationError(
                f"cells: got {len(cells)}, expected {LEAST_CELLS} at least, better a hundred; correct or confirm more"
            )
        if len(np.unique(cells.classes)) < 2:
            raise AdaptationError(
                f"cells: got {len(cells)} of a single class ({self.class_names[int(cells.classes[0])]}), expected two "
                "classes at least, as they come on a slide; add cells of other classes"
            )

    def _fitted(
        self, fit: LayerFit, cells: Cells, rows: npt.NDArray[np.intp], folds: npt.NDArray[np.intp]
    ) -> tuple[LastLayer, float, float]:
        """(layer, strength, what the guard added) from these cells alone."""
        losses = dict.fromkeys(ALONE if self.home is None else STRENGTHS, 0.0)
        for fold in np.unique(folds[rows]):
            inside, outside = rows[folds[rows] != fold], rows[folds[rows] == fold]
            weights = class_weights(cells.classes[rows])[folds[rows] == fold]
            for strength in losses:
                logs = log_probabilities(fit.layer(inside, strength), cells.features[outside])
                losses[strength] -= float(weights @ logs[np.arange(len(outside)), cells.classes[outside]])
        strength = min(losses, key=lambda one: losses[one])
        layer, raised = self._guarded(fit.layer(rows, strength), cells[rows])
        return layer, strength, raised

    def _guarded(self, layer: LastLayer, cells: Cells) -> tuple[LastLayer, float]:
        """The layer under which blasts are no rarer than before, and what it took."""
        if BLAST not in self.class_names:
            return layer, 0.0
        blast = self.class_names.index(BLAST)
        raises = [_missing(layer, self.base, blasts, blast) for blasts in self._blasts(cells)]
        if not raises:
            rise = cells.features @ (layer.weights - self.base.weights).T + layer.bias - self.base.bias
            raises = [float((np.delete(rise, blast, axis=1).max(1) - rise[:, blast]).max())]
        raised = max(0.0, *raises)
        bias = layer.bias.copy()
        bias[blast] += raised
        return LastLayer(layer.weights, bias), raised

    def _blasts(self, cells: Cells) -> list[Floats]:
        """Blasts from home as they are and as they would look here, and the laboratory's own."""
        found: list[Floats] = []
        if self.home is not None and len(self.home.blasts):
            found += [self.home.blasts, self.home.blasts + _shift(cells, self.home.replayed)]
        if BLAST in self.class_names:
            own = cells.features[cells.classes == self.class_names.index(BLAST)]
            found += [own] if len(own) else []
        return found

    def _threshold(self, layer: LastLayer, cells: Cells, logs: Floats) -> tuple[float, bool]:
        """The lowest threshold, not below the one that there was, with at most `RISK` of the left-out cells above it
        wrong and blasts misnamed no more often than before; whether there is one."""
        wrong, sure = logs.argmax(1) != cells.classes, np.exp(logs.max(1))
        blasts = self._blasts(cells)
        limits = [self._misnamed(self.base, one, self.threshold) for one in blasts]
        start = round(100 * self.threshold)
        risky = HIGHEST_THRESHOLD
        for hundredths in range(start, round(100 * HIGHEST_THRESHOLD) + 1):
            kept = sure >= hundredths / 100
            if not kept.any() or wrong[kept].mean() <= RISK:
                risky = hundredths / 100
                break
        for hundredths in range(round(100 * max(risky, self.threshold)), 100):
            threshold = max(hundredths / 100, self.threshold)
            if all(self._misnamed(layer, b, threshold) <= most for b, most in zip(blasts, limits, strict=True)):
                return threshold, True
        return max(risky, self.threshold), False

    def _misnamed(self, layer: LastLayer, blasts: Floats, threshold: float) -> float:
        """Share of blasts (n, F) that are given the name of another class."""
        logs = log_probabilities(layer, blasts)
        named = np.exp(logs.max(1)) >= threshold
        if BLAST in self.class_names:
            named &= logs.argmax(1) != self.class_names.index(BLAST)
        return float(named.mean())

    def _at_home(self, layer: LastLayer, threshold: float) -> Figures | None:
        if self.home is None or not len(self.home.measured):
            return None
        return self.figures(
            log_probabilities(layer, self.home.measured.features), self.home.measured.classes, threshold
        )

    def _misnamed_at_home(self, layer: LastLayer, threshold: float) -> float | None:
        if self.home is None or not len(self.home.blasts):
            return None
        return self._misnamed(layer, self.home.blasts, threshold)


def _alone(cells: Cells) -> list[str]:
    return [str(i) for i in range(len(cells))]


def _missing(layer: LastLayer, base: LastLayer, blasts: Floats, blast: int) -> float:
    """What the logit of `blast` lacks for as many of these to be called so as by `base`."""
    recalled = int((log_probabilities(base, blasts).argmax(1) == blast).sum())
    if not recalled:
        return 0.0
    logits = log_probabilities(layer, blasts)
    lacking = np.sort(np.delete(logits, blast, axis=1).max(1) - logits[:, blast])
    return float(lacking[recalled - 1]) + 1e-6


def _shift(cells: Cells, home: Cells) -> Floats:
    """(F,) by how much the laboratory's cells lie beside those of the same classes at home; every class weighs the
    same, those of few cells less."""
    moved, weights = [], []
    for c in np.intersect1d(cells.classes, home.classes):
        own = cells.features[cells.classes == c]
        moved.append(own.mean(0) - home.features[home.classes == c].mean(0))
        weights.append(len(own) / (len(own) + 3.0))
    return np.average(moved, axis=0, weights=weights) if moved else np.zeros(cells.features.shape[1])


def _tempered(logs: Floats, temperature: float) -> Floats:
    scaled = logs / temperature
    return np.asarray(scaled - np.log(np.exp(scaled).sum(1, keepdims=True)))


def _temperature(logs: Floats, truth: Classes) -> float:
    """Of left-out cells the likeliest, with a prior around 1."""
    rows = np.arange(len(truth))

    def loss(log_temperature: float) -> float:
        fits = -float(_tempered(logs, float(np.exp(log_temperature)))[rows, truth].sum())
        return fits + 0.5 * (log_temperature / _TEMPERATURE_SPREAD) ** 2

    return float(np.exp(minimize_scalar(loss, bounds=(-1.0, 1.0), method="bounded").x))


def refusal_of(before: Figures, after: Figures, covered: bool) -> str | None:
    """Why a profile must not be used, in words, by the figures on left-out cells; None where it may. `covered`: blasts
    are given another name no more often than before."""
    if BLAST in before.recall and after.recall[BLAST] < before.recall[BLAST]:
        return (
            f"the recall of blasts on left-out cells fell from {before.recall[BLAST]:.3f} to "
            f"{after.recall[BLAST]:.3f}, expected no fall"
        )
    if not covered:
        return "blasts would be given the name of another class more often than before, expected no more often"
    if after.balanced_accuracy <= before.balanced_accuracy:
        return (
            f"balanced accuracy on left-out cells went from {before.balanced_accuracy:.3f} to "
            f"{after.balanced_accuracy:.3f}, expected a rise"
        )
    return None
