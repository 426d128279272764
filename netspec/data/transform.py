"""Caffe's data transformer: rectangles, mean, crop, mirror, scale."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from netspec.data.draws import derive, integers
from netspec.data.files.idx import Array
from netspec.data.source import failure, mistake
from netspec.errors import DataError
from netspec.schema.regular import refuse_special
from netspec.schema.spec import TRAIN, LayerSpec


class Transformer:
    """y = mirror(crop(x - mean)) * scale, as data_transformer.cpp of BVLC Caffe (and its fork's rectangles).

    x: (N, C, H, W) uint8 or float32; colour in the order B, G, R where x is a decoded picture. y is float32.
    Crops are random in TRAIN and central in TEST; mirroring (each sample with probability 1/2) is random in
    both. A mean file is subtracted at the pixel's place in the uncropped image; one `mean_value` serves all
    channels. The draws of a sample depend on the seed and the sample's key only. Raises DataError at the
    field that does not fit.
    """

    def __init__(
        self,
        spec: LayerSpec,
        phase: str,
        seed: int,
        field: str = "transform_param",
        *,
        resizes: bool = False,
    ):
        """resizes: the caller gives pictures that it has brought to random sizes where a field says so."""
        self.spec, self.field, self.seed = spec, field, seed
        p = getattr(spec.message, field)
        self.param: Any = p
        self.crop = (int(p.crop_size or p.crop_h), int(p.crop_size or p.crop_w))
        if bool(self.crop[0]) != bool(self.crop[1]):
            self.fail("crop_h and crop_w must both be set, or none")
        self.mirror, self.scale = bool(p.mirror), np.float32(p.scale)
        self.random_crop = phase == TRAIN and any(self.crop)
        self.values = np.array(p.mean_value, np.float32)
        self.mean: Array | None = None
        if p.mean_file:
            if len(self.values):
                self.fail("has both mean_file and mean_value; give one", "mean_value", 0)
            self.mean = read_mean(spec, p.mean_file, field)
        if p.force_color and p.force_gray:
            self.fail("has both force_color and force_gray; give one", "force_gray")
        for name in () if resizes else ("random_resize_param", "random_aspect_ratio_param"):
            if name in p.DESCRIPTOR.fields_by_name and p.HasField(name):
                self.fail(f"{name} is built for the pictures of Data and ImageData", name)

    def fail(self, message: str, *path: str | int) -> NoReturn:
        raise mistake(self.spec, message, self.field, *path)

    def check_means(self, channels: int) -> None:
        """`fail` unless there is one mean value, or one per channel."""
        if len(self.values) not in (0, 1, channels):
            text = f"{len(self.values)} mean_values for {channels} channels"
            self.fail(text, "mean_value", len(self.values) - 1)

    def shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """(C, h, w) of the output for images (C, H, W); checks crop and mean against them."""
        channels, height, width = shape
        if self.crop[0] > height or self.crop[1] > width:
            crop = "x".join(map(str, self.crop))
            self.fail(f"the crop of {crop} exceeds the image's {height}x{width}", "crop_size")
        self.check_means(channels)
        if self.mean is not None and self.mean.shape != (channels, height, width):
            raise failure(
                self.spec,
                f"the mean has shape {self.mean.shape}, the images {shape}",
                self.field,
                "mean_file",
            )
        return (channels, *self.crop) if any(self.crop) else shape

    @property
    def rectangles(self) -> bool:
        return bool(self.param.max_rect_size and self.param.max_rect_num)

    def __call__(self, images: Array, keys: Array, pictures: bool = False) -> Array:
        """The transformed images; `keys` are their numbers in the stream. Rectangles are drawn on `pictures`
        only.
        """
        self.shape(images.shape[1:])
        if pictures and self.rectangles:
            images = self.draw_rectangles(images, keys)
        if self.mean is not None:
            images = images.astype(np.float32) - self.mean
        out = self.place(images, keys).astype(np.float32)
        if len(self.values):
            out -= self.values if len(self.values) == 1 else self.values[:, None, None]
        if self.scale != 1:
            out *= self.scale
        return out

    def place(self, images: Array, keys: Array) -> Array:
        """Crop and mirror only; values are unchanged."""
        if any(self.crop):
            images = self.cropped(images, keys)
        if self.mirror:
            flips = integers(derive(self.seed, "mirror"), keys, 1, 2)[:, 0].astype(bool)
            images = images.copy()
            images[flips] = images[flips, :, :, ::-1]
        return images

    def cropped(self, images: Array, keys: Array) -> Array:
        height, width = self.crop
        room_y, room_x = images.shape[2] - height, images.shape[3] - width
        if not self.random_crop:
            y, x = room_y // 2, room_x // 2
            return images[:, :, y : y + height, x : x + width]
        corners = integers(derive(self.seed, "crop"), keys, 2, np.array([room_y + 1, room_x + 1]))
        out = np.empty((*images.shape[:2], height, width), images.dtype)
        for i, (y, x) in enumerate(corners):
            out[i] = images[i, :, y : y + height, x : x + width]
        return out

    def draw_rectangles(self, images: Array, keys: Array) -> Array:
        """A copy with filled rectangles of random number, place, size and colour (the SimNets fork's
        transformer).
        """
        p = self.param
        images = images.copy()
        count_seed = derive(self.seed, "rectangles")
        channels, height, width = images.shape[1:]
        most = max(int(p.max_rect_num) - int(p.min_rect_num) + 1, 1)
        counts = int(p.min_rect_num) + integers(count_seed, keys, 1, most)[:, 0]
        for i, key in enumerate(keys):
            draws = (
                integers(derive(count_seed, int(key)), np.arange(counts[i]), 4 + channels, 2**31)
                if counts[i]
                else ()
            )
            for draw in draws:
                x1, x2 = span(draw[0], draw[1], width, int(p.min_rect_size), int(p.max_rect_size))
                y1, y2 = span(draw[2], draw[3], height, int(p.min_rect_size), int(p.max_rect_size))
                images[i, :, y1 : y2 + 1, x1 : x2 + 1] = (draw[4:] % 256)[:, None, None]
        return images


def span(first: int, second: int, length: int, least: int, most: int) -> tuple[int, int]:
    """Both ends (inclusive) of a rectangle's side from two large random integers (the fork's transformer)."""
    start = int(first) % max(length - least, 1)
    return start, start + least + int(second) % max(min(length - start - least, most - least + 1), 1)


def read_mean(spec: LayerSpec, name: str, field: str = "transform_param") -> Array:
    """The (C, H, W) float32 image of a binaryproto mean file; DataError when it cannot be used."""
    from netspec.data.files.protos import read_blob

    path = near(spec, name)
    if not os.path.isfile(path):
        raise failure(spec, f"mean_file {name!r}: no such file", field, "mean_file")
    mean = read_blob(path)
    if mean.ndim == 4 and mean.shape[0] == 1:
        mean = mean[0]
    if mean.ndim != 3:
        raise failure(
            spec, f"mean_file {name!r} holds shape {mean.shape}, expected (1, C, H, W)", field, "mean_file"
        )
    return mean.astype(np.float32)


def near(spec: LayerSpec, name: str) -> Path:
    """A path as written in a spec: relative to the working directory as in Caffe, else to the spec's own
    folder. Raises DataError where a device, a pipe or a socket is there.
    """
    if "\0" in name:
        raise failure(spec, f"no file can be called {name[:60]!r}")
    path = Path(os.path.expanduser(name))
    if not (path.is_absolute() or os.path.exists(path) or spec.document is None):
        beside = Path(spec.document.file).parent / path
        path = beside if os.path.exists(beside) else path
    try:
        refuse_special(path)
    except DataError as error:
        raise failure(spec, str(error)) from None
    return path
