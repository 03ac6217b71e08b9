"""What people say of a slide, in messages and requests: bounded and printable, or the message is none."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.protocol.messages import DifferentialMessage, EndMessage, HealthMessage, WireError, decode, encode
from streamer.protocol.requests import NewSlide, RequestRefused, decode_request, encode_request
from streamer.records import SlideInfo
from tests.streamer.protocol.message_cases import make_differential, make_factory, make_health

BAD: dict[str, dict[str, Any]] = {
    "a control character": {"name": "a\x1b[2J"},
    "a line break": {"accession": "a\nb"},
    "reversed text": {"operator": "a‮b"},
    "spaces at an end": {"instrument": " a"},
    "nothing": {"stain": ""},
    "too long": {"magnification": "x" * 81},
    "a number": {"name": 7},
    "a field's name": {"fields": {"a\x00": "b"}},
    "a field": {"fields": {"a": "\x9b31m"}},
    "a long field's name": {"fields": {"a" * 41: "b"}},
    "many fields": {"fields": {str(n): "b" for n in range(17)}},
    "no white cells": {"wbc": 0},
    "negative white cells": {"wbc": -1.5},
    "too many white cells": {"wbc": 1e9},
    "no scale": {"um_per_px": 0},
}


def test_what_is_known_stands_in_health_differential_and_end():
    factory = make_factory()
    factory.slide = SlideInfo(name="B-17", fields={"batch": "7"}, wbc=6.2)
    sent = [factory.health(make_health()), factory.end("finished", "end of the source")]
    for message in sent:
        read = decode(encode(message))
        assert isinstance(read, HealthMessage | EndMessage)
        assert read.slide == factory.slide
    differential = msgspec.structs.replace(make_differential(3), slide=factory.slide)
    read = decode(encode(factory.differential(differential)))
    assert isinstance(read, DifferentialMessage)
    assert read.slide == factory.slide


def test_where_nobody_said_anything_there_is_null():
    assert json.loads(encode(make_factory().end("finished", "")))["slide"] is None


@pytest.mark.parametrize("case", BAD)
def test_a_message_that_says_what_can_not_be_is_none(case):
    header = json.loads(encode(make_factory().end("finished", "")))
    header["slide"] = BAD[case]
    with pytest.raises(WireError):
        decode(json.dumps(header).encode())


@pytest.mark.parametrize("case", BAD)
def test_a_command_that_says_what_can_not_be_is_refused(case):
    request = {"request": "new_slide", "version": "1.0", "id": "1", "run_id": "r", "source": "s", "slide": BAD[case]}
    with pytest.raises(RequestRefused) as refused:
        decode_request(json.dumps(request).encode())
    assert refused.value.code == "malformed"


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_what_is_no_number_is_no_count(number):
    with pytest.raises(ValueError, match="finite"):
        SlideInfo(wbc=number)


def test_a_new_slide_without_a_name_is_what_it_was():
    request = NewSlide(id="1", run_id="r", source="s")
    assert "slide" not in json.loads(encode_request(request))
    assert decode_request(encode_request(request)) == request


texts = st.text(min_size=1, max_size=80).filter(lambda text: text.isprintable() and text == text.strip())
infos = st.builds(
    SlideInfo,
    name=st.none() | texts,
    accession=st.none() | texts,
    operator=st.none() | texts,
    fields=st.dictionaries(texts.filter(lambda text: len(text) <= 40), texts, max_size=16),
    wbc=st.none() | st.floats(0.01, 2000.0),
    wbc_includes_nrbc=st.booleans(),
)


@given(infos)
def test_all_that_may_be_said_arrives(slide):
    factory = make_factory()
    factory.slide = slide
    read = decode(encode(factory.end("finished", "")))
    assert isinstance(read, EndMessage)
    assert (read.slide or SlideInfo()) == slide
