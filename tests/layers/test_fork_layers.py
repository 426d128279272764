"""Layers of public forks against their formulas: Lstm, CenterLoss, SegAccuracy, NVIDIA's BatchNorm, Transpose, Reverse,
SpatialDropout, MarginInnerProduct."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from netspec import schema
from netspec.errors import SpecError
from netspec.net.make import make_net
from netspec.net.net import Net
from netspec.schema import read_binary_net, write_binary_net
from tests.cases.loss import text

FILLERS = 'weight_filler { type: "gaussian" std: 0.5 } bias_filler { type: "uniform" }'


def net_of(source: str, phase: str = "TRAIN") -> Net:
    return make_net(source, phase, seed=2)


def lstm(more: str = "", bottoms: str = "x", **shapes: tuple[int, ...]) -> Net:
    param = f"Lstm lstm_param {{ num_output: 3 batch_size: 2 {FILLERS} {more} }}"
    return net_of(text(param + " loss_weight: 1", bottoms=bottoms, tops="h", **shapes))


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def steps(
    x: np.ndarray, clip: np.ndarray, blobs: list[np.ndarray], h: np.ndarray, c: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The recursion, one sequence and one step at a time: x (T, N, D), clip (T, N), states (N, H)."""
    w, v, b = blobs
    h, c, out = h.copy(), c.copy(), []
    for x_t, clip_t in zip(x, clip, strict=True):
        for n in range(x.shape[1]):
            gates = w @ x_t[n] + b + (v @ h[n] if clip_t[n] else 0)
            i, f, o, g = gates.reshape(4, -1)
            c[n] = (sigmoid(f) * c[n] if clip_t[n] else 0) + sigmoid(i) * np.tanh(g)
            h[n] = sigmoid(o) * np.tanh(c[n])
        out.append(h.copy())
    return np.concatenate(out), h, c


def test_lstm_begins_anew_without_clip_and_goes_on_with_it() -> None:
    zeros = np.zeros((2, 3))
    plain, clipped = lstm(x=(8, 2)), lstm(bottoms="x clip", x=(8, 2), clip=(8,))
    blobs = [param.value.detach().double().numpy() for param in plain.params]
    assert [blob.shape for blob in blobs] == [(12, 2), (12, 3), (12,)]
    x = torch.randn(8, 2)
    ones = np.ones((4, 2))
    first = ones.copy()
    first[0] = 0
    for _ in range(2):
        expected, _, _ = steps(x.double().numpy().reshape(4, 2, 2), first, blobs, zeros, zeros)
        np.testing.assert_allclose(plain(x)[0].detach().numpy(), expected, atol=1e-6)
    h = c = zeros
    breaks = np.array([[0, 1], [1, 1], [1, 0], [1, 1.0]])
    for clip in (breaks, ones):
        expected, h, c = steps(x.double().numpy().reshape(4, 2, 2), clip, blobs, h, c)
        top = clipped(x, torch.from_numpy(clip).float().flatten())[0]
        np.testing.assert_allclose(top.detach().numpy(), expected, atol=1e-6)


def test_lstm_cuts_the_gradients_of_its_gates() -> None:
    whole, cut = lstm(x=(2, 2)), lstm("clipping_threshold: 0.001", x=(2, 2))
    for net in (whole, cut):
        net(torch.ones(2, 2))[0].sum().backward()
    bias = cut.params[2].value.grad
    assert bias is not None
    assert bias.abs().max() == pytest.approx(0.002)  # one step of two sequences
    assert whole.params[2].value.grad.abs().max() > 0.05  # type: ignore[union-attr]
    with pytest.raises(SpecError, match="needs 2 rows or a multiple of it"):
        lstm(x=(3, 2))


def test_continuation_indicator_feeds_an_lstm() -> None:
    cont = 'layer { name: "c" type: "ContinuationIndicator" top: "cont" continuation_indicator_param '
    cont += "{ time_step: 3 batch_size: 2 } }\n"
    net = net_of(
        cont + text(f"LSTM recurrent_param {{ num_output: 2 {FILLERS} }}", "x cont", "h", x=(3, 2, 4))
    )
    x = torch.randn(3, 2, 4)
    blobs = net.blobs(x)
    assert blobs["cont"].tolist() == [[0, 0], [1, 1], [1, 1]]
    assert torch.equal(blobs["h"], net.blobs(x)["h"])


