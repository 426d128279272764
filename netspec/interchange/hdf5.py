"""Caffe's HDF5 files: weights (/data/<layer>/<blob>) and solver states (/iter, /history/<number>)."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from netspec.data.files import whole
from netspec.data.sources.database import need
from netspec.errors import NetspecError, SnapshotError, one_line
from netspec.interchange.blobs import MOST_AXES, Array
from netspec.schema.regular import refuse_special

MOST_ENTRIES = 100_000
MOST_DEPTH = 16
MOST_RATIO = 1100
"""No filter of HDF5 packs tighter; a file that claims more is built to fill the memory."""
SIGNATURE = b"\x89HDF\r\n\x1a\n"


@dataclass(frozen=True)
class ArrayBlob:
    """An array of a file that has been read in full."""

    values: Array
    name: str

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.values.shape)

    def check(self) -> None:
        """Does nothing: the array was checked when it was read."""

    def array(self) -> Array:
        """The values."""
        return self.values

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether the sizes are equal, as Caffe asks here."""
        return self.shape == tuple(shape)


Layers = dict[str, dict[int, ArrayBlob]]
"""Blobs by layer and index; a blob that a layer shares with an earlier one may be absent."""


@contextmanager
def opened(source: str | Path | bytes, file: str) -> Iterator[Any]:
    """The file, open for reading; every error of HDF5 inside becomes a SnapshotError."""
    h5py = need("h5py")
    try:
        if not isinstance(source, bytes):
            refuse_special(source)
        with h5py.File(io.BytesIO(source) if isinstance(source, bytes) else source, "r") as held:
            yield held
    except NetspecError as error:
        raise error if isinstance(error, SnapshotError) else SnapshotError(str(error)) from None
    except Exception as error:  # h5py raises errors of every kind for what is damaged
        raise SnapshotError(f"{file}: is damaged or no HDF5 file: {one_line(error)}") from None


def entries(group: Any, file: str) -> list[str]:
    """Names in a group; SnapshotError for links that lead out of the file, or for too many."""
    h5py = need("h5py")
    if not isinstance(group, h5py.Group):
        raise SnapshotError(f"{file}: {getattr(group, 'name', 'an entry')} is no group")
    if len(group) > MOST_ENTRIES:
        raise SnapshotError(f"{file}: {group.name} has {len(group):,} entries")
    names = [str(name) for name in group]
    for name in names:
        if isinstance(group.get(name, getlink=True), h5py.ExternalLink):
            raise SnapshotError(f"{file}: {group.name}/{name} is a link to another file")
    return names


def array_of(dataset: Any, file: str, limit: int) -> Array:
    """The values of a data set of numbers; SnapshotError where it claims more than the file can hold."""
    h5py = need("h5py")
    where = f"{file}: {getattr(dataset, 'name', 'an entry')}"
    if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind not in "fiu" or dataset.shape is None:
        raise SnapshotError(f"{where} is no array of numbers")
    if dataset.is_virtual or dataset.external:
        raise SnapshotError(f"{where} keeps its values in another file; such files are not read")
    if len(dataset.shape) > MOST_AXES:
        raise SnapshotError(f"{where} has {len(dataset.shape)} axes")
    packed = dataset.chunks is not None
    if prod(dataset.shape) * dataset.dtype.itemsize > limit * (MOST_RATIO if packed else 1):
        raise SnapshotError(f"{where} claims shape {dataset.shape}, more than the file can hold")
    values = np.asarray(dataset[()])
    return values if values.dtype == np.float64 else values.astype(np.float32, copy=False)


def size_of(source: str | Path | bytes) -> int:
    """Bytes of a file, or of the bytes that stand for one."""
    if isinstance(source, bytes):
        return len(source)
    return os.stat(source).st_size if os.path.exists(source) else 0


def read_weights(source: str | Path | bytes, file: str = "") -> Layers:
    """The layers of a .caffemodel.h5, given by its path or its bytes; SnapshotError when it is not one."""
    file = file or (str(source) if not isinstance(source, bytes) else "<bytes>")
    limit = size_of(source)
    with opened(source, file) as held:
        if "data" not in entries(held, file):
            raise SnapshotError(f"{file}: is no weight file of Caffe: it has no group /data")
        layers: Layers = {}
        _search(held["data"], "", file, limit, layers, iter(range(MOST_ENTRIES)), 0)
        return layers


