"""Images that a question is about: those of the model's own data layer, or pictures of one's own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from netspec.data.files.idx import Array
from netspec.data.pictures import open_pictures
from netspec.data.source import Stream
from netspec.errors import DataError
from netspec.layers.base import registry
from netspec.model.model import VALUES, Model
from netspec.schema.spec import TEST, LayerSpec

RANGE = re.compile(r"(?:(\d*):)?(\d+)")
PART = re.compile(r"(.+?):(\d*):(\d+)")
UNKNOWN = -1
"""The label of an image whose class is not known."""


@dataclass
class Given:
    """Images (N, C, H, W) with values as the model's data layer has them before its transform; NaN where missing."""

    pixels: Array
    labels: list[int]
    names: list[str]
    """A file's name, or a number."""
    first: int = 0
    """Number of the first image, where the images come from the model's own data."""
    notes: list[str] = field(default_factory=list)

    @property
    def holes(self) -> Array | None:
        """True where a pixel is observed (N, C, H, W); None where all are."""
        gone = np.isnan(self.pixels) if self.pixels.dtype.kind == "f" else None
        return None if gone is None or not gone.any() else ~gone


def given(trained: Model, images: Sequence[str], default: str = "0:6") -> Given:
    """The images that the user named: A:B of the model's own TEST data, pictures, a folder, or a file of arrays
    (FILE:A:B takes a part of it).

    DataError where there are none, or they do not fit the net.
    """
    texts = list(images) or [default]
    if len(texts) == 1 and (match := RANGE.fullmatch(texts[0])) and not Path(texts[0]).exists():
        return own(trained, *bounds(texts[0], match[1], match[2]))
    begin, end = 0, None
    if len(texts) == 1 and not Path(texts[0]).exists() and (match := PART.fullmatch(texts[0])):
        begin, end = bounds(texts[0], match[2], match[3])
        texts = [match[1]]
    return from_files(trained, texts, begin, end)


def bounds(text: str, begin: str | None, end: str) -> tuple[int, int]:
    """A:B as numbers; an empty A is 0. DataError where no image is left."""
    first, last = int(begin or 0), int(end)
    if first >= last:
        raise DataError(f"{text!r}: no range A:B with 0 <= A < B")
    return first, last


def from_files(trained: Model, texts: Sequence[str], begin: int, end: int | None) -> Given:
    """Pictures of one's own in the size that the net reads."""
    if trained.data.type == "Table":
        raise DataError(f"{trained.name}: reads a table; ask it about --table FILE.csv")
    c, h, w = trained.image_shape
    if c not in (1, 3):
        raise DataError(f"{trained.name}: reads blobs ({c}, {h}, {w}), which are no pictures")
    pictures = open_pictures(texts, size=(h, w), color=c == 3, classes=trained.class_names)
    count = len(pictures)
    if begin >= count:
        raise DataError(f"{texts[0]}: has no pictures {begin} to {end}; it holds {count}")
    chosen = range(begin, min(end, count) if end is not None else count)
    pixels = pictures.block(chosen)
    if trained.data.type in VALUES and (most := own_maximum(trained)) is not None and most <= 1:
        pixels = pixels.astype(np.float32) / 255  # the net's own data are grey levels over 255
    labels = [
        UNKNOWN if label != label else int(label) for label in pictures.labels[begin : chosen.stop].tolist()
    ]
    return Given(pixels, labels, [pictures.names[i] for i in chosen], begin, pictures.notes)


def own_maximum(trained: Model) -> float | None:
    """The largest value among the first images of the net's own data; None where that data cannot be read."""
    try:
        return float(np.nanmax(own(trained, 0, 1).pixels))
    except DataError:
        return None


def own(trained: Model, begin: int, end: int | None) -> Given:
    """Images begin to end of the data that the net is tested on; DataError where it has no such images."""
    if trained.data.type == "Dataset":
        pixels, numbers = trained.images(begin=begin, end=end)
        return Given(pixels, numbers.tolist(), [str(begin + i) for i in range(len(pixels))], begin)
    unshuffled = copied(trained.data)
    layer: Any = registry[trained.data.type](unshuffled, TEST)
    if not hasattr(layer, "source"):
        raise DataError(
            f"{trained.data.at()}: {trained.data} has no data of its own; give pictures: --images FOLDER"
        )
    source = layer.source(0)
    try:
        if not isinstance(source, Stream):
            raise DataError(f"{trained.data} gives no images by their number; give pictures: --images FOLDER")
        count = source.samples
        if count is not None and begin >= count:
            raise DataError(f"{trained.data}: has no images {begin} to {end}; it holds {count}")
        if count is None and end is None:
            raise DataError(f"{trained.data}: its data have no end; say how many: --images 0:1000")
        stop = min(one for one in (end, count) if one is not None)
        tops = source.make(np.arange(begin, stop))
    finally:
        source.close()
    pixels = trained.to_pixels(torch.as_tensor(tops[0]))
    labels = [UNKNOWN] * len(pixels)
    if len(tops) > 1 and tops[1].numel() == len(pixels):
        labels = [UNKNOWN if label != label else int(label) for label in tops[1].flatten().tolist()]
    rows = getattr(source, "numbers", None)  # of rows of a table, of which the layer has a part
    names = [str(begin + i if rows is None else rows[begin + i]) for i in range(len(pixels))]
    return Given(pixels, labels, names, begin)


def copied(data: LayerSpec) -> LayerSpec:
    """The data layer with its samples in the order in which they lie."""
    message = type(data.message)()
    message.CopyFrom(data.message)
    for name in (
        "hdf5_data_param",
        "image_data_param",
        "dense_image_data_param",
        "table_param",
        "pictures_param",
    ):
        if message.HasField(name):
            getattr(message, name).shuffle = False
    return replace(data, message=message)
