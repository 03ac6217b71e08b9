"""Every pixel format: an image of known colours, packed here bit by bit as the convention says, comes back."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.sources.pixel_formats import PREFERRED, is_known, size_bytes, to_bgr

Array = npt.NDArray[np.uint8]
RED, GREEN, BLUE = (np.array(colour, np.uint8) for colour in ((0, 0, 255), (0, 255, 0), (255, 0, 0)))


def bits_of(values: list[int], bits: int) -> Array:
    """Samples one after the other from the lowest bit of the first byte on."""
    stream = "".join(format(value, f"0{bits}b")[::-1] for value in values)
    stream += "0" * (-len(stream) % 8)
    return np.array([int(stream[at : at + 8][::-1], 2) for at in range(0, len(stream), 8)], np.uint8)


@given(st.sampled_from((10, 12, 14)), st.integers(1, 9), st.integers(1, 5), st.randoms())
def test_packed_samples_are_the_upper_bits_of_each(bits: int, width: int, height: int, random: object) -> None:
    values = [random.randrange(1 << bits) for _ in range(width * height)]  # type: ignore[attr-defined]
    image = to_bgr(bits_of(values, bits), width, height, f"Mono{bits}p")
    assert image[..., 1].reshape(-1).tolist() == [value >> (bits - 8) for value in values]


@pytest.mark.parametrize("bits", [10, 12])
def test_samples_packed_as_of_gige_vision(bits: int) -> None:
    values = [0x3FF, 0x001, 0x200] if bits == 10 else [0xABC, 0x123, 0xF00]
    low = (1 << (bits - 8)) - 1
    pairs = [*values, 0]
    data = []
    for first, second in zip(pairs[::2], pairs[1::2], strict=True):
        data += [first >> (bits - 8), (first & low) | (second & low) << 4, second >> (bits - 8)]
    image = to_bgr(np.array(data, np.uint8), 3, 1, f"Mono{bits}Packed")
    assert image[0, :, 0].tolist() == [value >> (bits - 8) for value in values]


@pytest.mark.parametrize("bits", [9, 10, 11, 12, 14, 16])
def test_samples_of_two_bytes(bits: int) -> None:
    values = [0, 1 << (bits - 1), (1 << bits) - 1]
    image = to_bgr(np.array(values, "<u2").view(np.uint8), 3, 1, f"Mono{bits}")
    assert image[0].tolist() == [[0] * 3, [128] * 3, [255] * 3]


def mosaic(order: str, colour: Array, side: int = 8) -> Array:
    """What a sensor sees of a field of one colour, behind filters of this order: one for each of two by two pixels."""
    channel = {"B": 0, "G": 1, "R": 2}
    pattern = {"RG": "RGGB", "GR": "GRBG", "GB": "GBRG", "BG": "BGGR"}[order]
    tile = np.array([colour[channel[letter]] for letter in pattern], np.uint8).reshape(2, 2)
    return np.tile(tile, (side // 2, side // 2))


@pytest.mark.parametrize("order", ["RG", "GR", "GB", "BG"])
@pytest.mark.parametrize("colour", [RED, GREEN, BLUE, np.array((200, 60, 120), np.uint8)], ids=repr)
def test_the_phase_of_bayer_patterns(order: str, colour: Array) -> None:
    seen = mosaic(order, colour)
    assert np.array_equal(to_bgr(seen.reshape(-1), 8, 8, f"Bayer{order}8"), np.full((8, 8, 3), colour))
    deep = (seen.astype("<u2") << 4).reshape(-1)
    for data, name in ((deep.view(np.uint8), "12"), (bits_of(deep.tolist(), 12), "12p")):
        assert np.array_equal(to_bgr(data, 8, 8, f"Bayer{order}{name}"), np.full((8, 8, 3), colour))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("RGB8", (10, 20, 30)),
        ("RGB8Packed", (10, 20, 30)),
        ("BGR8", (30, 20, 10)),
        ("RGBa8", (10, 20, 30, 7)),
        ("BGRa8", (30, 20, 10, 0)),
        ("BGRA8Packed", (30, 20, 10, 255)),
        ("RGB12", (0xA7, 0, 0x4F, 1, 0xE1, 1)),
        ("RGB16Packed", (99, 10, 99, 20, 99, 30)),
    ],
)
def test_colours_in_their_order(name: str, data: tuple[int, ...]) -> None:
    image = to_bgr(np.array(data * 2, np.uint8), 2, 1, name)
    assert image.tolist() == [[[30, 20, 10]] * 2]


@pytest.mark.parametrize("bgr", [(40, 90, 200), (128, 128, 128), (180, 60, 110)], ids=str)
@pytest.mark.parametrize(
    ("name", "space"),
    [
        ("YUV422_8", "YUV"),
        ("YUV422_8_UYVY", "YUV"),
        ("YUV422Packed", "YUV"),
        ("YUV422_YUYV_Packed", "YUV"),
        ("YCbCr422_8", "YCbCr"),
        ("YCbCr422_8_CbYCrY", "YCbCr"),
        ("YCbCr601_422_8", "YCbCr601"),
        ("YCbCr601_422_8_CbYCrY", "YCbCr601"),
    ],
)
def test_luma_and_chroma(name: str, space: str, bgr: tuple[int, int, int]) -> None:
    blue, green, red = bgr
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    if space == "YUV":
        parts = luma, 128 + 0.492 * (blue - luma), 128 + 0.877 * (red - luma)
    elif space == "YCbCr":
        parts = luma, 128 + 0.564 * (blue - luma), 128 + 0.713 * (red - luma)
    else:
        parts = 16 + luma * 219 / 255, 128 + 0.564 * (blue - luma) * 224 / 255, 128 + 0.713 * (red - luma) * 224 / 255
    y, u, v = (round(part) for part in parts)
    two = [u, y, v, y] if "UYVY" in name or "CbYCrY" in name or name == "YUV422Packed" else [y, u, y, v]
    image = to_bgr(np.array(two * 4, np.uint8), 4, 2, name)
    assert image.shape == (2, 4, 3)
    assert np.abs(image.astype(int) - bgr).max() <= 3


def test_the_image_is_its_own() -> None:
    data = np.zeros(12, np.uint8)
    for name in ("BGR8", "Mono8"):
        image = to_bgr(data, 2, 2, name)
        assert not np.shares_memory(image, data)


def test_what_is_not_known() -> None:
    assert not is_known("Coord3D_ABC32f")
    assert all(is_known(name) for name in PREFERRED)
    with pytest.raises(ValueError, match="got the pixel format 'Confidence8', expected one such as BGR8"):
        to_bgr(np.zeros(4, np.uint8), 2, 2, "Confidence8")
    with pytest.raises(ValueError, match="got 3 bytes of 2 x 2 Mono8, expected 4"):
        to_bgr(np.zeros(3, np.uint8), 2, 2, "Mono8")
    assert size_bytes(3, 3, "Mono12p") == 14
