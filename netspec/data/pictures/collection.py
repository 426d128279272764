"""Pictures: images with labels from any kind of source, read on demand and kept while there is room."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from netspec.data.files.idx import Array
from netspec.data.files.images import resize
from netspec.errors import DataError

KEPT = 1 << 29
"""Bytes of decoded pictures that are kept in memory."""


@dataclass
class Pictures:
    """Images (C, H, W) with values 0 to 255, colour in the order B, G, R; float32 with NaN where a pixel is missing."""

    where: str
    """Their source, for errors."""
    names: Sequence[str]
    """A name per picture: its file, or its number."""
    read: Callable[[int], Array]
    """Reads picture i in its own size and channels."""
    labels: Array
    """(N,) float32, NaN where there is none."""
    class_names: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)
    size: tuple[int, int] | None = None
    """Height and width to which all are resized; by default those of the first picture."""
    color: bool | None = None
    """Whether they have three channels; by default as the first picture."""
    kept: dict[int, Array] = field(default_factory=dict, repr=False)
    room: int = KEPT

    def __len__(self) -> int:
        return len(self.names)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image; read from the first where it was not given."""
        if self.size is None or self.color is None:
            first = self.read(0)
            self.size = self.size or (int(first.shape[1]), int(first.shape[2]))
            self.color = len(first) == 3 if self.color is None else self.color
        return (3 if self.color else 1, *self.size)

    def image(self, i: int) -> Array:
        """Picture i in the shape of all."""
        if i in self.kept:
            return self.kept[i]
        shape = self.shape
        image = self.read(i)
        if len(image) not in (1, 3):
            raise DataError(f"{self.where}: {self.names[i]} has {len(image)} channels; pictures have 1 or 3")
        if len(image) != shape[0]:
            image = np.repeat(image, 3, 0) if shape[0] == 3 else gray(image)
        if image.shape[1:] != shape[1:]:
            self.say(f"{self.where}: pictures differ in size; all are resized to {shape[1]}x{shape[2]}")
            image = resize(image, *shape[1:])
        if image.nbytes <= self.room:
            self.room -= image.nbytes
            self.kept[i] = image
        return image

    def block(self, chosen: Sequence[int] | Array) -> Array:
        """The chosen pictures (N, C, H, W), uint8 where all of them are."""
        return np.stack([self.image(int(i)) for i in chosen])

    def say(self, note: str) -> None:
        """Keep a note, once."""
        if note not in self.notes:
            self.notes.append(note)


def gray(image: Array) -> Array:
    """(1, H, W) of an image in the order B, G, R (ITU-R 601)."""
    weights = np.array([0.114, 0.587, 0.299], np.float32)
    plane: Array = np.tensordot(weights, image.astype(np.float32), 1)[None]
    return np.rint(plane).astype(np.uint8) if image.dtype == np.uint8 else plane
