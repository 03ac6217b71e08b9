"""Tables of a model card, read strictly: what nobody asked for is an error that names the near key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engines.base import CardError, near

_REQUIRED: Any = object()


class Table:
    """One table of a card, whose keys are taken one by one; `done` complains of those that nobody took."""

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self._values = values
        self._known: list[str] = []
        self.where = where

    def __contains__(self, key: str) -> bool:
        self._known.append(key)
        return key in self._values

    def _take(self, key: str, kinds: tuple[type, ...], expected: str, default: Any = _REQUIRED) -> Any:
        self._known.append(key)
        value = self._values.get(key, default)
        if value is _REQUIRED:
            raise CardError(f"{self.where}: {key}: got nothing, expected {expected}{self._misspelt(key)}")
        if value is not default and (not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)):
            raise CardError(f"{self.where}: {key}: got {value!r}, expected {expected}")
        return value

    def text(self, key: str, default: Any = _REQUIRED) -> str:
        return str(self._take(key, (str,), "a text", default))

    def texts(self, key: str) -> tuple[str, ...]:
        values = self._take(key, (list,), "a list of texts", [])
        if not all(isinstance(value, str) for value in values):
            raise CardError(f"{self.where}: {key}: got {values}, expected a list of texts")
        return tuple(values)

    def choice(self, key: str, allowed: Sequence[Any], default: Any = _REQUIRED) -> Any:
        expected = " or ".join(repr(value) for value in allowed)
        value = self._take(key, (str,), expected, default)
        if value not in allowed:
            raise CardError(f"{self.where}: {key}: got {value!r}, expected {expected}{near(value, allowed)}")
        return value

    def number(self, key: str, default: Any = _REQUIRED, *, low: float, high: float = float("inf")) -> float:
        value = float(self._take(key, (int, float), "a number", default))
        if not low <= value <= high:
            raise CardError(f"{self.where}: {key}: got {value}, expected {low} to {high}")
        return value

    def whole(self, key: str, default: Any = _REQUIRED, *, low: int, high: int = 1 << 16) -> int:
        value = int(self._take(key, (int,), "a whole number", default))
        if not low <= value <= high:
            raise CardError(f"{self.where}: {key}: got {value}, expected {low} to {high}")
        return value

    def numbers(self, key: str, count: int) -> list[float] | None:
        values = self._take(key, (list,), f"{count} numbers", None)
        if values is None:
            return None
        if len(values) != count or not all(isinstance(value, int | float) for value in values):
            raise CardError(f"{self.where}: {key}: got {values}, expected {count} numbers")
        return [float(value) for value in values]

    def density(self, key: str) -> tuple[float, float, float]:
        """Of blue, green and red."""
        values = self.numbers(key, 3)
        if values is None:
            raise CardError(f"{self.where}: {key}: got nothing, expected 3 numbers{self._misspelt(key)}")
        return values[0], values[1], values[2]

    def table(self, key: str) -> Table:
        return Table(self._take(key, (dict,), f"a table [{key}]", {}), f"{self.where}: [{key}]")

    def free(self, key: str) -> Mapping[str, Any]:
        values: Mapping[str, Any] = self._take(key, (dict,), f"a table [{key}]", {})
        return values

    def holds_table(self, key: str) -> bool:
        """Whether [key] is there, which may be where [[key]] should be."""
        return isinstance(self._values.get(key), dict)

    def rest(self) -> dict[str, Any]:
        """What nobody took, for tables with keys of their own choice."""
        return {key: value for key, value in self._values.items() if key not in self._known}

    def entries(self, key: str, *, required: bool = False) -> list[Table]:
        rows = self._take(key, (list,), f"[[{key}]] tables", _REQUIRED if required else [])
        if not all(isinstance(row, dict) for row in rows) or (required and not rows):
            raise CardError(f"{self.where}: {key}: got {rows!r}, expected [[{key}]] tables")
        return [Table(row, f"{self.where}: [[{key}]] {index + 1}") for index, row in enumerate(rows)]

    def _misspelt(self, key: str) -> str:
        return near(key, [other for other in self._values if other not in self._known])

    def done(self) -> None:
        for key in self.rest():
            raise CardError(f"{self.where}: got the unknown key {key!r}{near(key, self._known)}")
