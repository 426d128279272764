"""Array files: idx (plain or gzip), members of npz, CIFAR-10's binary batches. Nothing is ever unpickled."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np

from netspec.errors import DataError, no_such_file, one_line
from netspec.schema.regular import LARGER, most_unpacked, refuse_special

Array = np.ndarray[Any, Any]

MOST_BYTES = 2**31
"""Larger arrays are not read; a header that declares more counts as damage."""

KINDS = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
"""Element type by the third byte of an idx file (LeCun's description of the format)."""

CHUNK = 1 << 20


@contextmanager
def reading(path: Path) -> Iterator[IO[bytes]]:
    """The file's bytes, decompressed when it starts like gzip; damage becomes a DataError that names the
    file.
    """
    refuse_special(path)
    try:
        with open(path, "rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            yield gzip.GzipFile(fileobj=raw) if zipped else raw  # type: ignore[misc]
    except FileNotFoundError as error:
        raise DataError(no_such_file(path)) from error
    except EOFError as error:
        raise DataError(f"{path}: the gzip stream is truncated") from error
    except (OSError, zlib.error) as error:
        raise DataError(f"{path}: {error}") from error


def header(file: IO[bytes], path: Path) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Element type and shape at the start of an idx file."""
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in KINDS or not 1 <= magic[3] <= 8:
        raise DataError(f"{path}: not an idx file (it starts with {magic.hex(' ') or 'nothing'})")
    sizes = file.read(4 * magic[3])
    if len(sizes) < 4 * magic[3]:
        raise DataError(f"{path}: truncated within its header")
    return np.dtype(KINDS[magic[2]]), struct.unpack(f">{magic[3]}I", sizes)


def shape(path: Path) -> tuple[int, ...]:
    """The shape that an idx file declares; reads the header only."""
    with reading(path) as file:
        return header(file, path)[1]


def read(path: Path, most: int = MOST_BYTES) -> Array:
    """The array of an idx file, plain or gzip; DataError when it is damaged, truncated, or longer than
    declared.
    """
    with reading(path) as file:
        dtype, dims = header(file, path)
        size = prod(dims) * dtype.itemsize
        most = min(most, most_unpacked(path.stat().st_size))
        if size > most:
            raise DataError(
                f"{path}: declares shape {dims}, {size} bytes; more than {most} are not read{LARGER}"
            )
        data = at_most(file, size + 1)
    if len(data) != size:
        actual = f"only {len(data)}" if len(data) < size else "more"
        raise DataError(f"{path}: shape {dims} needs {size} bytes after the header, found {actual}")
    array = np.frombuffer(data, dtype).reshape(dims)
    return array.astype(dtype.newbyteorder("="), copy=False)


def at_most(file: IO[bytes], size: int) -> bytes:
    """Up to `size` bytes; memory grows with the bytes that are there, not with the declared number."""
    out = io.BytesIO()
    while out.tell() < size:
        piece = file.read(min(CHUNK, size - out.tell()))
        if not piece:
            break
        out.write(piece)
    return out.getvalue()


def write(path: Path, array: Array) -> None:
    """Write an idx file; gzip when the name ends in .gz."""
    kinds = {np.dtype(kind).newbyteorder("="): code for code, kind in KINDS.items()}
    if array.dtype not in kinds:
        raise DataError(f"{path}: idx files do not hold {array.dtype}")
    code = kinds[array.dtype]
    head = bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    data = head + array.astype(KINDS[code]).tobytes()
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


class Npz:
    """The arrays of an .npz file, each checked against the archive's own sizes before it is allocated."""

    def __init__(self, path: Path):
        self.path = path

    def names(self) -> list[str]:
        """Names of the arrays."""
        with self._open() as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of one array, from its header."""
        with self._open() as archive, self._member(archive, name) as member:
            return self._header(member, name)[0]

    def read(self, name: str, most: int = MOST_BYTES) -> Array:
        """One array; DataError when it is absent, of Python objects, damaged, or larger than `most` bytes."""
        with self._open() as archive, self._member(archive, name) as member:
            dims, fortran, dtype = self._header(member, name)
            size = prod(dims) * dtype.itemsize
            most = min(most, most_unpacked(self.path.stat().st_size))
            if size > most:
                text = f"array {name!r} declares shape {dims}, {size} bytes; more than {most} are not read{LARGER}"
                raise DataError(f"{self.path}: {text}")
            data = at_most(member, size + 1)
        if len(data) != size:
            raise DataError(
                f"{self.path}: array {name!r} of shape {dims} needs {size} bytes, found {len(data)}"
            )
        array = np.frombuffer(data, dtype)
        return array.reshape(dims[::-1]).T if fortran else array.reshape(dims)

    @contextmanager
    def _open(self) -> Iterator[zipfile.ZipFile]:
        refuse_special(self.path)
        try:
            with zipfile.ZipFile(self.path) as archive:
                yield archive
        except FileNotFoundError as error:
            raise DataError(no_such_file(self.path)) from error
        except DataError:
            raise
        except Exception as error:  # decompressors, and numpy's reader of headers, raise errors of every kind
            raise DataError(f"{self.path}: {one_line(error)}") from error

    def _member(self, archive: zipfile.ZipFile, name: str) -> IO[bytes]:
        members = {member.removesuffix(".npy"): member for member in archive.namelist()}
        if name not in members:
            raise DataError(
                f"{self.path}: has no array {name!r}; it holds {', '.join(sorted(members)) or 'nothing'}"
            )
        return archive.open(members[name])

    def _header(self, member: IO[bytes], name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
        version = np.lib.format.read_magic(member)
        read_header = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        dims, fortran, dtype = read_header(member)
        if dtype.hasobject:
            raise DataError(f"{self.path}: array {name!r} holds Python objects, which are not read")
        return dims, fortran, dtype


def npy(path: Path, most: int = MOST_BYTES) -> Array:
    """The array of an .npy file, memory-mapped; DataError when damaged or of Python objects."""
    refuse_special(path)
    try:
        array: Array = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # numpy's reader of headers raises errors of every kind
        raise DataError(f"{path}: {one_line(error)}") from error
    if array.nbytes > most:
        raise DataError(f"{path}: declares shape {array.shape}, {array.nbytes} bytes: too large")
    return array
