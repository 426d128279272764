"""Layers on sliding windows and batch statistics against loops written out, and their located errors."""

from __future__ import annotations

from math import ceil, prod

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from netspec import schema
from netspec.errors import SpecError
from netspec.layers.basic.normalization import LocalResponse, local_response
from netspec.layers.basic.pools import Frame, average_pool, max_pool, product_pool, sum_pool
from netspec.layers.basic.windows import Window, columns, spread
from netspec.net.make import make_net
from netspec.net.net import Net


def net(
    kind: str, shape: tuple[int, ...], param: str = "", phase: str = "TRAIN", tops: str = 'top: "y"'
) -> Net:
    """One layer called n on a bottom x."""
    dims = " ".join(f"dim: {n}" for n in shape)
    text = (
        f'layer {{ name: "in" type: "Input" top: "x" input_param {{ shape {{ {dims} }} }} }}\n'
        f'layer {{ name: "n" type: "{kind}" bottom: "x" {tops} {param} }}'
    )
    return make_net(schema.parse_net(text, "n.prototxt"), phase, seed=1)


def problem(kind: str, shape: tuple[int, ...], param: str, tops: str = 'top: "y"') -> str:
    """The message with which building the net is refused."""
    with pytest.raises(SpecError) as caught:
        net(kind, shape, param, tops=tops)
    return str(caught.value)


@st.composite
def frames(draw: st.DrawFn) -> tuple[Frame, tuple[int, int]]:
    """A frame and plane sizes on which it has at least one window."""

    def axis() -> tuple[int, int, int, int]:
        kernel = draw(st.integers(1, 4))
        pad = draw(st.integers(0, kernel - 1))
        return kernel, draw(st.integers(1, 5)), pad, draw(st.integers(max(1, kernel - 2 * pad), 9))

    kernels, strides, pads, sizes = zip(axis(), axis(), strict=True)
    return Frame(kernels, strides, pads, draw(st.booleans())), sizes


