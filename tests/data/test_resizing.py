"""Sizes that are drawn for each picture, fixed sizes, and shuffled databases (fields of Intel's and SSD's Caffe)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from netspec import schema
from netspec.data import feeder
from netspec.data.files.images import resize
from netspec.data.resizing import Resizing
from netspec.data.writing import convert, databases
from netspec.errors import NetspecError
from netspec.net.make import make_net
from netspec.schema import spec

RANDOM = np.random.default_rng(1)


def resizing(transform: str, seed: int = 0) -> Resizing:
    text = f'layer {{ name: "d" type: "Data" top: "x" transform_param {{ {transform} }} }}'
    return Resizing(spec.net(schema.parse_net(text), "TRAIN").layers[0], seed)


def picture(height: int, width: int) -> np.ndarray:
    return RANDOM.integers(0, 256, (3, height, width), dtype=np.uint8)


@pytest.mark.parametrize(("height", "width"), [(20, 40), (40, 20), (30, 30)])
def test_the_shorter_side_gets_each_size_equally_often(height: int, width: int) -> None:
    own = resizing("crop_size: 8 random_resize_param { min_size: 10 max_size: 13 }")
    image = picture(height, width)
    sizes = [own(image, key).shape[1:] for key in range(400)]
    shorter = [min(size) for size in sizes]
    assert {size: shorter.count(size) > 60 for size in range(10, 14)} == dict.fromkeys(range(10, 14), True)
    assert all(max(size) == int(max(height, width) / min(height, width) * min(size)) for size in sizes)
    again = resizing("crop_size: 8 random_resize_param { min_size: 10 max_size: 13 }")
    assert [again(image, key).shape[1:] for key in range(400)] == sizes
    assert (own(image, 7) == resize(image, *sizes[7])).all()


def test_sizes_that_are_left_open_are_the_pictures_sides() -> None:
    own = resizing("crop_size: 4 random_resize_param { }")
    shorter = {min(own(picture(5, 8), key).shape[1:]) for key in range(100)}
    assert shorter == {5, 6, 7, 8}


def test_parts_have_the_area_and_the_aspect_that_are_drawn() -> None:
    """Of a picture that holds its own coordinates the corners of the part can be read."""
    rows, columns = np.mgrid[0:200, 0:200].astype(np.float32)
    own = resizing("crop_size: 50 random_aspect_ratio_param { min_area_ratio: 0.2 max_area_ratio: 0.5 "
                   "aspect_ratio_change: 0.8 }")  # fmt: skip
    areas, aspects = [], []
    for key in range(200):
        part = own(np.stack([rows, columns]), key)
        assert part.shape == (2, 50, 50)
        # The centres of the outer pixels are half a new pixel from the edges.
        tall, wide = ((part[i].max() - part[i].min()) * 50 / 49 for i in (0, 1))
        areas.append(tall * wide / 200**2)
        aspects.append(tall / wide)
    assert 0.19 < min(areas) < 0.25
    assert 0.45 < max(areas) < 0.51
    assert 0.62 < min(aspects) < 0.75
    assert 1.33 < max(aspects) < 1.6


def test_where_no_part_fits_the_whole_picture_is_taken() -> None:
    own = resizing(
        "crop_size: 10 random_aspect_ratio_param { min_area_ratio: 1 aspect_ratio_change: 0.5 max_attempt: 0 }"
    )
    image = picture(20, 40)
    assert (own(image, 0) == resize(image, 10, 20)).all()


@pytest.mark.parametrize(
    ("transform", "reason"),
    [
        ("random_resize_param { min_size: 4 }", "it needs crop_size"),
        ("crop_size: 4 random_resize_param { min_size: 9 max_size: 5 }", "min_size 9 is above max_size 5"),
        ('crop_size: 4 mean_file: "m" random_resize_param { }', "give mean_value"),
        ("crop_size: 4 random_resize_param { resize_param { interp_mode: CUBIC } }", "bilinearly"),
        ("crop_size: 4 random_aspect_ratio_param { aspect_ratio_change: 0 }", "aspect_ratio_change must be positive"),
        ("crop_size: 4 random_aspect_ratio_param { min_area_ratio: nan }", "area ratios must satisfy"),
        ("resize_param { height: 4 }", "needs height and width"),
        ("resize_param { height: 4 width: 4 resize_mode: FIT_SMALL_SIZE }", "several sizes"),
        ("resize_param { height: 400000 width: 400000 }", "too many"),
    ],
)  # fmt: skip
def test_mistakes_are_named_at_their_field(transform: str, reason: str) -> None:
    with pytest.raises(NetspecError, match=f"<text>:1:.*{reason}"):
        resizing(transform)


def test_a_drawn_size_below_the_crop(tmp_path: Path) -> None:
    with pytest.raises(NetspecError, match="a shorter side of 3 is below crop_size 8"):
        resizing("crop_size: 8 random_resize_param { min_size: 3 max_size: 3 }")(picture(20, 20), 0)


def write(folder: Path, backend: str = "LMDB", height: int = 12) -> Path:
    examples = (convert.Example(f"{i:08}", np.full((3, height, 9), i, np.uint8), i) for i in range(10))
    databases.write_database(examples, folder / "db", backend)
    return folder / "db"


def data_net(source: Path, more: str, transform: str = "", backend: str = "LMDB") -> str:
    return (f'layer {{ name: "d" type: "Data" top: "x" top: "y" transform_param {{ {transform} }} '
            f'data_param {{ source: "{source}" batch_size: 4 backend: {backend} {more} }} }}')  # fmt: skip


@pytest.mark.parametrize("backend", ["LMDB", "LEVELDB"])
def test_a_shuffled_database_gives_every_record_once_an_epoch(backend: str, tmp_path: Path) -> None:
    if backend == "LEVELDB":
        pytest.importorskip("plyvel")
    source = write(tmp_path, backend)
    with feeder(make_net(data_net(source, "shuffle: true", backend=backend))) as data:
        labels = []
        for i in range(5):
            images, label = data.next()
            assert (images[:, 0, 0, 0] == label).all()
            labels += label.int().tolist()
            if i == 1:
                state = data.state()
        first, second = labels[:10], labels[10:]
        assert sorted(first) == sorted(second) == list(range(10))
        assert first != second
        assert first != list(range(10))
        data.load_state(state)
        assert data.next()[1].int().tolist() == labels[8:12]


def test_a_shuffled_database_of_large_pictures_is_read_for_ever(tmp_path: Path) -> None:
    """Values that lie on pages of their own, each read many times."""
    source = write(tmp_path, height=700)
    with feeder(make_net(data_net(source, "shuffle: true"))) as data:
        for _ in range(50):
            images, label = data.next()
            assert (images[:, 0, 0, 0] == label).all()


def test_pictures_of_a_database_are_resized_and_cropped(tmp_path: Path) -> None:
    source = write(tmp_path)
    with feeder(make_net(data_net(source, "", "resize_param { height: 6 width: 7 }"))) as data:
        assert data.shapes[0] == (4, 3, 6, 7)
        assert (data.next()[0][:, 0, 0, 0] == torch.arange(4)).all()
    transform = "crop_size: 8 random_resize_param { min_size: 8 max_size: 20 }"
    with feeder(make_net(data_net(source, "", transform))) as data:
        assert data.next()[0].shape == (4, 3, 8, 8)


def test_pictures_of_a_list_are_resized(tmp_path: Path) -> None:
    for i, size in enumerate([(9, 14), (14, 9)]):
        Image.fromarray(RANDOM.integers(0, 256, (*size, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png")
    (tmp_path / "list.txt").write_text(f"{tmp_path}/0.png 0\n{tmp_path}/1.png 1\n")
    text = (f'layer {{ name: "d" type: "ImageData" top: "x" top: "y" image_data_param {{ source: '
            f'"{tmp_path}/list.txt" batch_size: 2 }} '
            "transform_param { crop_size: 5 random_aspect_ratio_param { } } }")  # fmt: skip
    with feeder(make_net(text)) as data:
        assert data.next()[0].shape == (2, 3, 5, 5)


def test_layers_that_do_not_draw_sizes_say_so(tmp_path: Path) -> None:
    text = ('layer { name: "d" type: "MemoryData" top: "x" top: "y" memory_data_param { batch_size: 1 channels: 3 '
            'height: 8 width: 8 } transform_param { crop_size: 4 random_resize_param { } } }')  # fmt: skip
    with pytest.raises(
        NetspecError, match="random_resize_param is built for the pictures of Data and ImageData"
    ):
        feeder(make_net(text))
