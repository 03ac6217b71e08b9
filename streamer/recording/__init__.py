"""Recordings: the frames of a run and its messages, with their times, in one file.

Why a file format of our own, and not SQLite as for the journal. A recording is written once from front to back at the
rate of the camera, and may end anywhere: the disk is full, the machine goes down, a copy breaks off. Consecutive
records with their own lengths and checksums are whole up to that point. An SQLite file cut off in the middle is
malformed, since its pages point to what is gone. Every byte is also written only once, while SQLite's log would write
each frame twice, and a frame of megabytes as a chain of pages. The price is that opening a recording walks over all
record headers.

A frame is stored as got: the bytes of its file if the source has them, else without loss, as PNG while that is cheap
and uncompressed beyond. Or it is stored as JPEG, which is small, and is reported when it is played.

format: the layout of the file. writer: appending to it. recorder: the writing thread's body and its bounded queue.
reader: all that is whole in a file.
"""

from streamer.recording.format import MAGIC, FrameEncoding, RecordingError
from streamer.recording.reader import Ending, RecordedFrame, RecordedMessage, RecordedTrack, Recording
from streamer.recording.recorder import Recorder, TrackInfo

__all__ = [
    "MAGIC",
    "Ending",
    "FrameEncoding",
    "RecordedFrame",
    "RecordedMessage",
    "RecordedTrack",
    "Recorder",
    "Recording",
    "RecordingError",
    "TrackInfo",
]
