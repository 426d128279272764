"""What a question in Python may be asked about: tensors, arrays, lists, frames of any numeric type."""

from __future__ import annotations

import warnings
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from netspec.data.tables.reading import Frame
from netspec.data.tables.table import Layout
from netspec.errors import DataError

Shape = tuple[int, ...]


class Named(list[Tensor]):
    """Tensors in an order, each with a name: `found[0]` or `found["sum1"]`."""

    def __init__(self, names: list[str], tensors: list[Tensor]):
        super().__init__(tensors)
        self.names = names

    def __getitem__(self, which: Any) -> Any:
        if isinstance(which, str):
            if which not in self.names:
                raise KeyError(f"{which!r}: there are {', '.join(self.names)}")
            which = self.names.index(which)
        return super().__getitem__(which)

    def __repr__(self) -> str:
        shapes = ", ".join(
            f"{name} {tuple(tensor.shape)}" for name, tensor in zip(self.names, self, strict=True)
        )
        return f"<{shapes}>"


def is_frame(x: Any) -> bool:
    """Whether x is a frame of named columns (pandas' DataFrame), told without importing pandas."""
    return hasattr(x, "columns") and hasattr(x, "iloc")


def as_blob(x: Any, shape: Shape, layout: Layout | None = None) -> Tensor:
    """x as a tensor (N, *shape). A single image, rows of the right number of values, and images without a channel axis
    get the axes that they lack.

    A frame is read by its columns' names, in the units of the table. DataError says what is expected, for other shapes
    and for values that are no numbers.
    """
    if is_frame(x):
        return from_frame(x, shape, layout)
    if isinstance(x, np.ma.MaskedArray):  # what is masked is missing
        x = np.ma.filled(x.astype(np.float64), np.nan)
    if not isinstance(x, Tensor):
        try:
            array = np.asarray(x)
            if array.dtype.kind not in "biuf":
                array = np.asarray(x, dtype=None if array.dtype.kind == "c" else np.float64)
        except (ValueError, TypeError) as error:
            raise DataError(
                f"takes x of shape (N, {spelt(shape)}) of numbers; found {type(x).__name__} ({error})"
            ) from None
        if array.dtype.kind == "c":
            raise DataError(f"takes x of shape (N, {spelt(shape)}) of real numbers, found {array.dtype}")
        x = torch.from_numpy(
            np.ascontiguousarray(array, np.float64 if array.dtype.kind == "f" else np.float32)
        )
    blob: Tensor = x
    if blob.is_complex():
        raise DataError(f"takes x of shape (N, {spelt(shape)}) of real numbers, found {blob.dtype}")
    if tuple(blob.shape[1:]) == shape and blob.dim() == len(shape) + 1:
        return blob
    fits = {
        blob.dim() == len(shape) and tuple(blob.shape) == shape,
        blob.dim() == 2 and blob.shape[1] == prod(shape),
        blob.dim() == 1 and blob.numel() == prod(shape),
        blob.dim() == 3 and shape[0] == 1 and tuple(blob.shape[1:]) == shape[1:],
    }
    if True in fits:
        return blob.reshape(-1, *shape)
    raise DataError(f"takes x of shape (N, {spelt(shape)}), found {tuple(blob.shape)}")


def spelt(shape: Shape) -> str:
    return ", ".join(map(str, shape))


def warned(text: str) -> None:
    """Warn of what is read otherwise than it was meant, such as a category not seen in training."""
    warnings.warn(text, stacklevel=2)


def from_frame(frame: Any, shape: Shape, layout: Layout | None) -> Tensor:
    """The rows of a frame in the order and the units of the layout; unchanged without a layout."""
    if layout is None:
        return as_blob(frame.to_numpy(), shape)
    rows = Frame(frame, "the frame")
    places = layout.fit(rows.names, "the frame")
    parts = [layout.encode(piece, places, warned)[0] for piece in rows.pieces()]
    values = np.concatenate(parts) if parts else np.empty((0, layout.width), np.float32)
    return torch.from_numpy(values).reshape(-1, *shape)
