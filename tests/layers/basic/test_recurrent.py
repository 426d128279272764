"""LSTM and RNN against torch's own, and the state that goes from one forward to the next."""

from __future__ import annotations

import pytest
import torch

from netspec import schema
from netspec.errors import SpecError
from netspec.net.make import make_net
from netspec.net.net import Net
from tests.cases.loss import text
from tests.cases.recurrent import recurrent


def make(prototxt: str) -> Net:
    return make_net(schema.parse_net(prototxt, "net.prototxt"), phase="TRAIN", seed=3)


def test_lstm_equals_torch() -> None:
    net, x = make(recurrent("LSTM", "x cont", "h")), torch.randn(4, 2, 2)
    w, b, v = (param.value.detach() for param in net.params)
    theirs = torch.nn.LSTM(2, 3)
    order = torch.tensor([0, 1, 3, 2])  # Caffe keeps the gates as i, f, o, g, torch as i, f, g, o
    with torch.no_grad():
        theirs.weight_ih_l0.copy_(w.view(4, 3, 2)[order].reshape(12, 2))
        theirs.weight_hh_l0.copy_(v.view(4, 3, 3)[order].reshape(12, 3))
        theirs.bias_ih_l0.copy_(b.view(4, 3)[order].reshape(12))
        theirs.bias_hh_l0.zero_()
    cont = torch.ones(4, 2)
    cont[0] = 0
    torch.testing.assert_close(net(x, cont)[0], theirs(x)[0])


def test_rnn_equals_torch_with_an_output_on_top() -> None:
    net, x = make(recurrent("RNN", "x cont", "o")), torch.randn(4, 2, 2)
    w, b, v, u, d = (param.value.detach() for param in net.params)
    theirs = torch.nn.RNN(2, 3)
    with torch.no_grad():
        theirs.weight_ih_l0.copy_(w)
        theirs.weight_hh_l0.copy_(v)
        theirs.bias_ih_l0.copy_(b)
        theirs.bias_hh_l0.zero_()
    cont = torch.ones(4, 2)
    cont[0] = 0
    torch.testing.assert_close(net(x, cont)[0], (theirs(x)[0] @ u.t() + d).tanh())


@pytest.mark.parametrize("kind", ["LSTM", "RNN"])
def test_two_forwards_that_go_on_equal_one_long_forward(kind: str) -> None:
    half, whole = (
        make(recurrent(kind, "x cont", "h")),
        make(recurrent(kind, "x cont", "h").replace("dim: 4", "dim: 8")),
    )
    x, cont = torch.randn(8, 2, 2), torch.ones(8, 2)
    cont[0], cont[6, 1] = 0, 0
    parts = [half(x[:4], cont[:4])[0], half(x[4:], cont[4:])[0]]
    torch.testing.assert_close(torch.cat(parts), whole(x, cont)[0])
    # No gradient crosses forwards, and the state overwritten in between does no harm to backward.
    x.requires_grad_(True)
    half(x[:4], cont[:4])
    (gradient,) = torch.autograd.grad(half(x[4:], cont[4:])[0].sum(), x)
    assert (gradient[:4] == 0).all()
    assert (gradient[4:] != 0).all()


@pytest.mark.parametrize("kind", ["LSTM", "RNN"])
def test_compiled_nets_carry_the_state_too(kind: str) -> None:
    eager, other = make(recurrent(kind, "x cont", "h")), make(recurrent(kind, "x cont", "h"))
    torch.compiler.reset()
    compiled = torch.compile(other, backend="aot_eager", fullgraph=True)
    for _ in range(3):
        x = torch.randn(4, 2, 2)
        torch.testing.assert_close(compiled(x, torch.ones(4, 2))[0], eager(x, torch.ones(4, 2))[0])


@pytest.mark.parametrize("kind", ["LSTM", "RNN"])
def test_a_new_sequence_forgets_a_nan_of_the_old_one(kind: str) -> None:
    net, x, cont = make(recurrent(kind, "x cont", "h")), torch.randn(4, 2, 2), torch.ones(4, 2)
    x[1, 0], cont[2, 0] = float("nan"), 0
    x.requires_grad_(True)
    h = net(x, cont)[0]
    assert h[1, 0].isnan().all()
    assert h[2:].isfinite().all()
    (gradient,) = torch.autograd.grad(h[2:].sum(), x)
    assert gradient[2:].isfinite().all()


@pytest.mark.parametrize(
    ("prototxt", "message"),
    [
        (recurrent("LSTM", "x cont", "h c"), "gives 1 tops, found 2"),
        (recurrent("RNN", "x cont", "h hT", "expose_hidden: true"), "1 initial states, found 2 bottoms"),
        (recurrent("LSTM", "x cont s", "h", s=(3, 1)), r"static input of shape \(2, ...\), found \(3, 1\)"),
        (text("RNN", "x cont", "h", x=(4, 2, 2), cont=(4, 2)), "needs num_output > 0"),
        (
            text("LSTM recurrent_param { num_output: 2 }", "x cont", "h", x=(4, 2, 2), cont=(4,)),
            "cont of shape",
        ),
        (
            recurrent("RNN", "x cont h0", "h hT", "expose_hidden: true", h0=(1, 2, 4)),
            r"state of shape \(1, 2, 3\), found \(1, 2, 4\)",
        ),
    ],
)
def test_mistakes_are_told(prototxt: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        make(prototxt)
