"""`run --ignore-box`: what is a box, whose it is, and what is refused."""

import pytest

from engines.base import UsageError
from streamer.commands.run.sources import ignored_boxes
from streamer.config import load_config

NAMES = ("left", "right")


def test_a_box_is_of_all_sources_or_of_the_named_one():
    assert ignored_boxes(("0,0,320,32", "left=600.5,440,640,480"), NAMES) == {
        "left": [(0, 0, 320, 32), (600.5, 440, 640, 480)],
        "right": [(0, 0, 320, 32)],
    }
    assert ignored_boxes((), NAMES) == {"left": [], "right": []}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("middle=0,0,1,1", "got the source 'middle', which this run has not"),
        ("lef=0,0,1,1", "did you mean"),
        ("0,0,1", "got no box, expected X1,Y1,X2,Y2 in pixels"),
        ("0,0,1,b", "got no box"),
        ("-1,0,1,1", "got no box"),
        ("10,0,10,5", "got an empty box"),
        ("0,9,10,5", "got an empty box"),
    ],
)
def test_what_is_none_is_refused_in_a_line(text, said):
    with pytest.raises(UsageError, match="--ignore-box") as error:
        ignored_boxes((text,), NAMES)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_configuration_file_may_say_it(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text('ignore_box = ["0,0,320,32", "left=600,440,640,480"]\n')
    assert load_config(str(file), {}).ignore_box == ("0,0,320,32", "left=600,440,640,480")
