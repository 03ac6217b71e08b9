"""The picture for the README is made from what a command really draws."""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ElementTree

import pytest

from tools.report.dashboard_picture import main, rows_of, svg_of

DRAWS = (
    "import time; from streamer.dashboard import Dashboard\n"
    "from tests.streamer.dashboard.dashboard_cases import busy_state\n"
    "state = busy_state()\n"
    "with Dashboard() as front:\n"
    "    front.state.sources.update(state.sources); front.state.health = state.health\n"
    "    front.run(lambda: time.sleep(0.01) or not front._lines)\n"
)


def test_the_screen_of_a_command_becomes_an_svg(tmp_path):
    target = tmp_path / "dashboard.svg"
    main(["-o", str(target), "--size", "100x30", "--after", "30", "--", sys.executable, "-c", DRAWS])
    root = ElementTree.parse(target).getroot()
    text = "".join(root.itertext()).replace("\xa0", " ")
    for part in ("leukostream", "neutrophil", "57.0", "research use only"):
        assert part in text
    assert "▀" not in text
    squares = [path for path in root.iter() if path.tag.endswith("path") and path.get("fill")]
    drawn = sum(int(count) for path in squares for count in re.findall(r"h(\d+)\.05", path.get("d", "")))
    assert drawn > 1500


def test_later_rows_replace_earlier_ones():
    written = "\x1b[?2026h\x1b[1;1Hone\x1b[2;1Htwo\x1b[?2026l noise \x1b[?2026h\x1b[2;1H\x1b[1mnew\x1b[0m\x1b[?2026l"
    assert rows_of(written, 3) == ["one", "\x1b[1mnew\x1b[0m", ""]


def test_half_blocks_become_squares_of_their_colours():
    svg = svg_of(["ab", "x\x1b[38;2;255;0;0;48;2;0;0;255m▀▀\x1b[0m"], 4, "t")
    assert '<path fill="#ff0000" d="M1 2h2.05v1.05h-2.05z"/>' in svg
    assert '<path fill="#0000ff" d="M1 3h2.05v1.05h-2.05z"/>' in svg


def test_a_command_that_draws_nothing_is_an_error(tmp_path):
    command = [sys.executable, "-c", "import sys; sys.exit('no such camera')"]
    with pytest.raises(SystemExit, match="got no dashboard within 5 s, expected one: no such camera"):
        main(["-o", str(tmp_path / "x.svg"), "--after", "5", "--", *command])
