"""Random crops in random light: what stain, lamp, camera, focus and detector do to a cell, made harmless.

Geometry, blur and JPEG work on uint8 pictures one by one; colour and light on a whole batch in optical density, where
stain is a matrix, gamma a factor, white balance an offset and a lamp's gradient an offset that depends on the place.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from tools.data.appearance import Appearances

_STAINS_RGB = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
"""Optical density of haematoxylin, eosin and a residual in R, G, B: Ruifrok & Johnston 2001."""
_STAINS = (_STAINS_RGB / np.linalg.norm(_STAINS_RGB, axis=1, keepdims=True))[:, ::-1].copy()


@dataclass(frozen=True)
class Augmentation:
    """How strong each change is, in optical density (natural logarithm) where no unit is said.

    Of the crops, `fixed_share` show a square of a fixed physical size where the magnification is known; of the others
    `whole_share` show the stored square nearly whole, as single-cell files are classified, `wide_share` anything
    between that and what a detector's box gives, and the rest `margin` times the box, jittered.
    """

    fixed_share: float = 0.0
    fixed_scale: tuple[float, float] = (0.92, 1.08)

    margin: float = 1.3
    scale: tuple[float, float] = (0.8, 1.3)
    shift: float = 0.1
    whole_share: float = 0.3
    wide_share: float = 0.25
    stain: float = 0.35
    apart: float = 0.0
    """Of what is no nucleus, red cells too, by itself: how deep and how red a cytoplasm is beside its nucleus is the
    laboratory's, how red its granules are beside the red cells is the cell's."""
    mixing: float = 0.08
    gamma: float = 0.25
    white_balance: float = 0.25
    brightness: float = 0.15
    gradient: float = 0.25
    hue_rad: float = 0.3
    saturation: tuple[float, float] = (0.1, 1.6)
    appearance_share: float = 0.25
    haze_share: float = 0.15
    blur_share: float = 0.25
    fringe_share: float = 0.15
    sharpen_share: float = 0.12
    granules_share: float = 0.0
    """Of the crops, those whose grain, of about a granule's size, is flattened or heightened."""
    coarse_share: float = 0.3
    jpeg_share: float = 0.25
    cut_share: float = 0.08
    alone_share: float = 0.1
    noise: float = 0.04

    def weakened(self, strength: float, only: Collection[str] | None = None) -> Augmentation:
        """The same with every change but the turning made `strength` times as strong, or as frequent; `only`: those of
        these names."""
        if not 0 <= strength <= 1:
            raise ValueError(f"strength: got {strength}, expected 0 to 1")
        weaker: dict[str, Any] = {}
        for field in fields(self):
            if only is not None and field.name not in only:
                continue
            value = getattr(self, field.name)
            if isinstance(value, tuple):  # factors, 1 is none
                weaker[field.name] = tuple(strength * bound + (1 - strength) for bound in value)
            elif field.name != "margin":
                weaker[field.name] = value * strength
        return replace(self, **weaker)


COLOURS = (
    *("stain", "apart", "mixing", "gamma", "white_balance", "brightness", "gradient", "hue_rad", "saturation"),
    *("appearance_share", "haze_share"),
)
"""Of Augmentation, what changes colours and light."""


@dataclass(frozen=True)
class Lending:
    """For n cells: the looks that they may take on, the laboratory of each, and how much it is shown as foreign
    (float (n,): factor of `appearance_share`, `alone_share` and of the strength of colour changes)."""

    appearances: Appearances
    laboratories: Sequence[str]
    foreign: np.ndarray