def caffe_size(size: int, kernel: int, stride: int, pad: int, up: bool, padded: bool) -> int:
    """Pooling's output size as the original computes it."""
    steps = (size + 2 * pad - kernel) / stride
    count = (ceil(steps) if up else int(steps // 1)) + 1
    return count - 1 if padded and (count - 1) * stride >= size + pad else count


def windows(frame: Frame, sizes: tuple[int, int]) -> list[tuple[int, int, list[tuple[int, int]], int]]:
    """(row, column, cells inside, AVE's divisor) of every window."""
    counts = [
        caffe_size(n, k, s, p, frame.ceil, any(frame.pad))
        for n, k, s, p in zip(sizes, frame.kernel, frame.stride, frame.pad, strict=True)
    ]
    cells_of_window = []
    for i in range(counts[0]):
        for j in range(counts[1]):
            spans = [
                (at * s - p, min(at * s - p + k, n + p))
                for at, n, k, s, p in zip((i, j), sizes, frame.kernel, frame.stride, frame.pad, strict=True)
            ]
            cells = [
                (h, w)
                for h in range(max(spans[0][0], 0), min(spans[0][1], sizes[0]))
                for w in range(max(spans[1][0], 0), min(spans[1][1], sizes[1]))
            ]
            cells_of_window.append((i, j, cells, prod(max(end - start, 1) for start, end in spans)))
    return cells_of_window


@settings(max_examples=150, deadline=None)
@given(frames(), st.sampled_from([1, 17]))
def test_pooling_equals_loops(geometry: tuple[Frame, tuple[int, int]], channels: int) -> None:
    frame, sizes = geometry
    x = torch.randint(-4, 5, (2, channels, *sizes), generator=torch.Generator().manual_seed(5)).float()
    x.requires_grad_(True)
    top, mask = max_pool(x, frame, mask=True)
    tops = {"max": max_pool(x, frame)[0], "ave": average_pool(x, frame), "sum": sum_pool(x, frame)}
    tops["prod"] = product_pool(x, frame)
    assert torch.equal(top, tops["max"])
    wanted = {name: torch.zeros_like(value) for name, value in tops.items()}
    gradient = torch.zeros_like(x)
    lowest = torch.finfo(x.dtype).min
    with torch.no_grad():
        for i, j, cells, divisor in windows(frame, sizes):
            values = [x[:, :, h, w] for h, w in cells]
            stack = torch.stack(values, -1) if values else x.new_empty(2, channels, 0)
            wanted["sum"][:, :, i, j] = stack.sum(-1)
            wanted["ave"][:, :, i, j] = stack.sum(-1) / divisor
            wanted["prod"][:, :, i, j] = stack.prod(-1)
            wanted["max"][:, :, i, j] = stack.amax(-1) if cells else lowest
            for n in range(2):
                for c in range(channels):
                    row = stack[n, c].tolist()
                    first = cells[row.index(max(row))] if row else None
                    assert mask[n, c, i, j] == (-1 if first is None else first[0] * sizes[1] + first[1])
                    if first is not None:
                        gradient[n, c, first[0], first[1]] += 1
    for name, value in tops.items():
        torch.testing.assert_close(value, wanted[name], msg=name)
    (gradients,) = torch.autograd.grad(tops["max"].sum(), x)
    assert torch.equal(gradients, gradient)


def test_gradient_of_products_is_the_product_of_the_others() -> None:
    x = torch.tensor([[[[0.0, 2.0, 3.0, 0.0], [5.0, 7.0, 0.0, 4.0]]]], requires_grad=True)
    product_pool(x, Frame((2, 2), (2, 2), (0, 0))).sum().backward()
    assert x.grad is not None
    assert x.grad.flatten().tolist() == [70.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize("sizes", [(5,), (5, 4), (4, 5, 3), (3, 3, 4, 3)])
def test_spread_is_the_transpose_of_columns(sizes: tuple[int, ...]) -> None:
    n = len(sizes)
    window = Window((2,) * n, (2, 1, 2, 1)[:n], (1,) * n, (1, 2, 1, 1)[:n])
    x = torch.randn(2, 3, *sizes, dtype=torch.float64)
    y = torch.randn_like(columns(x, window))
    left, right = (columns(x, window) * y).sum(), (x * spread(y, window, 3, sizes)).sum()
    torch.testing.assert_close(left, right)


def test_convolution_of_high_rank_equals_one_of_low_rank() -> None:
    param = "convolution_param { num_output: 4 kernel_size: 1 kernel_size: 3 kernel_size: 2 kernel_size: 2"
    param += ' pad: 0 pad: 1 pad: 0 pad: 1 group: 2 weight_filler { type: "gaussian" } }'
    high = net("Convolution", (2, 2, 1, 5, 4, 3), param)
    x = torch.randn(2, 2, 1, 5, 4, 3)
    weight, bias = (blob.detach() for blob in high.layer("n").blobs)
    wanted = torch.nn.functional.conv3d(x[:, :, 0], weight[:, :, 0], bias, padding=(1, 0, 1), groups=2)
    torch.testing.assert_close(high(x)[0][:, :, 0], wanted)


def test_deconvolution_of_high_rank_equals_one_of_low_rank() -> None:
    param = "convolution_param { num_output: 2 kernel_size: 1 kernel_size: 3 kernel_size: 2 kernel_size: 2"
    param += ' stride: 1 stride: 2 stride: 1 stride: 2 weight_filler { type: "gaussian" } }'
    high = net("Deconvolution", (2, 3, 1, 3, 4, 3), param)
    x = torch.randn(2, 3, 1, 3, 4, 3)
    weight, bias = (blob.detach() for blob in high.layer("n").blobs)
    wanted = torch.nn.functional.conv_transpose3d(x[:, :, 0], weight[:, :, 0], bias, stride=(2, 1, 2))
    torch.testing.assert_close(high(x)[0][:, :, 0], wanted)


@pytest.mark.parametrize("size", [1, 3, 5, 9])
@pytest.mark.parametrize("across", [True, False])
def test_lrn_gradient_equals_that_of_the_plain_form(size: int, across: bool) -> None:
    x = torch.randn(2, 6, 5, 4, dtype=torch.float64, requires_grad=True)
    up = torch.randn(2, 6, 5, 4, dtype=torch.float64)
    given, plain = (
        LocalResponse.apply(x, size, 0.3, 0.75, 2.0, across)[0],
        local_response(x, size, 0.3, 0.75, 2.0, across)[0],
    )
    if across:
        wanted = torch.nn.functional.local_response_norm(x, size, 0.3 * size, 0.75, 2.0)
        torch.testing.assert_close(given, wanted)
    assert torch.equal(given, plain)
    torch.testing.assert_close(*(torch.autograd.grad(y, x, up)[0] for y in (given, plain)))


def test_mvn_of_a_constant_plane_has_a_finite_gradient() -> None:
    x = torch.full((1, 1, 2, 2), 3.0, requires_grad=True)
    (y,) = net("MVN", (1, 1, 2, 2), "mvn_param { eps: 0.5 }")(x)
    y.backward(torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]]))
    assert y.flatten().tolist() == [0.0] * 4
    assert x.grad is not None
    assert x.grad.flatten().tolist() == [-4.0, -2.0, 0.0, 6.0]


