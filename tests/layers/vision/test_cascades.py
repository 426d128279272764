"""Layers of cascades, dense conditional random fields and DetectNet against loops written from their formulas."""

from __future__ import annotations

from math import ceil, floor

import numpy as np
import pytest
import torch

from netspec import schema
from netspec.errors import DataError
from netspec.layers.vision.permutohedral import Lattice
from netspec.net.make import make_net
from netspec.net.net import Net
from tests.cases import all_cases
from tests.cases.cascades import LABELS, REGIONS

CASES = {case.name: case for case in all_cases()}


def made(name: str) -> Net:
    case = CASES[name]
    return make_net(schema.parse_net(case.text, name), case.phase, seed=1)


def bilinear(x: np.ndarray, h: float, w: float) -> float | None:
    """x at (h, w); None half a pixel beyond the border and further."""
    rows, columns = x.shape
    if h < -0.5 or h > rows - 0.5 or w < -0.5 or w > columns - 0.5:
        return None
    h, w = min(max(h, 0), rows - 1), min(max(w, 0), columns - 1)
    top, left = min(int(h), rows - 1), min(int(w), columns - 1)
    bottom, right = min(top + 1, rows - 1), min(left + 1, columns - 1)
    a, b = h - top, w - left
    upper = x[top, left] * (1 - b) + x[top, right] * b
    return float(upper * (1 - a) + (x[bottom, left] * (1 - b) + x[bottom, right] * b) * a)


def test_roi_warping() -> None:
    x = torch.randn(2, 3, 6, 7)
    (top,) = made("roi_warping")(x, REGIONS)
    for r, region in enumerate(REGIONS.tolist()):
        x1, y1, x2, y2 = (floor(abs(v) * 0.5 + 0.5) * (-1 if v < 0 else 1) for v in region[1:])
        high, wide = max(y2 - y1, 0), max(x2 - x1, 0)
        for c in range(3):
            for i in range(3):
                for j in range(2):
                    samples = []
                    for a in range(ceil(high / 3) + 1):
                        for b in range(ceil(wide / 2) + 1):
                            h = y1 + (i + a / max(ceil(high / 3), 1)) * high / 3
                            w = x1 + (j + b / max(ceil(wide / 2), 1)) * wide / 2
                            samples.append(bilinear(x[int(region[0]), c].numpy(), h, w))
                    values = [value for value in samples if value is not None]
                    assert float(top[r, c, i, j]) == pytest.approx(max(values, default=0.0), abs=1e-5)


def test_mask_resize() -> None:
    x = torch.randn(2, 2, 4, 5)
    (top,) = made("mask_resize")(x)
    for h in range(7):
        for w in range(3):
            value = bilinear(x[1, 1].numpy(), h * 4 / 7, w * 5 / 3)
            assert float(top[1, 1, h, w]) == pytest.approx(value, abs=1e-5)


