from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamer.sources.imagefile import ImageLimits, Picture, Unreadable, read_image
from tests.streamer.sources.pictures import Array, encoded, field, png, tiff, webp_header

FIELD = field()


def read(
    tmp_path: Path, data: bytes, limits: ImageLimits | None = None, at_least_bits: int = 8
) -> Picture | Unreadable:
    path = tmp_path / "image"
    path.write_bytes(data)
    return read_image(path, limits, at_least_bits=at_least_bits)


def pixels(tmp_path: Path, data: bytes, at_least_bits: int = 8) -> Array:
    picture = read(tmp_path, data, at_least_bits=at_least_bits)
    assert isinstance(picture, Picture), picture
    assert picture.pixels.dtype == np.uint8
    assert picture.pixels.flags.c_contiguous
    return picture.pixels


def fault(tmp_path: Path, data: bytes, limits: ImageLimits | None = None) -> str:
    unreadable = read(tmp_path, data, limits)
    assert isinstance(unreadable, Unreadable), unreadable
    assert "\n" not in unreadable.detail
    assert "got " in unreadable.detail
    assert "expected " in unreadable.detail
    return unreadable.reason


@pytest.mark.parametrize("extension", [".png", ".tif", ".bmp"])
def test_colour_comes_back_as_it_was(tmp_path: Path, extension: str) -> None:
    assert (pixels(tmp_path, encoded(FIELD, extension)) == FIELD).all()


@pytest.mark.parametrize("extension", [".jpg", ".webp"])
def test_lossy_colour_comes_back_nearly(tmp_path: Path, extension: str) -> None:
    assert np.abs(pixels(tmp_path, encoded(FIELD, extension)).astype(int) - FIELD).mean() < 4


@pytest.mark.parametrize("extension", [".png", ".tif", ".bmp", ".jpg"])
def test_grey_becomes_three_equal_channels(tmp_path: Path, extension: str) -> None:
    image = pixels(tmp_path, encoded(FIELD[..., 0], extension))
    assert image.shape == (40, 60, 3)
    assert (image[..., 0] == image[..., 1]).all()
    assert (image[..., 0] == image[..., 2]).all()
    assert np.abs(image[..., 0].astype(int) - FIELD[..., 0]).mean() < 2


@pytest.mark.parametrize("extension", [".png", ".tif"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("grey", [True, False])
def test_sixteen_bits_are_scaled_by_the_sensors_range(tmp_path: Path, extension: str, bits: int, grey: bool) -> None:
    image = FIELD[..., :1].repeat(3, axis=2) if grey else FIELD
    wide = image.astype(np.uint16) << (bits - 8)
    picture = read(tmp_path, encoded(wide[..., 0] if grey else wide, extension))
    assert isinstance(picture, Picture)
    assert picture.bits == bits
    assert (picture.pixels == image).all()


def test_a_dark_frame_of_a_series_keeps_the_depth_of_the_series(tmp_path: Path) -> None:
    dark = np.full((40, 60), 160, np.uint16)
    assert pixels(tmp_path, encoded(dark), at_least_bits=12).max() == 10


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiff_where_zero_is_white(tmp_path: Path, dtype: type[np.generic]) -> None:
    samples = (255 - FIELD[..., 0]).astype(dtype)
    assert (pixels(tmp_path, tiff(samples, photometric=0))[..., 0] == FIELD[..., 0]).all()


@pytest.mark.parametrize("order", ["<", ">"])
def test_tiff_of_either_byte_order(tmp_path: Path, order: str) -> None:
    samples = FIELD[..., 0].astype(np.uint16) << 4
    assert (pixels(tmp_path, tiff(samples, photometric=1, order=order))[..., 0] == FIELD[..., 0]).all()


@pytest.mark.parametrize(("extension", "dtype"), [(".png", np.uint8), (".png", np.uint16), (".webp", np.uint8)])
def test_opacity_is_laid_on_white(tmp_path: Path, extension: str, dtype: type[np.generic]) -> None:
    scale = 257 if dtype == np.uint16 else 1
    image = np.zeros((40, 60, 4), dtype)
    image[:, :20] = (0, 0, 0, 0)
    image[:, 20:40] = (40 * scale, 40 * scale, 40 * scale, 128 * scale)
    image[:, 40:] = (10 * scale, 20 * scale, 30 * scale, 255 * scale)
    if dtype == np.uint16:
        image[-1, -1] = (65535, 65535, 65535, 65535)
    flat = cv2.imencode(extension, image, [cv2.IMWRITE_WEBP_QUALITY, 101])[1].tobytes()
    got = pixels(tmp_path, flat)
    assert (got[:, :20] == 255).all()
    assert np.abs(got[:, 20:40].astype(int) - 147).max() <= 1
    assert (got[:-1, 40:] == (10, 20, 30)).all()


def test_opacity_that_is_zero_everywhere_is_no_opacity(tmp_path: Path) -> None:
    image = np.dstack([FIELD, np.zeros((40, 60), np.uint8)])
    assert (pixels(tmp_path, encoded(image, ".bmp")) == FIELD).all()


def test_palette_with_and_without_opacity(tmp_path: Path) -> None:
    rows = (b"\0" + bytes([0, 1]) * 20) * 40
    colours = bytes([10, 20, 30, 200, 210, 220])
    plain = pixels(tmp_path, png((40, 40, 8, 3), rows, colours))
    assert plain[0, 0].tolist() == [30, 20, 10]
    assert plain[0, 1].tolist() == [220, 210, 200]
    see_through = pixels(tmp_path, png((40, 40, 8, 3), rows, colours, opacity=b"\0"))
    assert see_through[0, 0].tolist() == [255, 255, 255]
    assert see_through[0, 1].tolist() == [220, 210, 200]


def test_pixels_stay_as_stored_whatever_the_orientation_says(tmp_path: Path) -> None:
    jpeg = encoded(FIELD, ".jpg")
    tag = b"Exif\0\0II*\0\x08\0\0\0\x01\0" + struct.pack("<HHIHH", 274, 3, 1, 6, 0) + bytes(4)
    turned = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(tag)) + tag + jpeg[2:]
    assert pixels(tmp_path, turned).shape == FIELD.shape


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"", "not an image", id="empty"),
        pytest.param(b"a field of red cells, described in words", "not an image", id="text"),
        pytest.param(b"%PDF-1.7\n" + bytes(200), "not an image", id="pdf"),
        pytest.param(b"GIF89a" + bytes(200), "not an image", id="gif"),
        pytest.param(b"BMI of the patients, by year, in words", "not an image", id="text that starts as BMP does"),
        pytest.param(encoded(np.full((1, 1, 3), 200, np.uint8)), "too small", id="1x1"),
        pytest.param(encoded(field(31, 400), ".jpg"), "too small", id="31 px high"),
        pytest.param(png((12_000, 9_000, 8, 2)), "too large", id="png"),
        pytest.param(tiff(FIELD, 2, size=(20_000, 20_000)), "too large", id="tiff"),
        pytest.param(
            b"BM" + bytes(8) + struct.pack("<IIiiHHI", 54, 40, 20_000, -9_000, 1, 24, 0), "too large", id="bmp"
        ),
        pytest.param(webp_header(16_000, 16_000), "too large", id="webp"),
        pytest.param(encoded(FIELD.astype(np.float32), ".tif"), "unsupported", id="float tiff"),
        pytest.param(webp_header(64, 64), "unreadable", id="webp without pixels"),
        pytest.param(png((64, 64, 8, 2)), "unreadable", id="png without pixels"),
    ],
)
def test_what_is_no_frame(tmp_path: Path, data: bytes, reason: str) -> None:
    assert fault(tmp_path, data) == reason


