"""What tools/fuzz/run.py mutates of arrays: HDF5 data, safetensors, npz, npy, idx, pictures, and tables."""

from __future__ import annotations

import gzip
import io
import random
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import torch

from netspec import interchange
from netspec.data.files import idx
from netspec.data.files.images import decode, encode
from netspec.data.pictures.opening import open_pictures
from netspec.data.sources.hdf5 import Hdf5File
from netspec.data.tables.reading import open_table
from netspec.data.tables.table import Wishes, describe
from netspec.interchange import safetensors
from netspec.net.net import Net
from tests.mutations import TEXT_CHANGES, mutated

VALUES = np.random.default_rng(2).normal(size=(6, 3, 5, 4)).astype(np.float32)
TABLE = """name,length,day,open,kind
"a, b",1.5,2026-01-02,yes,x
c,,2026-02-03,no,y
"d ""e"" g",-3e5,,yes,x
f,7,2026-12-31,no,
"""


def hdf5_data() -> list[bytes]:
    """Data sets as HDF5Data reads them: plain, in chunks, compressed, with filters, of integers, in groups."""
    files = []
    for options in ({}, {"chunks": (2, 3, 5, 4)}, {"chunks": (1, 3, 5, 4), "compression": "gzip", "shuffle": True},
                    {"chunks": (6, 1, 5, 4), "fletcher32": True, "maxshape": (None, 3, 5, 4)}):  # fmt: skip
        buffer = io.BytesIO()
        with h5py.File(buffer, "w") as file:
            file.create_dataset("x", data=VALUES, **options)
            file.create_dataset("y", data=np.arange(6, dtype="i2"))
            file.create_group("g")["z"] = 1.0
            file["x"].attrs["note"] = "of no use"
        files.append(buffer.getvalue())
    return files


def hdf5_reader(path: Path) -> Callable[[bytes], None]:
    def read(data: bytes) -> None:
        path.write_bytes(data)
        file = Hdf5File(path, ("x", "y"))
        try:
            file.read(np.arange(file.rows)[::-1])
        finally:
            file.close()
        open_pictures(path)

    return read


def tensors(net: Net, folder: Path) -> list[bytes]:
    """Weights of a net, tensors of many types, and a file of another program without checksums."""
    first, second, third = (folder / f"seed{i}.safetensors" for i in range(3))
    interchange.save_weights(net, first)
    kinds = (torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.float64)
    safetensors.save(second, {str(kind): torch.ones(2, 3, dtype=kind) for kind in kinds}, {"iteration": 3})
    header = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},'
    header += b'"b":{"dtype":"I64","shape":[],"data_offsets":[8,16]}}'
    third.write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))
    return [path.read_bytes() for path in (first, second, third)]


def header_word(data: bytes, chance: random.Random, others: Sequence[bytes]) -> bytes:
    """A change of the header's text, its length set right."""
    size = int.from_bytes(data[:8], "little")
    if not 0 < size <= len(data) - 8:
        return data
    text = mutated(data[8 : 8 + size], chance, TEXT_CHANGES, [other[8:200] for other in others])
    return struct.pack("<Q", len(text)) + text + data[8 + size :]


def tensors_reader(path: Path, net: Net) -> Callable[[bytes], None]:
    def read(data: bytes) -> None:
        path.write_bytes(data)
        safetensors.load(path)
        interchange.load_weights(net, path)

    return read


def archives() -> list[bytes]:
    """npz files: stored, compressed, of several types, in Fortran's order."""
    files = []
    for save in (np.savez, np.savez_compressed):
        buffer = io.BytesIO()
        save(buffer, x=VALUES, y=np.arange(6), f=np.asfortranarray(np.ones((3, 2), "f8")), t=np.array("text"))
        files.append(buffer.getvalue())
    return files


def archive_reader(path: Path) -> Callable[[bytes], None]:
    def read(data: bytes) -> None:
        path.write_bytes(data)
        archive = idx.Npz(path)
        for name in archive.names():
            archive.read(name)

    return read


def single_arrays() -> list[bytes]:
    """npy files of each version."""
    files = []
    for version in ((1, 0), (2, 0), (3, 0)):
        for array in (VALUES, np.asfortranarray(VALUES[0, 0]), np.arange(4, dtype=">i4")):
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, array, version=version)
            files.append(buffer.getvalue())
    return files


def single_reader(path: Path) -> Callable[[bytes], None]:
    def read(data: bytes) -> None:
        path.write_bytes(data)
        np.array(idx.npy(path))

    return read


def idx_files(folder: Path) -> list[bytes]:
    """idx files of bytes, integers and floats, plain and compressed."""
    files = []
    for array in (VALUES.astype("u1"), VALUES, VALUES.astype("i4"), np.arange(6, dtype="u1")):
        idx.write(folder / "seed.idx", array)
        plain = (folder / "seed.idx").read_bytes()
        files += [plain, gzip.compress(plain, mtime=0)]
    return files


def idx_reader(path: Path) -> Callable[[bytes], None]:
    def read(data: bytes) -> None:
        path.write_bytes(data)
        idx.shape(path)
        idx.read(path)

    return read


def pictures() -> list[bytes]:
    """Pictures of each kind that is written, grey and in colour."""
    files = []
    for channels in (1, 3):
        image = np.random.default_rng(1).integers(0, 256, (channels, 9, 7), dtype=np.uint8)
        for kind in ("png", "jpg", "bmp", "tiff", "webp", "ppm", "jp2", "gif"):
            with suppress(Exception):  # a kind that this Pillow does not write
                files.append(encode(image, kind, "seed"))
    return files


def picture_reader(path: Path) -> Callable[[bytes], None]:
    def read(data: bytes) -> None:
        decode(data, None, "picture")
        decode(data, True, "picture")
        path.write_bytes(data)
        open_pictures(path)

    return read


def tables() -> list[bytes]:
    """Tables with missing cells, quotes, dates, other separators and encodings."""
    german = TABLE.replace(",", ";").replace("1.5", "1,5").encode("cp1252")
    numbers = b"1 2 3\n4 5 6\n7 8 9\n"
    return [TABLE.encode(), TABLE.replace(",", "\t").encode(), german, numbers, TABLE.encode("utf-8-sig")]


def parquet() -> list[bytes]:
    """The same as Parquet; none where pyarrow is not installed."""
    with suppress(ImportError):
        import pyarrow as pa
        import pyarrow.parquet as pq

        files = []
        columns = {"a": [1.5, None, 3.0], "b": ["x", None, "y"], "c": [1, 2, 3]}
        for options in ({}, {"compression": "gzip"}, {"use_dictionary": False, "compression": "none"}):
            buffer = io.BytesIO()
            pq.write_table(pa.table(columns), buffer, **options)
            files.append(buffer.getvalue())
        return files
    return []


def table_reader(path: Path) -> Callable[[bytes], None]:
    def read(data: bytes) -> None:
        path.write_bytes(data)
        rows = open_table(path)
        layout = describe(rows, Wishes())
        places = layout.fit(rows.names, str(path))
        for piece in rows.pieces():
            layout.encode(piece, places)

    return read
