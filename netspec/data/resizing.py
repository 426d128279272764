"""Pictures brought to a size before they are cropped: fixed, or drawn for each (fields of SSD's and Intel's Caffe)."""

from __future__ import annotations

from math import sqrt
from typing import Any, NoReturn

import numpy as np

from netspec.data.draws import derive
from netspec.data.files.idx import Array
from netspec.data.files.images import MOST_PIXELS, resize
from netspec.data.source import mistake
from netspec.schema.spec import LayerSpec

FIELDS = ("random_resize_param", "random_aspect_ratio_param", "resize_param")
"""Of transform_param, in the order in which one that is there keeps the others from being used."""
Generator = np.random.Generator


class Resizing:
    """What `transform_param` of a layer says of sizes; `on` where it says something.

    Pictures (C, H, W) uint8 or float32, resized bilinearly: an interp_mode without LINEAR is refused. The draws of a
    picture depend on the seed and its key only. Raises SpecError at the field that cannot be used. Source: Intel's
    data_transformer.cpp (RandomResizeImage, RandomAlterAspectRatio), SSD's im_transforms.cpp (ApplyResize).
    """

    def __init__(self, spec: LayerSpec, seed: int):
        self.spec, self.seed = spec, derive(seed, "resizing")
        self.param: Any = spec.message.transform_param
        self.kind = next((name for name in FIELDS if self.has(name)), "")
        self.on = bool(self.kind)
        self.crop = int(self.param.crop_size)
        if self.on:
            self.check()

    def has(self, name: str) -> bool:
        value = getattr(self.param, name)
        return len(value) > 0 if name == "resize_param" else self.param.HasField(name)

    def fail(self, message: str, *path: str | int) -> NoReturn:
        raise mistake(self.spec, message, "transform_param", *path)

    def check(self) -> None:
        choices = self.param.resize_param if self.kind == "resize_param" else [getattr(self.param, self.kind)]
        if self.kind == "resize_param":
            if len(choices) > 1:
                self.fail("several resize_params are built for AnnotatedData", "resize_param", 1)
            self.check_fixed(choices[0])
            own = choices[0]
        else:
            if not self.crop:
                self.fail(f"{self.kind} gives pictures of several sizes; it needs crop_size", self.kind)
            if self.param.mean_file:
                self.fail(f"a mean file does not go with {self.kind}; give mean_value", "mean_file")
            own = choices[0].resize_param
        if own.interp_mode and own.LINEAR not in own.interp_mode:
            path = ("resize_param", 0) if self.kind == "resize_param" else (self.kind, "resize_param")
            self.fail("interp_mode: pictures are resized bilinearly (LINEAR)", *path, "interp_mode", 0)
        if (
            self.kind == "random_resize_param"
            and choices[0].max_size
            and choices[0].min_size > choices[0].max_size
        ):
            self.fail(
                f"min_size {choices[0].min_size} is above max_size {choices[0].max_size}",
                self.kind,
                "min_size",
            )
        if self.kind == "random_aspect_ratio_param":
            self.check_aspect(choices[0])

    def check_fixed(self, own: Any) -> None:
        if own.resize_mode == own.FIT_SMALL_SIZE:
            text = "resize_mode FIT_SMALL_SIZE gives pictures of several sizes; use WARP or FIT_LARGE_SIZE_AND_PAD"
            self.fail(text, "resize_param", 0, "resize_mode")
        if not own.height or not own.width:
            self.fail("resize_param needs height and width", "resize_param", 0)
        if own.height * own.width > MOST_PIXELS:
            self.fail(f"{own.height}x{own.width} pixels are too many", "resize_param", 0)

    def check_aspect(self, own: Any) -> None:
        if not 0 < own.min_area_ratio <= own.max_area_ratio <= 1:
            text = f"area ratios must satisfy 0 < min <= max <= 1, found {own.min_area_ratio:g}, {own.max_area_ratio:g}"
            self.fail(text, self.kind, "min_area_ratio")
        if not 0 < own.aspect_ratio_change < float("inf"):
            text = f"aspect_ratio_change must be positive, found {own.aspect_ratio_change:g}"
            self.fail(text, self.kind, "aspect_ratio_change")

    def shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """(C, H, W) of what a picture of that shape becomes; the crop's size where the size is drawn."""
        if not self.on:
            return shape
        if self.kind == "resize_param":
            return shape[0], int(self.param.resize_param[0].height), int(self.param.resize_param[0].width)
        return shape[0], self.crop, self.crop

    def __call__(self, image: Array, key: int) -> Array:
        """The picture in its new size."""
        if not self.on:
            return image
        if self.kind == "resize_param":
            return self.fixed(image, self.param.resize_param[0])
        generator = np.random.Generator(np.random.PCG64(derive(self.seed, int(key))))
        if self.kind == "random_resize_param":
            own, sides = self.param.random_resize_param, image.shape[1:]
            low, high = own.min_size or min(sides), own.max_size or max(sides)
            size = low if high <= low else int(generator.integers(low, high + 1))
            if size < self.crop:
                self.fail(f"a shorter side of {size} is below crop_size {self.crop}", self.kind, "min_size")
            return self.by_shorter(image, size)
        return self.part(image, generator)

    def fixed(self, image: Array, own: Any) -> Array:
        from netspec.data.sources.augment import padded

        if own.resize_mode == own.FIT_LARGE_SIZE_AND_PAD:
            return padded(image, np.zeros((0, 4)), own)[0]
        return resize(image, int(own.height), int(own.width))

    def by_shorter(self, image: Array, size: int) -> Array:
        """Resized so that its shorter side is `size`, its aspect kept."""
        height, width = image.shape[1:]
        new = (size, int(width / height * size)) if height < width else (int(height / width * size), size)
        if new[0] * new[1] > MOST_PIXELS:
            self.fail(f"a picture of {height}x{width} becomes {new[0]}x{new[1]}; too large", self.kind)
        return resize(image, *new)

    def part(self, image: Array, generator: Generator) -> Array:
        """A part of random area, aspect and place, in the crop's size; the whole picture where none fits."""
        own, (height, width) = self.param.random_aspect_ratio_param, image.shape[1:]
        for _ in range(min(int(own.max_attempt), 1000)):
            side = sqrt(generator.uniform(own.min_area_ratio, own.max_area_ratio) * height * width)
            change = generator.uniform(*sorted((own.aspect_ratio_change, 1 / own.aspect_ratio_change)))
            tall, wide = int(side * change), int(side / change)
            if generator.random() < 0.5:
                tall, wide = wide, tall
            if 0 < tall <= height and 0 < wide <= width:
                y, x = (int(generator.integers(room + 1)) for room in (height - tall, width - wide))
                return resize(image[:, y : y + tall, x : x + wide], self.crop, self.crop)
        return self.by_shorter(image, self.crop)
