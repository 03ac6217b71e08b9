"""Everything that happens in time, from the camera to the published differential."""

__version__ = "0.1.0"