def test_batch_norm_in_test_uses_what_training_saw() -> None:
    train = net("BatchNorm", (5, 2, 3, 1), "batch_norm_param { moving_average_fraction: 0.5 eps: 0.01 }")
    batches = torch.randn(4, 5, 2, 3, 1)
    for batch in batches:
        train(batch)
    shares = torch.tensor([0.125, 0.25, 0.5, 1.0]) / 1.875
    mean = (shares[:, None] * batches.mean((1, 3, 4))).sum(0)
    variance = (shares[:, None] * batches.transpose(1, 2).flatten(2).var(2)).sum(0)
    test = net("BatchNorm", (5, 2, 3, 1), "batch_norm_param { eps: 0.01 }", phase="TEST")
    test.load_weights(train.weights())
    x = torch.randn(5, 2, 3, 1)
    wanted = (x - mean.view(1, 2, 1, 1)) / (variance.view(1, 2, 1, 1) + 0.01).sqrt()
    torch.testing.assert_close(test(x)[0], wanted)


def test_batch_norm_of_one_value_a_channel_keeps_finite_statistics() -> None:
    one = net("BatchNorm", (1, 3))
    (y,) = one(torch.tensor([[1.0, -2.0, 3.0]]))
    assert y.tolist() == [[0.0, 0.0, 0.0]]
    assert [blob.tolist() for blob in one.weights().values()] == [[1.0, -2.0, 3.0], [0.0, 0.0, 0.0], [1.0]]


def bn_by_hand(x: Tensor, scale: Tensor, shift: Tensor, eps: float) -> Tensor:
    mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), correction=0, keepdim=True)
    return (x - mean) / (variance + eps).sqrt() * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)


FILLERS = '{ type: "gaussian" std: 1 }'


@pytest.mark.parametrize("phase", ["TRAIN", "TEST"])
def test_bn_of_segnet_uses_the_batch_in_both_phases(phase: str) -> None:
    made = net("BN", (4, 3, 2, 2), f"bn_param {{ scale_filler {FILLERS} shift_filler {FILLERS} }}", phase)
    x = torch.randn(4, 3, 2, 2)
    scale, shift = made.weights().values()
    assert scale.shape == (1, 3, 1, 1)
    torch.testing.assert_close(made(x)[0], bn_by_hand(x, scale, shift, 1e-9))


