"""Lines of JSON that a terminal may show."""

import json

from hypothesis import given
from hypothesis import strategies as st

from streamer.protocol.lines import json_line

OBEYED = {0x7F, *range(0x80, 0xA0)}


@given(st.text())
def test_a_line_is_the_same_value_and_nothing_in_it_is_obeyed_by_a_terminal(text):
    value = json.dumps({text: [text]}, ensure_ascii=False).encode("utf-8", "surrogatepass")
    line = json_line(value)
    assert json.loads(line.decode("utf-8", "surrogatepass")) == {text: [text]}
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    shown = line[:-1].decode("utf-8", "surrogatepass")
    assert not OBEYED & set(map(ord, shown))
    assert min(map(ord, shown)) >= 0x20


def test_the_escape_of_a_control_is_its_own():
    assert json_line('{"a": "\x9b2J\x7fé"}'.encode()) == b'{"a": "\\u009b2J\\u007f\xc3\xa9"}\n'
