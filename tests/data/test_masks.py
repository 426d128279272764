"""Each kind of missingness against its definition."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from netspec.data import feeder
from netspec.data.draws import bits, integers, uniform
from netspec.data.files import idx
from netspec.data.masks import KINDS, NEEDS, Missing
from netspec.errors import DataError, SpecError
from netspec.net.make import make_net
from netspec.net.net import Net

N = 400
RANDOM = np.random.default_rng(2)
IMAGES = RANDOM.integers(0, 256, (N, 1, 28, 28), dtype=np.uint8) * (RANDOM.random((N, 1, 28, 28)) < 0.2)
KEYS = np.arange(N)


def absent(kind: str, **numbers: object) -> np.ndarray:
    """(N, 28, 28) bool: what is missing."""
    mask = Missing(kind, **numbers).mask(IMAGES, KEYS)  # type: ignore[arg-type]
    assert mask.shape == (N, 1, 28, 28)
    assert mask.dtype == bool
    return ~mask[:, 0]


def test_draws_are_uniform_and_distinct() -> None:
    u = uniform(3, np.arange(2000), 50)
    assert (u >= 0).all()
    assert (u < 1).all()
    counts = np.histogram(u, 20, (0, 1))[0]
    assert ((counts - 5000) ** 2 / 5000).sum() < 50  # chi-square, 19 degrees of freedom: P(> 50) is 1e-4
    assert abs(np.corrcoef(u[:, 0], u[:, 1])[0, 1]) < 0.08
    assert abs(np.corrcoef(u[:-1, 0], u[1:, 0])[0, 1]) < 0.08
    assert len(np.unique(bits(3, np.arange(2000), 50))) == 100_000
    assert (uniform(3, np.arange(5), 3) == uniform(3, np.arange(5), 8)[:, :3]).all()
    assert set(integers(0, np.arange(100), 9, 4).ravel()) == {0, 1, 2, 3}


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"file"}))
def test_masks_belong_to_seed_and_key(kind: str) -> None:
    numbers = {"probability": (0.5,), "count": (3,), "width": (7,)}
    how = Missing(kind, **{name: numbers[name] for name in NEEDS[kind]}, seed=5)
    whole = how.mask(IMAGES, KEYS)
    order = RANDOM.permutation(N)
    assert (how.mask(IMAGES[order], KEYS[order]) == whole[order]).all()
    assert (how.mask(IMAGES[:7], KEYS[:7]) == whole[:7]).all()
    other = Missing(kind, **{name: numbers[name] for name in NEEDS[kind]}, seed=6)
    assert not np.array_equal(other.mask(IMAGES, KEYS), whole)


@pytest.mark.parametrize("p", [0.25, 0.9, 0.99])
def test_iid(p: float) -> None:
    gone = absent("iid", probability=(p,))
    deviation = np.sqrt(p * (1 - p) / gone.size)
    assert abs(gone.mean() - p) < 4 * deviation
    assert np.abs(gone.mean(0) - p).max() < 5 * np.sqrt(p * (1 - p) / N)
    mixed = absent("iid", probability=(0.1, 0.9)).mean((1, 2))
    assert 0.4 < (mixed > 0.5).mean() < 0.6
    assert (np.abs(mixed - 0.5) > 0.3).all()


def test_rects() -> None:
    gone = absent("rects", count=(1,), width=(7,))
    assert (gone.sum((1, 2)) == 49).all()
    rows, columns = gone.any(2).argmax(1), gone.any(1).argmax(1)
    assert set(rows) == set(columns) == set(range(22))
    three = absent("rects", count=(3,), width=(11,)).sum((1, 2))
    assert three.max() <= 363
    assert three.min() >= 121
    flat = absent("rects", count=(1,), width=(9,), height=(2,))
    assert (flat.any(2).sum(1) == 2).all()
    assert (flat.any(1).sum(1) == 9).all()
    either = absent("rects", count=(1,), width=(7, 11, 15)).sum((1, 2))
    assert set(either) == {49, 121, 225}
    assert absent("rects", count=(1,), width=(99,)).all()


def test_nonzero() -> None:
    gone = absent("nonzero", count=(50,))
    lit = IMAGES[:, 0] != 0
    assert not (gone & ~lit).any()
    assert (gone.sum((1, 2)) == 50).all()
    assert (absent("nonzero", count=(500,)) == lit).all()


def test_draws_with_replacement() -> None:
    """Expected share of n things hit by D draws: 1 - (1 - 1/n)^D; 543 of 784 hit half, 33 of 28 69.9 %."""
    assert absent("pixels", count=(543,)).mean() == pytest.approx(0.4999, abs=0.003)
    gone = absent("lines", count=(33,))
    assert (gone == gone[:, :1]).all()
    assert gone.mean() == pytest.approx(0.6988, abs=0.015)


@pytest.mark.parametrize(
    ("kind", "count", "share"),
    [
        ("pixels", 543, 0.4999), ("pixels", 943, 0.6999), ("pixels", 1805, 0.9001),
        ("lines", 19, 0.4989), ("lines", 33, 0.6988), ("lines", 64, 0.9025),
    ],
)  # fmt: skip
def test_draws_hit_the_share_that_the_thesis_wants(kind: str, count: int, share: float) -> None:
    """Zethraeus 2019, levels 0.5, 0.7 and 0.9 (facts I, B2): within four deviations of the mean over images."""
    shares = absent(kind, count=(count,)).mean((1, 2))
    places = 784 if kind == "pixels" else 28
    assert share == pytest.approx(1 - (1 - 1 / places) ** count, abs=6e-5)
    assert abs(shares.mean() - share) < 4 * shares.std() / len(shares) ** 0.5


def test_square() -> None:
    gone = absent("square")
    assert (gone.sum((1, 2)) == 14 * 14).all()
    assert set(gone.any(2).argmax(1)) == set(gone.any(1).argmax(1)) == set(range(14))
    assert (absent("square", width=(5,)).sum((1, 2)) == 25).all()


def test_trapezoid() -> None:
    gone = absent("trapezoid")
    assert np.abs(gone.mean((1, 2)) - 0.5).max() < 0.02
    slanted = 0
    for image in gone:
        used = np.flatnonzero(image.any(1))
        assert (np.diff(used) == 1).all()
        lengths = [np.flatnonzero(image[row]) for row in used]
        assert all((np.diff(line) == 1).all() for line in lengths)
        widths = np.array([len(line) for line in lengths])
        steps = np.diff(widths)
        assert (steps >= -2 + steps.min()).all()
        slanted += widths[0] != widths[-1]
    assert slanted > N / 2


def test_noise_is_exact() -> None:
    assert (absent("noise").sum((1, 2)) == 588).all()
    assert (absent("noise", probability=(0.5,)).sum((1, 2)) == 392).all()
    assert absent("noise").mean(0).min() > 0.6


def test_mar_rule() -> None:
    gone = absent("mar")
    h = IMAGES[:, 0, 14:].mean((1, 2)) / 255 + 0.3
    patterns = {
        0: np.r_[np.zeros(7), np.ones(7), np.zeros(14)],
        1: np.r_[np.ones(14), np.zeros(14)],
        2: np.r_[np.ones(7), np.zeros(21)],
    }
    seen = np.zeros(3)
    for image in gone:
        assert (image == image[:, :1]).all()
        seen += [np.array_equal(image[:, 0], patterns[k]) for k in range(3)]
    assert seen.sum() == N
    expected = np.array([((1 - h) ** 2).sum(), (2 * h * (1 - h)).sum(), (h**2).sum()])
    assert ((seen - expected) ** 2 / expected).sum() < 18
    bright = np.full((5, 1, 28, 28), 255, np.uint8)
    assert not Missing("mar").mask(bright, np.arange(5))[:, :, :7].any()


def test_masks_from_files(tmp_path: Path) -> None:
    masks = RANDOM.integers(0, 2, (N, 28, 28), dtype=np.uint8)
    idx.write(tmp_path / "m.idx", masks)
    np.save(tmp_path / "m.npy", masks)
    np.savez(tmp_path / "m.npz", mask=masks)
    (tmp_path / "folder").mkdir()
    for i in range(N):
        Image.fromarray(masks[i] * 255).save(tmp_path / "folder" / f"{i:04}_mask.png")
    for name in ("m.idx", "m.npy", "m.npz", "folder"):
        assert (absent("file", source=str(tmp_path / name)) == (masks == 0)).all()
    assert (absent("file", source=str(tmp_path / "m.idx"), missing_is_one=True) == (masks == 1)).all()
    Image.fromarray(masks[0] * 255).save(tmp_path / "one.png")
    assert (absent("file", source=str(tmp_path / "one.png")) == (masks[0] == 0)).all()
    np.save(tmp_path / "few.npy", masks[:3])
    np.save(tmp_path / "small.npy", masks[:, :9])
    np.save(tmp_path / "objects.npy", np.array([{}]))
    for name, reason in (
        ("few.npy", "holds 3 masks"),
        ("small.npy", "masks of shape"),
        ("objects.npy", "objects.npy"),
        ("none", "no such mask file"),
    ):
        with pytest.raises(DataError, match=reason):
            absent("file", source=str(tmp_path / name))


def test_own_mask_for_each_channel() -> None:
    colour = np.repeat(IMAGES, 3, 1)
    mask = Missing("iid", probability=(0.5,), per_channel=True).mask(colour, KEYS)
    assert mask.shape == colour.shape
    assert abs(np.corrcoef(mask[:, 0].ravel(), mask[:, 1].ravel())[0, 1]) < 0.01


def test_mistakes() -> None:
    for numbers, reason in (
        ({"kind": "idd"}, "did you mean 'iid'"),
        ({"kind": "iid"}, "needs a probability"),
        ({"kind": "rects", "count": (1,)}, "needs a width"),
        ({"kind": "iid", "probability": (1.5,)}, "outside 0 to 1"),
    ):
        with pytest.raises(DataError, match=reason):
            Missing(**numbers)  # type: ignore[arg-type]


# In the Dataset layer


def net(
    missing: str, phase: str = "TRAIN", tops: str = 'top: "data" top: "label" top: "mask"', more: str = ""
) -> Net:
    text = f"""layer {{ name: "d" type: "Dataset" {tops} transform_param {{ mean_value: 100 scale: 0.5 }}
        dataset_param {{ name: "digits" batch_size: 300 end: 300 {more} missing {{ {missing} }} }} }}"""
    return make_net(text, phase)


def test_dataset_layer_writes_nan() -> None:
    with feeder(net('kind: "iid" probability: 0.3'), seed=1) as data:
        assert data.shapes == [(300, 1, 8, 8), (300,), (300, 1, 8, 8)]
        first, _, mask = data.next()
        second, _, later = data.next()
    assert (first.isnan() == (mask == 0)).all()
    assert 0.25 < first.isnan().float().mean() < 0.35
    both = (mask * later).bool()
    assert (first[both] == second[both]).all()
    assert not torch.equal(mask, later)  # TRAIN: new masks each epoch


@pytest.mark.parametrize(("phase", "more"), [("TEST", ""), ("TRAIN", "fixed: true")])
def test_fixed_masks(phase: str, more: str) -> None:
    with feeder(net(f'kind: "iid" probability: 0.3 {more}', phase)) as data:
        assert torch.equal(data.next()[2], data.next()[2])
    with feeder(net('kind: "iid" probability: 0.3 seed: 4', phase), seed=1) as data:
        one = data.next()[2]
    with feeder(net('kind: "iid" probability: 0.3 seed: 4', phase), seed=2) as data:
        assert torch.equal(one, data.next()[2])
    assert (
        one[:, 0].numpy()
        == Missing("iid", (0.3,), seed=4).mask(np.zeros((300, 1, 8, 8)), np.arange(300))[:, 0]
    ).all()


def test_fixed_masks_follow_a_shuffle() -> None:
    with feeder(net('kind: "noise" seed: 1', "TEST", more="shuffle: true")) as data:
        masks = [data.next()[2].flatten(1).numpy() for _ in range(2)]
    assert not np.array_equal(*masks)
    rows = [{row.tobytes() for row in mask} for mask in masks]
    assert rows[0] == rows[1]


def test_other_value_and_no_mask_top() -> None:
    with feeder(net('kind: "lines" count: 3 value: 0', tops='top: "data" top: "label"')) as data:
        images, _ = data.next()
    assert not images.isnan().any()
    assert (images == 0).all(2).any()
    with pytest.raises(SpecError, match="did you mean 'rects'"):
        feeder(net('kind: "rect"'))
