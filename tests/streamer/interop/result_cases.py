"""Results as a laboratory is told of them, without a journal."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

from streamer.interop.loinc import loinc_of
from streamer.interop.result import CELLS, PERCENT, Observation, SlideResult
from streamer.interop.status import Review

EVIL = 'a|b^c~d&e\\f\\F\\ "q" é\r\nMSH|x'
"""A name with all that ER7 takes for its own."""


def percent(name, count, of, **fields):
    value = 100 * count / of if of else None
    limits = {"low": 0.0, "high": 99.0, "limits_method": "clopper-pearson"} if of else {}
    plain = {"text": name.capitalize(), "loinc": loinc_of(name, manual=False), "unit": PERCENT, "size_corrected": 12.34}
    return Observation(name=name, value=value, count=count, of=of, **{**plain, **limits, **fields})


def result(number=0, state="unsigned", **fields):
    return SlideResult(
        **{
            "slide": f"slide {number}",
            "subject": uuid.uuid5(uuid.NAMESPACE_OID, str(number)),
            "observed": datetime(2026, 1, 2, 3, 4, 5, 678901, UTC),
            "review": Review(state),
            "production": False,
            "program": "leukostream 0.1.0",
            "method": "leukostream 0.1.0: detector + classifier",
            "observations": (
                percent("neutrophil", 120, 200, interpretation="H"),
                percent("blast", 1, 200, interpretation="A"),
                Observation(name="edge", text="Cut by an edge", unit=CELLS, value=1_234_567),
            ),
            "notes": ("Research use only: not a medical device.", "verdict on slide: ready for review"),
            **fields,
        }
    )
