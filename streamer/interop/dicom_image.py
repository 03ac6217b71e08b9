"""The picture of a slide as a VL Whole Slide Microscopy Image (PS3.3 A.32.8): one level, all tiles, JPEG.

Islands of the film that overlap nothing of each other lie side by side on it: distances within an island are those of
the slide, from one to another they mean nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import cast

import cv2
import highdicom as hd
import numpy as np
from highdicom.base import SOPClass
from highdicom.sr.coding import CodedConcept
from PIL import ImageCms
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sr.codedict import codes
from pydicom.uid import JPEGBaseline8Bit, VLWholeSlideMicroscopyImageStorage

from engines.geometry import Image
from streamer.interop.dicom_object import MAKER, DicomSlide, finish, text
from streamer.mosaic.compose import JoinedIslands, plural

TILE_PX = 512
QUALITY = 90
PAPER = 255
"""What fills the last tiles of rows and columns."""

_THICKNESS_MM = 0.001
"""A smear is one layer of cells. Its depth is not measured and has to be given; this one is nominal."""


def whole_slide_image(slide: DicomSlide, joined: JoinedIslands) -> Dataset:
    """`joined`: the picture, without marks."""
    tiles = [_jpeg(tile) for tile in _tiles(joined.canvas)]
    height, width = joined.canvas.shape[:2]
    digest = hashlib.sha256(b"".join(tiles) + repr((slide, joined.placed)).encode()).hexdigest()
    image = SOPClass(
        study_instance_uid=slide.uid("study"),
        series_instance_uid=slide.uid("series", "image"),
        series_number=1,
        sop_instance_uid=slide.uid("image", digest),
        sop_class_uid=VLWholeSlideMicroscopyImageStorage,
        instance_number=1,
        modality="SM",
        transfer_syntax_uid=JPEGBaseline8Bit,
        patient_id=str(slide.subject),
        study_id="1",
        study_date=slide.observed.date(),
        study_time=slide.observed.time(),
        specific_character_set="ISO_IR 192",
        series_description=text(f"Picture of the film{'' if slide.production else ', research use only'}"),
        **slide.common,
    )
    image.IssuerOfPatientID = MAKER.upper()
    image.PositionReferenceIndicator = "SLIDE_CORNER"
    image.FrameOfReferenceUID = slide.uid("frame of reference", digest)
    _add_specimen(image, slide)
    _add_picture(image, slide, joined, (width, height))
    _add_optical_path(image)
    _add_frames(image, slide.scale.um_per_px / joined.placed.scale / 1000.0, slide)
    image.NumberOfFrames = len(tiles)
    image.LossyImageCompression = "01"
    image.LossyImageCompressionMethod = "ISO_10918_1"
    image.LossyImageCompressionRatio = round(3.0 * TILE_PX**2 * len(tiles) / sum(map(len, tiles)), 2)
    image.PixelData = encapsulate(tiles)
    image["PixelData"].VR = "OB"
    finish(image)
    return cast(Dataset, image)


def _add_specimen(image: Dataset, slide: DicomSlide) -> None:
    image.ContainerIdentifier = text(slide.name)
    image.IssuerOfTheContainerIdentifierSequence = []
    image.ContainerTypeCodeSequence = [CodedConcept.from_code(codes.SCT.MicroscopeSlide)]
    image.SpecimenDescriptionSequence = slide.specimen()
    image.AcquisitionContextSequence = []


def _add_picture(image: Dataset, slide: DicomSlide, joined: JoinedIslands, size: tuple[int, int]) -> None:
    width, height = size
    mm_per_px = slide.scale.um_per_px / joined.placed.scale / 1000.0
    image.ImageType = ["DERIVED", "PRIMARY", "VOLUME", "RESAMPLED" if joined.placed.scale < 1.0 else "NONE"]
    if comments := " ".join(filter(None, (slide.statement, *_remarks(slide, joined)))):
        image.ImageComments = comments
    image.DerivationDescription = "Frames joined by their places on the film, uneven light taken out"
    image.AcquisitionDateTime = slide.observed
    image.ImagedVolumeWidth, image.ImagedVolumeHeight = width * mm_per_px, height * mm_per_px
    image.ImagedVolumeDepth = 1000.0 * _THICKNESS_MM
    image.TotalPixelMatrixColumns, image.TotalPixelMatrixRows = width, height
    image.TotalPixelMatrixFocalPlanes = 1
    origin = Dataset()
    origin.XOffsetInSlideCoordinateSystem = origin.YOffsetInSlideCoordinateSystem = 0.0
    image.TotalPixelMatrixOriginSequence = [origin]
    image.ImageOrientationSlide = [0.0, 1.0, 0.0, 1.0, 0.0, 0.0]
    image.Rows = image.Columns = TILE_PX
    image.SamplesPerPixel, image.PhotometricInterpretation = 3, "YBR_FULL_422"
    image.PlanarConfiguration = image.PixelRepresentation = 0
    image.BitsAllocated = image.BitsStored = 8
    image.HighBit = 7
    image.BurnedInAnnotation = image.SpecimenLabelInImage = image.ExtendedDepthOfField = "NO"
    image.FocusMethod = "MANUAL"
    image.VolumetricProperties = "VOLUME"


def _remarks(slide: DicomSlide, joined: JoinedIslands) -> Iterator[str]:
    if slide.scale.ruler == "red cells":
        yield "Nobody gave the scale: it is by red cells taken for 7.5 µm."
    if len(joined.islands) > 1:
        yield (
            f"{plural(len(joined.islands), 'part')} of the film lie side by side: distances from one to another mean"
            " nothing."
        )


def _add_optical_path(image: Dataset) -> None:
    path = Dataset()
    path.OpticalPathIdentifier = "1"
    path.IlluminationTypeCodeSequence = [CodedConcept.from_code(codes.DCM.BrightfieldIllumination)]
    path.IlluminationColorCodeSequence = [CodedConcept.from_code(codes.SCT.FullSpectrum)]
    path.ICCProfile, path.ColorSpace = _srgb(), "SRGB"
    image.NumberOfOpticalPaths = 1
    image.OpticalPathSequence = [path]


def _srgb() -> bytes:
    """A profile has to be there; cameras that say nothing of their colours are taken for sRGB. DICOM asks for that of
    an input device (bytes 12 to 15), and the profile's date (24 to 35) would make each object another one."""
    made = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    made[12:16] = b"scnr"
    made[24:36] = bytes((7, 208, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0))
    return bytes(made)


