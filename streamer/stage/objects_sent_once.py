"""Messages to another process in which a large object that both sides know already is only named.

What a stage tracker tells after a frame refers to pictures and masks that it told before: a frame at rest, the static
parts of the picture. They travel once, and are one and the same object on the other side too as long as they are on
this one, which is how others see that nothing has changed.
"""

from __future__ import annotations

import io
import pickle
from typing import Any

from streamer.stage.hidden import HiddenParts
from streamer.stage.preparation import PreparedFrame, without_spectrum
from streamer.stage.static_mask import StaticMask

LARGE = (PreparedFrame, StaticMask, HiddenParts)
"""What is named where it is known. Immutable all."""

KEPT_FOR = 16
"""Messages without it after which an object is forgotten on both sides; it travels again then."""


class ObjectWriter:
    """The sender's side; messages are to be read in their order by one ObjectReader."""

    def __init__(self) -> None:
        self._numbers: dict[int, tuple[int, object]] = {}
        """By id: its number, and the object, so that no other one gets its id."""
        self._used: dict[int, int] = {}
        """By id: the message that named it last."""
        self._next = self._message = 0

    def write(self, message: object) -> bytes:
        """The bytes of a message; they hold what is new in it."""
        self._message += 1
        new: list[tuple[int, bytes]] = []
        body = self._dumped(message, new)
        for known in [known for known, used in self._used.items() if self._message - used > KEPT_FOR]:
            del self._numbers[known], self._used[known]
        return pickle.dumps((new, body), pickle.HIGHEST_PROTOCOL)

    def _dumped(self, value: object, new: list[tuple[int, bytes]]) -> bytes:
        if isinstance(value, PreparedFrame):
            value = without_spectrum(value)  # four fifths of it, and soon made again where it is needed
        out = io.BytesIO()
        pickler = pickle.Pickler(out, pickle.HIGHEST_PROTOCOL)
        pickler.persistent_id = lambda one: (  # type: ignore[method-assign]
            self._named(one, new) if isinstance(one, LARGE) and one is not value else None
        )
        pickler.dump(value)
        return out.getvalue()

    def _named(self, one: object, new: list[tuple[int, bytes]]) -> int:
        known = self._numbers.get(id(one))
        if known is None:
            part = self._dumped(one, new)  # what it refers to is known before it
            known = self._numbers[id(one)] = (self._next, one)
            new.append((self._next, part))
            self._next += 1
        self._used[id(one)] = self._message
        return known[0]


class ObjectReader:
    """The receiver's side."""

    def __init__(self) -> None:
        self._objects: dict[int, object] = {}
        self._used: dict[int, int] = {}
        self._message = 0

    def read(self, data: bytes) -> Any:
        """What was written. Trusts its sender, as every pickle does."""
        self._message += 1
        new, body = pickle.loads(data)
        for number, part in new:
            self._objects[number] = self._loaded(part)
            self._used[number] = self._message
        message = self._loaded(body)
        for number in [number for number, used in self._used.items() if self._message - used > KEPT_FOR]:
            del self._objects[number], self._used[number]
        return message

    def _loaded(self, data: bytes) -> Any:
        unpickler = pickle.Unpickler(io.BytesIO(data))
        unpickler.persistent_load = self._object  # type: ignore[method-assign]
        return unpickler.load()

    def _object(self, number: int) -> object:
        self._used[number] = self._message
        return self._objects[number]