def test_bn_of_pspnet_keeps_running_statistics() -> None:
    param = f"bn_param {{ slope_filler {FILLERS} bias_filler {FILLERS} momentum: 0.75 eps: 0.1 }}"
    train, test = net("BN", (4, 3, 2, 2), param), net("BN", (4, 3, 2, 2), param, "TEST")
    x = torch.randn(4, 3, 2, 2)
    slope, bias = list(train.weights().values())[:2]
    torch.testing.assert_close(train(x)[0], bn_by_hand(x, slope, bias, 0.1))
    mean, variance = list(train.weights().values())[2:]
    assert mean.shape == (1, 3)
    torch.testing.assert_close(mean[0], 0.25 * x.mean((0, 2, 3)))
    torch.testing.assert_close(variance[0], 0.25 * x.var((0, 2, 3), correction=0))
    test.load_weights(train.weights())
    wanted = (x - mean.view(1, 3, 1, 1)) / (variance.view(1, 3, 1, 1) + 0.1).sqrt()
    torch.testing.assert_close(test(x)[0], wanted * slope.view(1, 3, 1, 1) + bias.view(1, 3, 1, 1))


SQUARE = (1, 2, 4, 4)
CONV = "convolution_param { num_output: 2 "
REFUSED = [
    ("Convolution", SQUARE, CONV + "}", "needs kernel_size, or kernel_h and kernel_w"),
    ("Convolution", SQUARE, "convolution_param { kernel_size: 3 }", "num_output > 0"),
    ("Convolution", SQUARE, CONV + "kernel_size: 3 group: 3 }", "group 3 must divide"),
    (
        "Convolution",
        SQUARE,
        CONV + "kernel_size: 7 }",
        "(7, 7) does not fit into bottom 0 of shape (1, 2, 4, 4)",
    ),
    ("Convolution", SQUARE, CONV + "kernel_h: 3 }", "kernel_w must be at least 1, found 0"),
    ("Convolution", SQUARE, CONV + "kernel_size: 3 kernel_h: 3 }", "both kernel_size and kernel_h"),
    ("Convolution", SQUARE, CONV + "kernel_size: 3 stride: 0 }", "stride must be at least 1, found 0"),
    ("Convolution", (1, 2, 9), CONV + "kernel_h: 3 kernel_w: 3 }", "need 2 spatial axes, the bottom has 1"),
    (
        "Convolution",
        SQUARE,
        CONV + "kernel_size: 3 pad: 1 pad: 1 pad: 1 }",
        "3 pad values for 2 spatial axes",
    ),
    ("Convolution", SQUARE, CONV + "kernel_size: 3 axis: 4 }", "axis 4 is outside a blob of 4 axes"),
    ("Deconvolution", (1, 2, 1, 1), CONV + "kernel_size: 1 pad: 1 }", "leaves nothing of bottom 0"),
    ("DepthwiseConvolution", (1, 4, 4, 4), CONV + "kernel_size: 3 group: 2 }", "group must be 4"),
    (
        "Pooling",
        (1, 2, 4),
        "pooling_param { kernel_size: 2 }",
        "needs a bottom (N, C, H, W), found shape (1, 2, 4)",
    ),
    ("Pooling", SQUARE, "pooling_param { }", "needs kernel_size > 0"),
    (
        "Pooling",
        SQUARE,
        "pooling_param { kernel_size: 2 pad: 2 }",
        "pad (2, 2) must be smaller than kernel (2, 2)",
    ),
    ("Pooling", SQUARE, "pooling_param { kernel_h: 2 }", "kernel_h and kernel_w go together"),
    ("Pooling", SQUARE, "pooling_param { kernel_size: 2 global_pooling: true }", "leave out kernel_size"),
    ("LRN", SQUARE, "lrn_param { local_size: 4 }", "local_size must be odd, found 4"),
    ("BatchNorm", (2, 3), "param { lr_mult: 1 }", "batch statistics are not learned"),
    ("BN", (2, 3), "bn_param { momentum: 0.5 bn_mode: LEARN }", "belong to different layers called BN"),
    ("Scale", (2, 3), "scale_param { axis: 1 num_axes: 2 }", "exceed the bottom's shape (2, 3)"),
    ("Embed", (2,), "embed_param { num_output: 3 }", "needs input_dim > 0"),
    ("SPP", (1, 2, 3, 3), "spp_param { pyramid_height: 3 }", "4 x 4 windows do not fit"),
]


