"""Records written: into LMDB, LevelDB, HDF5 files or an .npz archive, whole or not at all."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import torch

from netspec.data.files.idx import Array
from netspec.data.files.whole import staged
from netspec.data.sources.database import need
from netspec.data.sources.hdf5 import Hdf5Writer
from netspec.data.writing.convert import Example
from netspec.errors import DataError

COMMIT = 1000
"""Records between commits, as Caffe's tools do."""


class Writer(Protocol):
    """Takes key-value pairs into a new database."""

    def put(self, key: bytes, value: bytes) -> None: ...

    def close(self) -> None: ...


class LmdbWriter:
    """A new LMDB that grows as it fills, committed every 1000 records."""

    def __init__(self, path: Path):
        lmdb = need("lmdb")
        refuse_taken(path)
        self.path, self.full, self.failures = path, lmdb.MapFullError, (lmdb.Error, OSError)
        try:
            self.env = lmdb.open(str(path), map_size=1 << 24)
        except self.failures as error:
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
            except self.failures as error:
                self.pending = []
                raise DataError(f"{self.path}: cannot be written ({error})") from error

    def close(self) -> None:
        try:
            self.commit()
        finally:
            self.env.close()


class LevelDbWriter:
    """A new LevelDB."""

    def __init__(self, path: Path):
        try:
            import plyvel
        except ImportError as error:
            raise DataError(
                "writing LevelDB needs the library plyvel: pip install plyvel, or write LMDB"
            ) from error
        refuse_taken(path)
        self.path, self.failures = path, (plyvel.Error, OSError)
        try:
            self.db = plyvel.DB(str(path), create_if_missing=True, error_if_exists=True)
        except self.failures as error:
            raise DataError(f"{path}: cannot be made ({error})") from error

    def put(self, key: bytes, value: bytes) -> None:
        try:
            self.db.put(key, value)
        except self.failures as error:
            raise DataError(f"{self.path}: cannot be written ({error})") from error

    def close(self) -> None:
        self.db.close()


def refuse_taken(path: Path) -> None:
    """DataError where something already exists at the path of a new database."""
    if path.exists() and any(path.iterdir() if path.is_dir() else [path]):
        raise DataError(f"{path}: exists; remove it, or choose another name")


def writer(path: Path, backend: str) -> Writer:
    """A writer of a new database of the given kind."""
    if backend not in ("LMDB", "LEVELDB"):
        raise DataError(f"no backend {backend!r}; there are LMDB and LEVELDB")
    return LmdbWriter(path) if backend == "LMDB" else LevelDbWriter(path)


def write_database(
    examples: Iterable[Example], path: Path, backend: str = "LMDB", beside: Mapping[str, str] | None = None
) -> int:
    """Write records as Datums into a new database, which appears when it is whole; gives their number.

    beside: texts of files to be written beside it, by their names.
    """
    refuse_taken(path)
    n = 0
    with staged(path) as folder:
        out = writer(folder / path.name, backend)
        try:
            for example in examples:
                out.put(example.key.encode("utf-8", "surrogateescape"), example.datum())
                n += 1
        finally:
            out.close()
        write_beside(folder, beside)
    return n


def write_beside(folder: Path, texts: Mapping[str, str] | None) -> None:
    """Write texts into files of a folder."""
    for name, text in (texts or {}).items():
        (folder / name).write_text(text, encoding="utf-8")


def write_hdf5(
    examples: Iterable[Example],
    path: Path,
    rows: int = 10_000,
    tops: tuple[str, str] = ("data", "label"),
    scale: float = 1.0,
    beside: Mapping[str, str] | None = None,
) -> list[Path]:
    """Write records into `<stem>_0.h5`, ... of `rows` rows each, and their names into `path`, which HDF5Data
    reads. All files appear when they are whole.

    Values are as in the records (0..255), times `scale`; labels are NaN where unknown. Raises DataError when images
    differ in shape.
    """
    files: list[Path] = []
    images: list[Array] = []
    labels: list[float] = []
    with staged(path) as folder:

        def flush() -> None:
            if not images:
                return
            refuse_shapes(path, images)
            files.append(path.with_name(f"{path.stem}_{len(files)}.h5"))
            out = Hdf5Writer(folder / files[-1].name)
            try:
                values = torch.from_numpy(np.stack(images).astype(np.float32) * np.float32(scale))
                out.append({tops[0]: values, tops[1]: torch.tensor(labels, dtype=torch.float32)})
            finally:
                out.close()
            images.clear()
            labels.clear()

        for example in examples:
            images.append(example.image)
            labels.append(example.label)
            if len(images) == rows:
                flush()
        flush()
        (folder / path.name).write_text("".join(f"{file}\n" for file in files), "utf-8", "surrogateescape")
        write_beside(folder, beside)
    return files


def refuse_shapes(path: Path, images: list[Array]) -> None:
    """DataError where images differ in shape."""
    if len({image.shape for image in images}) > 1:
        raise DataError(f"{path}: images differ in shape; resize them to one")


def write_npz(
    examples: Iterable[Example], path: Path, scale: float = 1.0, beside: Mapping[str, str] | None = None
) -> int:
    """Write records into an archive of `images` (N, C, H, W), colour in the order R, G, B, and `labels` (N,), which
    numpy reads; gives their number. Images are uint8 where all are and nothing scales them, else float32; labels are
    int64 where all are known whole numbers, else float32.

    One image at a time is in memory. Raises DataError when images differ in shape or type, or there are none.
    """
    shape: tuple[int, ...] = ()
    kind: np.dtype[Any] = np.dtype(np.float32)
    labels: list[float] = []
    with staged(path) as folder:
        raw = folder / "images.raw"
        with open(raw, "wb") as file:
            for example in examples:
                image = example.image[::-1] if len(example.image) == 3 else example.image
                if not labels:
                    shape = image.shape
                    kind = np.dtype(np.uint8 if image.dtype == np.uint8 and scale == 1 else np.float32)
                if image.shape != shape:
                    raise DataError(f"{path}: images differ in shape; resize them to one")
                if kind == np.uint8 and image.dtype != np.uint8:
                    raise DataError(f"{path}: {example.key} is {image.dtype}, the first image uint8")
                own = image if kind == np.uint8 else image.astype(np.float32) * np.float32(scale)
                file.write(np.ascontiguousarray(own).tobytes())
                labels.append(example.label)
        if not labels:
            raise DataError(f"{path}: no records to write")
        with (
            zipfile.ZipFile(folder / path.name, "w") as archive,
            open(raw, "rb") as file,
            archive.open("images.npy", "w", force_zip64=True) as entry,
        ):
            put_header(entry, kind, (len(labels), *shape))
            shutil.copyfileobj(file, entry)
        os.unlink(raw)
        with zipfile.ZipFile(folder / path.name, "a") as archive, archive.open("labels.npy", "w") as entry:
            numbers = np.array(labels, np.float64)
            whole = bool((np.isfinite(numbers) & (numbers == np.rint(numbers))).all())
            np.lib.format.write_array(entry, numbers.astype(np.int64 if whole else np.float32))
        write_beside(folder, beside)
    return len(labels)


def put_header(file: IO[bytes], kind: np.dtype[Any], shape: tuple[int, ...]) -> None:
    """The start of a .npy file of values of this type and shape, in C order."""
    described = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_2_0(file, described)
