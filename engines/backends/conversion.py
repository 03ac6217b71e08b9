"""A model in another precision, compared with itself in fp32 on real frames before anybody builds anything from it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from onnx import ModelProto

from engines.backends.onnxruntime import OnnxRuntimeEngine, Threads
from engines.base import Array, Engine, ModelFormatError, UsageError
from engines.geometry import Image, crop_squares, fit_letterbox, letterbox
from engines.graphs.onnx_editing import dims_of, only_input
from engines.graphs.parity import LIMITS, Limits, Parity, ParityError, classifier_parity, detector_parity
from engines.graphs.precision import emulated, to_fp16
from engines.graphs.quantization import Calibration, CalibrationError, calibrate, check_frames, rank_by_harm, to_int8
from engines.zoo.card import Card, DetectorInput
from engines.zoo.crops import CropInput

PRECISIONS = ("fp32", "fp16", "int8")
_RANKING_FRAMES = 3
_LEFT_SHARES = (0.0, 0.1, 0.2, 0.35, 0.5)
"""int8: shares of the operators that are left in fp16, most harmful first, tried until parity holds."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Converted:
    """A graph in some precision and what it is worth."""

    model: ModelProto
    precision: str
    parity: Parity | None
    """None for fp32, which is the model itself."""
    summary: str
    """In words: how many operators run in which type."""
    left: tuple[str, ...] = ()
    """int8: outputs of the operators that were left in fp16 for the sake of parity."""


def input_batch(card: Card, model: ModelProto, frames: Sequence[Image]) -> Array:
    """Frames (each uint8 (H,W,3) BGR, any size) as the model takes them: letterboxed, or as square crops; (n,h,w,3)."""
    height, width = dims_of(only_input(model))[1:3]
    if height is None or width is None:
        raise ModelFormatError("conversion: got a model of open size, expected height and width as numbers")
    batch = np.empty((len(frames), height, width, 3), np.uint8)
    for frame, out in zip(frames, batch, strict=True):
        if isinstance(card.input, DetectorInput):
            fit = fit_letterbox(frame.shape[1], frame.shape[0], width, height)
            letterbox(frame, fit, out, card.input.pad_value)
        else:
            assert isinstance(card.input, CropInput)
            whole = np.array([[0, 0, frame.shape[1], frame.shape[0]]], np.float32)
            out[:] = crop_squares(frame, whole, (height, width), 1.0, card.input.border)[0]
    return batch


def fingerprint(frames: Sequence[Image]) -> str:
    """SHA-256 of the frames, whatever their order."""
    each = sorted(hashlib.sha256(frame.tobytes()).hexdigest() for frame in frames)
    return hashlib.sha256("".join(each).encode()).hexdigest()


