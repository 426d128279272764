"""Datum and BlobProto, read with their sizes checked before anything is allocated."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError

from netspec import schema
from netspec.data.files.idx import MOST_BYTES, Array
from netspec.data.files.images import decode
from netspec.errors import DataError
from netspec.schema.regular import refuse_special


def read_blob(path: Path) -> Array:
    """The array of a BlobProto file (binaryproto); DataError when it is not one, or its shape and values
    disagree.
    """
    refuse_special(path)
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise DataError(f"{path}: {size} bytes; too large for a blob")
        blob = schema.BlobProto.FromString(path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except (OSError, DecodeError) as error:
        raise DataError(f"{path}: not a BlobProto ({error})") from error
    values = blob.double_data if len(blob.double_data) else blob.data
    dims = (
        tuple(blob.shape.dim)
        if blob.HasField("shape")
        else (blob.num, blob.channels, blob.height, blob.width)
    )
    if min(dims, default=1) < 0 or prod(dims) != len(values):
        raise DataError(f"{path}: shape {dims} does not fit its {len(values)} values")
    return np.array(values, np.float64 if len(blob.double_data) else np.float32).reshape(dims)


def write_blob(path: Path, array: Array) -> None:
    """Write a mean image as Caffe's tool does: a BlobProto (1, C, H, W) in the legacy fields."""
    array = array[None] if array.ndim == 3 else array
    n, c, h, w = array.shape
    blob = schema.BlobProto(num=n, channels=c, height=h, width=w)
    blob.data.extend(array.astype(np.float32).ravel().tolist())
    path.write_bytes(blob.SerializeToString())


@dataclass(frozen=True)
class Record:
    """A decoded Datum: (C, H, W) uint8 or float32, its label, and whether it was an encoded picture."""

    image: Array
    label: int
    picture: bool


def read_datum(data: bytes, name: str, color: bool | None = None) -> Record:
    """A Datum's image and label; `color` forces an encoded picture to three channels or one. DataError with
    `name`.
    """
    try:
        datum = schema.Datum.FromString(data)
    except DecodeError as error:
        raise DataError(f"{name}: not a Datum ({error})") from error
    if datum.encoded:
        return Record(decode(datum.data, color, name), datum.label, True)
    dims = (datum.channels, datum.height, datum.width)
    count = len(datum.data) or len(datum.float_data)
    if min(dims) < 1 or prod(dims) != count:
        raise DataError(f"{name}: declares {dims[0]}x{dims[1]}x{dims[2]}, holds {count} values")
    if datum.data:
        return Record(np.frombuffer(datum.data, np.uint8).reshape(dims), datum.label, False)
    return Record(np.array(datum.float_data, np.float32).reshape(dims), datum.label, False)


def datum(image: Array, label: int = 0) -> bytes:
    """A Datum's bytes from a (C, H, W) image: uint8 as raw bytes, anything else as float_data."""
    c, h, w = image.shape
    message = schema.Datum(channels=c, height=h, width=w, label=label)
    if image.dtype == np.uint8:
        message.data = image.tobytes()
    else:
        message.float_data.extend(image.astype(np.float32).ravel().tolist())
    return bytes(message.SerializeToString())
