"""SSD's pictures with boxes: boxes go where their pixels go, through every augmentation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from netspec import schema
from netspec.data import feeder
from netspec.data.sources import augment, noise
from netspec.data.writing.databases import LmdbWriter
from netspec.errors import DataError, SpecError
from netspec.net.make import make_net
from netspec.net.net import Net

N, SIDE = 12, 40
RANDOM = np.random.default_rng(5)


def net(text: str, phase: str = "TRAIN") -> Net:
    return make_net(text, phase)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Black pictures with one white box each, of class 1 + i."""
    out = LmdbWriter(tmp_path / "db")
    for i in range(N):
        image = np.zeros((3, SIDE, SIDE), np.uint8)
        x, y = RANDOM.integers(0, 20, 2)
        w, h = RANDOM.integers(8, 20, 2)
        image[:, y : y + h, x : x + w] = 255
        message = schema.AnnotatedDatum(type=0)
        message.datum.CopyFrom(
            schema.Datum(channels=3, height=SIDE, width=SIDE, data=image.tobytes(), label=-1)
        )
        group = message.annotation_group.add(group_label=1 + i)
        annotation = group.annotation.add(instance_id=3)
        for name, value in zip(("xmin", "ymin", "xmax", "ymax"), (x, y, x + w, y + h), strict=True):
            setattr(annotation.bbox, name, value / SIDE)
        out.put(b"%04d" % i, message.SerializeToString())
    out.close()
    return tmp_path / "db"


def layer(path: Path, transform: str = "", more: str = "", batch: int = N) -> str:
    return f"""layer {{ name: "d" type: "AnnotatedData" top: "data" top: "label"
      transform_param {{ {transform} }} annotated_data_param {{ {more} }}
      data_param {{ source: "{path}" batch_size: {batch} backend: LMDB }} }}"""


SAMPLERS = """
batch_sampler { max_sample: 1 max_trials: 1 }
batch_sampler { sampler { min_scale: 0.3 max_scale: 1 min_aspect_ratio: 0.5 max_aspect_ratio: 2 }
  sample_constraint { min_jaccard_overlap: 0.3 } max_sample: 1 max_trials: 50 }
batch_sampler { sampler { min_scale: 0.3 max_scale: 1 } sample_constraint { min_object_coverage: 0.9 }
  max_sample: 1 max_trials: 50 }
"""


@pytest.mark.parametrize(
    ("transform", "more"),
    [
        ("", ""),
        ("mirror: true", ""),
        ("mirror: true resize_param { height: 60 width: 80 }", ""),
        ("expand_param { prob: 1 max_expand_ratio: 3 } resize_param { height: 100 width: 100 }", ""),
        ("resize_param { height: 60 width: 100 resize_mode: FIT_LARGE_SIZE_AND_PAD }", ""),
        ("resize_param { height: 100 width: 60 resize_mode: FIT_LARGE_SIZE_AND_PAD } mirror: true", ""),
        ("resize_param { height: 60 width: 60 prob: 1 } resize_param { height: 60 width: 60 prob: 2 }", ""),
        ("noise_param { prob: 1 gauss_blur: true jpeg: 90 }", ""),
        ("resize_param { height: 100 width: 100 } emit_constraint { emit_type: CENTER }", SAMPLERS),
    ],
)
def test_boxes_go_with_their_pixels(database: Path, transform: str, more: str) -> None:
    checked = 0
    with feeder(net(layer(database, transform, more))) as data:
        height, width = data.shapes[0][2:]
        assert data.shapes[1] == (1, 1, 16 * N, 8)
        for _ in range(5):
            images, label = data.next()
            rows = label[0, 0]
            assert (rows[rows[:, 0] < 0] == -1).all()
            for row in rows[rows[:, 0] >= 0]:
                image = images[int(row[0]), 0] > 127
                assert row[1] == row[0] + 1
                assert row[2] == 3
                ys, xs = np.flatnonzero(image.any(1)), np.flatnonzero(image.any(0))
                if not len(ys):
                    continue
                bright = np.array([xs[0], ys[0], xs[-1] + 1, ys[-1] + 1])
                expected = row[3:7].numpy() * [width, height, width, height]
                exact = not more and "resize" not in transform and "noise" not in transform
                slack = 1e-3 if exact else max(height, width) / 20
                assert np.abs(bright - expected).max() <= slack
                checked += 1
    assert checked > 3 * N


def test_resume_and_room(database: Path) -> None:
    text = layer(database, "mirror: true resize_param { height: 30 width: 30 }", SAMPLERS, 5)
    with feeder(net(text), seed=3) as data:
        for _ in range(4):
            data.next()
        state = data.state()
        after = data.next()
        data.load_state(state)
        assert all(torch.equal(a, b) for a, b in zip(after, data.next(), strict=True))
    with (
        feeder(net(layer(database, "", "boxes_per_image: 0"))) as data,
        pytest.raises(DataError, match="room for 0"),
    ):
        data.next()