def convert(
    card: Card,
    model: ModelProto,
    precision: str,
    frames: Sequence[Image],
    *,
    accept_parity_loss: bool = False,
    say: Say = lambda line: None,
) -> Converted:
    """`model` (fp32, sizes fixed but for the batch) in `precision`, compared with fp32 on `frames`.

    int8 calibrates on every second frame; of the others one half chooses how much is left in fp16, and parity is that
    on the other half. CalibrationError: frames that can't calibrate. ParityError: too different, unless
    `accept_parity_loss`. Both precisions are compared in ONNX Runtime with every rounding of fp16 made explicit, so
    that the result holds for other backends.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"precision: got {precision!r}, expected {', '.join(PRECISIONS)}")
    if precision == "fp32":
        return Converted(model, precision, None, "as trained")
    if not frames:
        raise ParityError(
            f"precision {precision}: got no frames to compare on, expected some; give --calibration a folder or video"
        )
    if precision == "fp16":
        half, fp16 = to_fp16(model)
        for line in fp16.kept:
            say(f"stays in fp32: {line}")
        parity = _compare(card, model, half, frames)
        summary = f"{fp16.half} operators in fp16, {fp16.single} in fp32"
        return _judged(Converted(half, precision, parity, summary), accept_parity_loss)
    check_frames(frames)
    return _judged(_int8(card, model, frames, say), accept_parity_loss)


def _int8(card: Card, model: ModelProto, frames: Sequence[Image], say: Say) -> Converted:
    """The int8 graph with as few operators left in fp16 as parity allows; the best one where none is enough.

    Its parity is that on frames that neither calibrated nor chose: the best of several would look better than it is.
    """
    calibration_frames, choosing, measured = frames[::2], frames[1::4], frames[3::4]
    rows = dims_of(only_input(model))[0] or 1
    if len(measured) < rows:
        raise CalibrationError(
            f"calibration: got {len(frames)} pictures, expected at least {4 * rows} for a file of batch {rows}: one in "
            "four is kept to measure parity on; give --calibration more fields"
        )
    batches = list(_batches(card, model, calibration_frames))
    calibration = calibrate(model, batches)
    order: list[str] = []
    best: Converted | None = None
    for share in _LEFT_SHARES:
        if share and not order:
            say("int8: measuring which operators it harms most")
            order = rank_by_harm(model, calibration, batches[:_RANKING_FRAMES])
        converted = _int8_without(card, model, calibration, order[: round(share * len(order))], choosing)
        assert converted.parity is not None
        say(f"int8, {converted.summary}: {converted.parity}")
        margin = converted.parity.margin(LIMITS["int8"])
        if best is None or best.parity is None or margin > best.parity.margin(LIMITS["int8"]):
            best = converted
        if margin >= 0:
            break
    assert best is not None
    return replace(best, parity=_compare(card, model, best.model, measured))


def _int8_without(
    card: Card, model: ModelProto, calibration: Calibration, leave: Sequence[str], frames: Sequence[Image]
) -> Converted:
    quantized, report = to_int8(model, calibration, leave=leave)
    total = len(report.quantized) + len(report.left)
    summary = f"{len(report.quantized)} of {total} convolutions and matrix products in int8, the others in fp16"
    return Converted(quantized, "int8", _compare(card, model, quantized, frames), summary, tuple(leave))


def _compare(card: Card, model: ModelProto, other: ModelProto, frames: Sequence[Image]) -> Parity:
    threads = Threads.default()
    reference = OnnxRuntimeEngine(model, threads=threads, device="cpu")
    candidate = OnnxRuntimeEngine(emulated(other), threads=threads, device="cpu")
    try:
        return parity_of(card, reference, candidate, _batches(card, model, frames))
    finally:
        reference.close()
        candidate.close()


def parity_of(card: Card, reference: Engine, candidate: Engine, batches: Iterable[Array]) -> Parity:
    """How far two engines of one model agree on batches of their input, uint8 (N,h,w,3)."""
    if isinstance(card.input, DetectorInput):
        kinds = list(dict.fromkeys(card.kinds))
        across = card.thresholds.nms_across == "kind"
        groups = [kinds.index(kind) for kind in card.kinds] if across else None
        return detector_parity(
            reference,
            candidate,
            batches,
            threshold=card.thresholds.operating,
            nms_iou=card.thresholds.nms_iou,
            groups=groups,
        )
    return classifier_parity(
        reference, candidate, batches, novel_above=card.thresholds.novelty, attributes=card.attributes
    )


def _batches(card: Card, model: ModelProto, frames: Sequence[Image]) -> Iterator[Array]:
    """Batches of one frame, or of as many as a file of fixed batch wants; what is left over then is not used."""
    rows = dims_of(only_input(model))[0] or 1
    for start in range(0, len(frames) - rows + 1, rows):
        yield input_batch(card, model, frames[start : start + rows])


def _judged(converted: Converted, accept: bool) -> Converted:
    limits: Limits = LIMITS[converted.precision]
    if converted.parity is None or accept or converted.parity.within(limits):
        return converted
    wanted = f"{100 * limits.same_class:g} % of classes"
    if converted.parity.same_attributes is not None:
        wanted += f" and {100 * limits.same_attributes:g} % of attributes"
    if converted.parity.matched is not None:
        wanted = f"{100 * limits.matched:g} % of boxes and {wanted}"
    raise ParityError(
        f"precision {converted.precision}: got {converted.parity}, expected {wanted}; "
        "give more --calibration frames of the same kind, choose a higher precision, or say --accept-parity-loss"
    )
