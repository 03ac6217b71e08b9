"""The slide's label: a QR code or barcode in the first frame, by OpenCV's detectors.

A wrong name is worse than none, so that nothing is taken that was only found and not read. A QR code corrects its own
errors. A barcode has but a check digit: OpenCV read 4 of 900 painted EAN-13 codes, which were blurred up to being
illegible, as other ones, 3 of them as EAN-8. So EAN-13 and UPC-A count where readings at two sizes agree: 525 of 900
were read then, none of them wrong (test_label.py paints some). EAN-8 and UPC-E are left out. OpenCV reads no
Code 39, Code 128 and Data Matrix; scanners do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import MappingProxyType
from typing import NamedTuple

import cv2
import msgspec
import numpy as np

from engines.geometry import Image
from streamer.records import SlideInfo

LabelReader = Callable[[Image, SlideInfo], tuple[SlideInfo, str]]
"""From (H, W, 3) uint8 BGR and what is known of the slide, what is known now, and a line for people."""


BARCODES = MappingProxyType({"EAN_13": "EAN-13", "UPC_A": "UPC-A"})
"""OpenCV's names of what is read, and ours."""

SECOND_READING = 1.5
"""How much larger the frame is made for it."""


class Code(NamedTuple):
    kind: str
    """ "QR code", "EAN-13"."""
    text: str

    def __str__(self) -> str:
        return f"{self.kind} {self.text[:80]!r}{'…' if len(self.text) > 80 else ''}"


def codes_in(image: Image) -> list[Code]:
    """The codes in (H, W, 3) uint8 BGR that could be read, each once."""
    return list(dict.fromkeys(code for code in (*_qr_codes(image), *_barcodes(image)) if code.text))


def label_reader(fields: Sequence[str]) -> LabelReader:
    """One that takes the code of a label for these fields of SlideInfo."""

    def read(image: Image, slide: SlideInfo) -> tuple[SlideInfo, str]:
        wanted = " and ".join(fields)
        codes = codes_in(image)
        if len(codes) != 1:
            got = ", ".join(str(code) for code in codes) or "none"
            return (
                slide,
                f"label: got {got} in the first frame, expected one QR code, EAN-13 or UPC-A; no {wanted} from it",
            )
        (code,) = codes
        try:
            slide = msgspec.convert({**msgspec.to_builtins(slide), **dict.fromkeys(fields, code.text)}, SlideInfo)
        except msgspec.ValidationError:
            return slide, f"label: got {code}, expected 1 to 80 printable characters; no {wanted} from it"
        return slide, f"label: {code} in the first frame is the {wanted} of the slide"

    return read


def _qr_codes(image: Image) -> Iterator[Code]:
    try:
        _, texts, _, _ = cv2.QRCodeDetector().detectAndDecodeMulti(image)
    except (cv2.error, UnicodeDecodeError):  # of pictures that it takes for damaged codes
        return
    yield from (Code("QR code", text.strip()) for text in texts)


def _barcodes(image: Image) -> Iterator[Code]:
    larger = cv2.resize(image, None, fx=SECOND_READING, fy=SECOND_READING, interpolation=cv2.INTER_CUBIC)
    again = set(_barcodes_once(larger.astype(np.uint8, copy=False)))
    yield from (code for code in _barcodes_once(image) if code in again)


def _barcodes_once(image: Image) -> Iterator[Code]:
    try:
        _, texts, kinds, _ = cv2.barcode.BarcodeDetector().detectAndDecodeWithType(image)
    except (cv2.error, UnicodeDecodeError):
        return
    yield from (Code(BARCODES[kind], text) for text, kind in zip(texts, kinds, strict=True) if kind in BARCODES)
