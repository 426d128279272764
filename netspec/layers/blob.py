"""Blob: values and gradients as numpy arrays, with the attributes that pycaffe's blobs have."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

Array = NDArray[Any]


class Blob:
    """`data` and `diff` of one shape; `reshape(*dims)` changes both, `num` to `width` name the first four
    axes.

    Both arrays are views that may be written: `blob.data[...] = x`. A blob made without a shape is empty, as
    a top is before its layer has given it one.
    """

    def __init__(self, *dims: int, dtype: DTypeLike = np.float32):
        self._data: Array = np.zeros(dims or (0,), dtype)
        self._diff: Array | None = None

    @classmethod
    def over(cls, data: Array, diff: Array | None = None) -> Blob:
        """A blob over these arrays themselves, not copies; ValueError when their shapes differ."""
        if diff is not None and diff.shape != data.shape:
            raise ValueError(f"data has shape {data.shape}, diff {diff.shape}")
        blob = cls()
        blob._data, blob._diff = data, diff
        return blob

    @property
    def data(self) -> Array:
        """The values."""
        return self._data

    @property
    def diff(self) -> Array:
        """The gradient; zeros until someone writes into it."""
        if self._diff is None:
            self._diff = np.zeros_like(self._data)
        return self._diff

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of all axes."""
        return self._data.shape

    @property
    def count(self) -> int:
        """How many values there are."""
        return int(self._data.size)

    @property
    def num(self) -> int:
        """Size of axis 0, 1 where there is none."""
        return self._legacy(0)

    @property
    def channels(self) -> int:
        """Size of axis 1, 1 where there is none."""
        return self._legacy(1)

    @property
    def height(self) -> int:
        """Size of axis 2, 1 where there is none."""
        return self._legacy(2)

    @property
    def width(self) -> int:
        """Size of axis 3, 1 where there is none."""
        return self._legacy(3)

    def _legacy(self, axis: int) -> int:
        if len(self.shape) > 4:
            raise ValueError(
                f"num, channels, height and width are of blobs with at most 4 axes, not {self.shape}"
            )
        return self.shape[axis] if axis < len(self.shape) else 1

    def reshape(self, *dims: int) -> None:
        """Take another shape. Values stay when their number does, else all become 0. ValueError for negative
        sizes.
        """
        if any(size < 0 for size in dims):
            raise ValueError(f"a blob cannot have the shape {dims}")
        if dims == self.shape:
            return
        if prod(dims) == self.count:
            self._data = self._data.reshape(dims)
            self._diff = None if self._diff is None else self._diff.reshape(dims)
        else:
            self._data, self._diff = np.zeros(dims, self._data.dtype), None

    def hold(self, data: Array, diff: Array | None = None) -> None:
        """Become a view of other arrays, with their shape."""
        self._data, self._diff = data, diff

    def __repr__(self) -> str:
        return f"Blob{self.shape}"


class BlobVec(list[Blob]):
    """A layer's learnable blobs: a list that makes its own members."""

    def add_blob(self, *dims: int) -> Blob:
        """Append a blob of this shape, filled with zeros; without sizes, of a single value."""
        self.append(Blob.over(np.zeros(dims, np.float32)))
        return self[-1]
