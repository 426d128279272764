"""Sources of pictures with pictures of labels: DeepLab's ImageSegData and HED's ImageLabelmapData."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from netspec.data.files.idx import Array
from netspec.data.files.images import decode, resize
from netspec.data.source import failure, mistake
from netspec.data.sources.lists import ListStream, integer, list_words
from netspec.schema.spec import LayerSpec

NONE, IMAGE, PIXEL = range(3)
"""ImageDataParameter.LabelType."""


class LabelPictureStream(ListStream):
    """What both share: lines of names, tops of one size, crop and mirror alike for picture and labels."""

    def __init__(self, spec: LayerSpec, phase: str, seed: int):
        super().__init__(spec, "image_data_param", phase, seed)
        self.param = spec.message.image_data_param
        first = self.example(0, int(self.lines(np.zeros(1, np.int64))[0]))
        self.shapes = [(self.batch_size, *top.shape) for top in first][: len(spec.tops)]

    def example(self, position: int, line: int) -> tuple[Array, ...]:
        """The tops of one line, at a position of the stream."""
        raise NotImplementedError

    def decoded(self, path: Path, color: bool) -> Array:
        image = decode(path, color, str(self.spec.problem(str(path), self.field, "source")))
        return resize(image, *self.size) if all(self.size) else image

    def alike(self, image: Array, label: Array, path: Path) -> None:
        """DataError where the picture of labels is of another size than the picture."""
        if image.shape[1:] != label.shape[1:]:
            text = f"{path}: {label.shape[1:]} labels for a picture of {image.shape[1:]}"
            raise failure(self.spec, text, self.field, "source")

    def make(self, positions: Array) -> tuple[Tensor, ...]:
        examples = [
            self.example(int(p), int(line)) for p, line in zip(positions, self.lines(positions), strict=True)
        ]
        tops = []
        for i, shape in enumerate(self.shapes):
            if {example[i].shape for example in examples} != {shape[1:]}:
                text = f"pictures differ in size from the first, {shape[2:]}; set crop_size or a new size"
                raise failure(self.spec, text, self.field, "source")
            tops.append(torch.from_numpy(np.stack([example[i] for example in examples])))
        return tuple(tops)


class SegListSource(LabelPictureStream):
    """data, label, data_dim from lines `<picture> <label picture>` (`<picture> <integer>`, `<picture>`).

    Where a crop is larger than the picture, the mean is put below it and to its right, and `ignore_label`
    around the labels. Resized labels are interpolated, as DeepLab does.
    """

    def __init__(self, spec: LayerSpec, phase: str, seed: int):
        if spec.message.transform_param.mean_file:
            raise mistake(spec, "takes mean_value, no mean_file", "transform_param", "mean_file")
        super().__init__(spec, phase, seed)

    def read(self, source: str) -> list[tuple[str, str]]:
        lines = list_words(self.spec, self.field, source)
        p = self.spec.message.image_data_param
        self.kind = int(p.label_type)
        if not p.HasField("label_type"):  # the field came with DeepLab's second version
            seconds = [words[1] if len(words) > 1 else "" for _, words in lines]
            numbers = all(integer(second) is not None for second in seconds)
            self.kind = NONE if not any(seconds) else IMAGE if numbers else PIXEL
        if self.kind == NONE:
            return [(words[0], "") for _, words in lines]
        for place, words in lines:
            if len(words) < 2 or (self.kind == IMAGE and integer(words[1]) is None):
                wanted = "an integer" if self.kind == IMAGE else "a label picture"
                text = f"{place}: expected a picture and {wanted}, found {' '.join(words)!r}"
                raise failure(self.spec, text, self.field, "source")
        return [(words[0], words[1]) for _, words in lines]

    def example(self, position: int, line: int) -> tuple[Array, ...]:
        name, second = self.pairs[line]
        image = self.decoded(self.path(self.param.root_folder, name), self.color).astype(np.float32)
        label = np.full((1, *image.shape[1:]), self.param.ignore_label, np.float32)
        if self.kind == IMAGE:
            label[:] = int(second)
        elif self.kind == PIXEL:
            path = self.path(self.param.root_folder, second)
            label = self.decoded(path, False).astype(np.float32)
            self.alike(image, label, path)
        size = image.shape[1:]
        image, label = self.padded(image, label)
        key = np.array([position])
        data = self.transform(image[None], key, True)[0]
        label = self.transform.place(label[None], key)[0]
        dim = np.array([[[min(a, b) for a, b in zip(size, data.shape[1:], strict=True)]]], np.float32)
        return data, label, dim

    def padded(self, image: Array, label: Array) -> tuple[Array, Array]:
        """Both at least as large as the crop."""
        height, width = (
            max(crop, side) for crop, side in zip(self.transform.crop, image.shape[1:], strict=True)
        )
        if (height, width) == image.shape[1:]:
            return image, label
        self.transform.shape((len(image), height, width))  # says what does not fit the channels
        mean = self.transform.values if len(self.transform.values) else np.zeros(1, np.float32)
        try:
            large = np.empty((len(image), height, width), np.float32)
            labels = np.full((1, height, width), self.param.ignore_label, np.float32)
        except (MemoryError, ValueError):  # more than there is, or than can be counted
            self.transform.fail(f"no room for a crop of {height}x{width}", "crop_size")
        large[:] = mean[:, None, None]
        for whole, part in ((large, image), (labels, label)):
            whole[:, : part.shape[1], : part.shape[2]] = part
        return large, labels


class LabelmapSource(LabelPictureStream):
    """data, label from lines `<picture> <label picture>`: label = 1 where the label picture is above 127."""

    def read(self, source: str) -> list[tuple[str, str]]:
        pairs = []
        for place, words in list_words(self.spec, self.field, source):
            if len(words) != 2:
                text = f"{place}: expected two pictures, found {' '.join(words)!r}"
                raise failure(self.spec, text, self.field, "source")
            pairs.append((words[0], words[1]))
        return pairs

    def example(self, position: int, line: int) -> tuple[Array, ...]:
        paths = [self.path(self.param.root_folder, name) for name in self.pairs[line]]
        image, label = self.decoded(paths[0], self.color), self.decoded(paths[1], False)
        self.alike(image, label, paths[1])
        key = np.array([position])
        data = self.transform(image[None], key, True)[0]
        return data, (self.transform.place(label[None], key)[0] > 127).astype(np.float32)
