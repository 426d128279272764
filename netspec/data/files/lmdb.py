"""LMDB read without its library, which trusts every number in the file that it maps: a damaged file would end the
process.

Every page, node and length is checked against the file's bounds before it is followed, and at most as many pages are
visited as the file has, so that time and memory are bounded by its size. Nothing is locked or written. The reader
supports what Caffe writes: one table without duplicate keys, from a 64-bit little-endian machine. Format: lmdb.h and
the structures at the head of mdb.c of LMDB 0.9.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from netspec.errors import DataError
from netspec.schema.regular import refuse_special

MAGIC, VERSION = 0xBEEFC0DE, 1
HEADER = struct.Struct("<QHHHH")
"""Of a page: its number, padding, flags, end of the node places, start of the nodes (of an overflow: its pages)."""
META = struct.Struct("<IIQQ")
"""Behind the header of a meta page: magic, version, address, size of the map."""
TABLE = struct.Struct("<IHHQQQQQ")
"""A table: padding, flags, depth, branch, leaf and overflow pages, entries, root."""
NODE = struct.Struct("<HHHH")
"""Two halves of a size (of a page number in branches, their third part in the flags), flags, length of the key."""
BRANCH, LEAF, OVERFLOW, META_PAGE = 1, 2, 4, 8
BIG = 1
"""Flag of a node whose value lies on overflow pages."""
DUPLICATES = 4
"""Flag of a table that holds several values a key."""
MOST_DEPTH = 32
SMALLEST_NODE = NODE.size + 2


class Damage(Exception):
    """The bytes do not follow the format."""


@dataclass(frozen=True)
class Meta:
    """What a meta page says: the state of the database after one transaction."""

    page_size: int
    flags: int
    depth: int
    entries: int
    root: int
    last: int
    """Number of the last page in use."""
    transaction: int


class Node(NamedTuple):
    """A record: its key, the place of its value (`big`: the place of the number of its first page), and its length."""

    key: bytes
    place: int
    length: int
    big: bool


class Reader:
    """The records of one file: `entries` is their number, `nodes` gives their places, `value` their contents."""

    def __init__(self, file: Path):
        """DataError where the file cannot be read, is no LMDB, or is truncated."""
        refuse_special(file)
        try:
            with open(file, "rb") as opened:
                self.data = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:  # the latter for an empty file
            raise DataError(f"{file}: not a readable LMDB ({error})") from None
        try:
            self.meta = self.newest()
        except Damage as damage:
            self.data.close()
            raise DataError(f"{file}: not a readable LMDB ({damage})") from None
        self.entries = self.meta.entries
        if (end := (self.meta.last + 1) * self.meta.page_size) > len(self.data):
            size = len(self.data)
            self.data.close()
            raise DataError(f"{file}: truncated; {end} bytes are in use, it has {size}")

    def close(self) -> None:
        """Let the file go."""
        self.data.close()

    def newest(self) -> Meta:
        """The meta page of the last transaction: one of the first two pages."""
        first = self.read_meta(0, 0)
        second = self.read_meta(first.page_size, 1)
        latest = second if second.transaction > first.transaction else first
        if latest.flags & DUPLICATES:
            raise Damage("it holds several values a key, which no Caffe writes")
        if latest.depth > MOST_DEPTH:
            raise Damage(f"a tree of depth {latest.depth}")
        if latest.entries > len(self.data) // SMALLEST_NODE:
            raise Damage(f"{latest.entries} records in {len(self.data)} bytes")
        return latest

    def read_meta(self, at: int, number: int) -> Meta:
        start = at + HEADER.size
        main = start + META.size + TABLE.size
        if main + TABLE.size + 16 > len(self.data):
            raise Damage("it ends within its first pages")
        _, _, flags, _, _ = HEADER.unpack_from(self.data, at)
        magic, version, _, _ = META.unpack_from(self.data, start)
        if not flags & META_PAGE or magic != MAGIC:
            raise Damage(f"page {number} is no meta page")
        if version != VERSION:
            raise Damage(f"version {version} of the format; read is {VERSION}")
        size = TABLE.unpack_from(self.data, start + META.size)[0]
        if size not in (1 << k for k in range(8, 17)):
            raise Damage(f"pages of {size} bytes")
        _, kind, depth, _, _, _, entries, root = TABLE.unpack_from(self.data, main)
        last, transaction = struct.unpack_from("<QQ", self.data, main + TABLE.size)
        return Meta(size, kind, depth, entries, root, last, transaction)

    def nodes(self) -> Iterator[Node]:
        """Each record in key order, its value unread; Damage where the file breaks the format."""
        count, self.visited = 0, 0
        if self.entries:
            for node in self.walk(self.meta.root, self.meta.depth):
                if count == self.entries:
                    raise Damage(f"more records than the {self.entries} it declares")
                count += 1
                yield node
        if count < self.entries:
            raise Damage(f"{count} records, it declares {self.entries}")

    def value(self, node: Node) -> bytes:
        """The value of a record from `nodes`; Damage where a large value is not on overflow pages."""
        place = self.overflow(node.place, node.length) if node.big else node.place
        return self.data[place : place + node.length]

    def walk(self, number: int, depth: int) -> Iterator[Node]:
        """The nodes below a page, the leaves at depth 1."""
        start = self.page(number, BRANCH if depth > 1 else LEAF)
        size = self.meta.page_size
        lower, upper = struct.unpack_from("<HH", self.data, start + 12)
        if not HEADER.size + 2 <= lower <= upper <= size:
            raise Damage(f"page {number} has its nodes outside of itself")
        for at in struct.unpack_from(f"<{(lower - HEADER.size) // 2}H", self.data, start + HEADER.size):
            if not upper <= at <= size - NODE.size:
                raise Damage(f"page {number} has a node outside of itself")
            low, high, flags, length = NODE.unpack_from(self.data, start + at)
            if depth > 1:
                yield from self.walk(low | high << 16 | flags << 32, depth - 1)
                continue
            key, end = start + at + NODE.size, start + size
            place, big = key + length, flags == BIG
            if flags & ~BIG or place + (8 if big else low | high << 16) > end:
                raise Damage(f"page {number} has a record that leaves it")
            yield Node(self.data[key:place], place, low | high << 16, big)

    def page(self, number: int, kind: int) -> int:
        """The place of a page; Damage where it is of another kind."""
        if not 2 <= number <= self.meta.last:
            raise Damage(f"page {number} of {self.meta.last + 1} is asked for")
        self.visited += 1
        if self.visited > self.meta.last:
            raise Damage("its pages lead to each other in a circle")
        start = number * self.meta.page_size
        own, _, flags, _, _ = HEADER.unpack_from(self.data, start)
        if own != number or flags & (BRANCH | LEAF | OVERFLOW | META_PAGE) != kind:
            raise Damage(f"page {number} is not of the kind that is asked for")
        return start

    def overflow(self, place: int, length: int) -> int:
        """The start of a value on overflow pages, whose number is stored at `place`."""
        (number,) = struct.unpack_from("<Q", self.data, place)
        start = self.page(number, OVERFLOW)
        pages = -(-(length + HEADER.size) // self.meta.page_size)
        self.visited += pages - 1
        if pages > struct.unpack_from("<I", self.data, start + 12)[0] or number + pages > self.meta.last + 1:
            raise Damage(f"a value of {length} bytes does not end on its pages, from {number} on")
        return int(start + HEADER.size)
