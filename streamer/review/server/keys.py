"""One key a class. Fixed for the classes that leukostream's own models have, so that hands may learn them; others get
one that is left."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from streamer.records import UNCLASSIFIED

KEYS: Mapping[str, str] = {
    "neutrophil": "n",
    "segmented neutrophil": "s",
    "band neutrophil": "b",
    "metamyelocyte": "4",
    "myelocyte": "3",
    "promyelocyte": "2",
    "blast": "1",
    "immature granulocyte": "i",
    "lymphocyte": "l",
    "variant lymphocyte": "v",
    "plasma cell": "w",
    "monocyte": "m",
    "promonocyte": "o",
    "eosinophil": "e",
    "basophil": "a",
    "erythroblast": "r",
    "platelet": "p",
    "giant platelet": "g",
    "smudge cell": "k",
    "artefact": "x",
    UNCLASSIFIED: "0",
}
"""Letters of the name where that is free; the left shift by maturity, from blast to metamyelocyte; 0 for none."""

RESERVED = "cfhuz"
"""What the page does by these: comment, field, undo."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Something that a cell may be called."""

    key: str
    """Empty where none is left."""
    class_name: str
    subclass: str | None

    @property
    def name(self) -> str:
        return self.subclass or self.class_name


def choices(classes: Sequence[str], subclasses: Mapping[str, Sequence[str]]) -> list[Choice]:
    """All that a cell may be called, each subclass behind its class."""
    pairs = [(name, subclass) for name in classes for subclass in (None, *subclasses.get(name, ()))]
    names = [subclass or name for name, subclass in pairs]
    taken = {KEYS[name] for name in names if name in KEYS} | set(RESERVED)
    keys: list[str] = []
    for name in names:
        key = KEYS.get(name)
        if key is None or key in keys:
            wanted = [letter for letter in name.lower() if letter in string.ascii_lowercase]
            key = next((one for one in [*wanted, *string.digits, *string.ascii_lowercase] if one not in taken), "")
            taken.add(key)
        keys.append(key)
    return [Choice(key, name, subclass) for key, (name, subclass) in zip(keys, pairs, strict=True)]