def crop(
    square: np.ndarray,
    box: np.ndarray,
    input_px: int,
    rng: np.random.Generator,
    augmentation: Augmentation,
    fixed_px: float = np.nan,
) -> tuple[np.ndarray, float]:
    """A turned, shifted, scaled, perhaps mirrored crop around the box of a square, uint8 (input_px, input_px, 3), and
    its side over the longer side of the box. `fixed_px`: side of the look of a fixed size, NaN where unknown."""
    longer = float(max(box[2] - box[0], box[3] - box[1]))
    factor = augmentation.margin * rng.uniform(*augmentation.scale)
    widest = square.shape[0] / longer
    centre = (box[:2] + box[2:]) / 2 + rng.uniform(-augmentation.shift, augmentation.shift, 2) * longer
    angle = rng.uniform(0, 2 * np.pi)
    kind = rng.random()
    if augmentation.fixed_share and np.isfinite(fixed_px) and rng.random() < augmentation.fixed_share:
        factor = max(1.0, fixed_px / longer * rng.uniform(*augmentation.fixed_scale))
    elif kind < augmentation.whole_share:
        factor = widest * rng.uniform(0.85, 1.0)
        centre = np.full(2, square.shape[0] / 2) + rng.uniform(-0.05, 0.05, 2) * longer
        angle = rng.integers(4) * np.pi / 2 + rng.normal(0, 0.1)
    elif kind < augmentation.whole_share + augmentation.wide_share and widest > factor:
        factor = float(np.exp(rng.uniform(np.log(factor), np.log(widest))))
    size = input_px
    coarsest = int(max(0.35, 0.25 * factor) * input_px)  # a cell of 32 px in an input of 128 stays recognisable
    if rng.random() < augmentation.coarse_share and coarsest < input_px:
        size = int(rng.integers(coarsest, input_px))
    zoom = size / (factor * longer)
    stretch = np.exp(rng.normal(0, 0.06, 2))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = zoom * turn @ np.diag(stretch * (rng.choice((-1.0, 1.0)), 1.0))
    affine = np.column_stack([linear, size / 2 - linear @ centre])
    border = cv2.BORDER_REPLICATE if rng.random() < 0.5 else cv2.BORDER_REFLECT_101
    if zoom < 0.6 and rng.random() < 0.7:  # warpAffine doesn't average: without a blur, detail aliases
        square = cv2.GaussianBlur(square, (0, 0), 0.4 / zoom)
    out = cv2.warpAffine(square, affine, (size, size), flags=cv2.INTER_LINEAR, borderMode=border)
    if size != input_px:
        way = cv2.INTER_CUBIC if rng.random() < 0.5 else cv2.INTER_LINEAR
        out = cv2.resize(out, (input_px, input_px), interpolation=way)
    return np.asarray(out), factor


def alone(square: np.ndarray, box: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The cell without neighbours: outside an ellipse a little larger than the box lies even plasma, of the lightness
    of the picture's lighter parts."""
    mask, plasma = _cell_and_plasma(square, box, rng.uniform(1.05, 1.3), rng)
    return np.asarray(square * mask + plasma * (1 - mask), np.uint8)


def painted_over(square: np.ndarray, box: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The picture without its cell: even plasma in an ellipse a little larger than the box. What a network says of it
    comes from the laboratory, not from the cell."""
    mask, plasma = _cell_and_plasma(square, box, rng.uniform(1.25, 1.45), rng)
    return np.asarray(square * (1 - mask) + plasma * mask, np.uint8)


def _cell_and_plasma(
    square: np.ndarray, box: np.ndarray, reach: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """float32 (h, w, 1), one inside the ellipse `reach` times the box, with a soft rim; and the plasma's colour (3,),
    of the lightness of the picture's lighter parts."""
    centre, radii = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2 * reach
    y, x = np.ogrid[: square.shape[0], : square.shape[1]]
    distance = np.hypot((x.astype(np.float32) - centre[0]) / radii[0], (y.astype(np.float32) - centre[1]) / radii[1])
    mask = np.clip((1 - distance) / rng.uniform(0.02, 0.15) + 0.5, 0, 1)[..., None]
    plasma = np.percentile(square[::4, ::4].reshape(-1, 3), rng.uniform(75, 95), axis=0).astype(np.float32)
    return mask.astype(np.float32), plasma


def degrade(image: np.ndarray, factor: float, rng: np.random.Generator, augmentation: Augmentation) -> np.ndarray:
    """Focus, motion, JPEG and a frame's edge, each with its own probability; uint8 (h, w, 3). The blur is relative
    to the cell: `factor` is the crop's side over the box's."""
    size = image.shape[0]
    detail = augmentation.margin / max(augmentation.margin, factor)
    if rng.random() < augmentation.cut_share:  # a cell cut by the frame's edge: the crop repeats the last row
        depth = int(rng.uniform(0.05, 0.35) * size)
        turned = np.rot90(image, k := int(rng.integers(4))).copy()
        turned[:depth] = turned[depth]
        image = np.rot90(turned, -k).copy()
    unit = detail * size / 128
    if rng.random() < augmentation.blur_share:
        image = blurred(image, unit, rng)
    if rng.random() < augmentation.fringe_share:
        image = fringed(image, unit, rng)
    if rng.random() < augmentation.sharpen_share:  # cameras do it: dark cells get a bright rim
        soft = cv2.GaussianBlur(image, (0, 0), max(0.5, rng.uniform(0.8, 2.5) * unit))
        strength = rng.uniform(0.3, 1.5)
        image = np.asarray(cv2.addWeighted(image, 1 + strength, soft, -strength, 0))
    if augmentation.granules_share and rng.random() < augmentation.granules_share:
        image = regrained(image, unit, rng)
    if rng.random() < augmentation.jpeg_share:
        _, data = cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(35, 95))))
        image = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))
    return np.asarray(image)


