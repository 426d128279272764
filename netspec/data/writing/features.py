"""Features: the blobs of a net over many batches, into LMDB, LevelDB, HDF5 or npz."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from netspec.data.files.idx import Array
from netspec.data.files.protos import datum
from netspec.data.sources.hdf5 import Hdf5Writer
from netspec.data.writing.databases import Writer, writer
from netspec.errors import DataError, did_you_mean


class Fed(Protocol):
    """What `write_features` needs of a net."""

    def blobs(self, *inputs: Tensor) -> dict[str, Tensor]: ...


class Batches(Protocol):
    """What `write_features` needs of a feeder."""

    def next(self) -> tuple[Tensor, ...]: ...


class FeatureWriter:
    """Writes rows of blobs to `path`: .h5 (a data set per blob), .npz (an array per blob), else a database per blob.

    A database of one blob is `path` itself, of several `path/<blob>`; keys are numbers in 10 digits, values
    Datums with float_data, as Caffe's extract_features writes them.
    """

    def __init__(
        self, path: Path, blobs: Sequence[str], backend: str = "LMDB", places: Sequence[Path] | None = None
    ):
        """places: the databases, one per blob, in place of those under `path`."""
        self.path, self.blobs = path, list(blobs)
        self.rows = dict.fromkeys(blobs, 0)
        self.hdf5 = Hdf5Writer(path) if path.suffix in (".h5", ".hdf5") else None
        self.arrays: dict[str, list[Array]] | None = (
            {name: [] for name in blobs} if path.suffix == ".npz" else None
        )
        self.databases: dict[str, Writer] = {}
        if self.hdf5 is None and self.arrays is None:
            if places is None and len(self.blobs) > 1:
                path.mkdir(parents=True, exist_ok=True)
                places = [path / name.replace("/", "_") for name in self.blobs]
            for name, place in zip(self.blobs, places or [path], strict=True):
                self.databases[name] = writer(place, backend)

    def append(self, values: dict[str, Tensor]) -> None:
        """Add the rows of each blob."""
        if self.hdf5 is not None:
            self.hdf5.append(values)
        for name, value in values.items():
            rows = value.detach().cpu().float().numpy()
            if self.arrays is not None:
                self.arrays[name].append(rows)
            elif name in self.databases:
                for i, row in enumerate(rows, self.rows[name]):
                    image = row.reshape(row.shape[0] if row.ndim else 1, *(row.shape[1:2] or (1,)), -1)
                    self.databases[name].put(f"{i:010}".encode(), datum(image.astype(np.float32)))
            self.rows[name] += len(rows)

    def close(self) -> None:
        """Finish the files."""
        if self.hdf5 is not None:
            self.hdf5.close()
        if self.arrays is not None:
            stacked = {name: np.concatenate(parts) for name, parts in self.arrays.items() if parts}
            savez(self.path, stacked)
        for database in self.databases.values():
            database.close()

    def __enter__(self) -> FeatureWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def savez(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write arrays as .npz, under any names: np.savez has arguments of its own called "file" and "allow_pickle"."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, values in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, values, allow_pickle=False)


def write_features(
    net: Fed,
    feeder: Batches,
    blobs: Sequence[str],
    batches: int,
    path: Path,
    backend: str = "LMDB",
    places: Sequence[Path] | None = None,
) -> int:
    """Write the named blobs of `batches` batches to `path` (see FeatureWriter); gives the number of rows of
    the first.

    Raises DataError when the net has no such blob, or when one has no rows.
    """
    with torch.no_grad(), FeatureWriter(path, blobs, backend, places) as out:
        for _ in range(batches):
            values = net.blobs(*feeder.next())
            if missing := [name for name in blobs if name not in values]:
                hint = did_you_mean(missing[0], values, f"it has {', '.join(values)}")
                raise DataError(f"the net has no blob {missing[0]!r}{hint}")
            if scalars := [name for name in blobs if not values[name].dim()]:
                raise DataError(f"blob {scalars[0]!r} is a single number; features are rows")
            out.append({name: values[name] for name in blobs})
    return out.rows[blobs[0]] if blobs else 0
