"""What the review of a session makes of its results in HL7 and FHIR."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, NamedTuple

from streamer.journal import StoredSession

ReviewState = Literal["unsigned", "in review", "signed", "amended"]


@dataclass(frozen=True, slots=True)
class Review:
    """How far people have looked at a session."""

    state: ReviewState = "unsigned"
    every_cell_confirmed: bool = False
    """Whether a person confirmed or named every cell, which is what the codes of a manual count claim."""


class StatusCodes(NamedTuple):
    hl7: Literal["P", "F", "C"]
    """OBX-11 and OBR-25, tables 0085 and 0123."""
    fhir: Literal["preliminary", "final", "corrected"]
    """Of DiagnosticReport and Observation alike."""


_CODES = MappingProxyType(
    {
        "unsigned": StatusCodes("P", "preliminary"),
        "in review": StatusCodes("P", "preliminary"),
        "signed": StatusCodes("F", "final"),
        "amended": StatusCodes("C", "corrected"),
    }
)


def status_codes(state: ReviewState) -> StatusCodes:
    """A result is final only when a person has signed it, whatever the verdict says."""
    return _CODES[state]


def review_of(stored: StoredSession) -> Review:
    """Nothing can be signed yet; what a person has named is in review."""
    return Review("in review" if stored.reclassifications() else "unsigned")
