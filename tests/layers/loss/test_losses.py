"""Losses beyond single cases: NaN in rows that do not count, formulas against plain numpy, errors with their
place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from netspec import schema
from netspec.errors import SpecError
from netspec.net.make import make_net
from netspec.net.net import Net
from netspec.schema.descriptors import message_class
from tests.cases.loss import GAINS, NAN, labels, text

GENERATOR = torch.Generator().manual_seed(5)


def make(
    layer: str, bottoms: str = "x label", tops: str = "loss", phase: str = "TRAIN", **shapes: tuple[int, ...]
) -> Net:
    document = schema.parse_net(text(layer, bottoms, tops, **shapes), "net.prototxt")
    return make_net(document, phase, seed=1)


def loss_and_gradient(net: Net, *values: Tensor) -> tuple[Tensor, Tensor]:
    x = values[0].clone().requires_grad_(True)
    top = net(x, *values[1:])[0]
    assert top.shape == ()
    (gradient,) = torch.autograd.grad(top, x)
    return top.detach(), gradient


IGNORING = {
    "SoftmaxWithLoss loss_param { ignore_label: 7 }": labels(7, 1, NAN, 0, 2),
    "InfogainLoss loss_param { ignore_label: 7 }": labels(7, 1, NAN, 0, 2),
    "HingeLoss": labels(NAN, 1, NAN, 0, 2),
    "MultinomialLogisticLoss": labels(NAN, 1, NAN, 0, 2),
    "GeneralizedHingeLoss": labels(-1, 1, NAN, 0, 2),
    "LogLikelihoodLoss log_likelihood_loss_param { filter_selected_labels: true selected_label: 2 }": labels(
        0, 2, NAN, 2, 2
    ),
    "LogLikelihoodLoss log_likelihood_loss_param { use_labeled_data: false }": labels(0, -1, 1, -1, NAN),
}


@pytest.mark.parametrize("layer", IGNORING)
@pytest.mark.parametrize("bad", [NAN, float("inf"), float("-inf")])
def test_rows_that_do_not_count_have_no_effect_whatever_they_hold(layer: str, bad: float) -> None:
    shapes: dict[str, tuple[int, ...]] = {"x": (5, 3), "label": (5,)}
    more: tuple[Tensor, ...] = ()
    if layer.startswith("Infogain"):
        shapes["H"], more = (3, 3), (GAINS,)
    net = make(layer, " ".join(shapes), **shapes)
    x = torch.rand((5, 3), generator=GENERATOR) + 0.1
    spoilt = x.clone()
    spoilt[0] = spoilt[2] = bad
    loss, gradient = loss_and_gradient(net, x, IGNORING[layer], *more)
    spoilt_loss, spoilt_gradient = loss_and_gradient(net, spoilt, IGNORING[layer], *more)
    assert loss == spoilt_loss
    assert loss.isfinite()
    assert torch.equal(gradient, spoilt_gradient)
    assert (gradient[[0, 2]] == 0).all()
    assert (gradient[[1, 3, 4]] != 0).any()


@pytest.mark.parametrize("bad", [NAN, float("inf")])
def test_sum_and_sigmoid_losses_leave_out_what_does_not_count(bad: float) -> None:
    net = make("SumLoss sum_loss_param { use_labeled_data: false }", x=(3,), label=(3,))
    loss, gradient = loss_and_gradient(net, labels(bad, 2, 4), labels(1, -1, -1))
    assert loss == -3
    assert gradient.tolist() == [0, -0.5, -0.5]
    net = make("SigmoidCrossEntropyLoss loss_param { ignore_label: 5 }", x=(1, 3), label=(1, 3))
    loss, gradient = loss_and_gradient(
        net, labels(bad, 0, bad, shape=(1, 3)), labels(NAN, 1, 5, shape=(1, 3))
    )
    assert loss == pytest.approx(np.log(2))
    assert gradient.tolist() == [[0, -0.5, 0]]


@pytest.mark.parametrize(
    "layer",
    [
        "SoftmaxWithLoss loss_param { ignore_label: 7 }",
        "GeneralizedHingeLoss",
        "LogLikelihoodLoss log_likelihood_loss_param { use_labeled_data: false }",
    ],
)
def test_no_row_that_counts_gives_zero(layer: str) -> None:
    label = (
        labels(3, 2) if layer.startswith("Log") else labels(7, 7) if layer.startswith("S") else labels(-1, -3)
    )
    loss, gradient = loss_and_gradient(make(layer, x=(2, 3), label=(2,)), torch.ones(2, 3), label)
    assert loss == 0
    assert (gradient == 0).all()


def test_a_score_of_nan_in_a_row_that_counts_is_seen() -> None:
    x = torch.zeros(2, 3)
    x[1, 0] = NAN
    loss, _ = loss_and_gradient(make("SoftmaxWithLoss", x=(2, 3), label=(2,)), x, labels(0, 1))
    assert loss.isnan()


def test_softmax_loss_is_bounded_but_its_gradient_is_not_cut() -> None:
    x = torch.tensor([[0.0, 1000.0], [0.0, 500.0]])
    loss, gradient = loss_and_gradient(make("SoftmaxWithLoss", x=(2, 2), label=(2,)), x, labels(0, 0))
    assert loss.item() == pytest.approx(-np.log(np.finfo(np.float32).tiny), rel=1e-6)
    assert gradient.tolist() == [[-0.5, 0.5], [-0.5, 0.5]]


def test_softmax_loss_second_top_holds_the_probabilities() -> None:
    net = make("SoftmaxWithLoss", tops="loss p", x=(2, 3, 4), label=(2, 4))
    x = torch.randn((2, 3, 4), generator=GENERATOR)
    blobs = net.blobs(x, torch.zeros(2, 4))
    assert torch.allclose(blobs["p"], x.softmax(1))
    assert blobs["loss"].item() == pytest.approx(-x.log_softmax(1)[:, 0].mean().item(), rel=1e-5)


def test_an_identical_dissimilar_pair_has_no_nan_gradient() -> None:
    net = make("ContrastiveLoss", "x b y", x=(1, 2), b=(1, 2), y=(1,))
    loss, gradient = loss_and_gradient(net, torch.ones(1, 2), torch.ones(1, 2), labels(0))
    assert loss == 0.5
    assert gradient.tolist() == [[0, 0]]


def test_generalized_hinge_without_margin_is_cross_entropy() -> None:
    x, label = torch.randn((6, 4), generator=GENERATOR), labels(0, 1, 2, 3, 0, 1)
    hinge = make("GeneralizedHingeLoss generalized_hinge_loss_param { margin: 0 }", x=(6, 4), label=(6,))
    cross = make("SoftmaxWithLoss", x=(6, 4), label=(6,))
    for ours, theirs in zip(
        loss_and_gradient(hinge, x, label), loss_and_gradient(cross, x, label), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_infinite_epsilon_is_the_limit_of_the_generalized_hinge() -> None:
    x, label = torch.randn((6, 4), generator=GENERATOR), labels(0, 1, 2, 3, 0, 1)
    values = [
        make(f"GeneralizedHingeLoss generalized_hinge_loss_param {{ epsilon: {e} }}", x=(6, 4), label=(6,))(
            x, label
        )[0]
        for e in ("inf", "300", "-inf", "-300")
    ]
    assert values[0].item() == pytest.approx(values[1].item(), abs=0.01)
    assert values[2].item() == pytest.approx(values[3].item(), abs=0.01)


def test_strict_takes_the_forks_gradients_where_they_differ_from_the_derivative() -> None:
    x, label = labels(1, 2, 3), labels(-1, 0, -1)
    layer = "SumLoss sum_loss_param { use_labeled_data: false }"
    loss, gradient = loss_and_gradient(make(layer, x=(3,), label=(3,)), x, label)
    fork_loss, fork_gradient = loss_and_gradient(make(layer + " strict: true", x=(3,), label=(3,)), x, label)
    assert loss == fork_loss == -2
    assert gradient.tolist() == [-0.5, 0, -0.5]
    assert fork_gradient.tolist() == pytest.approx([-1 / 3, 0, -1 / 3])


def test_gains_are_read_from_a_binaryproto_file(tmp_path: Path) -> None:
    blob = message_class("BlobProto")(num=1, channels=1, height=3, width=3, data=GAINS.flatten().tolist())
    (tmp_path / "gains.binaryproto").write_bytes(blob.SerializeToString())
    field = f'infogain_loss_param {{ source: "{tmp_path}/gains.binaryproto" }}'
    x, label = torch.randn((4, 3), generator=GENERATOR), labels(0, 1, 2, 1)
    from_file = make(f"InfogainLoss {field}", x=(4, 3), label=(4,))(x, label)[0]
    from_bottom = make("InfogainLoss", "x label H", x=(4, 3), label=(4,), H=(3, 3))(x, label, GAINS)[0]
    expected = -(GAINS[label.long()] * x.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(from_file, from_bottom)
    torch.testing.assert_close(from_file, expected)


MISTAKES = {
    "label shape": ("SoftmaxWithLoss", "x label", {"x": (2, 3, 4), "label": (2,)}, r"8 predictions.*\(2,\)"),
    "axis": (
        "SoftmaxWithLoss softmax_param { axis: 3 }",
        "x label",
        {"x": (2, 3), "label": (2,)},
        "axis 3 is outside",
    ),
    "sizes": ("EuclideanLoss", "x label", {"x": (2, 3), "label": (3, 2)}, r"\(2, 3\) and \(3, 2\)"),
    "similarity": ("ContrastiveLoss", "x b y", {"x": (2, 3), "b": (2, 3), "y": (3,)}, "one similarity"),
    "no gains": ("InfogainLoss", "x label", {"x": (2, 3), "label": (2,)}, "infogain_loss_param.source"),
    "gains file": (
        'InfogainLoss infogain_loss_param { source: "/nowhere/h" }',
        "x label",
        {"x": (2, 3), "label": (2,)},
        "/nowhere/h",
    ),
    "gains size": ("InfogainLoss", "x label H", {"x": (2, 3), "label": (2,), "H": (2, 2)}, "3 x 3 classes"),
    "epsilon": (
        "GeneralizedHingeLoss generalized_hinge_loss_param { epsilon: 0 }",
        "x label",
        {"x": (2, 3), "label": (2,)},
        "epsilon must not be 0",
    ),
    "third bottom": (
        "GeneralizedHingeLoss generalized_hinge_loss_param { ignore_labeled_data: true }",
        "x label",
        {"x": (2, 3), "label": (2,)},
        "third bottom",
    ),
    "no labels": (
        "LogLikelihoodLoss log_likelihood_loss_param { use_labeled_data: false }",
        "x",
        {"x": (2, 3)},
        "label bottom",
    ),
    "contradiction": (
        "LogLikelihoodLoss log_likelihood_loss_param "
        "{ use_labeled_data: false filter_selected_labels: true }",
        "x label",
        {"x": (2, 3), "label": (2,)},
        "selected_label 0 is a labelled class",
    ),
    "rows": ("SumLoss", "x", {"x": (2, 3)}, "one value per row"),
    "top_k": (
        "Accuracy accuracy_param { top_k: 4 }",
        "x label",
        {"x": (2, 3), "label": (2,)},
        "top_k 4 must lie between 1 and the 3 classes",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_told_with_place_and_layer(name: str) -> None:
    layer, bottoms, shapes, message = MISTAKES[name]
    with pytest.raises(SpecError, match=message) as caught:
        make(layer, bottoms, **shapes)
    assert str(caught.value).startswith(f"net.prototxt:{len(shapes) + 1}:")
    assert f"layer 'it' ({layer.split()[0]})" in str(caught.value)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("top_k", [1, 2])
def test_accuracy_equals_counting(strict: bool, top_k: int) -> None:
    """Scores are small integers, so that ties abound."""
    x = torch.randint(0, 3, (40, 4, 2), generator=GENERATOR).float()
    label = torch.randint(0, 4, (40, 2), generator=GENERATOR).float()
    label[0, 0], label[1, 1] = NAN, 2
    layer = f"Accuracy strict: {str(strict).lower()} accuracy_param {{ top_k: {top_k} ignore_label: 3 }}"
    accuracy, each = make(layer, tops="acc each", phase="TEST", x=(40, 4, 2), label=(40, 2))(x, label)
    hits, totals = np.zeros(4), np.zeros(4)
    for n in range(40):
        for i in range(2):
            own = label[n, i].item()
            if np.isnan(own) or own == 3:
                continue
            scores = x[n, :, i].tolist()
            order = sorted(range(4), key=lambda k: (scores[k], k if strict else k != own), reverse=True)
            totals[int(own)] += 1
            hits[int(own)] += own in order[:top_k]
    assert accuracy.item() == pytest.approx(hits.sum() / totals.sum())
    assert each.tolist() == pytest.approx((hits / np.maximum(totals, 1)).tolist())


def test_a_nan_prediction_is_never_right() -> None:
    net = make("Accuracy", tops="acc", phase="TEST", x=(2, 3), label=(2,))
    assert net(torch.full((2, 3), NAN), labels(0, 1))[0] == 0


@pytest.mark.parametrize("shape", ["dim: 2", "dim: 2 dim: 1 dim: 1"])
def test_hinge_takes_one_label_for_each_row_of_all_its_values(shape: str) -> None:
    layer = """
        layer {{ name: "x" type: "Input" top: "x" top: "t"
          input_param {{ shape {{ dim: 2 dim: 3 dim: 4 }} shape {{ {} }} }} }}
        layer {{ name: "l" type: "HingeLoss" bottom: "x" bottom: "t" top: "loss" }}"""
    loss, _ = make_net(layer.format(shape), "TRAIN")(torch.zeros(2, 3, 4), torch.zeros(make_shape(shape)))
    assert float(loss) == 12  # max(0, 1 - 0) for each of 12 values, over N
    for wrong in ("dim: 2 dim: 4", "dim: 3"):
        with pytest.raises(SpecError, match="one label for each of the 2 predictions"):
            make_net(layer.format(wrong), "TRAIN")


def make_shape(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split() if word.isdigit())


def test_softmax_loss_weighs_labels_by_a_third_bottom() -> None:
    net = make("SoftmaxWithLoss", "x label w", x=(4, 3), label=(4,), w=(4,))
    x = torch.randn((4, 3), generator=GENERATOR)
    weights, label = torch.tensor([2.0, 0.0, 0.5, 1.0]), labels(0, 1, 2, 0)
    x[1] = NAN
    loss, gradient = loss_and_gradient(net, x, label, weights)
    logp = x.log_softmax(1)
    expected = -(2 * logp[0, 0] + 0.5 * logp[2, 2] + logp[3, 0]) / 3.5
    torch.testing.assert_close(loss, expected)
    assert (gradient[1] == 0).all()
    with pytest.raises(SpecError, match="weight for each label"):
        make("SoftmaxWithLoss", "x label w", x=(4, 3), label=(4,), w=(3,))
