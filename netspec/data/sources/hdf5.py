"""HDF5: the source of HDF5Data, and the writer behind HDF5Output."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from netspec.data.draws import derive
from netspec.data.files.idx import MOST_BYTES, Array
from netspec.data.files.pending import PendingFile
from netspec.data.source import Order, Stream, failure, mistake
from netspec.data.sources.database import need
from netspec.data.transform import near
from netspec.errors import DataError, one_line
from netspec.schema.regular import LARGER, most_unpacked, refuse_special
from netspec.schema.spec import LayerSpec

MOST_ROWS = 1 << 27
"""Files with more rows are not read: their order alone would fill the memory."""
MOST_PACKED = 1100
"""Bytes that one stored byte can stand for: deflate packs 1,032 into one at most."""
KEEP = 1 << 29
"""A file whose data sets have at most this many bytes is read as a whole; larger ones by rows."""


class Hdf5File:
    """The data sets of one file that a layer needs, with equal numbers of rows."""

    def __init__(self, path: Path, names: tuple[str, ...]):
        h5py = need("h5py")
        self.path, self.names = path, names
        self.sets: list[Any] = []
        self.kept: list[Array] | None = None
        refuse_special(path)
        try:
            self.file = h5py.File(path, "r")
        except Exception as error:  # h5py raises errors of every kind for what is damaged
            raise DataError(f"{path}: not a readable HDF5 file ({one_line(error)})") from error
        try:
            self.sets = [data_set(self.file, name, str(path)) for name in names]
            self.rows = int(self.sets[0].shape[0])
        except Exception as error:
            self.file.close()
            if isinstance(error, DataError):
                raise
            raise DataError(f"{path}: is damaged ({type(error).__name__}: {one_line(error)})") from error
        if not 0 < self.rows <= MOST_ROWS or len({int(values.shape[0]) for values in self.sets}) > 1:
            shapes = ", ".join(
                f"{name} {values.shape}" for name, values in zip(names, self.sets, strict=True)
            )
            self.file.close()
            raise DataError(f"{path}: the data sets have no rows, too many, or not equally many: {shapes}")

    def shapes(self) -> list[tuple[int, ...]]:
        """The shape of a row of each data set."""
        return [tuple(int(n) for n in values.shape[1:]) for values in self.sets]

    def read(self, rows: Array) -> list[Array]:
        """The given rows of each data set as float32."""
        try:
            if self.kept is None and sum(4 * stored.size for stored in self.sets) <= KEEP:
                self.kept = [np.asarray(stored[()], np.float32) for stored in self.sets]
            if self.kept is not None:
                return [values[rows] for values in self.kept]
            if any(4 * len(rows) * prod(shape) > MOST_BYTES for shape in self.shapes()):
                raise DataError(
                    f"{self.path}: {len(rows)} rows of {self.shapes()} values are too large for a batch"
                )
            unique, back = np.unique(rows, return_inverse=True)
            return [np.asarray(stored[unique], np.float32)[back] for stored in self.sets]
        except DataError:
            raise
        except Exception as error:  # h5py raises errors of every kind for what is damaged
            raise DataError(
                f"{self.path}: cannot be read ({type(error).__name__}: {one_line(error)})"
            ) from error

    def close(self) -> None:
        self.kept = None
        self.file.close()


def data_set(file: Any, name: str, path: str, kinds: str = "fiu") -> Any:
    """The data set of a name. It must be numeric, lie in this file, and claim no more than the file can hold.

    kinds: letters of numpy's types that are taken.
    """
    h5py = need("h5py")
    if isinstance(file.get(name, getlink=True), h5py.ExternalLink):
        raise DataError(f"{path}: {name!r} is a link to another file; such links are not followed")
    values = file.get(name)
    if not isinstance(values, h5py.Dataset) or values.ndim < 1 or values.dtype.kind not in kinds:
        names = [str(other) for other, _ in zip(file, range(20), strict=False)]
        held = ", ".join(names) or "nothing"
        raise DataError(f"{path}: has no numeric data set {name!r}; it holds {held}")
    if values.is_virtual or values.external or values.file.filename != file.filename:
        raise DataError(f"{path}: {name!r} keeps its values in another file; such files are not read")
    size = int(prod(values.shape)) * int(values.dtype.itemsize)
    most = most_unpacked(Path(path).stat().st_size)
    stored = int(values.id.get_storage_size())
    if size > max(most, MOST_PACKED * stored):  # what is honest is read by rows, however much it is
        text = f"{name!r} claims shape {values.shape}, {size} bytes; more than {most} are not read"
        raise DataError(f"{path}: {text}{LARGER}")
    if values.chunks is not None and prod(values.chunks) * values.dtype.itemsize > most:
        raise DataError(f"{path}: {name!r} claims chunks {values.chunks}; such are not read{LARGER}")
    return values


class Hdf5Source(Stream):
    """One top per data set of its name, from the files in a list, one after another.

    With `shuffle` the files come in a new order each epoch, and so do the rows within each file.
    """

    def __init__(self, spec: LayerSpec, phase: str, seed: int):
        p = spec.message.hdf5_data_param
        super().__init__(int(p.batch_size))
        self.spec, self.seed, self.shuffle = spec, seed, bool(p.shuffle)
        if not p.batch_size:
            raise mistake(spec, "needs batch_size > 0", "hdf5_data_param")
        if spec.message.HasField("transform_param"):
            raise mistake(spec, "HDF5 data is not transformed; remove transform_param", "transform_param")
        self.paths = self.listed(p.source)
        self.current: tuple[int, Hdf5File] | None = None
        rows, shapes = [], []
        for path in self.paths:
            file = self.open(path)
            rows.append(file.rows)
            shapes.append(file.shapes())
            file.close()
            if shapes[-1] != shapes[0]:
                raise failure(
                    spec,
                    f"{path}: rows of {shapes[-1]}, {self.paths[0]} has {shapes[0]}",
                    "hdf5_data_param",
                    "source",
                )
        self.rows = np.array(rows)
        self.samples = int(self.rows.sum())
        self.order = Order(len(rows), self.shuffle, derive(seed, "files"))
        self.shapes = [(self.batch_size, *shape) for shape in shapes[0]]

    def listed(self, source: str) -> list[Path]:
        if not source:
            raise mistake(self.spec, "needs a source", "hdf5_data_param")
        path = near(self.spec, source)
        try:
            lines = path.read_text().split("\n")
        except (OSError, UnicodeDecodeError) as error:
            hint = (
                "; the source is a text file that lists .h5 files" if path.suffix in (".h5", ".hdf5") else ""
            )
            raise failure(self.spec, f"{path}: {error}{hint}", "hdf5_data_param", "source") from error
        files = [file for line in lines if line.strip() for file in self.named(line.strip(), path.parent)]
        if not files:
            raise failure(self.spec, f"{path}: the list is empty", "hdf5_data_param", "source")
        return files

    def named(self, line: str, folder: Path) -> list[Path]:
        """The files of a line: the file that the whole line names, else one per word, as Caffe reads it. Files are also
        sought beside the list, since their writer may have used another path.
        """

        def there(name: str) -> Path:
            path = near(self.spec, name)
            if path.exists() or path.is_absolute():
                return path
            beside = [other for other in (folder / path, folder / path.name) if other.exists()]
            return near(self.spec, str(beside[0])) if beside else path

        whole = there(line)
        return [whole] if whole.exists() else [there(word) for word in line.split()]

    def open(self, path: Path) -> Hdf5File:
        try:
            return Hdf5File(path, self.spec.tops)
        except DataError as error:
            raise failure(self.spec, str(error), "hdf5_data_param", "source") from error

    def file(self, i: int) -> Hdf5File:
        """File i, the only one that is open."""
        if self.current is None or self.current[0] != i:
            if self.current is not None:
                self.current[1].close()
            self.current = (i, self.open(self.paths[i]))
        return self.current[1]

    def make(self, positions: Array) -> tuple[Tensor, ...]:
        epochs, places = np.divmod(positions, int(self.rows.sum()))
        pieces: list[list[Array]] = []
        for epoch in np.unique(epochs):
            files = self.order(np.arange(len(self.rows)) + epoch * len(self.rows))
            ends = self.rows[files].cumsum()
            in_epoch = places[epochs == epoch]
            turns = np.searchsorted(ends, in_epoch, side="right")
            for turn in np.unique(turns):
                i = int(files[turn])
                inside = in_epoch[turns == turn] - (ends[turn] - self.rows[i])
                order = Order(int(self.rows[i]), self.shuffle, derive(self.seed, "rows", i))
                pieces.append(self.file(i).read(order(inside + epoch * self.rows[i])))
        return tuple(torch.from_numpy(np.concatenate(parts)) for parts in zip(*pieces, strict=True))

    def close(self) -> None:
        if self.current is not None:
            self.current[1].close()
            self.current = None


class Hdf5Writer:
    """Appends rows to the data sets of a new file; an existing file is replaced at the first append, or continued.

    Each `append` reaches the disk as a whole or not at all: where the disk is full, the rows before stay readable.
    """

    def __init__(self, path: Path):
        self.path = path
        self.file: Any = None
        self.pending: PendingFile | None = None
        self.rows = 0
        """Rows appended, including those before `go_on`."""
        self.failure: DataError | None = None
        """Why nothing more is written: a new start would lose the rows that the file has."""

    def open(self, mode: str) -> None:
        """The file, "w" (anew) or "r+"; OSError where it cannot be."""
        h5py = need("h5py")
        self.pending = PendingFile(self.path, anew=mode == "w")
        self.file = h5py.File(self.pending, mode)

    def go_on(self, rows: int) -> None:
        """Append after the first `rows` rows of the existing file; DataError where it has fewer."""
        self.rows = rows
        if rows == 0:
            return
        try:
            self.open("r+")
            if not len(self.file):
                raise DataError(f"{self.path}: holds no rows, {rows} were written before")
            for name in self.file:
                held = data_set(self.file, name, str(self.path))
                if held.shape[0] < rows:
                    raise DataError(
                        f"{self.path}: {name!r} has {held.shape[0]} rows, {rows} were written before"
                    )
                held.resize(rows, axis=0)
            self.commit()
        except DataError:
            self.anew()
            raise
        except Exception as error:  # h5py raises errors of every kind for what is damaged
            self.anew()
            raise DataError(f"{self.path}: cannot be gone on with ({one_line(error)})") from error

    def anew(self) -> None:
        """Begin a new file."""
        self.drop()
        self.rows = 0

    def append(self, values: Mapping[str, Tensor]) -> None:
        """Add the rows of each tensor to the data set of its name, and let the file hold them.

        Raises DataError where the file cannot be written; it keeps the rows of the appends before.
        """
        if self.failure is not None:
            raise self.failure
        try:
            if self.file is None:
                self.open("w")
            for name, value in values.items():
                rows = value.detach().cpu().float().numpy()
                if name not in self.file:
                    most = (None, *rows.shape[1:])
                    self.file.create_dataset(name, data=rows, maxshape=most, chunks=True)
                    continue
                held = self.file[name]
                held.resize(held.shape[0] + len(rows), axis=0)
                held[-len(rows) :] = rows
            self.commit()
        except (OSError, RuntimeError, TypeError, ValueError, LookupError) as error:
            self.drop()
            self.failure = DataError(f"{self.path}: cannot be written ({one_line(error)})")
            raise self.failure from error
        self.rows += len(next(iter(values.values())))

    def commit(self) -> None:
        self.file.flush()
        if self.pending is not None:
            self.pending.commit()

    def drop(self) -> None:
        """Close the file and drop uncommitted rows."""
        file, self.file = self.file, None
        pending, self.pending = self.pending, None
        if pending is not None:
            pending.refused = True
        if file is not None:
            with suppress(OSError, RuntimeError):
                file.close()
        if pending is not None:
            pending.close()

    def close(self) -> None:
        """Finish the file."""
        if self.file is None or self.pending is None:
            return
        try:
            self.file.close()
            self.pending.commit()
        except (OSError, RuntimeError) as error:
            raise DataError(f"{self.path}: cannot be written ({one_line(error)})") from error
        finally:
            self.drop()
