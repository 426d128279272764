"""BlobProto, the array of Caffe's files: read in place from an encoded message, and written.

Declared sizes allocate nothing: values are read from the bytes of the file, and only on demand. A file of a gigabyte
costs its own size and a list of places.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netspec.errors import SnapshotError
from netspec.schema.encoded import BYTES, FIXED32, FIXED64, VARINT, Span, spans, varint

Array = NDArray[Any]

MOST_AXES = 32
"""Caffe's kMaxBlobAxes."""
_LEGACY, _DATA, _SHAPE, _DOUBLE = (1, 2, 3, 4), 5, 7, 8
# NVIDIA's fork: the type of the values, and the values as they lie in memory.
_RAW_TYPE, _RAW = 10, 12
_RAW_TYPES = {0: "<f8", 1: "<f4", 2: "<f2"}


@dataclass(frozen=True)
class StoredBlob:
    """An array inside a file. `legacy` says that its sizes are the old num, channels, height and width."""

    shape: tuple[int, ...]
    legacy: bool
    dtype: np.dtype[Any]
    name: str
    """What errors call it, the file included."""
    buffer: bytes
    start: int
    length: int
    """Where in `buffer` the values lie, in bytes."""

    def check(self) -> None:
        """SnapshotError when sizes and values disagree."""
        held, needed = self.length / self.dtype.itemsize, prod(self.shape)
        if held != needed:
            raise SnapshotError(f"{self.name}: shape {self.shape} needs {needed} values, {held:g} are there")

    def array(self) -> Array:
        """The values in their shape, not to be written to; SnapshotError when sizes and values disagree."""
        self.check()
        values = np.frombuffer(self.buffer, self.dtype, prod(self.shape), self.start)
        return values.reshape(self.shape)

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether Caffe accepts this blob for `shape`: old 4-D sizes count from the last axis."""
        if self.legacy:
            return len(shape) <= 4 and self.shape == (1,) * (4 - len(shape)) + tuple(shape)
        return self.shape == tuple(shape)


def read_blob(data: bytes, start: int, end: int, name: str) -> StoredBlob:
    """The blob whose encoded message is data[start:end]; IndexError where that is cut short."""
    legacy: dict[int, int] = {}
    dims: list[int] = []
    singles: list[Span] = []
    doubles: list[Span] = []
    raw: list[Span] = []
    raw_type = 1
    for span in spans(data, start, end):
        if span.number in _LEGACY and span.wire == VARINT:
            legacy[span.number] = _signed(varint(data, span.start, span.end)[0])
        elif span.number == _SHAPE and span.wire == BYTES:
            dims += _dims(data, span, name)
        elif span.number == _DATA and span.wire in (BYTES, FIXED32):
            singles.append(span)
        elif span.number == _DOUBLE and span.wire in (BYTES, FIXED64):
            doubles.append(span)
        elif span.number == _RAW and span.wire == BYTES:
            raw = [span]
        elif span.number == _RAW_TYPE and span.wire == VARINT:
            raw_type = varint(data, span.start, span.end)[0]
    shape = tuple(legacy.get(number, 0) for number in _LEGACY) if legacy else tuple(dims)
    if min(shape, default=1) < 0 or len(shape) > MOST_AXES:
        raise SnapshotError(f"{name}: has impossible sizes {shape[:MOST_AXES]}")
    parts, kind = (doubles, "<f8") if doubles else (singles, "<f4")
    if raw:
        if raw_type not in _RAW_TYPES:
            raise SnapshotError(f"{name}: holds values of unknown type {raw_type}")
        parts, kind = raw, _RAW_TYPES[raw_type]
    at = parts[0].start if parts else 0
    if len(parts) > 1:  # values that were not packed, each a field of its own
        data, at = b"".join(data[span.start : span.end] for span in parts), 0
    length = sum(span.end - span.start for span in parts)
    return StoredBlob(shape, bool(legacy), np.dtype(kind), name, data, at, length)


def value_spans(data: bytes, start: int, end: int) -> list[Span]:
    """The fields that hold values or gradients of the blob in data[start:end]."""
    numbers = (_DATA, _DATA + 1, _DOUBLE, _DOUBLE + 1, _RAW, _RAW + 1)
    return [span for span in spans(data, start, end) if span.number in numbers]


def encode_blob(array: Array) -> bytes:
    """A BlobProto's bytes as Caffe writes them: float64 as double_data, all else as float data."""
    double = array.dtype == np.float64
    values = np.ascontiguousarray(array, "<f8" if double else "<f4").tobytes()
    dims = b"".join(encode_varint(size) for size in array.shape)
    shape = field(_SHAPE, field(1, dims) if array.ndim else b"")
    return shape + field(_DOUBLE, values) if double else field(_DATA, values) + shape


def field(number: int, content: bytes) -> bytes:
    """A length-delimited field."""
    return encode_varint(number << 3 | BYTES) + encode_varint(len(content)) + content


def number_field(number: int, value: int) -> bytes:
    """A varint field; a negative int32 takes ten bytes."""
    return encode_varint(number << 3 | VARINT) + encode_varint(value % 2**64)


def encode_varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _dims(data: bytes, span: Span, name: str) -> list[int]:
    """The sizes of a BlobShape."""
    sizes: list[int] = []
    for inner in spans(data, span.start, span.end):
        if inner.number != 1:
            continue
        at = inner.start
        while inner.wire in (VARINT, BYTES) and at < inner.end:
            size, at = varint(data, at, inner.end)
            sizes.append(_signed(size))
            if len(sizes) > MOST_AXES:
                raise SnapshotError(f"{name}: has more than {MOST_AXES} axes")
    return sizes


def _signed(value: int) -> int:
    """A varint as the int64 that it stands for."""
    value &= 2**64 - 1
    return value - 2**64 if value >= 2**63 else value


Table = dict[int, "Table"]
"""The fields of a message that lead to blobs: number -> table of the inner message; {} for a blob itself."""


def rewrite(data: bytes, table: Table, change: Callable[[bytes], bytes]) -> bytes:
    """The message with `change` applied to every blob that `table` leads to; all other bytes stay."""
    parts: list[bytes] = []
    kept = 0
    for span in spans(data, 0, len(data)):
        below = table.get(span.number) if span.wire == BYTES else None
        if below is None:
            continue
        content = data[span.start : span.end]
        parts += (
            data[kept : span.tag],
            field(span.number, rewrite(content, below, change) if below else change(content)),
        )
        kept = span.end
    return b"".join((*parts, data[kept:]))


def without_values(blob: bytes) -> bytes:
    """A blob's message without values and gradients: its sizes, in whichever form."""
    kept, at = [], 0
    for span in value_spans(blob, 0, len(blob)):
        kept.append(blob[at : span.tag])
        at = span.end
    return b"".join((*kept, blob[at:]))


def with_values(blob: bytes, array: Array) -> bytes:
    """A blob's message from `without_values`, and values: fields in ascending order, as Caffe writes them."""
    number, dtype = {8: (_DOUBLE, "<f8"), 2: (_RAW, "<f2")}.get(array.dtype.itemsize, (_DATA, "<f4"))
    values = field(number, np.ascontiguousarray(array, dtype).tobytes())
    place = next((span.tag for span in spans(blob, 0, len(blob)) if span.number > number), len(blob))
    return blob[:place] + values + blob[place:]
