"""Everything that happens in time, from the camera to the published differential.

For programs: `open`, `count`, `classify` and their results (streamer/api, docs/python.md). They are imported when first
used, so that the parts of this package stay small on their own.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engines.base import LeukostreamError as LeukostreamError
    from streamer.api import CountedFrame as CountedFrame
    from streamer.api import Feed as Feed
    from streamer.api import NamedCell as NamedCell
    from streamer.api import SlideResult as SlideResult
    from streamer.api import classify as classify
    from streamer.api import count as count
    from streamer.api import open as open

__version__ = "0.1.0"

RESEARCH_USE = "Research use only: not a medical device."

_FOR_PROGRAMS = {
    **dict.fromkeys(("CountedFrame", "Feed", "NamedCell", "SlideResult", "classify", "count", "open"), "streamer.api"),
    "LeukostreamError": "engines.base",
}


def __getattr__(name: str) -> Any:
    if name not in _FOR_PROGRAMS:
        raise AttributeError(f"module 'streamer' has no attribute {name!r}")
    return getattr(import_module(_FOR_PROGRAMS[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_FOR_PROGRAMS})
