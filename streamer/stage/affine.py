"""How a stage's micrometres become pixels of the picture: scale, turn and mirror, fitted from places known in both.

Points of the plane are complex numbers here. A camera that sees the stage turned and scaled multiplies by one, and one
that sees it mirrored too takes the conjugate first. Both are fitted, and the better one is taken once it is clearly
better: places on one line fit either.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.complex128]

LEAST_POINTS = 4
"""Beyond one a group: three displacements are the least by which the fourth can be told from the rest."""

SURE = 5.0
"""Standard deviations by which the other handedness must be worse."""

MOST_UNSURE = 0.03
"""Relative standard error of the scale, and of the turn in radians, of a fit that is used."""

LEAST_SPREAD_FIELDS = 0.25
"""Root mean square distance of the places from their middle, in widths of the frame."""

LEAST_EXPLAINED = 0.75
"""Share of that spread, squared, which the fit explains."""

NOISE_PX = 1.0
"""Registration itself is hardly better on a real stage, so that no fit is surer than that."""

_PAIRS, _GUESSES = 400, 60
"""Displacements that the first guess is judged by, and those among which it is chosen."""


@dataclass(frozen=True, slots=True)
class StageAffine:
    """Pixels = micrometres times `real + i imaginary`, of the conjugate where it is mirrored."""

    real: float
    imaginary: float
    mirrored: bool
    spread_px: float
    """Standard deviation of one place from the fit, along one axis."""
    unsure: float
    """Relative standard error: so far off, per pixel of distance, a place may be by the fit alone. 0: not fitted."""

    @classmethod
    def exact(cls, um_per_px: float) -> StageAffine:
        """Of a source whose micrometres go along the picture."""
        return cls(1 / um_per_px, 0.0, False, 0.0, 0.0)

    @property
    def um_per_px(self) -> float:
        return 1 / abs(complex(self.real, self.imaginary))

    @property
    def turn_deg(self) -> float:
        """From the stage's x axis to that of the picture, after the mirror; -180 to 180."""
        return float(np.degrees(np.angle(complex(self.real, self.imaginary))))

    def to_px(self, um: Points) -> Points:
        """Displacements, or places up to one common addend."""
        return complex(self.real, self.imaginary) * (um.conj() if self.mirrored else um)

    def to_um(self, px: Points) -> Points:
        """The other way."""
        um = px / complex(self.real, self.imaginary)
        return um.conj() if self.mirrored else um


def fit(um: Points, px: Points, groups: npt.NDArray[np.intp], width_px: float) -> StageAffine | None:
    """The affine of places that are known in both; those of one group have one common addend.

    None while they don't tell: too few, too near each other, on a line, or without any relation.
    """
    _, own, counts = np.unique(groups, return_inverse=True, return_counts=True)
    alone = counts[own] == 1
    um, px, groups = um[~alone], px[~alone], groups[~alone]
    if len(um) - int((counts > 1).sum()) < LEAST_POINTS:
        return None
    plain, mirrored = (_robust(one, px, groups) for one in (um, um.conj()))
    if plain is None or mirrored is None:
        return None
    is_mirrored = mirrored[1] < plain[1]
    (factor, cost, spread, inertia), other = (mirrored, plain) if is_mirrored else (plain, mirrored)
    noise = max(spread, NOISE_PX)
    unsure = noise / max(float(np.sqrt(inertia)) * abs(factor), 1e-12)
    extent = float(np.sqrt(inertia / len(um))) * abs(factor)
    if (
        extent < LEAST_SPREAD_FIELDS * width_px
        or unsure > MOST_UNSURE
        or other[1] - cost < (SURE * noise) ** 2
        or spread**2 > (1 - LEAST_EXPLAINED) * extent**2
    ):
        return None
    return StageAffine(factor.real, factor.imag, is_mirrored, spread, unsure)


def _robust(um: Points, px: Points, groups: npt.NDArray[np.intp]) -> tuple[complex, float, float, float] | None:
    """(factor, cost, spread along one axis, weighted square of the micrometres); None without any displacement."""
    factor = _first_guess(um, px, groups)
    if factor is None:
        return None
    residuals = np.abs(_about_median(px - factor * um, groups))
    for _ in range(8):
        limit = 4.0 * max(1.4826 * float(np.median(residuals)), NOISE_PX)
        weights = np.where(residuals > limit, (limit / np.maximum(residuals, limit)) ** 4, 1.0)
        of_um, of_px = _centred(um, groups, weights), _centred(px, groups, weights)
        inertia = float((weights * np.abs(of_um) ** 2).sum())
        if inertia <= 0:
            return None
        factor = complex((weights * of_um.conj() * of_px).sum()) / inertia
        residuals = np.abs(of_px - factor * of_um)
    freedom = max(float(weights.sum()) - len(np.unique(groups)) - 1, 1.0)
    spread = float(np.sqrt((weights * residuals**2).sum() / (2 * freedom)))
    return factor, float((np.minimum(residuals, limit) ** 2).sum()), spread, inertia


def _first_guess(um: Points, px: Points, groups: npt.NDArray[np.intp]) -> complex | None:
    """Of what single displacements say, that by which most others are nearly right (least median of squares)."""
    a, b = np.triu_indices(len(um), 1)
    same = groups[a] == groups[b]
    a, b = a[same], b[same]
    if len(a) > _PAIRS:
        chosen = np.linspace(0, len(a) - 1, _PAIRS).astype(np.intp)
        a, b = a[chosen], b[chosen]
    ways, seen = um[b] - um[a], px[b] - px[a]
    long = np.nonzero(np.abs(ways) > max(float(np.median(np.abs(ways))) / 2 if len(ways) else 0.0, 1e-9))[0]
    if len(long) == 0:
        return None
    tried = long[np.linspace(0, len(long) - 1, min(len(long), _GUESSES)).astype(np.intp)]
    factors = seen[tried] / ways[tried]
    misses = np.median(np.abs(seen - factors[:, None] * ways), axis=1)
    return complex(factors[misses.argmin()])


def _about_median(points: Points, groups: npt.NDArray[np.intp]) -> Points:
    """Less the median of their group, which a few wild ones do not move."""
    about = points.copy()
    for group in np.unique(groups).tolist():
        own = groups == group
        about[own] -= complex(float(np.median(points[own].real)), float(np.median(points[own].imag)))
    return about


def _centred(points: Points, groups: npt.NDArray[np.intp], weights: npt.NDArray[np.float64]) -> Points:
    """Less the weighted mean of their group."""
    _, own = np.unique(groups, return_inverse=True)
    sums = np.bincount(own, weights)
    means = (np.bincount(own, weights * points.real) + 1j * np.bincount(own, weights * points.imag)) / sums
    return np.asarray(points - means[own])