def blurred(image: np.ndarray, unit: float, rng: np.random.Generator) -> np.ndarray:
    """Out of focus (a disc, or a Gaussian for less) or moved, mildly as a rule; `unit` is a 128th of a detector's
    crop in px."""
    kind = rng.random()
    if kind < 0.5:
        return np.asarray(cv2.GaussianBlur(image, (0, 0), max(0.3, rng.uniform(0.4, 2.5) * unit)))
    length = max(2.0, (2 + 9 * rng.random() ** 1.5) * unit)
    kernel = np.zeros((2 * int(length / 2) + 3,) * 2, np.float32)
    middle = kernel.shape[0] // 2
    if kind < 0.8:
        y, x = np.mgrid[: kernel.shape[0], : kernel.shape[0]] - middle
        kernel[:] = np.clip(length / 2 + 0.5 - np.hypot(x, y), 0, 1)
    else:
        angle = rng.uniform(0, np.pi)
        reach = np.array([np.cos(angle), np.sin(angle)]) * length / 2
        start, end = (tuple(round(v) for v in middle + s * reach) for s in (-1, 1))
        cv2.line(kernel, start, end, 1.0)
    return np.asarray(cv2.filter2D(image, -1, kernel / kernel.sum()))


def fringed(image: np.ndarray, unit: float, rng: np.random.Generator) -> np.ndarray:
    """Blue and red a little beside green, as lenses make coloured rims."""
    image = image.copy()
    move = rng.normal(0, 0.8 * unit, 2)
    for channel, sign in ((0, 1), (2, -1)):
        affine = np.array([[1, 0, sign * move[0]], [0, 1, sign * move[1]]])
        plane = np.ascontiguousarray(image[:, :, channel])
        size = (image.shape[1], image.shape[0])
        image[:, :, channel] = cv2.warpAffine(plane, affine, size, borderMode=cv2.BORDER_REPLICATE)
    return image


def regrained(image: np.ndarray, unit: float, rng: np.random.Generator) -> np.ndarray:
    """Detail between two Gaussians, about as large as granules, taken down to a quarter or up to two and a half times;
    `unit` as of `blurred`."""
    fine = max(0.4, rng.uniform(0.5, 1.2) * unit)
    soft, softer = (cv2.GaussianBlur(image, (0, 0), sigma).astype(np.float32) for sigma in (fine, 3 * fine))
    gain = rng.uniform(-0.75, 1.5)
    return np.asarray(np.clip(image + gain * (soft - softer), 0, 255), np.uint8)


def stained_apart(density: Tensor, rng: np.random.Generator, strength: np.ndarray) -> Tensor:
    """Optical density float32 (N, h * w, 3) with the stain changed where no nucleus is: all of it exp(-s / 2) to
    exp(s / 2) times as strong, its eosin exp(-s) to exp(s) times beside, s being `strength` (N,).

    Stain is what a pixel has above the plasma, the lightest parts. Haematoxylin takes most of the red light and eosin
    next to none: a nucleus is what lets less red through than midway between plasma and the darkest parts, with soft
    edges.
    """
    levels = torch.quantile(density[:, ::16], torch.tensor([0.1, 0.98]), dim=1)
    plasma, reach = levels[0, :, None], (levels[1] - levels[0])[:, None, 2]
    stain = density - plasma
    elsewhere = torch.sigmoid((reach / 2 - stain[..., 2]) / (0.08 * reach + 1e-3))
    gains = rng.uniform(-0.5, 0.5, (len(density), 1)) + rng.uniform(-1, 1, (len(density), 1)) * [0, 1, 0]
    unmixed, mixed = (torch.from_numpy(m.astype(np.float32)) for m in (np.linalg.inv(_STAINS), _STAINS))
    amounts = torch.matmul(stain, unmixed).clamp_(min=0)  # below the plasma is noise, which grew green
    amounts *= torch.from_numpy(np.expm1(gains * strength[:, None]).astype(np.float32))[:, None]
    return density + torch.matmul(amounts, mixed).mul_(elsewhere[..., None])


