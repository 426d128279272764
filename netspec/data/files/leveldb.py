"""LevelDB read without its library: tables, log and manifest of a folder, merged in key order.

Nothing is locked or written, so that folders in use by another process and read-only folders can be read. Sizes are
checked before anything is allocated; checksums are not. Blocks compressed with snappy are decompressed by cramjam where
it is installed, else in Python. Format: the files doc/table_format.md and doc/log_format.md of LevelDB.
"""

from __future__ import annotations

import heapq
import mmap
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from netspec.errors import DataError
from netspec.schema import encoded
from netspec.schema.regular import read_regular, refuse_special

MAGIC = 0xDB4775248B80FB57
"""Last eight bytes of a table."""
FOOTER = 48
LOG_BLOCK = 32768
MOST_BLOCK = 1 << 28
"""No block above this size is decompressed."""

Entry = tuple[bytes, int, int, bytes]
"""(user key, -sequence number, 1 for a value or 0 for a deletion, value): sorts the newest entry of a key
first.
"""


class Damage(Exception):
    """The bytes do not follow the format."""


def varint(data: bytes, at: int) -> tuple[int, int]:
    """A variable-length integer at `at`, and the place behind it."""
    try:
        return encoded.varint(data, at, len(data))
    except IndexError as error:
        raise Damage(str(error)) from None


def text(data: bytes, at: int) -> tuple[bytes, int]:
    """Bytes led by their length, and the place behind them."""
    size, at = varint(data, at)
    if at + size > len(data):
        raise Damage("a string runs over the end")
    return data[at : at + size], at + size


# snappy


def snappy_library() -> Callable[[bytes], bytes] | None:
    """cramjam's decompressor of raw snappy, or None when it is not installed."""
    try:
        import cramjam
    except ImportError:
        return None

    def decompress(data: bytes) -> bytes:
        try:
            return bytes(cramjam.snappy.decompress_raw(data))
        except cramjam.DecompressionError as error:
            raise Damage(f"a compressed block: {error}") from error

    return decompress


