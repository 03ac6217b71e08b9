"""The slide's label: a QR code or barcode in the first frame.

OpenCV's detectors read QR codes and EAN-8, EAN-13, UPC-A and UPC-E. All of these check what they read, and nothing is
taken that was only found and not read. They don't read Code 39, Code 128 and Data Matrix: scanners do, which type it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import cv2
import msgspec

from engines.geometry import Image
from streamer.records import SlideInfo

LabelReader = Callable[[Image, SlideInfo], tuple[SlideInfo, str]]
"""From (H, W, 3) uint8 BGR and what is known of the slide, what is known now, and a line for people."""


class Code(NamedTuple):
    kind: str
    """ "QR code", "EAN 13"."""
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
            return slide, f"label: got {got} in the first frame, expected one QR code, EAN or UPC; no {wanted} from it"
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
    try:
        _, texts, kinds, _ = cv2.barcode.BarcodeDetector().detectAndDecodeWithType(image)
    except (cv2.error, UnicodeDecodeError):
        return
    yield from (Code(kind.replace("_", " "), text) for text, kind in zip(texts, kinds, strict=True))