def _search(
    group: Any, layer: str, file: str, limit: int, layers: Layers, left: Iterator[int], depth: int
) -> None:
    """Put the blobs of a group under its layer; a name with a slash is a group in a group."""
    h5py = need("h5py")
    if depth > MOST_DEPTH or next(left, None) is None:
        raise SnapshotError(f"{file}: has groups without end")
    blobs: dict[int, ArrayBlob] = {}
    groups = []
    for name in entries(group, file):
        inner = group[name]
        if isinstance(inner, h5py.Group):
            groups.append((name, inner))
        elif layer and name.isdecimal() and len(name) <= 6:
            values = array_of(inner, file, limit)
            blobs[int(name)] = ArrayBlob(values, f"{file}: layer {layer!r}, blob {name}")
        else:
            raise SnapshotError(f"{file}: {group.name}/{name} is no number of a blob")
    if layer and (blobs or not groups):
        layers[layer] = dict(sorted(blobs.items()))
    for name, inner in groups:
        _search(inner, f"{layer}/{name}" if layer else name, file, limit, layers, left, depth + 1)


def write_weights(path: str | Path, layers: Sequence[tuple[str, dict[int, Array]]]) -> None:
    """Write layers as Caffe does: a group each, in it the blobs that the layer owns.

    Layers of equal names without blobs share a group; SnapshotError where two of them have blobs.
    """
    h5py = need("h5py")
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        data = file.create_group("data")
        for name, blobs in layers:
            group = data.require_group(name.replace("/", "_") if name in (".", "") else name)
            for index, values in blobs.items():
                if str(index) in group:
                    raise SnapshotError(f"{path}: HDF5 cannot hold two layers called {name!r}")
                group.create_dataset(str(index), data=values)
    whole.write_whole(Path(path), buffer.getvalue())


@dataclass(frozen=True)
class State:
    """A solver state as it lies in the file."""

    numbers: dict[str, int]
    learned_net: str
    history: list[ArrayBlob]


STATE_NUMBERS = ("iter", "current_step", "current_stage_iter", "current_stage_idx")


def read_state(source: str | Path | bytes, file: str = "") -> State:
    """The content of a .solverstate.h5; SnapshotError when it is not one."""
    file = file or (str(source) if not isinstance(source, bytes) else "<bytes>")
    limit = size_of(source)
    with opened(source, file) as held:
        names = entries(held, file)
        if "iter" not in names or "history" not in names:
            raise SnapshotError(f"{file}: is no solver state of Caffe: it has no /iter and /history")
        numbers = {name: _number(held[name], file, limit) for name in STATE_NUMBERS if name in names}
        history = held["history"]
        indices = entries(history, file)
        if set(indices) != {str(i) for i in range(len(indices))}:
            raise SnapshotError(f"{file}: /history is not numbered from 0 without gaps")
        blobs = [
            ArrayBlob(array_of(history[str(i)], file, limit), f"{file}: history {i}")
            for i in range(len(indices))
        ]
        return State(numbers, _string(held, names, file), blobs)


def _number(dataset: Any, file: str, limit: int) -> int:
    values = array_of(dataset, file, limit)
    if values.size != 1 or not np.isfinite(values).all():
        raise SnapshotError(f"{file}: {dataset.name} is not one number")
    return int(dataset[()].reshape(-1)[0])


def _string(held: Any, names: list[str], file: str) -> str:
    if "learned_net" not in names:
        return ""
    dataset = held["learned_net"]
    if not isinstance(dataset, need("h5py").Dataset) or dataset.size != 1:
        raise SnapshotError(f"{file}: /learned_net is no string")
    if dataset.dtype.kind not in "SO" or dataset.dtype.itemsize > 1 << 16:
        raise SnapshotError(f"{file}: /learned_net is no string")
    value = np.asarray(dataset[()]).reshape(-1)[0]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def write_state(path: str | Path, state: State) -> None:
    """Write a .solverstate.h5 as Caffe does; stage numbers only where they are not 0."""
    h5py = need("h5py")
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, value in state.numbers.items():
            if value or "stage" not in name:
                file.create_dataset(name, data=np.array([value], np.int32))
        raw = state.learned_net.encode() + b"\0"
        file.create_dataset("learned_net", data=np.array(raw, f"S{len(raw)}"))
        history = file.create_group("history")
        for i, blob in enumerate(state.history):
            history.create_dataset(str(i), data=blob.values)
    whole.write_whole(Path(path), buffer.getvalue())
