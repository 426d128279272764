"""Sources that read a text file of pictures: ImageData, and SegNet's DenseImageData with a label picture
each.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from netspec.data.draws import derive, integers
from netspec.data.files.idx import Array
from netspec.data.files.images import decode, nearest, resize
from netspec.data.resizing import Resizing
from netspec.data.source import Order, Stream, failure, mistake
from netspec.data.sources.database import stacked
from netspec.data.transform import Transformer, near
from netspec.schema.spec import LayerSpec


def all_lines(spec: LayerSpec, field: str, source: str) -> list[str]:
    """The lines of a list file, empty ones too; DataError where there is none."""
    if not source:
        raise mistake(spec, "needs a source", field)
    path = near(spec, source)
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError as error:
        raise failure(spec, f"{path}: {error.strerror or error}", field, "source") from error


def list_words(spec: LayerSpec, field: str, source: str) -> list[tuple[str, list[str]]]:
    """The words of each line of a list file that has any, behind its place as `<file>:<line>`; DataError where there
    are none.
    """
    path = near(spec, source)
    lines = enumerate(all_lines(spec, field, source), 1)
    entries = [(f"{path}:{number}", words) for number, line in lines if (words := line.split())]
    if not entries:
        raise failure(spec, f"{path}: the list is empty", field, "source")
    return entries


def integer(text: str) -> int | None:
    """The integer of 32 bits that a word of a list is, as Caffe's labels are; None where it is none."""
    value = int(text) if re.fullmatch("[+-]?[0-9]{1,10}", text) else None
    return value if value is not None and -(2**31) <= value < 2**31 else None


def read_list(spec: LayerSpec, field: str, source: str) -> list[tuple[str, str]]:
    """Lines `<path> <second>` of a list file, cut at the last space; DataError names a line that is not."""
    lines = all_lines(spec, field, source)
    path = near(spec, source)
    pairs = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        first, space, second = line.rstrip().rpartition(" ")
        if not space or not first:
            raise failure(
                spec, f"{path}:{number}: expected a path and a value, found {line!r}", field, "source"
            )
        pairs.append((first.strip(), second))
    if not pairs:
        raise failure(spec, f"{path}: the list is empty", field, "source")
    return pairs


class ListStream(Stream):
    """What the sources of picture lists share: the order of lines, the size of pictures, reading them."""

    def __init__(self, spec: LayerSpec, field: str, phase: str, seed: int, *, resizes: bool = False):
        p = getattr(spec.message, field)
        super().__init__(int(p.batch_size))
        self.spec, self.field, self.seed = spec, field, seed
        if not p.batch_size:
            raise mistake(spec, "needs batch_size > 0", field)
        if bool(p.new_height) != bool(p.new_width):
            raise mistake(spec, "new_height and new_width must both be set, or none", field)
        self.size = (int(p.new_height), int(p.new_width))
        self.color = bool(p.is_color)
        self.transform = Transformer(spec, phase, seed, resizes=resizes)
        self.transform.check_means(
            3 if self.color else 1
        )  # before the pictures, which need not be here for it
        self.pairs = self.read(p.source)
        self.samples = len(self.pairs)
        self.order = Order(self.samples, p.shuffle, seed)
        self.skip = 0
        if p.rand_skip:
            self.skip = int(integers(derive(seed, "skip"), np.zeros(1, np.int64), 1, int(p.rand_skip))[0, 0])
            if self.skip >= len(self.pairs):
                raise failure(spec, f"skips {self.skip} of {len(self.pairs)} lines", field, "rand_skip")

    def read(self, source: str) -> list[tuple[str, str]]:
        """Both words of each line."""
        return read_list(self.spec, self.field, source)

    def lines(self, positions: Array) -> Array:
        """Which line stands at each position of the stream."""
        return self.order(positions + self.skip)

    def path(self, folder: str, name: str) -> Path:
        """`folder` is put before the name letter by letter, as Caffe does."""
        return near(self.spec, folder + name)