@pytest.mark.parametrize("weight", [1.0, 0.008])
def test_center_loss_moves_centers_whatever_it_weighs(weight: float) -> None:
    param = 'CenterLoss center_loss_param { num_output: 4 center_filler { type: "gaussian" } }'
    net = net_of(text(f"{param} loss_weight: {weight}", x=(5, 3), label=(5,)))
    x, label = torch.randn(5, 3, requires_grad=True), torch.tensor([0.0, 2, 2, 3, 2])
    centers = net.params[0].value
    loss = net.objective(net(x, label))
    loss.backward()
    rows = [int(value) for value in label]
    d = (x - centers[rows]).detach()
    assert float(loss.detach()) == pytest.approx(weight * float(d.square().sum()) / 10)
    assert torch.allclose(x.grad, weight * d / 5)  # type: ignore[arg-type]
    for k in range(4):
        mine = [i for i in range(5) if rows[i] == k]
        expected = -sum((d[i] for i in mine), torch.zeros(3)) / (len(mine) + 1)
        assert torch.allclose(centers.grad[k], expected, atol=1e-6)  # type: ignore[index]


@pytest.mark.parametrize(
    "param",
    [
        "CenterLoss center_loss_param { num_output: 3 }",
        "InfogainLoss",
        'MarginInnerProduct margin_inner_product_param { num_output: 3 type: DOUBLE weight_filler { type: "xavier" } }',
    ],
)
@pytest.mark.parametrize("label", [-1.0, 3.0])
def test_labels_of_no_class_are_no_class_from_the_end(param: str, label: float) -> None:
    gains = {"gains": (1, 1, 3, 3)} if param == "InfogainLoss" else {}
    net = net_of(
        text(f"{param} loss_weight: 1", " ".join(("x label", *gains)), x=(5, 3), label=(5,), **gains)
    )
    with pytest.raises(IndexError):
        net(
            torch.randn(5, 3), torch.tensor([0.0, 2, label, 1, 2]), *(torch.eye(3)[None, None] for _ in gains)
        )


def confusion(scores: Tensor, label: Tensor, ignored: set[int]) -> np.ndarray:
    counts = np.zeros((scores.shape[1],) * 2)
    for n, y, x in np.ndindex(scores.shape[0], *scores.shape[2:]):
        actual = int(label[n, 0, y, x])
        if actual not in ignored and 0 <= actual < len(counts):
            best = max(range(len(counts)), key=lambda c: (float(scores[n, c, y, x]), c))
            counts[actual, best] += 1
    return counts


def measures(counts: np.ndarray) -> list[float]:
    recall, overlap = [], []
    for k in range(len(counts)):
        row, column, own = counts[k].sum(), counts[:, k].sum(), counts[k, k]
        if row:
            recall.append(own / row)
        overlap.append(own / (row + column - own) if row + column - own else 1.0)
    return [counts.trace() / counts.sum(), float(np.mean(recall)), float(np.mean(overlap))]


@pytest.mark.parametrize("reset", ["true", "false"])
def test_seg_accuracy(reset: str) -> None:
    param = f"SegAccuracy seg_accuracy_param {{ ignore_label: 255 ignore_label: 3 reset: {reset} }}"
    net = net_of(text(param, tops="acc", x=(2, 5, 4, 6), label=(2, 1, 4, 6)), "TEST")
    before = np.zeros((5, 5))
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randint(0, 4, (2, 5, 4, 6), generator=generator).float()  # many ties
        label = torch.tensor([0.0, 1, 2, 3, 255, 9])[torch.randint(0, 6, (2, 1, 4, 6), generator=generator)]
        counts = confusion(x, label, {255, 3})
        before = counts + before if reset == "false" else counts
        np.testing.assert_allclose(net(x, label)[0].flatten().numpy(), measures(before), rtol=1e-6)
    nothing = net_of(text("SegAccuracy", tops="acc", x=(1, 2, 1, 1), label=(1, 1, 1, 1)), "TEST")
    accuracy, recall, overlap = nothing(torch.zeros(1, 2, 1, 1), torch.full((1, 1, 1, 1), 255.0))[0].flatten()
    assert math.isnan(accuracy)
    assert (recall, overlap) == (0, 1)