def test_too_large_by_the_jpeg_header(tmp_path: Path) -> None:
    jpeg = encoded(FIELD, ".jpg")
    size_at = jpeg.index(b"\xff\xc0") + 5
    huge = jpeg[:size_at] + struct.pack(">HH", 30_000, 30_000) + jpeg[size_at + 4 :]
    assert fault(tmp_path, huge) == "too large"


def test_the_limit_itself_is_allowed(tmp_path: Path) -> None:
    at_limit = ImageLimits(max_megapixels=40 * 60 / 1e6, min_side_px=40)
    assert isinstance(read(tmp_path, encoded(FIELD), at_limit), Picture)
    assert fault(tmp_path, encoded(field(41, 60)), at_limit) == "too large"
    assert fault(tmp_path, encoded(field(39, 60)), at_limit) == "too small"


@pytest.mark.parametrize("extension", [".jpg", ".png", ".tif", ".bmp", ".webp"])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.95])
def test_cut_off(tmp_path: Path, extension: str, kept: float) -> None:
    data = encoded(field(200, 300), extension)
    assert fault(tmp_path, data[: int(len(data) * kept)]) == "truncated"


def test_a_jpeg_cut_off_and_filled_up_with_zeros(tmp_path: Path) -> None:
    data = encoded(field(200, 300), ".jpg")
    assert fault(tmp_path, data[: len(data) // 2].ljust(len(data), b"\0")) == "truncated"


def test_a_whole_preview_does_not_make_a_cut_off_jpeg_whole(tmp_path: Path) -> None:
    preview, data = encoded(field(32, 32), ".jpg"), encoded(field(200, 300), ".jpg")
    with_preview = data[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(preview)) + preview + data[2:]
    assert pixels(tmp_path, with_preview).shape == (200, 300, 3)
    assert fault(tmp_path, with_preview[:-100]) == "truncated"


def test_junk_behind_a_jpeg_does_no_harm(tmp_path: Path) -> None:
    assert pixels(tmp_path, encoded(FIELD, ".jpg") + bytes(5000)).shape == FIELD.shape


def test_a_tiff_of_several_pages_is_not_read_in_part(tmp_path: Path) -> None:
    path = tmp_path / "stack.tif"
    assert cv2.imwritemulti(str(path), [FIELD, FIELD])
    unreadable = read_image(path)
    assert isinstance(unreadable, Unreadable)
    assert unreadable.reason == "several pages"


def test_missing_and_forbidden_files(tmp_path: Path) -> None:
    gone = read_image(tmp_path / "gone.jpg")
    assert isinstance(gone, Unreadable)
    assert gone.reason == "unreadable"
    assert "No such file" in gone.detail


@pytest.mark.parametrize("extension", [".jpg", ".png", ".tif", ".bmp", ".webp"])
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(places=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=8))
def test_no_damage_to_a_header_is_fatal(tmp_path: Path, extension: str, places: list[tuple[int, int]]) -> None:
    data = bytearray(encoded(FIELD, extension))
    for place, value in places:
        data[place % len(data)] = value
    answer = read(tmp_path, bytes(data), ImageLimits(max_megapixels=1.0))
    assert isinstance(answer, Unreadable) or answer.pixels.shape[2] == 3


def test_opencv_writes_nothing_of_its_own(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    read(tmp_path, webp_header(64, 64))
    assert capfd.readouterr().err == ""
