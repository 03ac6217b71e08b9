"""The dashboard: a pure `render` of messages, a live display in the terminal, and plain lines without a terminal."""

from streamer.dashboard.canvas import Screenful
from streamer.dashboard.display import Display
from streamer.dashboard.keyboard import Answer, Commands
from streamer.dashboard.layout import render
from streamer.dashboard.live import Dashboard
from streamer.dashboard.plain import PlainReporter, format_differential, shows_anything
from streamer.dashboard.state import DashboardState, SourceView
from streamer.dashboard.terminal import is_usable

__all__ = [
    "Answer",
    "Commands",
    "Dashboard",
    "DashboardState",
    "Display",
    "PlainReporter",
    "Screenful",
    "SourceView",
    "format_differential",
    "is_usable",
    "render",
    "shows_anything",
]
