"""What stays in place while the slide moves: a clock, a logo, a crosshair burnt in, dust on the sensor, dead pixels.

It is found from the frames alone. What two frames between which the stage moved have in common at the same place of the
picture is no slide; where that is so again and again, nothing is registered or counted. Frames of a stage at rest have
everything in common, and teach nothing. A clock's digits change, so that a place need not be the same in every pair,
and what lies between static places is static too.

`learn` is a pure step: it takes what is known and a frame, and gives what is known then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from streamer.stage.hidden import Mask
from streamer.stage.preparation import PreparedFrame, comparable, smear_of

BoxPx = tuple[float, float, float, float]
"""x1, y1, x2, y2 in frame pixels."""

BoxesPx = Sequence[BoxPx]


@dataclass(frozen=True, slots=True)
class StaticMaskConfig:
    """Levels are those of the fine picture, 32 being its root mean square. Measured on simulated fields: two that have
    nothing in common are strong and alike in 0.1 to 0.5 % of their pixels, with an overlay in 4 %."""

    strong: int = 32
    """What is weaker in either frame teaches nothing."""
    overwhelming: int = 96
    """What is weaker does not count in the first pairs, in which chance has its part: it can't outvote the field."""
    alike: int = 24
    """Pixels that differ by less show the same."""
    cap: int = 32
    """Contrast beyond it is cut off where the rest of two frames is compared, so that no few pixels outvote it."""
    min_ncc: float = 0.2
    """Correlation of the rest below which the stage moved: from some 12 px on; of unrelated fields it is 0.0."""
    min_pixels: int = 6
    """Fine pixels of a static patch; fewer are chance, or too small to matter."""
    gap: int = 11
    """Fine pixels between static places that are bridged: digits that changed lie there."""
    line_gap: int = 41
    """The same along rows and columns, so that a thin line that cells hide here and there is a whole one."""
    margin: int = 3
    """Fine pixels around it that flat-fielding darkens or lightens."""
    every_frames: int = 8
    """Once enough pairs were seen, one frame of so many is compared."""


SURE_PAIRS = 4
"""From so many pairs on chance has no part in what is found: what two have in common by chance a third lacks."""

PAIRS = 8
"""Pairs of frames that are remembered, one bit each."""

_NEEDED = (0, 1, 2, 3, 4, 4, 5, 5, 6)
"""In how many of the last 0 to 8 pairs a place must have been static."""

_ONES = np.array([bin(byte).count("1") for byte in range(256)], np.uint8)


@dataclass(frozen=True, slots=True, eq=False)
class StaticMask:
    """What is known of the static parts of one source's picture."""

    last: PreparedFrame | None = None
    """The frame that the next one is compared with; None before the first."""
    pairs: int = 0
    """How many pairs of frames were compared, PAIRS at most."""
    history: Mask | None = None
    """Bit i: whether the pair before the last i was static there; None before the first frame."""
    found: Mask | None = None
    """Where the picture is static, as far as can be told: nothing is registered by it. None: nowhere."""
    sure: Mask | None = None
    """The same, from SURE_PAIRS on: no cell is counted by it."""
    given: Mask | None = None
    """What somebody said, a part of both; None: nothing."""


def learn(
    mask: StaticMask,
    frame: PreparedFrame,
    given_px: BoxesPx = (),
    config: StaticMaskConfig = StaticMaskConfig(),
) -> StaticMask:
    """What is known after one more frame, which should be a good one; `mask` itself where it teaches nothing.

    `given_px`: what is known to be static.
    """
    if mask.last is None or mask.history is None or not comparable(mask.last, frame):
        given = _painted(given_px, frame)
        return StaticMask(frame, 0, np.zeros(frame.fine.shape, np.uint8), given, given, given)
    drawn = int(frame.fine[::8, ::8].sum(dtype=np.int64))  # by the picture, so that there is no count to be kept
    if mask.pairs == PAIRS and drawn % config.every_frames:
        return mask
    if not has_moved(mask.last, frame, config):
        return mask
    pairs = min(mask.pairs + 1, PAIRS)
    history = np.asarray((mask.history << 1) | static_pixels(mask.last.fine, frame.fine, config), np.uint8)
    static = _ONES[history] >= _NEEDED[pairs]
    if pairs < SURE_PAIRS:
        static &= np.abs(frame.fine) >= config.overwhelming
    patches = _patches(static, config)
    if mask.given is not None:
        patches |= mask.given
    found = mask.found
    if found is None or _differ(found, patches):
        found = patches if patches.any() else None
    return StaticMask(frame, pairs, history, found, found if pairs >= SURE_PAIRS else mask.given, mask.given)


