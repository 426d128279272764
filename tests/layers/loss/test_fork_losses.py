"""Layers of single forks against their formulas: focal loss, triplets, CTC over all paths, locally connected filters,
gradients turned round, hard activations."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from netspec import schema
from netspec.errors import SpecError
from netspec.net.make import make_net
from netspec.net.net import Net
from netspec.schema import read_binary_net
from tests.cases.loss import labels, text
from tests.cases.pointwise import net

NAN = float("nan")


def net_of(source: str, phase: str = "TRAIN") -> Net:
    return make_net(source, phase, seed=2).double()


def run(source: str, *values: Tensor, phase: str = "TRAIN") -> Tensor:
    top: Tensor = net_of(source, phase)(*(value.double() for value in values))[0]
    return top


def focal(
    x: Tensor, label: Tensor, alpha: list[float], gamma: float, ignore: int | None = None
) -> tuple[float, int]:
    """The sum over positions, one at a time, and how many count; x (N, C, I), label (N, I)."""
    total, counted = 0.0, 0
    for n, i in np.ndindex(*label.shape):
        if label[n, i].isnan() or int(label[n, i]) == ignore:
            continue
        p = math.exp(x[n, int(label[n, i]), i]) / x[n, :, i].exp().sum().item()
        factor = alpha[int(label[n, i])] if len(alpha) > 1 else alpha[0]
        total, counted = total - factor * (1 - p) ** gamma * math.log(p), counted + 1
    return total, counted


def test_focal_loss_of_classes() -> None:
    x, label = torch.randn(3, 4, 5), labels(*range(5), 1, NAN, 3, 2, 1, 0, 0, 3, 3, 1, shape=(3, 5)) % 4
    shapes = {"x": (3, 4, 5), "label": (3, 5)}
    total, counted = focal(x, label, [0.25], 2)
    assert counted == 14
    assert run(text("FocalLoss", **shapes), x, label).item() == pytest.approx(total / counted)
    total, counted = focal(x, label, [0.6], 0.5, ignore=1)
    options = (
        "focal_loss_param { alpha: 0.6 gamma: 0.5 } loss_param { ignore_label: 1 normalization: BATCH_SIZE }"
    )
    # The batch is the number of rows of classes, as for SoftmaxWithLoss.
    assert run(text(f"FocalLoss {options}", **shapes), x, label).item() == pytest.approx(total / 3)
    total, counted = focal(x, label, [0.1, 0.2, 0.3, 0.4], 2)
    options = "focal_loss_param { alpha: [0.1, 0.2, 0.3, 0.4] alpha_balance: true }"
    assert run(text(f"SoftmaxFocalLoss {options}", **shapes), x, label).item() == pytest.approx(
        total / counted
    )
    probabilities = net_of(text("FocalLoss", tops="loss p", **shapes))(x.double(), label.double())[1]
    torch.testing.assert_close(probabilities, x.double().softmax(1))
    sure = torch.tensor([[100.0, -100.0], [-300.0, 300.0]], requires_grad=True)
    for gamma in (0.0, 0.5, 2.0):
        source = text(f"FocalLoss focal_loss_param {{ gamma: {gamma} alpha: 1 }}", x=(2, 2), label=(2,))
        loss = run(source, sure, torch.zeros(2))
        loss.backward()
        assert loss.item() == pytest.approx(-math.log(1.1754943508222875e-38) / 2)
        assert sure.grad is not None
        assert sure.grad.isfinite().all()


def test_focal_loss_of_targets() -> None:
    x, target = torch.randn(2, 3), labels(1, 0, 1, -1, NAN, 0, shape=(2, 3))
    total = 0.0
    for value, t in zip(x.flatten().tolist(), target.flatten().tolist(), strict=True):
        p = 1 / (1 + math.exp(-value))
        if t == 1:
            total -= 0.3 * (1 - p) ** 1.5 * math.log(p)
        elif t == 0:
            total -= 0.7 * p**1.5 * math.log(1 - p)
    source = text("FocalLoss focal_loss_param { alpha: 0.3 gamma: 1.5 } loss_param { ignore_label: -1 }",
                  x=(2, 3), label=(2, 3))  # fmt: skip
    assert run(source, x, target).item() == pytest.approx(total / 2)
    # A target between 0 and 1 is not the label 0, which is ignored.
    source = text("FocalLoss focal_loss_param { gamma: 0 } loss_param { ignore_label: 0 normalization: VALID }",
                  x=(1, 2), label=(1, 2))  # fmt: skip
    assert run(source, torch.zeros(1, 2), labels(0, 0.5, shape=(1, 2))).item() == pytest.approx(
        0.75 * math.log(2)
    )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("focal_loss_param { type: LINEAR }", "ORIGIN only"),
        ("focal_loss_param { gamma: -1 }", "0 or more"),
        ("focal_loss_param { alpha: [1, 2] }", "needs 1 alpha, found 2"),
        ("focal_loss_param { alpha_balance: true }", "needs 3 alpha, found 0"),
    ],
)
def test_focal_losses_that_cannot_be(wrong: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        net_of(text(f"FocalLoss {wrong}", x=(2, 3), label=(2,)))
    with pytest.raises(SpecError, match="one top"):
        net_of(text("FocalLoss", tops="loss p", x=(2, 3), label=(2, 3)))


def test_triplet_loss() -> None:
    a, p, n = torch.randn(3, 4, 5)
    expected = sum(
        max(0.0, 2 + ((a[i] - p[i]) ** 2).sum().item() - ((a[i] - n[i]) ** 2).sum().item()) for i in range(4)
    )
    source = text("TripletLoss triplet_loss_param { margin: 2 }", "a p n", a=(4, 5), p=(4, 5), n=(4, 5, 1, 1))
    assert run(source, a, p, n.reshape(4, 5, 1, 1)).item() == pytest.approx(expected / 8)
    with pytest.raises(SpecError, match="equal shapes"):
        net_of(text("TripletLoss", "a p n", a=(4, 5), p=(4, 5), n=(4, 4)))


def test_gradients_turn_round_and_grow() -> None:
    x = torch.randn(2, 3, requires_grad=True)
    (reversed_,) = torch.autograd.grad(net_of(net("GradientReversal", shape=(2, 3)))(x.double())[0].sum(), x)
    assert (reversed_ == -1).all()
    options = "gradient_scaler_param { lower_bound: 0.1 upper_bound: 0.9 alpha: 5 max_iter: 4 }"
    made, test = (net_of(net("GradientScaler", options, (2, 3)), phase) for phase in ("TRAIN", "TEST"))
    factors = []
    for _ in range(7):
        y = made(x.double())[0]
        assert torch.equal(y, x.double())
        factors.append(torch.autograd.grad(y.sum(), x)[0].unique().item())
    growth = [2 * 0.8 / (1 + math.exp(-5 * min(1, n / 4))) - 0.8 + 0.1 for n in range(7)]
    np.testing.assert_allclose(factors, [-c for c in growth], rtol=1e-6)
    assert dict(made.named_buffers())
    first = [torch.autograd.grad(test(x.double())[0].sum(), x)[0].unique().item() for _ in range(2)]
    np.testing.assert_allclose(first, [-0.1, -0.1], rtol=1e-6)
    plain = net_of(net("GradientScaler", "gradient_scaler_param { scale_factor: 0.5 }", (2, 3)))
    assert (torch.autograd.grad(plain(x.double())[0].sum(), x)[0] == 0.5).all()
    with pytest.raises(SpecError, match="max_iter >= 1"):
        net_of(net("GradientScaler", "gradient_scaler_param { max_iter: 0 }", (2, 3)))


def test_infinite_and_missing_values_pass() -> None:
    x = torch.tensor([[1, math.inf, -math.inf, NAN, -2]], dtype=torch.float64, requires_grad=True)
    for kind in ("GradientReversal", "GradientScaler"):
        y = net_of(net(kind, shape=(1, 5)))(x)[0]
        torch.testing.assert_close(y, x, rtol=0, atol=0, equal_nan=True)
        assert torch.autograd.grad(y[0, :3].sum(), x)[0].isfinite().all()


def test_local_filters() -> None:
    fillers = 'weight_filler { type: "gaussian" } bias_filler { value: 2 }'
    options = f"num_output: 3 kernel_size: 3 stride: 2 pad: 1 {fillers}"
    made = net_of(net("Local", f"local_param {{ {options} }}", (2, 2, 5, 6)))
    weight, bias = (param.value.detach() for param in made.params)
    assert (weight.shape, bias.shape) == ((3, 1, 18, 9), (1, 1, 3, 9))
    x = torch.randn(2, 2, 5, 6, dtype=torch.float64)
    padded = torch.nn.functional.pad(x, (1, 1, 1, 1))
    top = made(x)[0]
    assert top.shape == (2, 3, 3, 3)
    for n, m, row, column in np.ndindex(2, 3, 3, 3):
        window = padded[n, :, row * 2 : row * 2 + 3, column * 2 : column * 2 + 3].flatten()
        value = weight[m, 0, :, row * 3 + column] @ window + bias[0, 0, m, row * 3 + column]
        assert top[n, m, row, column].item() == pytest.approx(value.item())
    for wrong, message in (
        ("kernel_size: 3", "num_output > 0"),
        ("num_output: 1 kernel_size: 9", "does not fit"),
    ):
        with pytest.raises(SpecError, match=message):
            net_of(net("LocallyConnected", f"locally_connected_param {{ {wrong} }}", (2, 2, 5, 6)))


def over_paths(x: Tensor, label: list[int], blank: int) -> float:
    """-log of the summed probabilities of all paths, of one class a step, that are read as the label; x (T, C)."""
    p, total = x.softmax(1), 0.0
    for path in itertools.product(range(x.shape[1]), repeat=len(x)):
        read = [c for c, _ in itertools.groupby(path) if c != blank]
        if read == label:
            total += math.prod(p[t, c].item() for t, c in enumerate(path))
    return -math.log(total) if total else 0.0


def ctc(kind: str, options: str = "", bottoms: str = "x label", **shapes: tuple[int, ...]) -> str:
    return text(f"{kind} ctc_loss_param {{ {options} }}", bottoms=bottoms, x=(5, 3, 4), **shapes)


def test_ctc_sums_over_paths() -> None:
    x = torch.randn(5, 3, 4)
    rows = labels(2, 1, 0, 1, 1, 0, 3, 0, 2, shape=(3, 3))
    read = [[2, 1], [1, 1], [3, 2]]
    expected = sum(over_paths(x[:, n], read[n], 0) for n in range(3)) / 3
    assert run(ctc("CtcLoss", label=(3, 3)), x, rows).item() == pytest.approx(expected)
    assert run(ctc("WarpCTCLoss", label=(3, 3, 1, 1)), x, rows.reshape(3, 3, 1, 1)).item() == pytest.approx(
        expected
    )
    expected = sum(over_paths(x[:4, n], read[n], 0) for n in range(3)) / 3
    assert run(
        ctc("CtcLoss", "time_step: 4 alphabet_size: 4", label=(3, 3)), x, rows
    ).item() == pytest.approx(expected)
    # Sequences with a beginning each, labels along columns; the last class is the blank, or the first with a shift.
    begin = labels(0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1, 1, 1, shape=(5, 3))
    columns = labels(2, 1, 0, 1, 1, -1, -1, -1, 3, shape=(3, 3))
    steps, read = [5, 3, 5], [[2, 1], [1, 1], [0]]
    shapes = {"begin": (5, 3), "label": (3, 3)}
    expected = sum(over_paths(x[: steps[n], n], read[n], 3) for n in range(3)) / 3
    source = ctc("CTCLoss", "", "x begin label", **shapes)
    assert run(source, x, begin, columns).item() == pytest.approx(expected)
    shifted = [[c + 1 for c in row] for row in read]
    expected = sum(over_paths(x[: steps[n], n], shifted[n], 0) for n in range(3)) / 3
    source = ctc("WarpCTCLoss", "", "x begin label", **shapes)
    assert run(source, x, begin, columns).item() == pytest.approx(expected)
    # Lengths given; the second sequence is too short for its label.
    source = ctc(
        "WarpCTCLoss", "blank_index: 3", "x steps number label", steps=(3,), number=(3,), label=(3, 3)
    )
    expected = (over_paths(x[:5, 0], [2, 1], 3) + over_paths(x[:3, 2], [0], 3)) / 3
    top = run(source, x, labels(5, 2, 3), labels(2, 2, 1), columns.abs())
    assert top.item() == pytest.approx(expected)


def test_ctc_passes_over_sequences_without_labels() -> None:
    """As those that only fill a batch: 0 follows 0, and the first label is negative."""
    x = torch.randn(5, 3, 4, dtype=torch.float64, requires_grad=True)
    begin = labels(*[0, 0, 0], *[1, 0, 1] * 2, *[0, 0, 1], *[0, 0, 1], shape=(5, 3))
    columns = labels(2, -1, 0, 1, -1, 0, shape=(2, 3))
    shapes = {"begin": (5, 3), "label": (2, 3)}
    for kind, read, blank, number in (
        ("CTCLoss", [[2, 1], [0, 0]], 3, 3),
        ("WarpCTCLoss", [[3, 2], [1, 1]], 0, 2),
    ):
        costs = over_paths(x[:3, 0], read[0], blank) + over_paths(x[:, 2], read[1], blank)
        top = net_of(ctc(kind, "", "x begin label", **shapes))(x, begin.double(), columns.double())[0]
        assert top.item() == pytest.approx(costs / number)
        (gradient,) = torch.autograd.grad(top, x)
        assert (gradient[:, 1] == 0).all()
        assert (gradient[:3, 0] != 0).all()


def test_ctc_gradients_are_those_of_the_sum() -> None:
    x = torch.randn(5, 3, 4, dtype=torch.float64, requires_grad=True)
    rows = labels(2, 1, 0, 1, 1, 0, 3, 0, 2, shape=(3, 3))
    target, lengths = torch.tensor([[2, 1], [1, 1], [3, 2]]), torch.tensor([2, 2, 2])
    steps = torch.full((3,), 5)
    loss = torch.nn.functional.ctc_loss(x.log_softmax(2), target, steps, lengths, reduction="sum")
    (expected,) = torch.autograd.grad(loss, x)
    for kind, factor in (("CtcLoss", 1.0), ("CTCLoss", 1 / 3)):
        top = net_of(ctc(kind, label=(3, 3)))(x, rows.double())[0]
        assert top.item() == pytest.approx(loss.item() / 3)
        torch.testing.assert_close(torch.autograd.grad(top, x)[0], expected * factor)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("alphabet_size: 5", "alphabet_size 5 for 4 classes"),
        ("time_step: 6", "time_step 6 for 5 steps"),
        ("blank_label: 4", "blank_label 4 is none of 4 classes"),
        ("output_delay: 1", "output_delay can be 0 only"),
        ("ctc_merge_repeated: false", "can be true only"),
    ],
)
def test_ctc_options_that_cannot_be(options: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        net_of(ctc("CtcLoss", options, label=(3, 2)))


def test_ctc_labels_that_cannot_be() -> None:
    with pytest.raises(SpecError, match=r"needs labels \(3, L\), found \(2, 3\)"):
        net_of(ctc("CtcLoss", label=(2, 3)))
    with pytest.raises(SpecError, match=r"needs shape \(5, 3\), found \(4, 3\)"):
        net_of(ctc("CTCLoss", "", "x begin label", begin=(4, 3), label=(2, 3)))
    with pytest.raises(
        IndexError, match=r"label rows 4 is outside: it must be below 4 \(1 of 3 values are outside\)"
    ):
        run(ctc("CtcLoss", label=(3, 1)), torch.randn(5, 3, 4), labels(1, 4, 2, shape=(3, 1)))


def test_hard_activations() -> None:
    x = torch.tensor([[-4.0, -3, -1, 0, 2, 3, 5, NAN]])
    relu6 = (x + 3).clamp(0, 6).double()
    shape = (1, 8)
    for kind, expected in (("HardSwish", x * relu6 / 6), ("HSwish", x * relu6 / 6), ("HSigmoid", relu6 / 6),
                           ("HardSigmoid", relu6 / 6), ("Mish", x * torch.tanh(torch.log1p(x.double().exp()))),
                           ("CReLU", torch.cat((x.clamp(min=0), (-x).clamp(min=0)), 1))):  # fmt: skip
        torch.testing.assert_close(run(net(kind, shape=shape), x), expected.double(), equal_nan=True)
    for field in ("hard_sigmoid_param", "hardsigmoid_param"):
        top = run(net("HardSigmoid", f"{field} {{ alpha: 0.25 }}", shape), x)
        torch.testing.assert_close(top, (0.25 * x.double() + 0.5).clamp(0, 1), equal_nan=True)
    top = run(net("CReLU", "crelu_param { negative_slope: 0.5 concat_axis: 0 }", shape), x)
    leaky = torch.nn.functional.leaky_relu(torch.cat((x, -x)), 0.5).double()
    torch.testing.assert_close(top, leaky, equal_nan=True)


def test_numbers_of_binary_files() -> None:
    for kind, field, number, ours in (("TripletLoss", "triplet_loss_param", 147, 1189),
                                      ("WarpCTCLoss", "ctc_loss_param", 148, 1193)):  # fmt: skip
        layer = schema.LayerParameter(name="l", type=kind)
        getattr(layer, field).SetInParent()
        tags = [bytes(((n << 3 | 2) & 0x7F | 0x80, (n << 3 | 2) >> 7)) for n in (ours, number)]
        raw = layer.SerializeToString()
        theirs = raw.replace(*tags)
        assert theirs != raw
        read_layer = read_binary_net(b"\xa2\x06" + bytes([len(theirs)]) + theirs).layer[0]
        assert read_layer == layer


def test_balanced_sigmoid_weighs_each_class_by_the_others_share() -> None:
    """By hand: image 0 has one 1 and three 0s, image 1 only 0s; an entry of 0.5 takes no part; divided by N."""
    x = torch.tensor([[0.5, -1.0, 2.0, 0.0, 3.0], [1.0, 1.0, -2.0, 0.0, 0.0]])
    t = torch.tensor([[1.0, 0.0, 0.0, 0.0, 0.5], [0.0, 0.0, 0.0, 0.0, 0.0]])
    net = make_net(
        """
        layer { name: "x" type: "Input" top: "x" top: "t" input_param { shape { dim: 2 dim: 5 } } }
        layer { name: "l" type: "SigmoidCrossEntropyBalanceLoss" bottom: "x" bottom: "t" top: "loss" }""",
        "TRAIN",
    )
    one = np.log1p(np.exp(-0.5)) * 3 / 4
    zero = sum(np.log1p(np.exp(v)) for v in (-1.0, 2.0, 0.0)) * 1 / 4
    loss = net(x, t)[0]
    assert float(loss) == pytest.approx((one + zero) / 2, rel=1e-6)