class ImageListSource(ListStream):
    """data, label from lines `<picture> <integer>`."""

    parallel = True

    def __init__(self, spec: LayerSpec, phase: str, seed: int):
        super().__init__(spec, "image_data_param", phase, seed, resizes=True)
        self.cache: dict[int, Array] | None = {} if spec.message.image_data_param.cache_images else None
        self.labels = np.array([self.label(i, text) for i, (_, text) in enumerate(self.pairs)], np.float32)
        self.resizing = Resizing(spec, seed)
        c, h, w = self.picture(int(self.lines(np.zeros(1, np.int64))[0])).shape
        shape = self.transform.shape(self.resizing.shape((c, h, w)))
        self.shapes = [(self.batch_size, *shape), (self.batch_size,)][: len(spec.tops)]

    def held(self, top: int) -> Array | None:
        return self.labels if top == 1 else None

    def label(self, i: int, text: str) -> int:
        if (value := integer(text)) is None:
            name = self.spec.message.image_data_param.source
            reason = f"{name}: entry {i + 1}: label {text!r} is not an integer"
            raise failure(self.spec, reason, self.field, "source")
        return value

    def picture(self, i: int) -> Array:
        """Line i's picture, (C, H, W) in the order B, G, R, resized if the layer says so."""
        if self.cache is not None and i in self.cache:
            return self.cache[i]
        path = self.path(self.spec.message.image_data_param.root_folder, self.pairs[i][0])
        image = decode(path, self.color, str(self.spec.problem(str(path), self.field, "source")))
        if all(self.size):
            image = resize(image, *self.size)
        if self.cache is not None:
            self.cache[i] = image
        return image

    def make(self, positions: Array) -> tuple[Tensor, ...]:
        return self.finish(self.take(positions))

    def take(self, positions: Array) -> tuple[Array, Array]:
        """The positions and their lines."""
        return positions, self.lines(positions)

    def finish(self, taken: tuple[Array, Array]) -> tuple[Tensor, ...]:
        positions, lines = taken
        keys = positions.tolist()
        images = [self.resizing(self.picture(int(i)), key) for i, key in zip(lines, keys, strict=True)]
        data = stacked(self.transform, images, positions, True)
        if data.shape != self.shapes[0]:
            raise failure(
                self.spec,
                f"{self.pairs[int(lines[0])][0]}: gives a batch {data.shape}, "
                f"the first picture gave {self.shapes[0]}; set new_height and new_width",
                self.field,
                "source",
            )
        return (torch.from_numpy(data), torch.from_numpy(self.labels[lines]))[: len(self.shapes)]


class DenseListSource(ListStream):
    """data, label from lines `<picture> <label picture>`: crop and mirror alike, label values as they are.

    Label pictures are resized by nearest neighbour. The layer's own crop (crop_height, crop_width: random
    place in both phases) and mirror, and those of transform_param, act on both pictures.
    """

    def __init__(self, spec: LayerSpec, phase: str, seed: int):
        super().__init__(spec, "dense_image_data_param", phase, seed)
        p = spec.message.dense_image_data_param
        self.crop = (int(p.crop_height), int(p.crop_width))
        self.divide = max(int(p.label_divide_factor), 1)
        if self.divide > 1 and (any(self.crop + self.transform.crop)):
            raise mistake(
                spec, "a crop does not go with label_divide_factor", self.field, "label_divide_factor"
            )
        data, labels = self.pair(0, int(self.lines(np.zeros(1, np.int64))[0]))
        self.shapes = [(self.batch_size, *data.shape), (self.batch_size, *labels.shape)][: len(spec.tops)]

    def pair(self, position: int, line: int) -> tuple[Array, Array]:
        p = self.spec.message.dense_image_data_param
        names = self.pairs[line]
        paths = [
            self.path(folder or p.root_folder, name)
            for folder, name in zip((p.root_folder_image, p.root_folder_label), names, strict=True)
        ]
        image, label = (
            decode(path, color, str(self.spec.problem(str(path), self.field, "source")))
            for path, color in zip(paths, (self.color, False), strict=True)
        )
        if all(self.size):
            image = resize(image, *self.size)
            label = nearest(label, self.size[0] // self.divide, self.size[1] // self.divide)
        height, width = image.shape[1:]
        if label.shape[1:] != (height // self.divide, width // self.divide):
            raise failure(
                self.spec,
                f"{paths[1]}: {label.shape[1:]} labels for a picture of {(height, width)}",
                self.field,
                "source",
            )
        key = np.array([position])
        if p.mirror and integers(derive(self.seed, "dense mirror"), key, 1, 2)[0, 0]:
            image, label = image[:, :, ::-1], label[:, :, ::-1]
        if all(self.crop):
            image, label = self.cropped(image, label, key)
        data = self.transform(image[None], key, True)[0]
        return data, self.transform.place(label[None], key)[0].astype(np.float32)

    def cropped(self, image: Array, label: Array, key: Array) -> tuple[Array, Array]:
        room = [size - crop for size, crop in zip(image.shape[1:], self.crop, strict=True)]
        if min(room) < 0:
            raise mistake(
                self.spec, f"the crop {self.crop} exceeds the picture's {image.shape[1:]}", self.field
            )
        y, x = integers(derive(self.seed, "dense crop"), key, 2, np.array(room) + 1)[0]
        window = (slice(None), slice(y, y + self.crop[0]), slice(x, x + self.crop[1]))
        return image[window], label[window]

    def make(self, positions: Array) -> tuple[Tensor, ...]:
        pairs = [
            self.pair(int(p), int(line)) for p, line in zip(positions, self.lines(positions), strict=True)
        ]
        tops = []
        for i, shape in enumerate(self.shapes):
            if {pair[i].shape for pair in pairs} != {shape[1:]}:
                raise failure(
                    self.spec, f"pictures differ in size from the first, {shape[2:]}", self.field, "source"
                )
            tops.append(torch.from_numpy(np.stack([pair[i] for pair in pairs])))
        return tuple(tops)
