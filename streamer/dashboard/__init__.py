"""The dashboard in the terminal: a pure `render` of what messages say, a live display, and plain lines where there is
no terminal."""

from streamer.dashboard.canvas import Screenful
from streamer.dashboard.display import Display
from streamer.dashboard.layout import render
from streamer.dashboard.live import Dashboard
from streamer.dashboard.plain import PlainReporter, format_differential
from streamer.dashboard.state import DashboardState, SourceView
from streamer.dashboard.terminal import is_usable

__all__ = [
    "Dashboard",
    "DashboardState",
    "Display",
    "PlainReporter",
    "Screenful",
    "SourceView",
    "format_differential",
    "is_usable",
    "render",
]
