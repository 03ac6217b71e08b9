"""A simulated slide under a simulated microscope: `sim:seed=7,cells=200,fps=30,pattern=raster`.

parameters: the options. smear: which cells lie where. shapes, painting, tiles: their appearance. stage_motion: where
the stage is, stage_readings: where it says that it is. optics: lamp, lens, sensor. slide: all of it together, with its
ground truth. source: the slide as a source of frames. training: labelled fields of any scale and stain.
"""

from streamer.sources.simulated.parameters import SlideParameterError, SlideParameters
from streamer.sources.simulated.slide import VirtualSlide
from streamer.sources.simulated.smear import SlideCell
from streamer.sources.simulated.source import SimulatedSource
from streamer.sources.simulated.training import training_fields
from streamer.sources.simulated.truth import FrameTruth, VisibleCell

__all__ = [
    "FrameTruth",
    "SimulatedSource",
    "SlideCell",
    "SlideParameterError",
    "SlideParameters",
    "VirtualSlide",
    "VisibleCell",
    "training_fields",
]