def test_mistakes(database: Path) -> None:
    with pytest.raises(SpecError, match="WARP"):
        net(layer(database, "resize_param { height: 3 width: 3 resize_mode: FIT_SMALL_SIZE }"))
    with pytest.raises(SpecError, match="a batch has one size"):
        net(layer(database, "resize_param { height: 3 width: 3 } resize_param { height: 3 width: 4 }"))
    with pytest.raises(SpecError, match="clahe is not built"):
        net(layer(database, "noise_param { clahe: true }"))
    with pytest.raises(SpecError, match="a crop does not go with boxes"):
        net(layer(database, "crop_size: 3"))
    with pytest.raises(DataError, match=r"layer 'd' \(AnnotatedData\).*no such database"):
        net(layer(database / "none"))
    out = LmdbWriter(database.parent / "bad")
    out.put(b"1", b"\xff\xff")
    out.close()
    with pytest.raises(DataError, match="record '1': not an AnnotatedDatum"):
        net(layer(database.parent / "bad"))


def test_colours_through_hsv() -> None:
    image = RANDOM.integers(0, 256, (3, 9, 9)).astype(np.float32)
    assert augment.in_hsv(image, lambda h, s: (h, s)) == pytest.approx(image, abs=1e-3)
    assert augment.in_hsv(image, lambda h, s: (h + 1 / 3, s)) == pytest.approx(image[[1, 2, 0]], abs=1e-2)
    gray = augment.in_hsv(image, lambda h, s: (h, s * 0))
    assert (gray == image.max(0)).all()
    param = schema.DistortionParameter(
        brightness_prob=1, brightness_delta=32, contrast_prob=1, contrast_lower=0.5, contrast_upper=1.5,
        hue_prob=1, hue_delta=18, saturation_prob=1, saturation_lower=0.5, saturation_upper=1.5,
    )  # fmt: skip
    generator = np.random.default_rng(0)
    out = augment.distorted(image.astype(np.uint8), param, generator)
    assert out.shape == image.shape
    assert out.dtype == np.uint8
    none = augment.distorted(image.astype(np.uint8), schema.DistortionParameter(), generator)
    assert (none == image).all()


def test_constraints() -> None:
    boxes = np.array([[0.0, 0.0, 0.5, 0.5]])
    part = np.array([0.0, 0.0, 1.0, 0.5])
    for text, holds in (
        ({}, True),
        ({"min_jaccard_overlap": 0.5}, True),
        ({"min_jaccard_overlap": 0.51}, False),
        ({"max_jaccard_overlap": 0.4}, False),
        ({"min_object_coverage": 1.0}, True),
        ({"max_sample_coverage": 0.4}, False),
    ):
        assert augment.satisfies(part, boxes, schema.SampleConstraint(**text)) is holds
    assert not augment.satisfies(part, boxes[:0], schema.SampleConstraint(min_object_coverage=0.1))


@pytest.mark.parametrize("channels", [1, 3])
def test_degradations_do_what_they_are_called(channels: int) -> None:
    image = RANDOM.integers(0, 256, (channels, 24, 30)).astype(np.uint8)

    def degraded(**fields: object) -> np.ndarray:
        return noise.degraded(image, schema.ImageNoiseParameter(**fields), np.random.default_rng(0))

    assert (degraded() == image).all()
    assert (degraded(inverse=True) == 255 - image).all()
    assert (degraded(posterize=True) == image // 64 * 64 + 32).all()
    gray = degraded(decolorize=True)
    assert (gray == gray[0]).all() if channels == 3 else (gray == image).all()
    assert degraded(gauss_blur=True).std() < image.std() / 2
    assert abs(float(degraded(gauss_blur=True).mean()) - float(image.mean())) < 3
    assert (degraded(erode=True) <= image).all()
    ramp = np.broadcast_to(np.arange(30, dtype=np.uint8) * 8, image.shape)
    packed = noise.degraded(ramp, schema.ImageNoiseParameter(jpeg=95), np.random.default_rng(0))
    assert 0 < np.abs(packed.astype(int) - ramp).mean() < 4
    dim = (image // 4).astype(np.uint8)
    level = noise.degraded(dim, schema.ImageNoiseParameter(hist_eq=True), np.random.default_rng(0))
    assert level.max() > 240
    peppered = degraded(
        saltpepper=True, saltpepper_param=schema.SaltPepperParameter(fraction=0.1, value=[7.0])
    )
    assert 20 < (peppered != image).any(0).sum() <= 72
    assert (peppered[peppered != image] == 7).all()
