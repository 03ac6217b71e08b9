"""How far people are with a slide, in words for whoever reads a report or a terminal."""

from __future__ import annotations

from dataclasses import dataclass

from streamer.dashboard.words import number
from streamer.journal import Recounted

UNSIGNED = "not reviewed, not signed"

DOES_NOT_HOLD = "signature does not hold"


@dataclass(frozen=True, slots=True)
class ShownReview:
    state: str
    """In a few words of ours, without names: "signed", "in review, not signed"."""
    tone: str
    """"good", "caution" or "bad", as for verdicts."""
    line: str
    """The same with who and when, for people; empty where nobody has said anything."""
    signatures: tuple[tuple[str, str], ...]
    """What there is to say of each, oldest first: a title and a line."""


def review_of(result: Recounted) -> ShownReview:
    found, signatures = result.count.review, result.corrections.signatures
    reviewed, whole = result.count.reviewed()
    cells = f"{number(reviewed)} of {number(whole)} cells named or confirmed by a person"
    by = f"by {found.by}, {found.at}"
    rows = tuple(
        (
            f"{'Signed' if not index else 'Amended and signed'} by {one.by}",
            f"{one.at}, SHA-256 {one.sha256}"
            + (f"; despite the verdict: {one.despite}" if one.despite is not None else "")
            + (f". DOES NOT HOLD: {one.fault}" if one.fault is not None else ""),
        )
        for index, one in enumerate(signatures)
    )
    signature = result.signature
    if signature is not None and signature.fault is not None:
        return ShownReview(DOES_NOT_HOLD, "bad", f"signed {by}, but {signature.fault}", rows)
    if signature is not None:
        state = "amended and signed" if len(signatures) > 1 else "signed"
        return ShownReview(state, "good", f"{state} {by}, SHA-256 {signature.sha256}; {cells}", rows)
    if found.state == "unsigned":
        return ShownReview(UNSIGNED, "caution", "", rows)
    state = "in review, not signed"
    amended = "; the result signed before is being amended" if signatures else ""
    return ShownReview(state, "caution", f"{state}; last {by}; {cells}{amended}", rows)