def _add_frames(image: Dataset, mm_per_px: float, slide: DicomSlide) -> None:
    """What the tiles have in common; all are there, from left to right and from top to bottom."""
    organization, frame_type, path = Dataset(), Dataset(), Dataset()
    organization.DimensionOrganizationUID = slide.uid("dimensions")
    image.DimensionOrganizationType = "TILED_FULL"
    image.DimensionOrganizationSequence = [organization]
    frame_type.FrameType = image.ImageType
    path.OpticalPathIdentifier = "1"
    shared = Dataset()
    shared.PixelMeasuresSequence = hd.PixelMeasuresSequence((mm_per_px, mm_per_px), slice_thickness=_THICKNESS_MM)
    shared.WholeSlideMicroscopyImageFrameTypeSequence = [frame_type]
    shared.OpticalPathIdentificationSequence = [path]
    shared.DerivationImageSequence = []  # the frames are no objects that could be named
    image.SharedFunctionalGroupsSequence = [shared]


def _tiles(canvas: Image) -> Iterator[Image]:
    """(TILE_PX, TILE_PX, 3) each, row by row."""
    height, width = canvas.shape[:2]
    for top in range(0, height, TILE_PX):
        for left in range(0, width, TILE_PX):
            part = canvas[top : top + TILE_PX, left : left + TILE_PX]
            tile = np.full((TILE_PX, TILE_PX, 3), PAPER, np.uint8)
            tile[: part.shape[0], : part.shape[1]] = part
            yield tile


def _jpeg(tile: Image) -> bytes:
    """Of BGR, in YCbCr 4:2:2."""
    how = [cv2.IMWRITE_JPEG_QUALITY, QUALITY, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422]
    return cv2.imencode(".jpg", tile, how)[1].tobytes()