def relight(
    images: Tensor,
    rng: np.random.Generator,
    augmentation: Augmentation,
    lending: Lending | None = None,
) -> Tensor:
    """Colour and light of a batch: uint8 (N, h, w, 3) BGR -> float32 (N, 3, h, w) in 0..1, channels last. With
    `lending` some pictures take on the colours of other laboratories."""
    n, height, width, _ = images.shape
    density = _DENSITY[images.to(torch.int32)].reshape(n, height * width, 3)
    strength = rng.uniform(0, 1, n)  # some pictures stay near to what they were
    if lending is not None:
        strength *= lending.foreign
    scale = np.exp(rng.uniform(-1, 1, (n, 3)) * augmentation.stain * strength[:, None])
    matrix = np.einsum("ij,nj,jk->nik", np.linalg.inv(_STAINS), scale, _STAINS)
    matrix += rng.normal(0, augmentation.mixing, (n, 3, 3)) * strength[:, None, None]
    matrix *= np.exp(rng.normal(0, augmentation.gamma, n) * strength)[:, None, None]
    offset = rng.normal(0, augmentation.white_balance, (n, 3)) + rng.normal(0, augmentation.brightness, (n, 1))
    offset *= strength[:, None]
    if lending is not None:
        borrowed = np.nonzero(rng.random(n) < augmentation.appearance_share * lending.foreign)[0]
        maps, moves = lending.appearances.maps([lending.laboratories[i] for i in borrowed.tolist()], rng)
        offset[borrowed] += np.einsum("nj,njk->nk", moves, matrix[borrowed])
        matrix[borrowed] = maps @ matrix[borrowed]
    if augmentation.apart:
        density = stained_apart(density, rng, augmentation.apart * strength)
    places = _places(height, width)
    lamp = rng.normal(0, 1, (n, 5, 1)) * 0.7 + rng.normal(0, 1, (n, 5, 3)) * 0.7
    lamp *= (augmentation.gradient * rng.uniform(0, 1, n) ** 2 * (rng.random(n) < 0.5))[:, None, None]
    terms = torch.from_numpy(np.concatenate([offset[:, None], lamp], 1).astype(np.float32))
    light = torch.matmul(places, terms)
    x = torch.baddbmm(light, density, torch.from_numpy(matrix.astype(np.float32))).neg_().exp_()
    x = torch.bmm(x, torch.from_numpy(_hue_matrices(rng, n, augmentation, strength)))
    haze = np.where(rng.random(n) < augmentation.haze_share, rng.uniform(0, 0.75, n), 0).astype(np.float32)
    veil = torch.from_numpy(haze)[:, None, None]
    x += veil * (x.mean((1,), keepdim=True) - x)
    noise = torch.from_numpy((rng.random(n) ** 3 * augmentation.noise).astype(np.float32))
    x += torch.randn_like(x) * noise[:, None, None]
    return x.clamp_(0, 1).reshape(n, height, width, 3).permute(0, 3, 1, 2)


_DENSITY = -torch.log((torch.arange(256, dtype=torch.float32) + 1) / 256)


def _places(height: int, width: int) -> Tensor:
    """float32 (h * w, 6): 1, x, y, x², y², xy with x and y from -1 to 1."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    return torch.stack([torch.ones_like(x), x, y, x * x, y * y, x * y], -1).reshape(-1, 6)


def _hue_matrices(rng: np.random.Generator, n: int, augmentation: Augmentation, strength: np.ndarray) -> np.ndarray:
    """float32 (n, 3, 3), to be multiplied from the right: hue turned about the grey axis, saturation scaled."""
    angle = rng.normal(0, augmentation.hue_rad, n) * strength
    saturation = np.where(rng.random(n) < 0.5, rng.uniform(*augmentation.saturation, n), 1.0)
    axis = np.full(3, 3**-0.5)
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    grey = np.outer(axis, axis)
    cos, sin = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    turned = cos * np.eye(3) + sin * cross + (1 - cos) * grey
    mixed = saturation[:, None, None] * turned + (1 - saturation)[:, None, None] * grey
    return np.asarray(mixed, np.float32)


def make_batch(
    squares: Sequence[np.ndarray] | np.ndarray,
    boxes: np.ndarray,
    indices: np.ndarray,
    input_px: int,
    rng: np.random.Generator,
    augmentation: Augmentation,
    lending: Lending | None = None,
    fixed_px: np.ndarray | None = None,
    covered: np.ndarray | None = None,
) -> Tensor:
    """float32 (N, 3, input_px, input_px) in 0..1 of the cells at `indices` of `squares` and `boxes`; `lending` is of
    these cells, and so are `fixed_px` float (N,), the sides of the looks of a fixed size in px of the squares (NaN:
    unknown), and `covered` bool (N,): whose cell is painted over."""
    crops = np.empty((len(indices), input_px, input_px, 3), np.uint8)
    for n, (out, i) in enumerate(zip(crops, indices, strict=True)):
        share = augmentation.alone_share * (lending.foreign[n] if lending else 1.0)
        square = alone(squares[i], boxes[i], rng) if rng.random() < share else squares[i]
        if covered is not None and covered[n]:
            square = painted_over(squares[i], boxes[i], rng)
        fixed = np.nan if fixed_px is None else float(fixed_px[n])
        cut, factor = crop(square, boxes[i], input_px, rng, augmentation, fixed)
        out[:] = degrade(cut, factor, rng, augmentation)
    return relight(torch.from_numpy(crops), rng, augmentation, lending)
