"""Whole-slide images as a source: `wsi:FILE[,mpp=0.25,overlap=0.2]`.

options: what stands behind the prefix. slide_image: what a slide is to the rest, an image of several sizes. opening:
which library reads which file; openslide, tiff, dicom and ome_zarr: one each. tissue: where there is something stained.
plan: at which size it is read, and which tiles. source: all of it as frames that know their place.
"""

from streamer.sources.whole_slide.source import WholeSlideSource

__all__ = ["WholeSlideSource"]
