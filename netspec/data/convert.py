"""Data sets made from others: records -> LMDB, LevelDB, HDF5; the mean image; a net's features -> LMDB, HDF5,
npz.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from netspec import schema
from netspec.data import datasets
from netspec.data.database import need, open_database
from netspec.data.hdf5 import Hdf5Writer
from netspec.data.idx import Array
from netspec.data.images import decode, resize
from netspec.data.protos import datum, read_datum
from netspec.errors import DataError

COMMIT = 1000
"""Records between commits, as Caffe's tools do."""


@dataclass(frozen=True)
class Example:
    """One record to write: its key, its image (C, H, W), colour in the order B, G, R, and its label.

    `encoded` holds a picture file's own bytes, written in place of the pixels.
    """

    key: str
    image: Array
    label: int
    encoded: bytes = b""

    def datum(self) -> bytes:
        """The Datum's bytes."""
        if self.encoded:
            return bytes(schema.Datum(data=self.encoded, label=self.label, encoded=True).SerializeToString())
        return datum(self.image, self.label)


# Where records come from


def from_named(name: str, split: str = "whole_train") -> Iterator[Example]:
    """The images of a named data set, keyed by their number in 8 digits."""
    data = datasets.load(name, split)
    for i in range(len(data)):
        yield Example(f"{i:08}", np.ascontiguousarray(data.images[i, ::-1]), int(data.labels[i]))


def from_list(
    source: Path,
    root: str = "",
    *,
    size: tuple[int, int] | None = None,
    color: bool = True,
    encoded: bool = False,
    same_size: bool = False,
    shuffle: int | None = None,
) -> Iterator[Example]:
    """The pictures of a list `<path> <integer>`, keyed `<number in 8 digits>_<path>` as convert_imageset
    does.

    size: (height, width) to resize to. encoded: keep the files' bytes. same_size: DataError at the first of
    another size. shuffle: a seed.
    """
    lines = []
    try:
        for at, line in enumerate(source.read_text(encoding="utf-8").splitlines(), 1):
            name, _, label = line.strip().rpartition(" ")
            if line.strip() and (not name or not label.lstrip("-").isdigit()):
                raise DataError(f"{source}:{at}: expected a path and an integer, found {line!r}")
            if line.strip():
                lines.append((name.strip(), int(label)))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{source}: {error}") from error
    if shuffle is not None:
        random.Random(shuffle).shuffle(lines)
    first: tuple[int, ...] | None = None
    for i, (name, number) in enumerate(lines):
        path = Path(root + name)
        image = decode(path, color, str(path))
        if size:
            image = resize(image, *size)
        if same_size and first not in (None, image.shape):
            raise DataError(f"{path}: has shape {image.shape}, the first picture {first}")
        first = first or image.shape
        yield Example(f"{i:08}_{name}", image, number, path.read_bytes() if encoded and not size else b"")


def from_database(path: Path, backend: str = "LMDB") -> Iterator[Example]:
    """The records of a database, decoded."""
    database = open_database(path, backend)
    try:
        i = 0
        while database.count is None or i < database.count:
            key, value = database.at(i)
            if i and database.count == i:  # the end was found by going round
                return
            record = read_datum(value, f"{path}: record {key.decode('utf-8', 'replace')!r}")
            yield Example(key.decode("utf-8", "replace"), record.image, record.label)
            i += 1
    finally:
        database.close()


# Writing


class Writer(Protocol):
    """Takes key-value pairs into a new database."""

    def put(self, key: bytes, value: bytes) -> None: ...

    def close(self) -> None: ...


class LmdbWriter:
    """A new LMDB that grows as it fills, committed every 1000 records."""

    def __init__(self, path: Path):
        lmdb = need("lmdb")
        if path.exists() and any(path.iterdir() if path.is_dir() else [path]):
            raise DataError(f"{path}: exists; remove it, or choose another name")
        self.path, self.full = path, lmdb.MapFullError
        try:
            self.env = lmdb.open(str(path), map_size=1 << 24)
        except (lmdb.Error, OSError) as error:
            raise DataError(f"{path}: cannot be made ({error})") from error
        self.pending: list[tuple[bytes, bytes]] = []

    def put(self, key: bytes, value: bytes) -> None:
        if len(key) > self.env.max_key_size():
            raise DataError(
                f"{self.path}: the key {key[:40]!r}... is longer than {self.env.max_key_size()} bytes"
            )
        self.pending.append((key, value))
        if len(self.pending) >= COMMIT:
            self.commit()

    def commit(self) -> None:
        """Write what is pending; the map grows until it fits."""
        while self.pending:
            try:
                with self.env.begin(write=True) as transaction:
                    for key, value in self.pending:
                        transaction.put(key, value)
                self.pending = []
            except self.full:
                self.env.set_mapsize(2 * self.env.info()["map_size"])

    def close(self) -> None:
        self.commit()
        self.env.close()


