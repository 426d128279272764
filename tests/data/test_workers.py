"""Several threads that decode: the same batches as one, a resume that goes on with them, errors at their file."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from netspec.data import Stream, feeder
from netspec.data.files.idx import Array
from netspec.data.files.images import encode
from netspec.data.source import AHEAD, Feeder
from netspec.data.writing import convert, databases
from netspec.errors import DataError
from netspec.net.make import make_net

PIXELS = np.random.default_rng(5).integers(0, 256, (11, 3, 9, 8), dtype=np.uint8)
TRANSFORM = "transform_param { crop_size: 6 mirror: true mean_value: 100 }"


@pytest.fixture(params=["list", "lmdb", "encoded lmdb"])
def text(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A net whose data layer reads 11 pictures, 4 a batch."""
    if request.param == "list":
        for i, pixels in enumerate(PIXELS):
            Image.fromarray(pixels.transpose(1, 2, 0)).save(tmp_path / f"{i}.jpg")
        (tmp_path / "list.txt").write_text("".join(f"{i}.jpg {i}\n" for i in range(11)))
        source = f'source: "{tmp_path}/list.txt" root_folder: "{tmp_path}/" batch_size: 4 shuffle: true'
        kind, field = "ImageData", "image_data_param"
    else:
        databases.write_database(examples(request.param != "lmdb"), tmp_path / "db", "LMDB")
        kind, field, source = "Data", "data_param", f'source: "{tmp_path}/db" batch_size: 4 backend: LMDB'
    return f'layer {{ name: "d" type: "{kind}" top: "data" top: "label" {TRANSFORM} {field} {{ {source} }} }}'


def examples(encoded: bool) -> Iterator[convert.Example]:
    for i, image in enumerate(PIXELS):
        yield convert.Example(f"{i:08}", image, i, encode(image, "jpg", "a picture") if encoded else b"")


def batches(data: Feeder, count: int) -> list[tuple[Tensor, ...]]:
    return [data.next() for _ in range(count)]


def equal(first: list[tuple[Tensor, ...]], second: list[tuple[Tensor, ...]]) -> bool:
    pairs = itertools.chain.from_iterable(zip(a, b, strict=True) for a, b in zip(first, second, strict=True))
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_batches_do_not_depend_on_the_number_of_workers(text: str, workers: int) -> None:
    net = make_net(text, "TRAIN")
    with feeder(net, seed=3, ahead=False) as data:
        wanted = batches(data, 9)
    with feeder(net, seed=3, workers=workers) as data:
        assert data.parallel
        assert data.workers == workers
        assert equal(batches(data, 9), wanted)


@pytest.mark.parametrize(("before", "after"), [(1, 4), (4, 2), (2, 1)])
def test_a_resumed_stream_goes_on_with_other_workers(text: str, before: int, after: int) -> None:
    net = make_net(text, "TRAIN")
    with feeder(net, seed=3, workers=before) as data:
        whole = batches(data, 8)
    with feeder(net, seed=3, workers=before) as data:
        assert equal(batches(data, 3), whole[:3])
        state = data.state()
        batches(data, 2)
        data.load_state(state)
        assert equal(batches(data, 1), whole[3:4])
        data.skip(2)
        assert equal(batches(data, 2), whole[6:])
    with feeder(net, seed=3, workers=after) as data:
        data.load_state(state)
        assert equal(batches(data, 5), whole[3:])


def test_an_error_comes_with_its_batch_and_names_its_file(tmp_path: Path) -> None:
    for i in range(12):
        Image.fromarray(PIXELS[i % 11].transpose(1, 2, 0)).save(tmp_path / f"{i}.png")
    (tmp_path / "7.png").write_bytes(b"\x89PNG no more")
    (tmp_path / "list.txt").write_text("".join(f"{i}.png {i}\n" for i in range(12)))
    text = f"""layer {{ name: "d" type: "ImageData" top: "data" top: "label"
        image_data_param {{ source: "{tmp_path}/list.txt" root_folder: "{tmp_path}/" batch_size: 2 }} }}"""
    with feeder(make_net(text, "TRAIN"), workers=4) as data:
        for first in (0, 2, 4):
            assert data.next()[1].tolist() == [first, first + 1]
        state = data.state()
        with pytest.raises(DataError, match=r"layer 'd' \(ImageData\): .*7\.png: not a picture"):
            data.next()
        assert data.state() == state
        assert data.next()[1].tolist() == [8, 9]


class Counting(Stream):
    """Numbers that are their own positions; remembers how many were taken."""

    parallel = True

    def __init__(self) -> None:
        super().__init__(2)
        self.shapes = [(2,)]
        self.taken = 0

    def take(self, positions: Array) -> Array:
        self.taken += len(positions)
        return positions

    def make(self, positions: Array) -> tuple[Tensor, ...]:
        return (torch.from_numpy(positions.astype(np.float32)),)


def test_reading_ahead_is_bounded() -> None:
    stream = Counting()
    with Feeder([stream], workers=3) as data:
        for i in range(5):
            assert data.next()[0].tolist() == [2 * i, 2 * i + 1]
        assert stream.position == 2 * (5 + 3 + AHEAD)
    assert stream.taken <= stream.position
