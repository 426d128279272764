"""Tensors of the Open Inference Protocol v2: from JSON or binary data to arrays and back.

Source: kserve/open-inference-protocol, specification/protocol/inference_rest.md; the binary data is Triton's
docs/protocol/extension_binary_data.md.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netspec.errors import NetspecError, did_you_mean

Array = NDArray[Any]
DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
"""Datatypes with values of one size. BF16 is read as well; BYTES names no number and is refused."""
MOST_DIMENSIONS = 8


class Refusal(NetspecError):
    """A request that cannot be answered, with the HTTP status that says whose fault it is."""

    def __init__(self, message: str, status: int = 400):
        super().__init__(message)
        self.status = status


def shape_of(value: Any, name: str) -> tuple[int, ...]:
    """The field `shape` of the tensor `name`; Refusal where it is no list of whole numbers from 0 up."""
    if not isinstance(value, list) or any(type(n) is not int or n < 0 for n in value):
        raise Refusal(f"input {name!r}: shape must be a list of whole numbers, such as [1, 1, 28, 28]")
    if len(value) > MOST_DIMENSIONS:
        raise Refusal(
            f"input {name!r}: shape has {len(value)} dimensions; at most {MOST_DIMENSIONS} are read"
        )
    return tuple(value)


def datatype_of(value: Any, name: str) -> str:
    """The field `datatype` of the tensor `name`; Refusal for a text that names none."""
    known = (*DTYPES, "BF16")
    if value not in known:
        hint = did_you_mean(str(value)[:40], known, f"the datatypes are {', '.join(known)}")
        raise Refusal(f"input {name!r}: datatype {str(value)[:40]!r} is not read{hint}")
    return str(value)


def from_binary(raw: bytes | memoryview, datatype: str, shape: tuple[int, ...], name: str) -> Array:
    """The array in `raw`: row major, little-endian, without gaps. Refusal where the sizes do not agree."""
    size = 2 if datatype == "BF16" else DTYPES[datatype].itemsize
    if prod(shape) * size != len(raw):
        wanted = f"{datatype} of shape {list(shape)} has {prod(shape) * size} bytes"
        raise Refusal(f"input {name!r}: {wanted}, the request brings {len(raw)}")
    if datatype == "BF16":
        wide = np.frombuffer(raw, "<u2").astype("<u4") << 16
        return wide.view("<f4").reshape(shape)
    if datatype == "BOOL":  # any byte but 0 is true: a view would keep bytes that are neither
        truth: Array = np.frombuffer(raw, "u1") != 0
        return truth.reshape(shape)
    values: Array = np.frombuffer(raw, DTYPES[datatype]).reshape(shape)
    return values


def from_json(data: Any, datatype: str, shape: tuple[int, ...], name: str) -> Array:
    """The array in nested or flat lists; null in a floating-point tensor is NaN.

    Refusal for texts, ragged lists, another count of values than `shape` says, and values that `datatype` cannot hold.
    """
    if not isinstance(data, list):
        raise Refusal(f"input {name!r}: data must be a list of numbers, flat or nested")
    try:
        values = np.array(data)
    except (ValueError, OverflowError, RecursionError):
        raise Refusal(f"input {name!r}: the lists of data differ in length") from None
    if values.dtype.kind == "O":
        values = _with_nulls(values, datatype, name)
    floating = datatype in ("FP16", "FP32", "FP64", "BF16")
    kinds = "b" if datatype == "BOOL" else "iuf" if floating else "iu"
    if values.size and values.dtype.kind not in kinds:
        what = {"b": "true or false", "iuf": "numbers or null", "iu": "whole numbers"}[kinds]
        raise Refusal(f"input {name!r}: data of {datatype} must be {what}")
    if values.size != prod(shape):
        raise Refusal(
            f"input {name!r}: shape {list(shape)} has {prod(shape)} values, data brings {values.size}"
        )
    dtype = np.dtype("<f4") if datatype == "BF16" else DTYPES[datatype]
    if not floating and datatype != "BOOL" and values.size:
        limits = np.iinfo(dtype)
        if int(values.min()) < limits.min or int(values.max()) > limits.max:
            raise Refusal(f"input {name!r}: a value of data is outside {datatype}")
    with np.errstate(over="ignore"):
        return values.astype(dtype).reshape(shape)


def _with_nulls(values: Array, datatype: str, name: str) -> Array:
    """Lists with null in them, as float64 with NaN."""
    plain = (int, float)
    if any(
        not (item is None or (isinstance(item, plain) and not isinstance(item, bool))) for item in values.flat
    ):
        raise Refusal(f"input {name!r}: data must be numbers or null, in lists of one length")
    if not datatype.startswith(("FP", "BF")):
        raise Refusal(f"input {name!r}: {datatype} holds neither null nor numbers of so many digits")
    try:
        return values.astype(np.float64)
    except OverflowError:
        raise Refusal(f"input {name!r}: a number of data is too large") from None


def datatype(values: Array) -> str:
    """The name that the protocol has for the values of an array."""
    return next(name for name, dtype in DTYPES.items() if dtype == values.dtype)


def to_json(values: Array) -> list[Any]:
    """Flat list of an array's values; what is no finite number becomes null, as JSON has no other word for it."""
    flat = values.reshape(-1)
    if values.dtype.kind == "f" and not np.isfinite(flat).all():
        return [
            number if finite else None
            for number, finite in zip(flat.tolist(), np.isfinite(flat), strict=True)
        ]
    return list(flat.tolist())