@pytest.mark.parametrize(
    ("layer", "number", "field"),
    [
        ('type: "Lstm" lstm_param { num_output: 7 batch_size: 3 }', 201, "lstm_param"),
        ('type: "CenterLoss" center_loss_param { num_output: 7 }', 147, "center_loss_param"),
        ('type: "SegAccuracy" seg_accuracy_param { ignore_label: 255 }', 154, "seg_accuracy_param"),
    ],
)
def test_binary_files_of_the_forks_are_understood(layer: str, number: int, field: str) -> None:
    message = schema.parse_net(f'layer {{ name: "l" {layer} }}').message
    own = schema.LayerParameter.DESCRIPTOR.fields_by_name[field].number
    data = write_binary_net(message)
    theirs = bytearray()
    inner = message.layer[0]
    bare = type(inner)()
    bare.CopyFrom(inner)
    bare.ClearField(field)
    value = getattr(inner, field).SerializeToString()
    body = bare.SerializeToString() + varint(number << 3 | 2) + varint(len(value)) + value
    theirs += varint(100 << 3 | 2) + varint(len(body)) + body
    assert own > 1000
    assert bytes(theirs) != data
    assert getattr(read_binary_net(bytes(theirs)).layer[0], field) == getattr(inner, field)


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def test_nvidias_batch_norm_scales_by_itself() -> None:
    text = """layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 4 dim: 2 dim: 3 dim: 1 } } }
        layer { name: "n" type: "BatchNorm" bottom: "x" top: "y" loss_weight: 1
                batch_norm_param { scale_bias: true moving_average_fraction: 0.75 eps: 1e-7 }
                param { lr_mult: 0 } param { lr_mult: 0 } param { lr_mult: 0 } param { lr_mult: 2 } } """
    net = net_of(text)
    mean, variance, weight, scale, shift = (param.value for param in net.params)
    assert [param.lr_mult for param in net.params] == [0, 0, 0, 2, 1]
    assert (scale.tolist(), shift.tolist(), weight.tolist()) == ([1, 1], [0, 0], [1])
    with torch.no_grad():
        scale.copy_(torch.tensor([2.0, -3.0]))
        shift.copy_(torch.tensor([0.5, 4.0]))
    running: list[np.ndarray] = []
    for _ in range(3):
        x = torch.randn(4, 2, 3, 1) + 5
        net(x)
        values = x.numpy().astype(np.float64).transpose(1, 0, 2, 3).reshape(2, -1)
        now = [values.mean(1), values.var(1)]
        running = [0.75 * old + 0.25 * new for old, new in zip(running, now, strict=True)] if running else now
        np.testing.assert_allclose(mean.detach(), running[0], rtol=1e-5)
        np.testing.assert_allclose(variance.detach(), running[1], rtol=1e-4)
    tested = net_of(text, "TEST")
    with torch.no_grad():
        for to, of in zip(tested.params, net.params, strict=True):
            to.value.copy_(of.value)
    x = torch.randn(4, 2, 3, 1)
    y = tested(x)[0]
    wanted = (x.numpy() - running[0].reshape(1, 2, 1, 1)) / np.sqrt(running[1].reshape(1, 2, 1, 1) + 1e-5)
    wanted = wanted * np.array([2, -3]).reshape(1, 2, 1, 1) + np.array([0.5, 4]).reshape(1, 2, 1, 1)
    np.testing.assert_allclose(y.detach(), wanted, rtol=1e-4, atol=1e-5)


def test_lstm_of_three_axes_is_that_of_rows() -> None:
    rows = net_of(text(f"Lstm lstm_param {{ num_output: 3 batch_size: 2 {FILLERS} }}", "x", "h", x=(8, 5)))
    axes = net_of(text(f"Lstm lstm_param {{ num_output: 3 {FILLERS} }}", "x", "h", x=(4, 2, 5)))
    with torch.no_grad():
        for to, of in zip(axes.params, rows.params, strict=True):
            to.value.copy_(of.value)
    x = torch.randn(8, 5)
    assert torch.equal(axes(x.view(4, 2, 5))[0], rows(x)[0].view(4, 2, 3))


def test_transpose_and_reverse() -> None:
    x = torch.randn(2, 3, 4)
    turned = net_of(text("Reverse reverse_param { axis: 1 }", bottoms="x", tops="y", x=(2, 3, 4)))
    assert torch.equal(turned(x)[0], x[:, [2, 1, 0]])
    moved = net_of(text("Transpose transpose_param { dim: [2, 0, 1] }", bottoms="x", tops="y", x=(2, 3, 4)))
    (y,) = moved(x)
    assert all(y[i, j, k] == x[j, k, i] for i, j, k in np.ndindex(4, 2, 3))
    for wrong in ("[0, 1]", "[0, 1, 1]", "[0, 1, 3]"):
        with pytest.raises(SpecError, match="does not name each axis"):
            net_of(text(f"Transpose transpose_param {{ dim: {wrong} }}", bottoms="x", tops="y", x=(2, 3, 4)))


