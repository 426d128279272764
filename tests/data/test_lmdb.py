"""LMDB read without its library: what it reads is what the library reads, and damage is an error."""

from __future__ import annotations

import contextlib
import random
import struct
from pathlib import Path

import numpy as np
import pytest

from netspec.data.files import lmdb as lmdb_reader
from netspec.data.sources.database import Lmdb
from netspec.errors import DataError
from tests.mutations import mutated
from tools.fuzz import databases as fuzz_databases
from tools.fuzz import lmdb as fuzz_lmdb

lmdb = pytest.importorskip("lmdb")
RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("most", [20, 300, 4000, 100_000])
def test_lmdb_reader_agrees_with_the_library(tmp_path: Path, most: int) -> None:
    """Overwritten and deleted keys, several transactions, values within pages and on pages of their own."""
    env = lmdb.open(str(tmp_path / "db"), map_size=1 << 27)
    for _ in range(4):
        with env.begin(write=True) as transaction:
            for _ in range(40 if most > 9999 else 700):
                key = b"%06d" % RANDOM.integers(2000) + b"x" * int(RANDOM.integers(0, 100))
                if RANDOM.random() < 0.2:
                    transaction.delete(key[:6])
                else:
                    transaction.put(key, RANDOM.bytes(int(RANDOM.integers(0, most))))
    with env.begin() as transaction:
        expected = list(transaction.cursor())
        depth = transaction.stat()["depth"]
    env.close()
    assert depth > 1
    before = sorted((file.name, file.stat().st_mtime_ns) for file in (tmp_path / "db").iterdir())
    reader = lmdb_reader.Reader(tmp_path / "db" / "data.mdb")
    assert reader.entries == len(expected)
    assert [(node.key, reader.value(node)) for node in reader.nodes()] == expected
    reader.close()
    assert sorted((file.name, file.stat().st_mtime_ns) for file in (tmp_path / "db").iterdir()) == before


def test_values_that_are_passed_over_are_not_read(tmp_path: Path) -> None:
    """Their pages would come from the disk, one by one, when a run is resumed far into the data."""
    env = lmdb.open(str(tmp_path / "db"), map_size=1 << 27)
    with env.begin(write=True) as transaction:
        for i in range(300):
            transaction.put(b"%06d" % i, bytes([i % 256]) * 20000)
    env.close()
    database = Lmdb(tmp_path / "db")
    assert database.at(299) == (b"000299", bytes([299 % 256]) * 20000)
    assert database.reader.visited < 50
    database.close()


def damaged(data: bytes, at: int, form: str, value: int) -> bytes:
    out = bytearray(data)
    struct.pack_into(form, out, at, value)
    return bytes(out)


def read_all(path: Path) -> None:
    database = Lmdb(path)
    while database.advance(True) is not None:
        pass


def test_damaged_pages_of_lmdb_are_refused(tmp_path: Path) -> None:
    """Such numbers end a process that LMDB's own library reads them in."""
    (tmp_path / "one").mkdir()
    for data in fuzz_databases.files(tmp_path / "one")[1:3]:
        meta = max((0, 4096), key=lambda at: struct.unpack_from("<Q", data, at + 16 + 24 + 96 + 8)[0])
        table = meta + 16 + 24 + 48
        root = struct.unpack_from("<Q", data, table + 40)[0] * 4096
        node = root + struct.unpack_from("<H", data, root + 16)[0]
        for at, form, value, reason in (
            (meta + 16, "<I", 1, "no meta page"),
            (meta + 20, "<I", 999, "version 999"),
            (meta + 40, "<I", 4097, "pages of 4097 bytes"),
            (table + 4, "<H", 4, "several values a key"),
            (table + 6, "<H", 60, "depth 60"),
            (table + 6, "<H", 9, "not of the kind|is asked for"),
            (table + 32, "<Q", 2**40, "records in"),
            (table + 32, "<Q", 1, "more records than the 1"),
            (table + 32, "<Q", 401, "it declares 401"),
            (table + 40, "<Q", 2**50, "is asked for"),
            (table + 40, "<Q", 1, "is asked for"),
            (table + 48, "<Q", 2**50, "truncated"),
            (root, "<Q", 77, "not of the kind"),
            (root + 12, "<H", 15, "nodes outside of itself"),
            (root + 12, "<H", 5000, "nodes outside of itself"),
            (root + 16, "<H", 4095, "node outside of itself"),
            (root + 16, "<H", 3, "node outside of itself"),
            (node, "<I", 2**32 - 1, "leaves it|is asked for|does not end"),
            (node + 6, "<H", 65535, "leaves it|records, it declares|not of the kind|does not end"),
        ):
            if form == "<H" and at == node + 6 and data[root + 10] & 1:
                continue  # the key's length matters in leaves alone
            (tmp_path / "data.mdb").write_bytes(damaged(data, at, form, value))
            with pytest.raises(DataError, match=reason):
                read_all(tmp_path)


def test_mutated_lmdb_files_are_read_or_refused(tmp_path: Path) -> None:
    (tmp_path / "seeds").mkdir()
    seeds, read = fuzz_databases.files(tmp_path / "seeds"), fuzz_databases.file_reader(tmp_path / "db")
    for i in range(60):
        chance = random.Random(i)
        with contextlib.suppress(DataError):
            read(mutated(chance.choice(seeds), chance, fuzz_databases.PAGE_CHANGES, seeds))


def test_damaged_files_are_given_to_both(capsys: pytest.CaptureFixture[str]) -> None:
    assert fuzz_lmdb.main(["--count", "12"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(int(line.rpartition(" ")[2]) for line in lines) == 12
    assert all("netspec read" in line or "netspec refused" in line for line in lines)