def snappy(data: bytes) -> bytes:
    """Raw snappy decompressed; Damage when it is not that, or longer than it declares."""
    size, at = varint(data, 0)
    if size > MOST_BLOCK:
        raise Damage(f"a block declares {size} bytes")
    out = bytearray()
    while at < len(data):
        tag = data[at]
        at += 1
        kind = tag & 3
        if kind == 0:
            length = (tag >> 2) + 1
            if length > 60:
                extra = length - 60
                length = int.from_bytes(data[at : at + extra], "little") + 1
                at += extra
            if at + length > len(data):
                raise Damage("a compressed block is truncated")
            out += data[at : at + length]
            at += length
        else:
            width = (1, 2, 4)[kind - 1]
            back = int.from_bytes(data[at : at + width], "little")
            length = (tag >> 2) + 1
            if kind == 1:
                back, length = back | (tag >> 5) << 8, ((tag >> 2) & 7) + 4
            at += width
            if not 0 < back <= len(out):
                raise Damage("a compressed block copies from before its start")
            start = len(out) - back
            piece = out[start : start + length]
            out += (piece * (length // len(piece) + 1))[:length]
        if len(out) > size:
            raise Damage("a compressed block is longer than it declares")
    if len(out) != size:
        raise Damage("a compressed block is truncated")
    return bytes(out)


# Tables


class Table:
    """One sorted table file (.ldb, .sst)."""

    def __init__(self, path: Path, decompress: Callable[[bytes], bytes]):
        self.path, self.decompress = path, decompress
        refuse_special(path)
        with open(path, "rb") as file:
            size = path.stat().st_size
            if size < FOOTER:
                raise Damage("too short for a table")
            self.data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        foot = self.data[size - FOOTER :]
        if struct.unpack("<Q", foot[-8:])[0] != MAGIC:
            raise Damage("does not end as a table does (truncated?)")
        _, at = varint(foot, 0)
        _, at = varint(foot, at)
        self.index = self.block(foot, at)

    def block(self, handle: bytes, at: int = 0) -> bytes:
        """The contents of the block that a handle (offset, size) points to."""
        offset, at = varint(handle, at)
        size, _ = varint(handle, at)
        if offset + size + 5 > len(self.data):
            raise Damage("a block lies beyond the end")
        kind = self.data[offset + size]
        contents = self.data[offset : offset + size]
        if kind == 0:
            return contents
        if kind != 1:
            raise Damage(f"compression of kind {kind}")
        if varint(contents, 0)[0] > MOST_BLOCK:
            raise Damage("a block declares too many bytes")
        return self.decompress(contents)

    def __iter__(self) -> Iterator[Entry]:
        """All entries, in the order of their keys."""
        for _, handle in pairs(self.index):
            for key, value in pairs(self.block(handle)):
                if len(key) < 8:
                    raise Damage("a key without its sequence number")
                (trailer,) = struct.unpack("<Q", key[-8:])
                yield key[:-8], -(trailer >> 8), trailer & 0xFF, value


def pairs(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys (each stored as what differs from the one before) and values of a block."""
    if len(block) < 4:
        raise Damage("a block too short")
    (restarts,) = struct.unpack("<I", block[-4:])
    end = len(block) - 4 - 4 * restarts
    if end < 0:
        raise Damage("a block with too many restarts")
    at, key = 0, b""
    while at < end:
        shared, at = varint(block, at)
        fresh, at = varint(block, at)
        size, at = varint(block, at)
        if shared > len(key) or at + fresh + size > end:
            raise Damage("an entry runs over the end of its block")
        key = key[:shared] + block[at : at + fresh]
        at += fresh
        yield key, block[at : at + size]
        at += size


# Logs


def log_records(data: bytes) -> Iterator[bytes]:
    """The records of a log or manifest; an unfinished one at the end is left out, as LevelDB does."""
    parts: list[bytes] = []
    at = 0
    while at + 7 <= len(data):
        left = LOG_BLOCK - at % LOG_BLOCK
        if left < 7:
            at += left
            continue
        _, size, kind = struct.unpack_from("<IHB", data, at)
        at += 7
        if kind == 0 and size == 0:  # the rest of a block that was set aside
            at += left - 7
            continue
        if kind not in (1, 2, 3, 4) or size > left - 7:
            raise Damage("a log record that is none")
        if at + size > len(data):
            return
        parts.append(data[at : at + size])
        at += size
        if kind in (1, 4):
            yield b"".join(parts)
            parts = []


def log_entries(data: bytes) -> Iterator[Entry]:
    """The writes in a log, in the order they were made."""
    for record in log_records(data):
        if len(record) < 12:
            raise Damage("a batch of writes too short")
        sequence, count = struct.unpack_from("<QI", record)
        at = 12
        for i in range(count):
            if at >= len(record):
                raise Damage("a batch of writes is truncated")
            kind = record[at]
            key, at = text(record, at + 1)
            value = b""
            if kind == 1:
                value, at = text(record, at)
            yield key, -(sequence + i), kind, value


def manifest(data: bytes) -> tuple[set[int], int, int]:
    """(numbers of the live tables, of the oldest log to replay, of the one before it) from a manifest."""
    tables: set[int] = set()
    log = before = 0
    for record in log_records(data):
        at = 0
        while at < len(record):
            tag, at = varint(record, at)
            if tag == 1:
                _, at = text(record, at)
            elif tag in (2, 3, 4, 9):
                number, at = varint(record, at)
                log, before = (number if tag == 2 else log), (number if tag == 9 else before)
            elif tag == 5:
                _, at = varint(record, at)
                _, at = text(record, at)
            elif tag in (6, 7):
                _, at = varint(record, at)
                number, at = varint(record, at)
                if tag == 6:
                    tables.discard(number)
                    continue
                _, at = varint(record, at)
                _, at = text(record, at)
                _, at = text(record, at)
                tables.add(number)
            else:
                raise Damage(f"an unknown entry {tag} in the manifest")
    return tables, log, before


class Reader:
    """The live records of a LevelDB folder, in key order. Raises DataError naming the damaged file."""

    def __init__(self, path: Path):
        self.path = path
        decompress = snappy_library() or snappy
        place: Any = path / "CURRENT"
        try:
            place = path / read_regular(place).decode().strip()
            tables, log, before = manifest(read_regular(place))
            self.tables = []
            for number in sorted(tables):
                names = [path / f"{number:06}.{ending}" for ending in ("ldb", "sst")]
                place = next((name for name in names if name.is_file()), names[0])
                self.tables.append(Table(place, decompress))
            self.recent: list[Entry] = []
            for place in sorted(path.glob("*.log")):
                if place.stem.isdigit() and (int(place.stem) >= log or int(place.stem) == before):
                    self.recent += log_entries(read_regular(place))
            self.recent.sort(key=lambda entry: entry[:2])
        except (OSError, UnicodeDecodeError, ValueError, struct.error, Damage) as error:
            raise DataError(f"{place}: not readable as LevelDB ({error})") from error

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        try:
            last: bytes | None = None
            for key, _, kind, value in heapq.merge(*self.tables, self.recent, key=lambda entry: entry[:2]):
                if key == last:
                    continue
                last = key
                if kind == 1:
                    yield key, value
        except (Damage, struct.error, IndexError) as error:
            raise DataError(f"{self.path}: damaged LevelDB ({error})") from error