def test_spatial_dropout_takes_whole_channels() -> None:
    param = "SpatialDropout spatial_dropout_param { dropout_ratio: 0.75"
    net = net_of(text(param + " }", bottoms="x", tops="y", x=(300, 20, 2, 3)))
    x = torch.rand(300, 20, 2, 3) + 1
    (y,) = net(x)
    kept = y[:, :, 0, 0] != 0
    assert torch.allclose(y, x * kept[:, :, None, None] * 4)
    assert float(kept.float().mean()) == pytest.approx(0.25, abs=0.03)
    assert torch.equal(net_of(text(param + " }", bottoms="x", tops="y", x=(300, 20, 2, 3)), "TEST")(x)[0], x)
    sampled = net_of(
        text(param + " sample_weights_test: true }", bottoms="x", tops="y", x=(300, 20, 2, 3)), "TEST"
    )
    assert (sampled(x)[0] == 0).any()
    for more, shape in (("dropout_ratio: 1", (2, 3)), ("", (4,))):
        with pytest.raises(SpecError, match="SpatialDropout"):
            net_of(text(f"SpatialDropout spatial_dropout_param {{ {more} }}", bottoms="x", tops="y", x=shape))


MARGINS = {"SINGLE": 1, "DOUBLE": 2, "TRIPLE": 3, "QUADRUPLE": 4}


@pytest.mark.parametrize("kind", MARGINS)
def test_margin_inner_product(kind: str) -> None:
    m = MARGINS[kind]
    param = (
        f'num_output: 6 type: {kind} base: 4 gamma: 0.5 power: 2 weight_filler {{ type: "gaussian" std: 3 }}'
    )
    margin = f"MarginInnerProduct margin_inner_product_param {{ {param} lambda_min: 0.7 }} loss_weight: 1"
    net = net_of(text(f"{margin} loss_weight: 0", tops="y mix", x=(40, 5), label=(40,)))
    weight = net.params[0].value
    label = torch.arange(40) % 6
    for n in range(1, 4):
        x = torch.randn(40, 5, requires_grad=True)
        mix, y = net(x, label.float())[:2]
        assert float(mix) == pytest.approx(max(4 * (1 + 0.5 * n) ** -2, 0.7))
        assert torch.allclose(weight.norm(dim=1), torch.ones(6))
        lam, w = float(mix), weight.detach().double()
        rows = x.detach().double()
        seed = torch.randn(40, 6, dtype=torch.float64)
        x.grad = weight.grad = None
        y.backward(seed.float())
        plain, wanted, slope = rows @ w.t(), rows @ w.t(), seed @ w
        for i in range(40):
            k, length = int(label[i]), float(rows[i].norm())
            c = float(plain[i, k]) / length
            angle = math.acos(max(-1.0, min(1.0, c)))
            turns = min(int(angle * m / math.pi), m - 1)
            if m == 1:
                continue
            p = (-1) ** turns * math.cos(m * angle) - 2 * turns
            wanted[i, k] = (length * p + lam * plain[i, k]) / (1 + lam)
            derivative = (-1) ** turns * m * math.sin(m * angle) / math.sin(angle)
            a, b = derivative, (p - c * derivative) / length
            direction = (a * w[k] + b * rows[i]) / math.hypot(a, b)
            slope[i] += seed[i, k] * ((direction + lam * w[k]) / (1 + lam) - w[k])
        np.testing.assert_allclose(y.detach(), wanted, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(x.grad, slope, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(weight.grad, seed.t() @ rows, rtol=1e-4, atol=1e-4)
    if m > 1:
        with pytest.raises(IndexError):
            net(torch.randn(40, 5), torch.full((40,), 6.0))
    for wrong, shape in (("num_output: 0", (40,)), ("num_output: 3", (39,))):
        with pytest.raises(SpecError, match="MarginInnerProduct"):
            net_of(
                text(
                    f"MarginInnerProduct margin_inner_product_param {{ {wrong} }}",
                    tops="y",
                    x=(40, 5),
                    label=shape,
                )
            )
