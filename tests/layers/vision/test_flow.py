"""FlowNet's layers against loops over pixels, written from the formulas of its kernels."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from netspec import schema
from netspec.data.files.protos import write_blob
from netspec.errors import SpecError
from netspec.interchange import load_weights, save_weights
from netspec.layers.fillers import FillerError, fill
from netspec.net.make import make_net
from netspec.net.net import Net
from netspec.schema import read_binary_net
from tests.cases.pointwise import net
from tests.cases.shape import several

NAN = float("nan")


def net_of(source: str, phase: str = "TRAIN") -> Net:
    return make_net(source, phase, seed=2)


def run(source: str, *values: np.ndarray, phase: str = "TRAIN") -> np.ndarray:
    with torch.no_grad():
        top: Tensor = net_of(source, phase).double()(*map(torch.from_numpy, values))[0]
    return top.numpy()


def correlated(a: np.ndarray, b: np.ndarray, one: bool = False, **p: int) -> np.ndarray:
    """Sums over windows, one displacement and one place at a time; what lies outside of the maps is 0."""
    n, channels, height, width = a.shape
    pad, k, reach, s1, s2 = p.get("pad", 0), p["kernel_size"], p["max_displacement"], *(
        p.get(name, 1) for name in ("stride_1", "stride_2"))  # fmt: skip
    up, pad_up = (0, 0) if one else (reach, pad)
    radius, rim = reach // s2, reach + (k - 1) // 2
    tall = math.ceil((height + 2 * pad_up - 2 * (up + (k - 1) // 2)) / s1)
    wide = math.ceil((width + 2 * pad - 2 * rim) / s1)
    shifts = list(range(-radius, radius + 1))
    across = {0: shifts, 1: list(range(radius + 1)), -1: list(range(-radius - 1, 0))}[
        p.get("single_direction", 0)
    ]
    moves = [(dy * s2, dx * s2) for dy in ([0] if one else shifts) for dx in across]

    def at(x: np.ndarray, item: int, row: int, column: int) -> np.ndarray:
        row, column = row - pad_up, column - pad
        inside = 0 <= row < height and 0 <= column < width
        return x[item, :, row, column] if inside else np.zeros(channels)

    y = np.zeros((n, len(moves), tall, wide))
    for index in np.ndindex(y.shape):
        item, move, row, column = index
        dy, dx = moves[move]
        for j in range(k):
            for i in range(k):
                r, c = row * s1 + up + j, column * s1 + reach + i
                one_pixel, other = at(a, item, r, c), at(b, item, r + dy, c + dx)
                both = abs(one_pixel - other) if p.get("correlation_type") else one_pixel * other
                y[index] += both.sum()
    return y / (k * k * channels)


@pytest.mark.parametrize(
    "p",
    [
        {"pad": 4, "kernel_size": 1, "max_displacement": 4, "stride_2": 2},
        {"pad": 3, "kernel_size": 3, "max_displacement": 2, "stride_1": 2},
        {"pad": 2, "kernel_size": 1, "max_displacement": 3, "stride_1": 2, "stride_2": 2},
        {"kernel_size": 3, "max_displacement": 1, "stride_1": 3, "correlation_type": 1},
    ],
)
def test_correlation(p: dict[str, int]) -> None:
    a, b = np.random.default_rng(1).normal(size=(2, 2, 3, 7, 9))
    text = " ".join(f"{name}: {value}" for name, value in p.items())
    top = run(several("Correlation", f"correlation_param {{ {text} }}", a.shape, b.shape), a, b)
    np.testing.assert_allclose(top, correlated(a, b, **p), atol=1e-12)
    for direction in (-1, 0, 1):
        p = {**p, "single_direction": direction}
        source = f"correlation_param {{ {text} single_direction: {direction} }}"
        top = run(several("Correlation1D", source, a.shape, b.shape), a, b)
        np.testing.assert_allclose(top, correlated(a, b, one=True, **p), atol=1e-12)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("max_displacement: 2", "needs kernel_size"),
        ("kernel_size: 2 max_displacement: 2", "must be odd"),
        ("kernel_size: 1 max_displacement: 9", "do not fit"),
        ("kernel_size: 1 max_displacement: 1 stride_2: 0", "stride_2 > 0"),
        ("kernel_size: 1 max_displacement: 1 single_direction: 2", "-1, 0 or 1"),
    ],
)
def test_correlations_that_cannot_be(wrong: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        net_of(several("Correlation1D", f"correlation_param {{ {wrong} }}", (1, 2, 5, 5), (1, 2, 5, 5)))


def test_lengths_and_negative_parts() -> None:
    x = np.random.default_rng(8).normal(size=(2, 3, 2, 2))
    top = run(net("ChannelNorm", shape=x.shape), x)
    np.testing.assert_allclose(top, np.linalg.norm(x, axis=1, keepdims=True), rtol=1e-12)
    line = torch.tensor([[-2.0, -0.5, 0, 3, NAN]], requires_grad=True)
    y = net_of(net("NegReLU", "relu_param { negative_slope: 0.25 }", (1, 5)))(line)[0]
    torch.testing.assert_close(y, torch.tensor([[-2, -0.5, 0, 0.75, NAN]]), equal_nan=True)
    assert torch.autograd.grad(y[0, :4].sum(), line)[0].tolist() == [[1, 1, 0.25, 0.25, 0]]
    zero = torch.zeros(1, 3, 1, 1, requires_grad=True)
    assert (
        torch.autograd.grad(net_of(net("ChannelNorm", shape=zero.shape))(zero)[0].sum(), zero)[0] == 0
    ).all()


def test_flow_warp() -> None:
    chance = np.random.default_rng(2)
    x, flow = chance.normal(size=(2, 3, 4, 6)), chance.normal(size=(2, 2, 4, 6)) * 2
    flow[0, :, 1, 2], flow[0, 0, 0, 0], flow[1, :, :, 5], flow[1, 0, 2, 2] = 0, 5.5, 0.25, NAN
    expected = np.full_like(x, NAN)
    for n, row, column in np.ndindex(2, 4, 6):
        across, down = column + flow[n, 0, row, column], row + flow[n, 1, row, column]
        if not (0 <= across < 6 and 0 <= down < 4):
            continue
        left, top = int(across), int(down)
        expected[n, :, row, column] = sum(
            (1 - abs(across - i)) * (1 - abs(down - j)) * x[n, :, min(j, 3), min(i, 5)]
            for i in (left, left + 1)
            for j in (top, top + 1)
        )
    source = several("FlowWarp", "flow_warp_param { fill_value: NOT_A_NUMBER }", x.shape, flow.shape)
    np.testing.assert_allclose(run(source, x, flow), expected, atol=1e-12)
    source = several("FlowWarp", "", x.shape, flow.shape)
    np.testing.assert_allclose(run(source, x, flow), np.nan_to_num(expected), atol=1e-12)


def test_flow_warp_of_whole_pixels_has_the_gradient_of_the_next_ones() -> None:
    made = net_of(several("FlowWarp", "", (1, 1, 1, 4), (1, 2, 1, 4)))
    flow = torch.zeros(1, 2, 1, 4, requires_grad=True)
    made(torch.tensor([1.0, 2, 4, 8]).view(1, 1, 1, 4), flow)[0].sum().backward()
    assert flow.grad is not None
    assert flow.grad[0, 0, 0].tolist() == [1, 2, 4, 0]


def kernel(kind: str, x: float) -> float:
    x = abs(x)
    if kind == "LINEAR":
        return max(0.0, 1 - x)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x * x + 1
    return -0.5 * x**3 + 2.5 * x * x - 4 * x + 2 if x < 2 else 0.0


def resampled(x: np.ndarray, tall: int, wide: int, kind: str, antialias: bool) -> np.ndarray:
    height, width = x.shape[2:]
    fx, fy = width / wide, height / tall
    ax, ay = (1 / fx, 1 / fy) if antialias and max(fx, fy) > 1 else (1, 1)
    size = 4 if kind == "CUBIC" else 2
    rx, ry = (2 if f < 1 else math.ceil(size / a) for f, a in ((fx, ax), (fy, ay)))
    y = np.zeros((*x.shape[:2], tall, wide))
    for row, column in np.ndindex(tall, wide):
        across, down = column * fx + fy / 2 - 0.5, row * fy + fx / 2 - 0.5
        middle = math.floor(across + 0.5), math.floor(down + 0.5)
        total = 0.0
        for j in range(max(0, middle[1] - ry), min(height, middle[1] + ry + 1)):
            for i in range(max(0, middle[0] - rx), min(width, middle[0] + rx + 1)):
                w = kernel(kind, ax * (across - i)) * kernel(kind, ay * (down - j))
                total += w
                y[:, :, row, column] += w * x[:, :, j, i]
        y[:, :, row, column] = y[:, :, row, column] / total if total else 0
    return y


@pytest.mark.parametrize("kind", ["LINEAR", "CUBIC"])
@pytest.mark.parametrize("size", [(12, 14), (3, 4), (2, 13), (6, 7), (5, 3)])
@pytest.mark.parametrize("antialias", [True, False])
def test_resample(kind: str, size: tuple[int, int], antialias: bool) -> None:
    x = np.random.default_rng(3).normal(size=(2, 1, 6, 7))
    options = f"height: {size[0]} width: {size[1]} type: {kind} antialias: {str(antialias).lower()}"
    top = run(net("Resample", f"resample_param {{ {options} }}", x.shape), x)
    np.testing.assert_allclose(top, resampled(x, *size, kind, antialias), atol=1e-6)


def test_resample_by_two_is_what_torch_does() -> None:
    x = torch.randn(2, 3, 5, 6, dtype=torch.float64)
    twice = run(net("Resample", "resample_param { height: 10 width: 12 }", tuple(x.shape)), x.numpy())
    expected = torch.nn.functional.interpolate(x, scale_factor=2, mode="bilinear")
    np.testing.assert_allclose(twice, expected.numpy(), atol=1e-6)
    near = run(
        net("Resample", "resample_param { height: 10 width: 12 type: NEAREST }", tuple(x.shape)), x.numpy()
    )
    np.testing.assert_array_equal(near, torch.nn.functional.interpolate(x, scale_factor=2).numpy())
    with pytest.raises(SpecError, match="NEAREST, LINEAR or CUBIC"):
        net_of(net("Resample", "resample_param { height: 10 width: 12 type: AREA }", (1, 1, 4, 4)))
    with pytest.raises(SpecError, match="height and width > 0"):
        net_of(net("Resample", "", (1, 1, 4, 4)))


def test_resample_leaves_missing_values_where_they_are() -> None:
    x = np.ones((1, 1, 4, 4))
    x[0, 0, 1, 1] = NAN
    top = run(net("Resample", "resample_param { height: 8 width: 8 }", x.shape), x)[0, 0]
    assert np.isnan(top).sum() == 16
    assert np.isnan(top[1:5, 1:5]).all()


def test_downsample() -> None:
    x = np.random.default_rng(4).normal(size=(1, 2, 9, 7))
    x[0, 0, :3, :2], x[0, 1, 4, 4], x[0, 1, 8, 5:] = NAN, NAN, NAN
    tall, wide = 4, 3
    fy, fx = 8 / (tall - 1), 6 / (wide - 1)
    expected = np.zeros((1, 2, tall, wide))
    for index in np.ndindex(expected.shape):
        _, c, row, column = index
        seen = missing = value = 0.0
        for j, i in np.ndindex(9, 7):
            w = max(0, 1 - abs(j - row * fy) / fy) * max(0, 1 - abs(i - column * fx) / fx)
            if np.isnan(x[0, c, j, i]):
                missing += w
            else:
                seen, value = seen + w, value + w * x[0, c, j, i]
        expected[index] = NAN if not seen or missing / seen > 0.5 else value / seen
    assert np.isnan(expected).any()
    source = several("Downsample", "", x.shape, (1, 5, tall, wide))
    np.testing.assert_allclose(run(source, x, np.zeros((1, 5, tall, wide))), expected, atol=1e-6)
    for options in ("", "downsample_param { top_height: 1 top_width: 3 }", "downsample_param { top_height: 9 "
                    "top_width: 8 }"):  # fmt: skip
        with pytest.raises(SpecError, match=r"> 0|must be 2 or more"):
            net_of(net("Downsample", options, (1, 2, 9, 7)))


def test_means(tmp_path: Path) -> None:
    x = np.random.default_rng(5).normal(size=(2, 4, 3, 5))
    image = np.random.default_rng(6).normal(size=(2, 3, 5)).astype(np.float32)
    write_blob(tmp_path / "mean.binaryproto", image)
    options = f'operation: SUBTRACT file: "{tmp_path}/mean.binaryproto" mean_scale: 2 input_scale: 0.5 output_scale: 3'
    top = run(net("Mean", f"mean_param {{ {options} }}", x.shape), x)
    np.testing.assert_allclose(top, 3 * (0.5 * x - 2 * np.tile(image, (2, 1, 1))), atol=1e-6)
    top = run(net("Mean", "mean_param { operation: ADD value: 1 value: 5 }", x.shape), x)
    np.testing.assert_allclose(top, x + np.array([1, 5, 1, 5])[:, None, None], atol=1e-6)
    for options in (
        "value: 1",
        "operation: ADD",
        "operation: ADD value: [1, 2, 3]",
        'operation: ADD file: "none"',
    ):
        with pytest.raises(SpecError, match=r"needs operation|needs a file|does not fit|no such file"):
            net_of(net("Mean", f"mean_param {{ {options} }}", x.shape))


def cropped(x: np.ndarray, tall: int, wide: int) -> np.ndarray:
    height, width = x.shape[2:]
    y = np.zeros((*x.shape[:2], tall, wide))
    for row, column in np.ndindex(tall, wide):
        down = min(row + (height - tall) / 2, height - 1.05)
        across = min(column + (width - wide) / 2, width - 1.05)
        j, i = int(down), int(across)
        b, a = down - j, across - i
        y[:, :, row, column] = (1 - b) * ((1 - a) * x[:, :, j, i] + a * x[:, :, j, i + 1]) + b * (
            (1 - a) * x[:, :, j + 1, i] + a * x[:, :, j + 1, i + 1]
        )
    return y


def test_augmentation_crops_and_finds_its_mean() -> None:
    x = np.random.default_rng(7).normal(size=(3, 2, 3, 7, 6))
    options = "augmentation_param { crop_height: 4 crop_width: 6 recompute_mean: 2 %s }"
    for more, axes in (("", (0,)), ("mean_per_pixel: false", (0, 2, 3))):
        made = net_of(net("DataAugmentation", options % more, x.shape[1:])).double()
        crops = [cropped(batch, 4, 6) for batch in x]
        for i, batch in enumerate(x):
            image = np.mean(crops[: min(i + 1, 2)], axis=(0, 1))[None]
            mean = image if axes == (0,) else image.mean((2, 3), keepdims=True)
            top = made(torch.from_numpy(batch))[0].detach().numpy()
            np.testing.assert_allclose(top, crops[i] - mean, atol=1e-6)
        assert made.params[0].value.item() == 3
        assert [param.lr_mult for param in made.params] == [0, 0, 0]


def test_augmentation_takes_means_of_another_size(tmp_path: Path) -> None:
    options = "augmentation_param { crop_height: %d crop_width: %d recompute_mean: 1 %s }"
    small = net_of(net("DataAugmentation", options % (3, 4, ""), (2, 3, 5, 6)))
    small(torch.randn(2, 3, 5, 6))
    for ending in ("caffemodel", "h5"):
        save_weights(small, tmp_path / f"w.{ending}")
        for more in ("", "mean_per_pixel: false"):
            large = net_of(net("DataAugmentation", options % (5, 6, more), (1, 3, 5, 6)), "TEST")
            load_weights(large, tmp_path / f"w.{ending}")
            x = torch.zeros(1, 3, 5, 6)
            means = small.params[2].value.expand(1, 3, 5, 6)
            torch.testing.assert_close(large(x)[0], -means)


def test_random_changes_are_refused_where_they_would_be_made() -> None:
    options = "augmentation_param { crop_height: 3 crop_width: 4 mirror { prob: 0.5 } %s }"
    source = net("DataAugmentation", options % "", (2, 3, 5, 6))
    net_of(source, "TEST")
    for text, phase in (
        (source, "TRAIN"),
        (source.replace("mirror {", "augment_during_test: true mirror {"), "TEST"),
    ):
        with pytest.raises(SpecError, match=r"random changes \(mirror\) are not made"):
            net_of(text, phase)


def test_diagonal_filler() -> None:
    filler = schema.FillerParameter(type="diagonal", diag_val=[4, -8])
    blob = torch.ones(3, 4, 2, 2)
    fill(blob, filler, None)
    assert [blob[i, i].unique().item() for i in range(3)] == [1, -2, 0.25]
    assert blob.sum() == 4 - 8 + 1
    with pytest.raises(FillerError, match="diagonal"):
        fill(torch.ones(3), filler, None)


def test_numbers_of_binary_files() -> None:
    """FlowNet's own numbers go to ours by the type of the layer."""
    for kind, field, number, ours in (
        ("Correlation1D", "correlation_param", 150, 1179), ("FlowWarp", "flow_warp_param", 159, 1180),
        ("Resample", "resample_param", 155, 1181), ("Downsample", "downsample_param", 156, 1182),
        ("Mean", "mean_param", 154, 1183), ("DataAugmentation", "augmentation_param", 149, 1184),
    ):  # fmt: skip
        layer = schema.LayerParameter(name="l", type=kind)
        getattr(layer, field).SetInParent()
        raw = layer.SerializeToString()
        tags = [bytes(((n << 3 | 2) & 0x7F | 0x80, (n << 3 | 2) >> 7)) for n in (ours, number)]
        theirs = raw.replace(*tags)
        assert theirs != raw
        read_layer = read_binary_net(b"\xa2\x06" + bytes([len(theirs)]) + theirs).layer[0]
        assert read_layer == layer