class LevelDbWriter:
    """A new LevelDB."""

    def __init__(self, path: Path):
        try:
            import plyvel
        except ImportError as error:
            raise DataError(
                "writing LevelDB needs plyvel; install netspec[leveldb], or write LMDB"
            ) from error
        try:
            self.db = plyvel.DB(str(path), create_if_missing=True, error_if_exists=True)
        except (plyvel.Error, OSError) as error:
            raise DataError(f"{path}: cannot be made ({error})") from error

    def put(self, key: bytes, value: bytes) -> None:
        self.db.put(key, value)

    def close(self) -> None:
        self.db.close()


def writer(path: Path, backend: str) -> Writer:
    """A writer of a new database of the given kind."""
    if backend not in ("LMDB", "LEVELDB"):
        raise DataError(f"no backend {backend!r}; there are LMDB and LEVELDB")
    return LmdbWriter(path) if backend == "LMDB" else LevelDbWriter(path)


def write_database(examples: Iterable[Example], path: Path, backend: str = "LMDB") -> int:
    """Write records as Datums into a new database; gives their number."""
    out, n = writer(path, backend), 0
    try:
        for example in examples:
            out.put(example.key.encode(), example.datum())
            n += 1
    finally:
        out.close()
    return n


def write_hdf5(
    examples: Iterable[Example], path: Path, rows: int = 10_000, tops: tuple[str, str] = ("data", "label")
) -> list[Path]:
    """Write records into `<stem>_0.h5`, ... of `rows` rows each, and their names into `path`, which HDF5Data
    reads.

    Values are as in the records (0..255). Raises DataError when images differ in shape.
    """
    files: list[Path] = []
    images: list[Array] = []
    labels: list[int] = []

    def flush() -> None:
        if not images:
            return
        if len({image.shape for image in images}) > 1:
            raise DataError(f"{path}: images differ in shape; resize them to one")
        files.append(path.with_name(f"{path.stem}_{len(files)}.h5"))
        out = Hdf5Writer(files[-1])
        out.append(
            {
                tops[0]: torch.from_numpy(np.stack(images).astype(np.float32)),
                tops[1]: torch.tensor(labels, dtype=torch.float32),
            }
        )
        out.close()
        images.clear()
        labels.clear()

    for example in examples:
        images.append(example.image)
        labels.append(example.label)
        if len(images) == rows:
            flush()
    flush()
    path.write_text("".join(f"{file}\n" for file in files))
    return files


def mean_image(examples: Iterable[Example]) -> Array:
    """The mean of the images, (C, H, W) float32; write it with `protos.write_blob` for use as a mean_file."""
    total: Array | None = None
    n = 0
    for example in examples:
        if total is None:
            total = np.zeros(example.image.shape, np.float64)
        if example.image.shape != total.shape:
            raise DataError(
                f"record {example.key!r} has shape {example.image.shape}, the first {total.shape}"
            )
        total += example.image
        n += 1
    if total is None:
        raise DataError("no records to take a mean of")
    return (total / n).astype(np.float32)


# Features


class Fed(Protocol):
    """What `features` needs of a net."""

    def blobs(self, *inputs: Tensor) -> dict[str, Tensor]: ...


class Batches(Protocol):
    """What `features` needs of a feeder."""

    def next(self) -> tuple[Tensor, ...]: ...


class FeatureWriter:
    """Rows of blobs into `path`: .h5 (a data set a blob), .npz (an array a blob), else a database a blob.

    A database of one blob is `path` itself, of several `path/<blob>`; keys are numbers in 10 digits, values
    Datums with float_data, as Caffe's extract_features writes them.
    """

    def __init__(self, path: Path, blobs: Sequence[str], backend: str = "LMDB"):
        self.path, self.blobs = path, list(blobs)
        self.rows = dict.fromkeys(blobs, 0)
        self.hdf5 = Hdf5Writer(path) if path.suffix in (".h5", ".hdf5") else None
        self.arrays: dict[str, list[Array]] | None = (
            {name: [] for name in blobs} if path.suffix == ".npz" else None
        )
        self.databases: dict[str, Writer] = {}
        if self.hdf5 is None and self.arrays is None:
            if len(self.blobs) > 1:
                path.mkdir(parents=True, exist_ok=True)
            for name in self.blobs:
                place = path if len(self.blobs) == 1 else path / name.replace("/", "_")
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
            stacked: dict[str, Any] = {
                name: np.concatenate(parts) for name, parts in self.arrays.items() if parts
            }
            np.savez(self.path, **stacked)
        for database in self.databases.values():
            database.close()

    def __enter__(self) -> FeatureWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def features(
    net: Fed, feeder: Batches, blobs: Sequence[str], batches: int, path: Path, backend: str = "LMDB"
) -> int:
    """Write the named blobs of `batches` batches to `path` (see FeatureWriter); gives the number of rows of
    the first.

    Raises DataError when the net has no such blob, or when one has no rows.
    """
    with torch.no_grad(), FeatureWriter(path, blobs, backend) as out:
        for _ in range(batches):
            found = net.blobs(*feeder.next())
            if missing := [name for name in blobs if name not in found]:
                raise DataError(f"the net has no blob {missing[0]!r}; it has {', '.join(found)}")
            if scalars := [name for name in blobs if not found[name].dim()]:
                raise DataError(f"blob {scalars[0]!r} is a single number; features are rows")
            out.append({name: found[name] for name in blobs})
    return out.rows[blobs[0]] if blobs else 0
