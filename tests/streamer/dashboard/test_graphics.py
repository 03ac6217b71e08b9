"""Pictures by the protocols of terminals: read back what was written."""

from __future__ import annotations

import base64
import re

import cv2
import numpy as np
import pytest

from streamer.dashboard import render
from streamer.dashboard.graphics import (
    PictureSegment,
    Protocol,
    character_px,
    encoded_picture,
    erased,
    protocol_of,
    sixels,
)
from tests.streamer.dashboard.dashboard_cases import busy_state
from tests.streamer.dashboard.test_render import assert_fits

KITTY = b"\x1b_Gi=31;OK\x1b\\"
DEVICE = b"\x1b[?62;22c"


@pytest.mark.parametrize(
    ("environment", "answers", "expected"),
    [
        ({}, b"", None),
        ({}, DEVICE, None),
        ({}, b"\x1b[?62;4;22c", "sixel"),
        ({}, b"\x1b[?4;22c", None),  # the first number is the kind of terminal
        ({}, KITTY + DEVICE, "kitty"),
        ({}, KITTY + b"\x1b[?62;4c", "kitty"),
        ({}, b"\x1b_Gi=31;ENOTSUP\x1b\\" + DEVICE, None),
        ({"TERM_PROGRAM": "iTerm.app"}, DEVICE, "iterm2"),
        ({"LC_TERMINAL": "iTerm2"}, DEVICE, "iterm2"),
        ({"LC_TERMINAL": "iTerm2", "TMUX": "/tmp/x"}, DEVICE, None),
    ],
)
def test_the_protocol_is_what_the_terminal_says(
    environment: dict[str, str], answers: bytes, expected: Protocol | None
) -> None:
    assert protocol_of(environment, answers) == expected


def test_the_size_of_a_character_is_what_the_terminal_says() -> None:
    assert character_px(b"\x1b[6;20;10t" + DEVICE) == (10, 20)
    assert character_px(b"\x1b[6;0;0t") is None
    assert character_px(DEVICE) is None


def picture() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (60, 80, 3), np.uint8)


def test_kitty_gets_a_png_in_parts() -> None:
    codes = encoded_picture("kitty", picture(), 40, 15, (8, 16), 2)
    parts = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", codes)
    assert "".join(f"\x1b_G{keys};{data}\x1b\\" for keys, data in parts) == codes
    assert len(parts) > 1
    assert all(len(data) <= 4096 for _, data in parts)
    assert [keys.endswith("m=1") for keys, _ in parts] == [True] * (len(parts) - 1) + [False]
    assert {"a=T", "i=2", "c=40", "r=15", "C=1", "q=2"} <= set(parts[0][0].split(","))
    png = np.frombuffer(base64.b64decode("".join(data for _, data in parts)), np.uint8)
    assert np.array_equal(cv2.imdecode(png, cv2.IMREAD_COLOR), picture())


def test_iterm2_gets_a_file() -> None:
    codes = encoded_picture("iterm2", picture(), 40, 15, (8, 16), 1)
    found = re.fullmatch(r"\x1b\]1337;File=(.*):([^:]*)\x07", codes)
    assert found is not None
    keys = dict(part.split("=") for part in found[1].split(";"))
    data = base64.b64decode(found[2])
    assert (keys["width"], keys["height"], keys["inline"], int(keys["size"])) == ("40", "15", "1", len(data))
    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape == (60, 80, 3)


def decoded_sixels(codes: str) -> np.ndarray:
    """(H, W, 3) RGB in percent, as a terminal paints them."""
    found = re.fullmatch(r'\x1bPq"1;1;(\d+);(\d+)((?:#\d+;2;\d+;\d+;\d+)*)(.*)\x1b\\', codes)
    assert found is not None
    width, height = int(found[1]), int(found[2])
    colours = {int(n): tuple(map(int, rgb)) for n, *rgb in re.findall(r"#(\d+);2;(\d+);(\d+);(\d+)", found[3])}
    painted = np.full((height, width, 3), -1)
    for band, text in enumerate(found[4].split("-")):
        for part in text.split("$"):
            colour = re.match(r"#(\d+)", part)
            assert colour is not None
            column = 0
            for count, letter in re.findall(r"!(\d+)(.)", part):
                for bit in range(6):
                    if (ord(letter) - 63) >> bit & 1:
                        painted[6 * band + bit, column : column + int(count)] = colours[int(colour[1])]
                column += int(count)
            assert column == width
    return painted


def test_sixels_paint_every_pixel_in_its_nearest_colour() -> None:
    rgb = picture()[..., ::-1]
    painted = decoded_sixels(sixels(picture()))
    assert painted.min() >= 0
    assert np.abs(painted - rgb / 2.55).max() <= 10.5  # half a step of a fifth


def test_a_sixel_picture_fills_whole_rows_of_characters() -> None:
    codes = encoded_picture("sixel", picture(), 10, 4, (9, 19), 1)
    assert decoded_sixels(codes).shape == (72, 90, 3)  # 76 rows are no multiple of 6


def test_only_kitty_has_to_be_told_to_take_pictures_away() -> None:
    assert erased("kitty").startswith("\x1b_Ga=d")
    assert erased("sixel") == erased("iterm2") == ""


@pytest.mark.parametrize(("width", "height"), [(120, 40), (200, 50), (80, 24)])
def test_where_pictures_are_shown_their_place_is_left_blank(width: int, height: int) -> None:
    state = busy_state()
    state.graphics = True
    screen = render(state, width, height, 0, colours="few")
    assert_fits(screen, width, height)
    anchors = [segment for line in screen.lines for segment in line if isinstance(segment, PictureSegment)]
    assert bool(anchors) is (width >= 120)
    for row, line in enumerate(screen.lines):
        column = 0
        for segment in line:
            if isinstance(segment, PictureSegment):
                assert column + segment.columns <= width
                assert row + segment.rows <= height
                below = ["".join(one.text for one in line) for line in screen.lines[row : row + segment.rows]]
                assert {text[column : column + segment.columns].strip() for text in below} == {""}
            column += segment.cell_length
