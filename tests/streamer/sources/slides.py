"""Small whole-slide images in every format, made by the tests themselves from one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]

TILE = 256
UID = "1.2.826.0.1.3680043.8.498."
"""pydicom's root for identifiers."""


def halved(picture: Picture, times: int) -> Picture:
    """(H, W, 3), by means of 2 x 2 pixels."""
    for _ in range(times):
        height, width = picture.shape[0] // 2 * 2, picture.shape[1] // 2 * 2
        parts = picture[:height, :width].astype(np.uint16)
        parts = parts[::2, ::2] + parts[1::2, ::2] + parts[::2, 1::2] + parts[1::2, 1::2]
        picture = ((parts + 2) // 4).astype(np.uint8)
    return picture


def levels_of(rgb: Picture, levels: int) -> list[Picture]:
    """The full size, a quarter of its sides, a quarter of those, and so on."""
    return [halved(rgb, 2 * number) for number in range(levels)]


def write_aperio(path: Path, rgb: Picture, um_per_px: float | None, levels: int = 2) -> None:
    """As a scanner of Aperio writes it, which OpenSlide recognises by its description."""
    import tifffile

    with tifffile.TiffWriter(path) as file:
        for number, level in enumerate(levels_of(rgb, levels)):
            size = f"{level.shape[1]}x{level.shape[0]}"
            scale = "" if um_per_px is None else f"|MPP = {um_per_px}"
            file.write(
                level,
                tile=(TILE, TILE),
                photometric="rgb",
                compression="adobe_deflate",
                description=f"Aperio Image Library v12.0.15\n{size} [0,0 {size}] (256x256)|AppMag = 40{scale}",
                subfiletype=1 if number else 0,
                metadata=None,
                software=False,
            )


def write_ome_tiff(path: Path, rgb: Picture, um_per_px: float | None, levels: int = 2) -> None:
    """With its smaller sizes as SubIFDs."""
    import tifffile

    first, *smaller = levels_of(rgb, levels)
    scale = {} if um_per_px is None else {"PhysicalSizeX": um_per_px, "PhysicalSizeY": um_per_px}
    with tifffile.TiffWriter(path, ome=True) as file:
        options: dict[str, Any] = {"tile": (TILE, TILE), "photometric": "rgb", "compression": "adobe_deflate"}
        file.write(first, subifds=len(smaller), metadata={"axes": "YXS", **scale}, **options)
        for level in smaller:
            file.write(level, subfiletype=1, **options)


def write_tiff(path: Path, rgb: Picture, um_per_px: float | None, levels: int = 2, **options: Any) -> None:
    """Plain, the smaller sizes as reduced pages, with its scale as resolution."""
    import tifffile

    with tifffile.TiffWriter(path) as file:
        for number, level in enumerate(levels_of(rgb, levels)):
            per_cm = None if um_per_px is None else 10_000 / um_per_px / 4**number
            usual = {"tile": (TILE, TILE), "compression": "adobe_deflate"}
            scale = {} if per_cm is None else {"resolution": (per_cm, per_cm), "resolutionunit": "CENTIMETER"}
            kind = 1 if number else 0
            file.write(level, photometric="rgb", subfiletype=kind, metadata=None, **(usual | scale | options))


def write_ome_zarr(path: Path, rgb: Picture, um_per_px: float | None, levels: int = 2, *, version: str = "0.5") -> None:
    """Axes c, y, x, as bioformats2raw writes them."""
    import zarr

    group = zarr.open_group(path, mode="w", zarr_format=3 if version == "0.5" else 2)
    datasets = []
    for number, level in enumerate(levels_of(rgb, levels)):
        data = np.ascontiguousarray(level.transpose(2, 0, 1))
        array = group.create_array(str(number), shape=data.shape, chunks=(3, TILE, TILE), dtype="uint8")
        array[:] = data
        scale = (um_per_px or 1.0) * 4**number
        transformations = [{"type": "scale", "scale": [1.0, scale, scale]}]
        datasets.append({"path": str(number), "coordinateTransformations": transformations})
    unit = {} if um_per_px is None else {"unit": "micrometer"}
    axes = [{"name": "c", "type": "channel"}, *({"name": name, "type": "space", **unit} for name in "yx")]
    image = {"version": version, "axes": axes, "datasets": datasets}
    group.attrs.update(
        {"ome": {"version": version, "multiscales": [image]}} if version == "0.5" else {"multiscales": [image]}
    )


def write_dicom(folder: Path, rgb: Picture, um_per_px: float | None, levels: int = 2) -> None:
    """A folder of one file a level, uncompressed, its tiles in full order."""
    assert um_per_px is not None, "DICOM always states its scale"
    folder.mkdir()
    for number, level in enumerate(levels_of(rgb, levels)):
        _write_instance(folder / f"level{number}.dcm", level, um_per_px * 4**number / 1000, number)


def _write_instance(path: Path, rgb: Picture, mm_per_px: float, number: int) -> None:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, VLWholeSlideMicroscopyImageStorage

    height, width = rgb.shape[:2]
    rows, columns = -(-height // TILE), -(-width // TILE)
    padded = np.full((rows * TILE, columns * TILE, 3), 255, np.uint8)
    padded[:height, :width] = rgb
    frames = padded.reshape(rows, TILE, columns, TILE, 3).swapaxes(1, 2)

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = VLWholeSlideMicroscopyImageStorage
    meta.MediaStorageSOPInstanceUID = f"{UID}9{number}"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = Dataset()
    data.file_meta = meta
    data.SOPClassUID, data.SOPInstanceUID = VLWholeSlideMicroscopyImageStorage, meta.MediaStorageSOPInstanceUID
    data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = f"{UID}1", f"{UID}2", f"{UID}3"
    data.Modality, data.PatientID, data.PatientName, data.ContainerIdentifier = "SM", "1", "Test", "1"
    data.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "RESAMPLED" if number else "NONE"]
    data.ContentDate, data.ContentTime, data.AcquisitionDateTime = "20260101", "120000", "20260101120000"
    data.InstanceNumber, data.SeriesNumber = number + 1, 1
    data.DimensionOrganizationType = "TILED_FULL"
    organization = Dataset()
    organization.DimensionOrganizationUID = f"{UID}4"
    data.DimensionOrganizationSequence = [organization]
    data.TotalPixelMatrixColumns, data.TotalPixelMatrixRows, data.TotalPixelMatrixFocalPlanes = width, height, 1
    data.ImagedVolumeWidth, data.ImagedVolumeHeight = width * mm_per_px, height * mm_per_px
    data.ImagedVolumeDepth = 0.001
    data.Columns = data.Rows = TILE
    data.NumberOfFrames = rows * columns
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PlanarConfiguration = 3, "RGB", 0
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelRepresentation = 7, 0
    data.BurnedInAnnotation, data.LossyImageCompression, data.FocusMethod = "NO", "00", "AUTO"
    data.ExtendedDepthOfField, data.SpecimenLabelInImage = "NO", "NO"
    measures = Dataset()
    measures.PixelSpacing, measures.SliceThickness = [mm_per_px, mm_per_px], 0.001
    shared = Dataset()
    shared.PixelMeasuresSequence = [measures]
    shared.OpticalPathIdentificationSequence = [_optical_path()]
    data.SharedFunctionalGroupsSequence = [shared]
    data.NumberOfOpticalPaths = 1
    data.OpticalPathSequence = [_optical_path()]
    origin = Dataset()
    origin.XOffsetInSlideCoordinateSystem = origin.YOffsetInSlideCoordinateSystem = 0.0
    data.TotalPixelMatrixOriginSequence = [origin]
    data.ImageOrientationSlide = [0.0, -1.0, 0.0, -1.0, 0.0, 0.0]
    data.PixelData = frames.tobytes()
    data.save_as(path, enforce_file_format=True)


def _optical_path() -> Any:
    from pydicom.dataset import Dataset

    path = Dataset()
    path.OpticalPathIdentifier = "1"
    return path


WRITERS: Sequence[tuple[str, Any]] = (
    ("slide.svs", write_aperio),
    ("slide.ome.tif", write_ome_tiff),
    ("slide.tif", write_tiff),
    ("slide.dicom", write_dicom),
    ("slide.ome.zarr", write_ome_zarr),
)
"""Name of the file or folder, and what writes it."""