@pytest.mark.parametrize(("kind", "shape", "param", "text"), REFUSED, ids=lambda value: str(value)[:40])
def test_contradictions_are_refused_where_they_stand(
    kind: str, shape: tuple[int, ...], param: str, text: str
) -> None:
    message = problem(kind, shape, param)
    assert text in message
    assert "n.prototxt:2:" in message
    assert f"layer 'n' ({kind})" in message


def test_a_mask_needs_max_pooling() -> None:
    message = problem("Pooling", SQUARE, "pooling_param { pool: AVE kernel_size: 2 }", 'top: "y" top: "m"')
    assert "only with pool: MAX" in message


def test_bottoms_of_a_convolution_must_agree() -> None:
    text = (
        'layer { name: "in" type: "Input" top: "a" top: "b" input_param { '
        "shape { dim: 1 dim: 2 dim: 4 dim: 4 } shape { dim: 1 dim: 3 dim: 4 dim: 4 } } }\n"
        'layer { name: "c" type: "Convolution" bottom: "a" bottom: "b" top: "ya" top: "yb" '
        "convolution_param { num_output: 2 kernel_size: 3 } }"
    )
    with pytest.raises(SpecError, match=r"bottom 1 has shape \(1, 3, 4, 4\), bottom 0 \(1, 2, 4, 4\)"):
        make_net(schema.parse_net(text, "n.prototxt"), "TRAIN", seed=None)


def test_unpooling_by_mask_puts_maxima_back() -> None:
    x = torch.randn(2, 3, 6, 4)
    top, mask = max_pool(x, Frame((2, 2), (2, 2), (0, 0)), mask=True)
    text = (
        'layer { name: "in" type: "Input" top: "x" top: "m" '
        "input_param { shape { dim: 2 dim: 3 dim: 3 dim: 2 } } }\n"
        'layer { name: "u" type: "UnPooling" bottom: "x" bottom: "m" top: "y" '
        "unpooling_param { kernel_size: 2 stride: 2 } }"
    )
    (up,) = make_net(schema.parse_net(text, "u.prototxt"), "TRAIN", seed=None)(top, mask)
    assert torch.equal(up[up != 0].sort().values, top.flatten().sort().values)
    assert torch.equal(up[up != 0], x[up != 0])


def test_unpooling_over_windows_is_the_transpose_of_pooling() -> None:
    x = torch.randn(1, 2, 3, 4)
    ones = torch.ones(2, 1, 3, 3)
    param = "kernel_size: 3 stride: 2 pad: 1"
    (tiled,) = net("UnPooling", (1, 2, 3, 4), f"unpooling_param {{ unpool: TILE {param} }}")(x)
    wanted = torch.nn.functional.conv_transpose2d(x, ones, stride=2, padding=1, groups=2)
    torch.testing.assert_close(tiled, wanted)
    (spread_out,) = net("UnPooling", (1, 2, 3, 4), f"unpooling_param {{ unpool: AVE {param} }}")(x)
    plane = torch.zeros_like(wanted, requires_grad=True)
    pooled = average_pool(plane, Frame((3, 3), (2, 2), (1, 1)))
    assert pooled.shape == x.shape
    torch.testing.assert_close(spread_out, torch.autograd.grad(pooled, plane, x)[0])


@pytest.mark.parametrize(
    ("kind", "param"),
    [
        ("Pooling", "pooling_param { pool: SUM kernel_size: 3 stride: 2 }"),
        ("Pooling", "pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 2 }"),
        ("LRN", "lrn_param { local_size: 3 norm_region: WITHIN_CHANNEL }"),
    ],
)
def test_exported_sums_are_plain_averages(kind: str, param: str) -> None:
    """ONNX has no divisor_override, and torch's exporter drops it without a word."""
    made = net(kind, (2, 3, 6, 5), param)
    x = torch.randn(2, 3, 6, 5)
    with torch.no_grad():
        program = torch.export.export(made, (x,))
        torch.testing.assert_close(program.module()(x)[0], made(x)[0])
    pools = [node for node in program.graph.nodes if "avg_pool2d" in str(node.target)]
    assert pools
    assert all(len(node.args) < 7 and "divisor_override" not in node.kwargs for node in pools)
