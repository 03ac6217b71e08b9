"""The code on a slide's label: painted on simulated frames, one, several, too long, and none."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from streamer.analysis.label import Code, codes_in, label_reader
from streamer.records import SlideInfo
from streamer.sources import open_source, parse_source

_A = ("0001101", "0011001", "0010011", "0111101", "0100011", "0110001", "0101111", "0111011", "0110111", "0001011")
_PARITY = ("AAAAAA", "AABABB", "AABBAB", "AABBBA", "ABAABB", "ABBAAB", "ABBBAA", "ABABAB", "ABABBA", "ABBABA")
"""EAN-13 as GS1's General Specifications have it."""


def qr(text: str, module_px: int = 5) -> np.ndarray:
    code = cv2.copyMakeBorder(cv2.QRCodeEncoder.create().encode(text), 4, 4, 4, 4, cv2.BORDER_CONSTANT, value=255)
    return cv2.resize(code, None, fx=module_px, fy=module_px, interpolation=cv2.INTER_NEAREST)


def ean13(digits: str, module_px: int = 3, height_px: int = 120) -> np.ndarray:
    right = ["".join("10"[int(bit)] for bit in code) for code in _A]
    left = {"A": _A, "B": [code[::-1] for code in right]}
    first, rest = int(digits[0]), digits[1:]
    bits = "101" + "".join(left[p][int(d)] for p, d in zip(_PARITY[first], rest[:6], strict=True))
    bits += "01010" + "".join(right[int(d)] for d in rest[6:]) + "101"
    row = np.array([0 if bit == "1" else 255 for bit in "0" * 11 + bits + "0" * 11], np.uint8)
    return np.repeat(np.tile(row, (height_px, 1)), module_px, axis=1)


def field() -> np.ndarray:
    """A frame of the simulated slide, 480 x 640."""
    source = open_source(parse_source("sim:seed=5,cells=30"))
    source.open()
    try:
        return source.read().image.copy()
    finally:
        source.close()


def turned(image: np.ndarray, degrees: float) -> np.ndarray:
    turn = cv2.getRotationMatrix2D((320, 240), degrees, 1.0)
    return cv2.warpAffine(image, turn, (640, 480), borderMode=cv2.BORDER_REPLICATE)


def painted(*codes: np.ndarray, degrees: float = 0.0, blurred_px: float = 0.0) -> np.ndarray:
    """One code below the other."""
    image, top = field(), 8
    for code in codes:
        image[top : top + code.shape[0], 40 : 40 + code.shape[1]] = code[:, :, None]
        top += code.shape[0] + 12
    image = turned(image, degrees)
    return cv2.GaussianBlur(image, (0, 0), blurred_px) if blurred_px else image


@pytest.mark.parametrize(
    ("image", "code"),
    [
        (lambda: painted(qr("S26-991/2")), Code("QR code", "S26-991/2")),
        (lambda: painted(qr("S26-991/2", 6), degrees=25.0), Code("QR code", "S26-991/2")),
        (lambda: painted(qr("S26-991/2", 6), blurred_px=1.5), Code("QR code", "S26-991/2")),
        (lambda: painted(ean13("4006381333931"), degrees=5.0, blurred_px=0.7), Code("EAN-13", "4006381333931")),
    ],
    ids=["QR", "QR, turned", "QR, not sharp", "EAN-13"],
)
def test_a_code_is_read_and_said(image, code):
    assert codes_in(image()) == [code]
    slide, line = label_reader(["name"])(image(), SlideInfo(operator="AK"))
    assert slide == SlideInfo(name=code.text, operator="AK")
    assert line == f"label: {code.kind} {code.text!r} in the first frame is the name of the slide"


def test_the_same_code_twice_is_one():
    assert codes_in(painted(qr("A1"), qr("A1"))) == [Code("QR code", "A1")]


def test_a_frame_without_any_names_nothing():
    image = field()
    assert codes_in(image) == []
    slide, line = label_reader(["name", "accession"])(image, SlideInfo())
    assert slide == SlideInfo()
    assert line == (
        "label: got none in the first frame, expected one QR code, EAN-13 or UPC-A; no name and accession from it"
    )


def test_of_two_codes_none_is_guessed():
    slide, line = label_reader(["name"])(painted(qr("A1"), qr("B2")), SlideInfo())
    assert slide == SlideInfo()
    assert "'A1'" in line
    assert "'B2'" in line
    assert "expected one" in line


@pytest.mark.lengthy
def test_a_barcode_is_never_read_as_another_one():
    rng = np.random.default_rng(4)
    background, read = field(), 0
    for _ in range(40):
        digits = f"{rng.integers(1, 10)}{rng.integers(0, 10**11):011}"
        digits += str(-sum(int(digit) * (3 if place % 2 else 1) for place, digit in enumerate(digits)) % 10)
        module_px = int(rng.integers(2, 5))
        code = ean13(digits, module_px, int(rng.integers(50, 180)))
        image = background.copy()
        image[100 : 100 + code.shape[0], 60 : 60 + code.shape[1]] = code[:, :, None]
        image = turned(image, rng.uniform(-20, 20))
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 0.75 * module_px))
        image = np.clip(image + rng.normal(0, rng.uniform(0, 8), image.shape), 0, 255).astype(np.uint8)
        found = codes_in(image)
        assert found in ([], [Code("EAN-13", digits)])
        read += bool(found)
    assert read >= 15


@pytest.mark.parametrize("case", [(2, 60, 3.0, 1.2), (2, 100, 3.0, 1.2)])
def test_what_opencv_5_reads_as_an_ean_8_is_no_name(case):
    module_px, height_px, degrees, blurred_px = case
    code = ean13("4006381333931", module_px, height_px)
    image, top, left = np.full((480, 640, 3), 235, np.uint8), 240 - height_px // 2, 320 - code.shape[1] // 2
    image[top : top + height_px, left : left + code.shape[1]] = code[:, :, None]
    assert codes_in(cv2.GaussianBlur(turned(image, degrees), (0, 0), blurred_px)) in (
        [],
        [Code("EAN-13", "4006381333931")],
    )


def test_a_code_with_a_wrong_check_digit_is_none():
    assert codes_in(painted(ean13("4006381333932"))) == []


@pytest.mark.parametrize("text", ["x" * 100, "two\nlines"])
def test_a_code_that_is_no_name_is_said_and_not_taken(text):
    slide, line = label_reader(["name"])(painted(qr(text, 4)), SlideInfo())
    assert slide == SlideInfo()
    assert line.endswith("expected 1 to 80 printable characters; no name from it")
    assert "\n" not in line
    assert len(line) < 250
