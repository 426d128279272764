"""Key-value databases of Datums: LMDB and LevelDB, read in key order, round and round; and the Data layer's
source.
"""

from __future__ import annotations

import importlib
import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from netspec.data.files import lmdb
from netspec.data.files.idx import Array
from netspec.data.files.leveldb import Reader
from netspec.data.files.protos import Record, read_datum
from netspec.data.resizing import Resizing
from netspec.data.source import Order, Stream, failure, mistake
from netspec.data.transform import Transformer, near
from netspec.errors import DataError
from netspec.schema.spec import LayerSpec


def need(module: str) -> Any:
    """An optional library, imported; DataError with the remedy when it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DataError(f"this needs the library {module}: pip install {module}") from error


class Database(ABC):
    """Records in the order of their keys. `at(position)` wraps around from the last record to the first."""

    def __init__(self, path: Path):
        self.path = path
        self.count: int | None = None
        """Number of records, once known."""
        self._next = 0

    @abstractmethod
    def first(self) -> None:
        """Go back, so that `advance` gives the first record."""

    @abstractmethod
    def advance(self, read: bool) -> tuple[bytes, bytes] | None:
        """Key and value (empty unless `read`) of the next record, or None after the last."""

    @abstractmethod
    def close(self) -> None:
        """Let the files go."""

    def at(self, position: int) -> tuple[bytes, bytes]:
        """Key and value of record `position`, modulo their number; quick for ascending positions."""
        place = position if self.count is None else position % self.count
        if place < self._next:
            self.rewind()
        while True:
            wanted = self._next == place
            record = self.advance(wanted)
            if record is None:
                if self._next == 0:
                    raise DataError(f"{self.path}: the database holds no record")
                self.count = self._next
                place = position % self.count
                self.rewind()
                continue
            self._next += 1
            if wanted:
                return record

    def pick(self, place: int) -> tuple[bytes, bytes]:
        """Key and value of record `place`, below `length()`; for places in any order."""
        return self.at(place)

    def rewind(self) -> None:
        self._next = 0
        self.first()

    def length(self) -> int:
        """How many records there are; counts them where the database does not say."""
        while self.count is None:
            if self.advance(False) is None:
                self.count = self._next
                self.rewind()
            else:
                self._next += 1
        return self.count


class Lmdb(Database):
    """An LMDB: a folder with data.mdb, or the file itself. Read without its library, nothing is locked."""

    def __init__(self, path: Path):
        super().__init__(path)
        file = path / "data.mdb" if path.is_dir() else path
        if not file.is_file():
            raise DataError(f"{path}: no LMDB here (no data.mdb)")
        self.reader = lmdb.Reader(file)
        self.count = self.reader.entries
        if not self.count:
            self.close()
            raise DataError(f"{path}: the database holds no record")
        self.nodes = self.reader.nodes()
        self.all: list[lmdb.Node] = []
        """Where each record lies, once one was picked out of order."""

    def first(self) -> None:
        self.nodes = self.reader.nodes()

    def advance(self, read: bool) -> tuple[bytes, bytes] | None:
        try:
            node = next(self.nodes, None)
            if node is None:
                return None
            return (node.key, self.reader.value(node)) if read else (b"", b"")
        except lmdb.Damage as damage:
            raise DataError(f"{self.path}: damaged: {damage}") from None

    def pick(self, place: int) -> tuple[bytes, bytes]:
        try:
            self.all = self.all or list(self.reader.nodes())
            node = self.all[place]
            self.reader.visited = 0  # one value at a time: a circle inside of it is still seen
            return node.key, self.reader.value(node)
        except IndexError:
            raise DataError(f"{self.path}: damaged: {len(self.all)} records of {self.count}") from None
        except lmdb.Damage as damage:
            raise DataError(f"{self.path}: damaged: {damage}") from None

    def close(self) -> None:
        self.reader.close()


class LevelDb(Database):
    """A LevelDB folder; nothing in it is locked or changed."""

    def __init__(self, path: Path):
        super().__init__(path)
        if not (path / "CURRENT").is_file():
            raise DataError(f"{path}: no LevelDB here (no file CURRENT)")
        self.reader = Reader(path)
        self.records = iter(self.reader)

    def first(self) -> None:
        self.records = iter(self.reader)

    def advance(self, read: bool) -> tuple[bytes, bytes] | None:
        return next(self.records, None)

    def close(self) -> None:
        self.records = iter(())


def open_database(path: Path, backend: str) -> Database:
    """The database at `path`; DataError when it is none, with a hint when it is of the other kind."""
    if not os.path.exists(path):  # false for names that no file can have
        raise DataError(f"{path}: no such database")
    is_lmdb = path.is_file() or (path / "data.mdb").is_file()
    if backend == "LEVELDB" and is_lmdb:
        raise DataError(f"{path}: this is an LMDB; write `backend: LMDB` (the default is LEVELDB)")
    if backend == "LMDB" and (path / "CURRENT").is_file():
        raise DataError(f"{path}: this is a LevelDB; write `backend: LEVELDB`")
    return Lmdb(path) if backend == "LMDB" else LevelDb(path)


class DatabaseSource(Stream):
    """data, label from a database of Datums, in key order or shuffled, every rank taking its own records.

    Batches of a shuffled LevelDB read it from the start: it has no places. An LMDB has.
    """

    parallel = True

    def __init__(self, spec: LayerSpec, phase: str, seed: int):
        p = spec.message.data_param
        super().__init__(p.batch_size)
        self.spec = spec
        if not p.batch_size:
            raise mistake(spec, "needs batch_size > 0", "data_param")
        if not p.source:
            raise mistake(spec, "needs a source", "data_param")
        self.transform, self.resizing = Transformer(spec, phase, seed, resizes=True), Resizing(spec, seed)
        t = spec.message.transform_param
        self.color = True if t.force_color or p.force_encoded_color else False if t.force_gray else None
        self.database = self.open()
        try:
            record = self.record(0)
            shape = self.transform.shape(self.resizing.shape(shape_of(record)))
            self.order = Order(self.database.length() if p.shuffle else 1, bool(p.shuffle), seed)
        except Exception:
            self.database.close()
            raise
        self.shapes = [(self.batch_size, *shape), (self.batch_size,)][: len(spec.tops)]

    def open(self) -> Database:
        p = self.spec.message.data_param
        try:
            return open_database(near(self.spec, p.source), "LMDB" if p.backend == p.LMDB else "LEVELDB")
        except DataError as error:
            raise failure(self.spec, str(error), "data_param", "source") from error

    def record(self, position: int) -> Record:
        """The record at a place; of a shuffled stream at one of any order."""
        return self.decoded(*self.pair(position))

    def pair(self, position: int) -> tuple[bytes, bytes]:
        """Key and value of `record`."""
        shuffle = self.spec.message.data_param.shuffle
        return self.database.pick(position) if shuffle else self.database.at(position)

    def decoded(self, key: bytes, value: bytes) -> Record:
        return read_datum(
            value, f"{self.database.path}: record {key.decode('utf-8', 'replace')!r}", self.color
        )

    def shuffled(self, positions: Array) -> list[tuple[bytes, bytes]]:
        """Keys and values of a batch of a shuffled stream: read in the order in which they lie."""
        places = self.order(positions).tolist()
        pairs = {place: self.pair(place) for place in sorted(set(places))}
        return [pairs[place] for place in places]

    def make(self, positions: Array) -> tuple[Tensor, ...]:
        return self.finish(self.take(positions))

    def take(self, positions: Array) -> tuple[Array, list[tuple[bytes, bytes]]]:
        """The positions, and keys and values of their records."""
        if self.order.shuffle:
            return positions, self.shuffled(positions)
        return positions, [self.pair(int(position)) for position in positions]

    def finish(self, taken: tuple[Array, list[tuple[bytes, bytes]]]) -> tuple[Tensor, ...]:
        positions, pairs = taken
        records = [self.decoded(key, value) for key, value in pairs]
        images = [
            self.resizing(record.image, int(key)) for record, key in zip(records, positions, strict=True)
        ]
        data = stacked(self.transform, images, positions, records[0].picture)
        if data.shape != self.shapes[0]:
            raise failure(
                self.spec,
                f"records of shape {shape_of(records[0])} give a batch {data.shape}, "
                f"the first gave {self.shapes[0]}",
                "data_param",
                "source",
            )
        labels = torch.tensor([float(record.label) for record in records])
        return (torch.from_numpy(data), labels)[: len(self.shapes)]

    def close(self) -> None:
        self.database.close()


def shape_of(record: Record) -> tuple[int, int, int]:
    c, h, w = record.image.shape
    return c, h, w


def stacked(transform: Transformer, images: list[Array], keys: Array, pictures: bool) -> Array:
    """The transformed images as one array: in one pass where they are of one size, else one by one.

    Raises DataError when they come out of different sizes.
    """
    if len({image.shape for image in images}) == 1:
        return transform(np.stack(images), keys, pictures)
    parts = [transform(image[None], keys[i : i + 1], pictures) for i, image in enumerate(images)]
    sizes = {part.shape[1:] for part in parts}
    if len(sizes) > 1:
        first, second = sorted(sizes)[:2]
        raise failure(
            transform.spec,
            f"images of one batch differ in size: {first} and {second}; resize them, or set crop_size",
            transform.field,
        )
    return np.concatenate(parts)
