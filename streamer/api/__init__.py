"""leukostream from Python: `streamer.open`, `streamer.count`, `streamer.classify` (docs/python.md).

They run what the commands `run` and `classify` run. Colours are blue, green, red, as `cv2.imread` gives them.
"""

from streamer.analysis.named_cell import NamedCell
from streamer.api.feed import CountedFrame, Feed, count, open
from streamer.api.naming import classify
from streamer.api.slide import SlideResult

__all__ = ["CountedFrame", "Feed", "NamedCell", "SlideResult", "classify", "count", "open"]
