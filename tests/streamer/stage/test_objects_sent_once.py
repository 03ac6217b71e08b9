"""Large objects travel once, and stay one and the same on the other side."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.stage.hidden import HiddenParts
from streamer.stage.objects_sent_once import KEPT_FOR, ObjectReader, ObjectWriter
from streamer.stage.preparation import PreparedFrame
from streamer.stage.static_mask import StaticMask


def picture(value: int = 0) -> PreparedFrame:
    spectrum = np.full((60, 40), value, np.complex64)
    return PreparedFrame(240, 320, 1, np.full((240, 320), value, np.int8), spectrum, 0.5, 0.9, 1.0)


def test_what_was_sent_is_only_named_and_stays_the_same_object() -> None:
    writer, reader = ObjectWriter(), ObjectReader()
    frame = picture(7)
    first = writer.write((frame, StaticMask(last=frame)))
    again = writer.write([frame, 3])
    assert len(first) > frame.fine.size > 20 * len(again)
    one, static = reader.read(first)
    other, number = reader.read(again)
    assert one is static.last is other
    assert number == 3
    assert np.array_equal(one.fine, frame.fine)


def test_a_spectrum_stays_behind() -> None:
    """It is made again where it is needed, and the sender keeps its own."""
    frame = picture()
    found = ObjectReader().read(ObjectWriter().write(frame))
    assert found.spectrum is None
    assert frame.spectrum is not None
    assert (found.height, found.width, found.factor, found.contrast) == (240, 320, 1, 0.5)


def test_hidden_parts_can_be_asked_on_the_other_side() -> None:
    mask = np.zeros((60, 80), np.uint8)
    mask[10:20, 30:50] = 1
    found = ObjectReader().read(ObjectWriter().write(HiddenParts(mask, 4)))
    assert found.boxes_px() == [(120, 40, 200, 80)]
    assert found.covered(np.array([[120.0, 40.0, 200.0, 80.0]])) == pytest.approx([1.0])


def test_both_sides_forget_what_is_no_longer_told() -> None:
    writer, reader = ObjectWriter(), ObjectReader()
    frame = picture(1)
    reader.read(writer.write(frame))
    for number in range(KEPT_FOR + 1):
        assert reader.read(writer.write(number)) == number
    assert not writer._numbers
    assert not reader._objects
    assert np.array_equal(reader.read(writer.write(frame)).fine, frame.fine)


@given(st.lists(st.lists(st.integers(0, 5), max_size=4), max_size=60))
def test_any_messages_arrive_as_they_were(messages: list[list[int]]) -> None:
    frames = [picture(value) for value in range(6)]
    writer, reader = ObjectWriter(), ObjectReader()
    newest: dict[int, PreparedFrame] = {}
    since = dict.fromkeys(range(6), KEPT_FOR + 1)
    for numbers in messages:
        found = reader.read(writer.write([frames[number] for number in numbers]))
        since = {number: ages + 1 for number, ages in since.items()}
        for number, one in zip(numbers, found, strict=True):
            assert (one.fine == number).all()
            if since[number] <= KEPT_FOR:
                assert one is newest[number]
            newest[number], since[number] = one, 0
