"""What the review of a session makes of its results in HL7 and FHIR."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, NamedTuple

from streamer.journal import Recounted
from streamer.records import ReviewState


@dataclass(frozen=True, slots=True)
class Review:
    """How far people have looked at a session."""

    state: ReviewState = "unsigned"
    every_cell_confirmed: bool = False
    """Whether a person confirmed or named every cell seen whole, which is what the codes of a manual count claim."""
    fault: str | None = None
    """Why the signature does not hold, one line: then the result is none that was signed. None: it holds, or there is
    none."""


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


def review_of(result: Recounted) -> Review:
    """Of a session, counted again. One whose signature does not hold is in review, whatever its journal says."""
    reviewed, whole = result.count.reviewed()
    signature, found = result.signature, result.count.review
    state: ReviewState = "unsigned" if found.at is None else "in review"
    if signature is not None and signature.fault is None:
        state = "amended" if len(result.corrections.signatures) > 1 else "signed"
    return Review(state, 0 < whole == reviewed, None if signature is None else signature.fault)