def slow_lattice(features: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The filter of Lattice point by point, with a dictionary for the places in use."""
    d = features.shape[1]
    plane = np.zeros((d + 1, d))  # columns of the basis of the plane in which coordinates add up to 0
    for k in range(d):
        plane[: k + 1, k] = 1
        plane[k + 1, k] = -(k + 1)
        plane[:, k] *= np.sqrt(2 / 3) * (d + 1) / np.sqrt((k + 1) * (k + 2))
    lattice: dict[tuple[int, ...], np.ndarray] = {}
    corners = []
    for feature, value in zip(features, values, strict=True):
        at = plane @ feature
        near = np.rint(at / (d + 1)) * (d + 1)
        # Too many or too few by `off`: those that were rounded furthest go back.
        off = round(near.sum() / (d + 1))
        order = np.argsort(-(at - near), kind="stable")
        if off > 0:
            near[order[len(order) - off :]] -= d + 1
        elif off < 0:
            near[order[:-off]] += d + 1
        order = np.argsort(-(at - near), kind="stable")
        ranked = np.sort(at - near)[::-1]
        mine = []
        for r in range(d + 1):
            key = near.astype(int) + r
            # The r whose differences are least lose d + 1.
            key[order[d + 1 - r :]] -= d + 1
            weight = (
                1 + (ranked[d] - ranked[0]) / (d + 1)
                if r == 0
                else (ranked[d - r] - ranked[d + 1 - r]) / (d + 1)
            )
            mine.append((tuple(key.tolist()), weight))
            lattice[mine[-1][0]] = lattice.get(mine[-1][0], 0) + weight * value
        corners.append(mine)
    for axis in range(d + 1):

        def moved(key: tuple[int, ...], side: int, axis: int = axis) -> tuple[int, ...]:
            return tuple(k + side * (1 if i != axis else -d) for i, k in enumerate(key))

        lattice = {
            key: value + 0.5 * (lattice.get(moved(key, 1), 0) + lattice.get(moved(key, -1), 0))
            for key, value in lattice.items()
        }
    share = 1 / (1 + 2.0**-d)
    return np.array([share * sum(weight * lattice[key] for key, weight in mine) for mine in corners])


@pytest.mark.parametrize("d", [1, 2, 5])
def test_lattice(d: int) -> None:
    generator = np.random.default_rng(d)
    features, values = generator.normal(size=(60, d)) * 1.5, generator.normal(size=(60, 3))
    ours = Lattice(features).filter(torch.from_numpy(values)).numpy()
    np.testing.assert_allclose(ours, slow_lattice(features, values), atol=1e-10)


def test_lattice_is_about_a_gaussian() -> None:
    """Means of a smooth picture, weighed by the lattice and by the exact filter."""
    y, x = np.mgrid[:24, :24].astype(float)
    features = np.stack([x.ravel(), y.ravel()], 1) / 3
    picture = np.sin(x / 5).ravel() + np.cos(y / 4).ravel()
    both = torch.from_numpy(np.stack([picture, np.ones_like(picture)], 1))
    value, total = Lattice(features).filter(both).numpy().T
    weight = np.exp(-((features[:, None] - features[None]) ** 2).sum(-1) / 2)
    error = np.abs(value / total - weight @ picture / weight.sum(1))
    assert error.mean() < 0.03
    assert error.max() < 0.1


def test_meanfield() -> None:
    """Two iterations, by the formula, with filters of the test's own lattice."""
    net = made("meanfield")
    unary, first, picture = torch.randn(3, 2, 3, 3, 4).double()
    with torch.no_grad():
        for value in net.params[0].value, net.params[1].value, net.params[2].value:
            value.add_(0.1 * torch.randn(value.shape))
    spatial, near, between = (param.value[0, 0].double().numpy() for param in net.params)
    (top,) = net.double()(unary, first, picture)
    y, x = (plane.ravel() for plane in np.mgrid[:3, :4].astype(float))
    for n in range(2):
        where = np.stack([x, y], 1)
        colour = picture[n].flatten(1).t().numpy()
        both = [where / 3, np.concatenate([where / 4, colour], 1)]
        q = first[n].flatten(1).t().numpy()
        for _ in range(2):
            share = np.exp(q) / np.exp(q).sum(1, keepdims=True)
            mean = [slow_lattice(f, share) / slow_lattice(f, np.ones((12, 1))) for f in both]
            message = mean[0] @ spatial.T + mean[1] @ near.T
            q = unary[n].flatten(1).t().numpy() - message @ between.T
        np.testing.assert_allclose(top[n].detach().flatten(1).t().numpy(), q, atol=1e-6)


def test_dense_crf_leaves_what_is_beyond_the_picture() -> None:
    scores, picture = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    (top,) = made("dense_crf")(scores, CASES["dense_crf"].inputs["b"], picture)
    assert float(top[1, :, 3].abs().sum() + top[1, :, :, 4].abs().sum()) == 0
    torch.testing.assert_close(top[0].sum(0), torch.ones(4, 5))
    assert float(top[1, :, :3, :4].sum()) == pytest.approx(12, abs=1e-4)


def test_dense_crf_of_a_picture_of_no_size_is_zero() -> None:
    scores, picture = torch.rand(2, 3, 4, 5), torch.rand(2, 3, 4, 5)
    (top,) = made("dense_crf")(scores, torch.tensor([-1.0, 5, 3, 4]).view(2, 1, 1, 2), picture)
    assert (top[0] == 0).all()
    assert (top[1, :, :3, :4] > 0).all()


def test_dense_crf_without_weights_is_a_softmax() -> None:
    text = CASES["dense_crf_log"].text.replace("pos_w: 3", "pos_w: 0")
    scores = torch.randn(1, 2, 3, 3)
    (top,) = make_net(schema.parse_net(text, "crf"), "TEST", seed=1)(scores, torch.tensor([[3.0, 3]]))
    torch.testing.assert_close(top, scores.log_softmax(1))


def test_detectnet_grid() -> None:
    """Cell by cell: pictures of 12 x 20 become 16 x 24, boxes of class 1 with them."""
    x = 255 * torch.rand(1, 3, 12, 20)
    grid, top = made("detectnet")(x, LABELS)
    assert top.shape == (1, 3, 16, 24)
    wanted = np.zeros((9, 4, 6))
    for box in LABELS[0, 0, 1:3].tolist():
        x1, y1 = box[0] * 24 / 20, box[1] * 16 / 12
        x2, y2 = min(x1 + box[2] * 24 / 20, 24), min(y1 + box[3] * 16 / 12, 16)
        wide, high = min(9, 0.6 * (x2 - x1)), min(9, 0.6 * (y2 - y1))
        left, above = (x1 + x2 - wide) / 2, (y1 + y2 - high) / 2
        for i in range(4):
            for j in range(6):
                over = max(min(4 * j + 4, left + wide) - max(4 * j, left), 0)
                over *= max(min(4 * i + 4, above + high) - max(4 * i, above), 0)
                if over / 16 > 1e-6:
                    corner = (x1 - 4 * j, y1 - 4 * i, x2 - 4 * j, y2 - 4 * i)
                    norm = max(1, 16 / (wide * high))
                    wanted[:, i, j] = (1, *corner, 1 / (x2 - x1), 1 / (y2 - y1), norm, 1)
    np.testing.assert_allclose(grid[0].numpy(), wanted, atol=1e-4)


def test_detectnet_in_training_keeps_boxes_on_their_objects() -> None:
    """A bright square on black: after every change of the picture the box is where the square is."""
    text = CASES["detectnet_train"].text
    for setting in ("hue_rotation_prob: 1 desaturation_prob: 1", "rotation_prob: 1 max_rotate_degree: 9"):
        text = text.replace(setting, setting.replace(": 1", ": 0"))
    net = make_net(schema.parse_net(text, "detectnet"), "TRAIN", seed=1)
    x = torch.zeros(1, 3, 20, 28)
    x[:, :, 6:13, 8:17] = 255
    labels = torch.zeros(1, 1, 4, 16)
    labels[0, 0, 0, :2] = torch.tensor([1.0, 16])
    labels[0, 0, 1, :6] = torch.tensor([8.0, 6, 9, 7, 0, 1])
    seen = 0
    for seed in range(8):
        torch.manual_seed(seed)
        grid, top = net(x, labels)
        bright = (top[0].mean(0) > 127).nonzero()
        cells = (grid[0, 0] > 0).nonzero()
        if not len(bright) or not len(cells):
            continue
        i, j = cells[0].tolist()
        corners = grid[0, 1:5, i, j] + torch.tensor([4.0 * j, 4 * i, 4 * j, 4 * i])
        low, high = bright.amin(0).flip(0), bright.amax(0).flip(0) + 1
        assert (corners - torch.cat((low, high))).abs().max() <= 2
        seen += 1
    assert seen >= 4


def test_detectnet_labels_of_another_kind() -> None:
    labels, net = LABELS.clone(), made("detectnet")
    labels[0, 0, 0, 0] = 9
    with pytest.raises(DataError, match="first row says 9 boxes"):
        net(torch.rand(1, 3, 12, 20), labels)


def test_detectnet_label_of_zeros_has_no_boxes() -> None:
    grid, _ = made("detectnet")(torch.rand(1, 3, 12, 20), torch.zeros_like(LABELS))
    assert (grid[:, 0] == 0).all()
