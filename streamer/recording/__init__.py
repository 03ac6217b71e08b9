"""Recordings: the frames of a run and its messages, with their times, in one file.

Why a file of our own and not SQLite, as the journal is. A recording is written once from front to back at the rate of
the camera and may end anywhere: the disk is full, the machine goes down, a copy breaks off. Records that follow one
another, each with its length and checksums, are whole up to that place, whatever it is; an SQLite file cut off in the
middle is malformed, since what its pages point to is gone. Every byte is also written once only, where SQLite's log
would write each frame twice and a frame of megabytes as a chain of pages. What is given up, finding a row without
reading all before it, costs one walk over the record headers on opening.

A frame is kept as got: as the bytes of its file where the source has them, else without loss, as PNG while that costs
little and uncompressed beyond. Or it is kept as JPEG, which is small, and told so when it is played.

format: what stands in the file. writer: how it grows. recorder: the writing thread's body and its bounded queue.
reader: what is whole in a file.
"""

from streamer.recording.format import FrameEncoding, RecordingError
from streamer.recording.reader import Ending, RecordedFrame, RecordedMessage, RecordedTrack, Recording
from streamer.recording.recorder import Recorder, TrackInfo

__all__ = [
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
