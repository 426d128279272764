"""The transformer against its definition, pixel by pixel; resizing and decoding against OpenCV's results."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from netspec import schema
from netspec.data.files.images import decode, nearest, resize
from netspec.data.files.protos import write_blob
from netspec.data.transform import Transformer
from netspec.errors import DataError, SpecError
from netspec.schema import spec

RANDOM = np.random.default_rng(1)
IMAGES = RANDOM.integers(0, 256, (40, 3, 6, 5), dtype=np.uint8)
KEYS = np.arange(40) + 100


def layer(text: str) -> spec.LayerSpec:
    document = schema.parse_net(
        f'layer {{ name: "d" type: "Data" top: "data" transform_param {{ {text} }} }}'
    )
    return spec.net(document).layers[0]


def transformer(text: str, phase: str = "TRAIN", seed: int = 0) -> Transformer:
    return Transformer(layer(text), phase, seed)


@pytest.mark.parametrize("phase", ["TRAIN", "TEST"])
@pytest.mark.parametrize("crop", [0, 4])
@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("mean", ["", "mean_value: 7", "mean_value: 7 mean_value: 8 mean_value: 9.5", "file"])
def test_every_pixel(tmp_path: Path, phase: str, crop: int, mirror: bool, mean: str) -> None:
    """Each output is, for some corner and flip, (pixel - mean at the pixel's source) * scale; TEST crops the
    centre.
    """
    means = np.zeros((3, 6, 5), np.float32)
    if mean == "file":
        means = RANDOM.normal(100, 5, (3, 6, 5)).astype(np.float32)
        write_blob(tmp_path / "mean", means)
        mean = f'mean_file: "{tmp_path}/mean"'
    elif mean:
        values = np.array([float(v) for v in mean.split()[1::2]], np.float32)
        means += values[:, None, None]
    transform = transformer(f"{mean} crop_size: {crop} mirror: {str(mirror).lower()} scale: 0.25", phase)
    out = transform(IMAGES, KEYS)
    height, width = (crop, crop) if crop else (6, 5)
    assert out.shape == (40, 3, height, width)
    assert out.dtype == np.float32
    assert transform.shape((3, 6, 5)) == out.shape[1:]
    ys, xs = range(6 - height + 1), range(5 - width + 1)
    if phase == "TEST":
        ys, xs = range(ys[-1] // 2, ys[-1] // 2 + 1), range(xs[-1] // 2, xs[-1] // 2 + 1)
    used = set()
    for image, result in zip(IMAGES, out, strict=True):
        matches = []
        for y, x, flip in itertools.product(ys, xs, (False, True) if mirror else (False,)):
            window = (slice(None), slice(y, y + height), slice(x, x + width))
            expected = (image[window].astype(np.float32) - means[window]) * np.float32(0.25)
            if np.array_equal(expected[:, :, ::-1] if flip else expected, result):
                matches.append((y, x, flip))
        assert len(matches) == 1
        used.add(matches[0])
    assert len(used) == len(ys) * len(xs) * (2 if mirror else 1)


def test_draws_belong_to_the_sample() -> None:
    transform = transformer("crop_size: 3 mirror: true")
    whole = transform(IMAGES, KEYS)
    parts = np.concatenate([transform(IMAGES[i : i + 7], KEYS[i : i + 7]) for i in range(0, 40, 7)])
    assert (whole == parts).all()
    assert not np.array_equal(whole, transformer("crop_size: 3 mirror: true", seed=1)(IMAGES, KEYS))


def test_mistakes_are_located(tmp_path: Path) -> None:
    for text, reason in (
        ("crop_size: 6", "the crop of 6x6 exceeds the image's 6x5"),
        ("mean_value: 1 mean_value: 2", "2 mean_values for 3 channels"),
        ("crop_h: 2", "must both be set"),
        ("force_color: true force_gray: true", "give one"),
        ('mean_file: "x" mean_value: 1', "both mean_file and mean_value"),
    ):
        with pytest.raises(SpecError, match=reason) as caught:
            transformer(text)(IMAGES, KEYS)
        assert caught.value.problems[0].position is not None
    write_blob(tmp_path / "mean", np.zeros((3, 5, 5), np.float32))
    with pytest.raises(DataError, match=r"the mean has shape \(3, 5, 5\)"):
        transformer(f'mean_file: "{tmp_path}/mean"')(IMAGES, KEYS)
    (tmp_path / "broken").write_bytes(b"\xff\xff")
    with pytest.raises(DataError, match="not a BlobProto"):
        transformer(f'mean_file: "{tmp_path}/broken"')
    (tmp_path / "broken").write_bytes(
        schema.BlobProto(num=1, channels=1 << 30, height=9, width=9).SerializeToString()
    )
    with pytest.raises(DataError, match="does not fit its 0 values"):
        transformer(f'mean_file: "{tmp_path}/broken"')
    with pytest.raises(DataError, match="no such file"):
        transformer('mean_file: "nowhere"')


def test_rectangles() -> None:
    """min..max filled rectangles, corners inclusive, of min..max + 1 pixels a side, on pictures only."""
    images = np.full((200, 3, 20, 30), 300, np.float32)  # a value that no colour has
    transform = transformer("max_rect_size: 6 min_rect_size: 2 max_rect_num: 1 min_rect_num: 1")
    assert (transform(images, np.arange(200)) == 300).all()
    drawn = transform(images, np.arange(200), pictures=True) != 300
    sides = set()
    for mask in drawn:
        rows, columns = np.flatnonzero(mask[0].any(1)), np.flatnonzero(mask[0].any(0))
        assert mask.sum() == 3 * len(rows) * len(columns)
        sides |= {len(rows), len(columns)}
    assert sides == {3, 4, 5, 6, 7}
    assert (images == 300).all()
    many = transformer("max_rect_size: 1 max_rect_num: 3")
    counts = (many(images, np.arange(200), pictures=True) != 300).any((1, 2, 3))
    assert 0 < counts.sum() < 200


# cv2.resize and cv2.cvtColor of opencv-python-headless 5.0.0
FROM = ((np.arange(35).reshape(5, 7) * 37 + 11) % 256).astype(np.uint8)
LINEAR_4_9 = [
    [11, 36, 65, 94, 122, 151, 180, 209, 233],
    [15, 40, 68, 97, 126, 155, 184, 212, 237],
    [19, 43, 72, 101, 130, 159, 187, 216, 241],
    [23, 47, 76, 105, 134, 162, 191, 220, 245],
]
NEAREST_4_9 = [
    [11, 11, 48, 85, 122, 122, 159, 196, 233],
    [14, 14, 51, 88, 125, 125, 162, 199, 236],
    [17, 17, 54, 91, 128, 128, 165, 202, 239],
    [20, 20, 57, 94, 131, 131, 168, 205, 242],
]
HALVED = [[65, 171, 85], [189, 103, 145]]
GRAY = [[37, 124, 211], [42, 129, 216], [47, 134, 221], [52, 139, 226], [57, 144, 231]]


def test_resizing_is_opencvs() -> None:
    assert resize(FROM, 4, 9).tolist() == LINEAR_4_9
    assert nearest(FROM, 4, 9).tolist() == NEAREST_4_9
    assert resize(((np.arange(24).reshape(4, 6) * 53 + 7) % 256).astype(np.uint8), 2, 3).tolist() == HALVED
    as_float = resize(FROM.astype(np.float32), 4, 9)
    assert as_float.dtype == np.float32
    assert np.abs(as_float - LINEAR_4_9).max() < 1
    assert resize(FROM, 5, 7) is FROM


def test_decoding(tmp_path: Path) -> None:
    pixels = ((np.arange(45).reshape(5, 3, 3) * 29 + 3) % 256).astype(np.uint8)  # B, G, R
    path = tmp_path / "p.png"
    Image.fromarray(pixels[:, :, ::-1]).save(path)
    assert (decode(path, True, "p") == pixels.transpose(2, 0, 1)).all()
    assert (decode(path, None, "p") == pixels.transpose(2, 0, 1)).all()
    assert decode(path, False, "p")[0].tolist() == GRAY
    Image.fromarray(pixels[:, :, 0]).save(path)
    assert decode(path, None, "p").shape == (1, 5, 3)
    assert (decode(path, True, "p") == pixels[None, :, :, 0]).all()
    Image.fromarray((pixels[:, :, 0].astype(np.uint16) << 8) + 9).save(path)
    assert (decode(path, False, "p") == pixels[:, :, 0]).all()
    with pytest.raises(DataError, match="no such file"):
        decode(tmp_path / "none.png", True, "none.png")
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(DataError, match=r"p\.png"):
        decode(path, True, "p.png")
