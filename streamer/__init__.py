"""Everything that happens in time, from the camera to the published differential."""

__version__ = "0.1.0"

RESEARCH_USE = "Research use only: not a medical device."
