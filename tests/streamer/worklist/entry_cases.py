"""Slides as a journal gives them, without one."""

from __future__ import annotations

from streamer.worklist.entries import ListedFlag, ListedSending, SlideEntry
from streamer.worklist.reading import JournalPath, JournalReading, this_host


def flag(code="range", class_="neutrophil", direction="high", text="neutrophil 80 %"):
    return ListedFlag(code=code, class_=class_, direction=direction, text=text)


def sending(number=0, status="F", stored_utc="2026-11-30T10:00:00Z", receiver="mllp://lis:2575"):
    return ListedSending(
        receiver=receiver,
        control_id=f"M{number}",
        kind="oul",
        status=status,
        stored_utc=stored_utc,
        answered_utc=stored_utc,
    )


def entry(session="one", **fields):
    return SlideEntry(
        **{
            "session": session,
            "source": "slide",
            "slide": None,
            "accession": None,
            "operator": None,
            "instrument": None,
            "begun_utc": "2026-11-30T08:00:00.000000Z",
            "ended": True,
            "ended_utc": "2026-11-30T08:10:00Z",
            "total": 100,
            "verdict": "ready for review",
            "verdict_reason": None,
            "review": "unsigned",
            "reviewed_by": None,
            "reviewed_utc": None,
            "signature_fault": None,
            "progress": 10,
            **fields,
        }
    )


def signed(session="one", **fields):
    return entry(session, **{"review": "signed", "reviewed_by": "AB", "reviewed_utc": "2026-11-30T09:00:00Z", **fields})


def reading(path, *entries, fingerprint="f", host=None, remark=None):
    return JournalReading(JournalPath(host or this_host(), str(path)), entries, fingerprint, remark)
