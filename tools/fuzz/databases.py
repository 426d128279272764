"""What tools/fuzz/run.py mutates of databases: their records, and the pages of their files."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from netspec import schema
from netspec.data import feeder
from netspec.data.files.images import encode
from netspec.data.files.protos import datum
from netspec.data.writing.convert import Example, from_database
from netspec.data.writing.databases import LmdbWriter
from netspec.net.make import make_net
from tests.mutations import BYTE_CHANGES, HUGE, Change

PAGE = 4096
DATA = """layer { name: "d" type: "Data" top: "data" top: "label" transform_param { mirror: true crop_size: 4
  scale: 0.5 } data_param { source: "%s" batch_size: 2 backend: LMDB } }"""
BOXES = """layer { name: "d" type: "AnnotatedData" top: "data" top: "label" transform_param { mirror: true
  resize_param { height: 8 width: 8 } emit_constraint { emit_type: CENTER } } annotated_data_param { }
  data_param { source: "%s" batch_size: 2 backend: LMDB } }"""


def records() -> list[bytes]:
    """Datums of bytes, of floats, and of encoded pictures."""
    image = np.random.default_rng(1).integers(0, 256, (3, 6, 5), dtype=np.uint8)
    pictures = [encode(image, kind, "seed") for kind in ("png", "jpg", "bmp", "tiff", "webp", "ppm", "jp2")]
    return [
        datum(image, 3),
        datum(image.astype(np.float32), 2),
        *(Example("", image, 4, picture).datum() for picture in pictures),
    ]


def boxes() -> list[bytes]:
    """Pictures with boxes, as SSD keeps them."""
    messages = []
    for record in records()[:5]:
        message = schema.AnnotatedDatum(type=0)
        message.datum.ParseFromString(record)
        for i in range(2):
            box = message.annotation_group.add(group_label=1 + i).annotation.add(instance_id=i).bbox
            box.xmin, box.ymin, box.xmax, box.ymax = 0.1, 0.2, 0.5 + i / 4, 0.9
        messages.append(message.SerializeToString())
    return messages


def files(folder: Path) -> list[bytes]:
    """LMDB files: of one page, with branch pages, and with values that fill pages of their own."""
    small = np.random.default_rng(1).integers(0, 256, (3, 6, 5), dtype=np.uint8)
    large = np.random.default_rng(1).integers(0, 256, (3, 48, 48), dtype=np.uint8)
    pages = []
    for i, values in enumerate(([small] * 3, [small] * 400, [large] * 6, [small, large] * 8)):
        out = LmdbWriter(folder / f"pages{i}")
        for k, value in enumerate(values):
            out.put(b"%08d" % k, datum(value, k % 10))
        out.close()
        pages.append((folder / f"pages{i}" / "data.mdb").read_bytes())
    return pages


def page_number(data: bytes, chance: random.Random, others: Sequence[bytes]) -> bytes:
    """A number that a page is read by: in its header, in the meta data, a node's place, or a node's own."""
    out = bytearray(data)
    start = chance.randrange(max(1, len(out) // PAGE)) * PAGE
    width = chance.choice((1, 2, 2, 4, 8))
    at = start + chance.choice((chance.randrange(16), chance.randrange(16, 168), chance.randrange(16, 40)))
    if chance.random() < 0.4:  # into the node that one of the places leads to
        place = start + 16 + 2 * chance.randrange(8)
        at = start + int.from_bytes(out[place : place + 2], "little") + chance.randrange(20)
    if at + width > len(out):
        return bytes(out)
    near = max(0, int.from_bytes(out[at : at + width], "little") + chance.choice((-1, 1, 2, 16, -16)))
    value = chance.choice((near, chance.choice(HUGE), chance.randrange(64), chance.randrange(PAGE)))
    out[at : at + width] = (value % (1 << 8 * width)).to_bytes(width, "little")
    return bytes(out)


def swap_pages(data: bytes, chance: random.Random, others: Sequence[bytes]) -> bytes:
    """A page in another's place, with its number or with that of the other."""
    pages = len(data) // PAGE
    if pages < 2:
        return data
    i, j = chance.randrange(pages) * PAGE, chance.randrange(pages) * PAGE
    keep = chance.choice((0, 8))
    return data[: i + keep] + data[j + keep : j + PAGE] + data[i + PAGE :]


PAGE_CHANGES: tuple[Change, ...] = (*BYTE_CHANGES, *[page_number] * 8, swap_pages, swap_pages)


def net_reader(path: Path, layer: str) -> Callable[[], None]:
    """Builds the data layer's net and takes a batch."""
    text = schema.parse_net(layer % path)

    def read() -> None:
        net = make_net(text, "TRAIN", seed=1)
        with feeder(net, ahead=False) as batches:
            batches.next()

    return read


def record_reader(path: Path, layer: str) -> Callable[[bytes], None]:
    """Reads a database of two records, the mutated one and a good one."""
    import lmdb

    good = (boxes() if layer is BOXES else records())[0]
    take = net_reader(path, layer)

    def read(data: bytes) -> None:
        with lmdb.open(str(path), map_size=1 << 24, sync=False) as out, out.begin(write=True) as transaction:
            transaction.put(b"0", data)
            transaction.put(b"1", good)
        if layer is DATA:
            list(from_database(path))
        take()

    return read


def file_reader(path: Path) -> Callable[[bytes], None]:
    """Reads every record of a database whose file is mutated, and a batch."""
    path.mkdir()
    take = net_reader(path, DATA)

    def read(data: bytes) -> None:
        (path / "data.mdb").write_bytes(data)
        take()
        for _ in from_database(path):
            pass

    return read