def with_given(mask: StaticMask, given_px: BoxesPx) -> StaticMask:
    """What is known of a run that goes on, where other parts may be given now."""
    given = None if mask.last is None else _painted(given_px, mask.last)
    return replace(mask, given=given, sure=mask.found if mask.pairs >= SURE_PAIRS else given)


def has_moved(a: PreparedFrame, b: PreparedFrame, config: StaticMaskConfig = StaticMaskConfig()) -> bool:
    """Whether two frames, static places apart, show different parts of the slide."""
    one, two = (np.ascontiguousarray(frame.fine[::2, ::2]) for frame in (a, b))  # a quarter is enough
    kept = cv2.dilate(static_pixels(one, two, config), np.ones((5, 5), np.uint8)) == 0
    first, second = (np.clip(image, -config.cap, config.cap)[kept].astype(np.float32) for image in (one, two))
    power = float(np.sqrt(np.dot(first, first) * np.dot(second, second)))
    return float(np.dot(first, second)) < config.min_ncc * power


def static_pixels(a: npt.NDArray[np.int8], b: npt.NDArray[np.int8], config: StaticMaskConfig) -> Mask:
    """1 where two fine pictures have the same strong contrast."""
    alike = cv2.absdiff(a, b) < config.alike
    return ((np.abs(a) >= config.strong) & alike).view(np.uint8)


def visible(frame: PreparedFrame, hidden: Mask | None) -> PreparedFrame:
    """The frame with nothing at its static places; itself where there are none."""
    if hidden is None or hidden.shape != frame.fine.shape:
        return frame
    fine = np.asarray(cv2.copyTo(frame.fine, 1 - hidden), np.int8)
    return replace(frame, fine=fine, spectrum=None, smear=smear_of(fine))


def widened(found: Mask, config: StaticMaskConfig = StaticMaskConfig()) -> Mask:
    """With what flat-fielding makes of it around it."""
    return np.asarray(cv2.dilate(found, _square(2 * config.margin + 1)), np.uint8)


def _patches(static: npt.NDArray[np.bool_], config: StaticMaskConfig) -> Mask:
    """The static places without single pixels, and with what lies between them."""
    pixels = static.view(np.uint8)
    joined = cv2.dilate(pixels, _square(3))
    count, labels = cv2.connectedComponents(joined)
    sizes = np.bincount(labels[static], minlength=count)
    kept = ((sizes >= config.min_pixels)[labels] & static).view(np.uint8)
    bridges = _square(config.gap), _square(config.line_gap)[:1], _square(config.line_gap)[:, :1]
    closed = [cv2.morphologyEx(kept, cv2.MORPH_CLOSE, bridge) for bridge in bridges]
    return np.asarray(np.maximum.reduce(closed), np.uint8)


def _painted(boxes_px: BoxesPx, frame: PreparedFrame) -> Mask | None:
    """None for no boxes."""
    if not boxes_px:
        return None
    mask = np.zeros(frame.fine.shape, np.uint8)
    for x1, y1, x2, y2 in np.asarray(boxes_px) / frame.factor:
        mask[int(y1) : int(np.ceil(y2)), int(x1) : int(np.ceil(x2))] = 1
    return mask


def _differ(one: Mask, two: Mask) -> bool:
    """By more than the few pixels at the rim that come and go."""
    return cv2.countNonZero(one ^ two) > 0.1 * cv2.countNonZero(one)


def _square(side: int) -> Mask:
    return np.ones((side, side), np.uint8)
