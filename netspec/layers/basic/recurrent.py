"""Recurrent layers over time-major blobs (T, N, ...): RNN, LSTM, a fork's Lstm, and LSTMUnit, one step of an LSTM."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from netspec.layers.base import Layer, Shape, at_least, between, exactly, register

# Shape suffixes: T = time, N = sequences (the batch), H = num_output, G = 4 H gates in the order i, f, o, g.


def lstm_step(c_NH: Tensor, gates_NG: Tensor, cont_N1: Tensor) -> tuple[Tensor, Tensor]:
    """(c, h) after one step: c = cont f c + i g, h = o tanh(c); where cont is 0 the old c has no effect, NaN
    included."""
    i, f, o, g = gates_NG.chunk(4, -1)
    kept = torch.where(cont_N1 == 0, 0.0, c_NH) * (cont_N1 * f.sigmoid())
    c_NH = kept + i.sigmoid() * g.tanh()
    return c_NH, o.sigmoid() * c_NH.tanh()


class Recurrent(Layer):
    """What RNN and LSTM share: bottoms x, cont, optional static input, and the hidden state between forwards.

    `cont` is 1 where a sequence goes on and 0 at its first step. Without expose_hidden the state is kept in
    buffers: a forward starts from the last state of the forward before (0 at first), and no gradient crosses
    forwards.
    """

    family, roles = "recurrent", ("sequence", "continuation", "static")
    bottoms, tops = at_least(2), at_least(1)
    param_field = "recurrent_param"
    states: Sequence[str] = ()
    """Names of the hidden states, in the order of their bottoms and tops."""

    def setup(self, *shapes: Shape) -> None:
        p = self.param
        self.require(p.num_output, "num_output", "needs num_output > 0")
        exposed = len(self.states) if p.expose_hidden else 0
        self.static = len(shapes) == 3 + exposed
        self.require(
            len(shapes) in (2 + exposed, 3 + exposed),
            ("bottom", 0),
            f"takes x, cont, an optional static input and {exposed} initial states, "
            f"found {len(shapes)} bottoms",
        )
        if len(self.spec.tops) != 1 + exposed:
            self.fail(f"gives {1 + exposed} tops, found {len(self.spec.tops)}", "top", 0)
        self.check_shapes(*shapes)
        self.add_blobs(p.num_output, prod(shapes[0][2:]), prod(shapes[2][1:]) if self.static else 0)
        if not exposed:
            for name in self.states:
                self.register_buffer(name, torch.zeros(shapes[0][1], p.num_output))

    def check_shapes(self, *shapes: Shape) -> None:
        """Fail unless x is (T, N, ...), cont (T, N), the static input (N, ...) and states (1, N, H)."""
        x, cont, *rest = shapes
        if len(x) < 2 or tuple(cont) != tuple(x[:2]):
            self.fail(
                f"needs x of shape (T, N, ...) and cont of shape (T, N), found {x} and {cont}", "bottom", 1
            )
        if self.static and rest[0][:1] != x[1:2]:
            self.fail(f"needs a static input of shape ({x[1]}, ...), found {rest[0]}", "bottom", 2)
        for i, state in enumerate(rest[self.static :], 2 + self.static):
            if tuple(state) != (1, x[1], self.param.num_output):
                self.fail(
                    f"needs a state of shape {(1, x[1], self.param.num_output)}, found {state}", "bottom", i
                )

    def add_blobs(self, hidden: int, inputs: int, static: int) -> None:
        """Declare the blobs in the order of Caffe's unrolled net; `static` is 0 without a static input."""
        raise NotImplementedError

    def walk(
        self, inputs: Sequence[Tensor], conts: Sequence[Tensor], start: Sequence[Tensor]
    ) -> list[Tensor]:
        """Run all steps; returns the top of shape (T, N, H), then the last states (N, H)."""
        raise NotImplementedError

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        x, cont = bottoms[0], bottoms[1].detach().to(bottoms[0].dtype)
        inputs = linear(x.reshape(*x.shape[:2], -1), self.blob(0), self.blob(1))
        if self.static:
            inputs = inputs + linear(bottoms[2].flatten(1), self.blob(2))
        exposed = bottoms[2 + self.static :]
        # A copy: backward needs the state that this forward began with, and the buffer is overwritten below.
        start = [state[0] for state in exposed] or [self.get_buffer(name).clone() for name in self.states]
        top, *last = self.walk(inputs.unbind(0), cont.unsqueeze(2).unbind(0), start)
        if exposed:
            return top, *(state.unsqueeze(0) for state in last)
        for name, state in zip(self.states, last, strict=True):
            self.get_buffer(name).copy_(state.detach())
        return (top,)


def carried(cont_N1: Tensor, h_NH: Tensor) -> Tensor:
    """cont h, and 0 where cont is 0 even if h is NaN."""
    return cont_N1 * torch.where(cont_N1 == 0, 0.0, h_NH)


@register("LSTM")
class LSTM(Recurrent):
    """c_t = cont f c_(t-1) + i g, h_t = o tanh(c_t), with i, f, o = sigmoid, g = tanh of W x + b + V h_(t-1)
    (+ S s).

    Shapes: x (T, N, ...), cont (T, N), optional static input s (N, ...), with expose_hidden also h_0 and c_0
    (1, N, H); tops h (T, N, H), with expose_hidden also h_T and c_T. Blobs W (4H, D), b (4H,), S (4H, E) if s
    is given, V (4H, H); gates in the order i, f, o, g. The exposed states carry gradients (Caffe cuts them
    off). The state before a step with cont 0 has no effect, also when it is NaN; other NaN pass on.
    Raises SpecError for missing num_output, wrong numbers of bottoms or tops, or shapes that do not fit.
    Source: Donahue et al. 2014 (LRCN); Caffe, lstm_layer.cpp and recurrent_layer.cpp.
    """

    states = ("h_state", "c_state")

    def add_blobs(self, hidden: int, inputs: int, static: int) -> None:
        p = self.param
        self.add_blob((4 * hidden, inputs), p.weight_filler)
        self.add_blob((4 * hidden,), p.bias_filler)
        if self.static:
            self.add_blob((4 * hidden, static), p.weight_filler)
        self.add_blob((4 * hidden, hidden), p.weight_filler)

    def walk(
        self, inputs: Sequence[Tensor], conts: Sequence[Tensor], start: Sequence[Tensor]
    ) -> list[Tensor]:
        (h, c), weight, hidden = start, self.blob(len(self.blobs) - 1), []
        for gates, cont in zip(inputs, conts, strict=True):
            c, h = lstm_step(c, gates + linear(carried(cont, h), weight), cont)
            hidden.append(h)
        return [torch.stack(hidden), h, c]


@register("RNN")
class RNN(Recurrent):
    """h_t = tanh(W x_t + b + V cont h_(t-1) (+ S s)), o_t = tanh(U h_t + d); the top is o.

    Shapes: x (T, N, ...), cont (T, N), optional static input s (N, ...), with expose_hidden also h_0 (1, N,
    H); tops o (T, N, H), with expose_hidden also h_T (1, N, H). Blobs W (H, D), b (H,), S (H, E) if s is
    given, V (H, H), U (H, H), d (H,). The exposed states carry gradients (Caffe cuts them off). NaN as in
    LSTM. Raises SpecError as LSTM does. Source: Caffe, rnn_layer.cpp and recurrent_layer.cpp.
    """

    states = ("h_state",)

    def add_blobs(self, hidden: int, inputs: int, static: int) -> None:
        p = self.param
        self.add_blob((hidden, inputs), p.weight_filler)
        self.add_blob((hidden,), p.bias_filler)
        if self.static:
            self.add_blob((hidden, static), p.weight_filler)
        self.add_blob((hidden, hidden), p.weight_filler)
        self.add_blob((hidden, hidden), p.weight_filler)
        self.add_blob((hidden,), p.bias_filler)

    def walk(
        self, inputs: Sequence[Tensor], conts: Sequence[Tensor], start: Sequence[Tensor]
    ) -> list[Tensor]:
        (h,), first, hidden = start, len(self.blobs) - 3, []
        for drive, cont in zip(inputs, conts, strict=True):
            h = (drive + linear(carried(cont, h), self.blob(first))).tanh()
            hidden.append(h)
        return [linear(torch.stack(hidden), self.blob(first + 1), self.blob(first + 2)).tanh(), h]


@register("LSTMUnit")
class LSTMUnit(Layer):
    """c = cont f c_prev + i g, h = o tanh(c): one step of an LSTM from its summed gate inputs.

    Shapes: c_prev (1, N, H), gate inputs (1, N, 4H) in the order i, f, o, g, cont (1, N); tops c and h (1, N,
    H). Where cont is 0, c_prev has no effect, also when it is NaN. Raises SpecError when shapes do not fit.
    Source: Caffe, lstm_unit_layer.cpp.
    """

    family, roles = "recurrent", ("state", "values", "continuation")
    bottoms, tops = exactly(3), exactly(2)

    def setup(self, *shapes: Shape) -> None:
        c, gates, cont = shapes
        self.require(
            len(c) == 3 and tuple(gates) == (*c[:2], 4 * c[2]) and tuple(cont) == tuple(c[:2]),
            ("bottom", 0),
            f"needs c (1, N, H), gates (1, N, 4H) and cont (1, N), found {c}, {gates} and {cont}",
        )

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        c, gates, cont = bottoms
        return lstm_step(c, gates, cont.detach().to(c.dtype).unsqueeze(2))


@torch.library.custom_op("netspec::cut_gradient", mutates_args=())
def cut_gradient(x: Tensor, limit: float) -> Tensor:
    """y = x, its gradient cut to [-limit, limit]; an operator of its own, so that compiled nets keep it."""
    return x.clone()


@cut_gradient.register_fake
def _(x: Tensor, limit: float) -> Tensor:
    return torch.empty_like(x)


def remember_limit(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.limit = inputs[1]


def cut(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
    return grad.clamp(-ctx.limit, ctx.limit), None


cut_gradient.register_autograd(cut, setup_context=remember_limit)


@register("Lstm")
class OhLstm(Layer):
    """c_t = f c_(t-1) + i g, h_t = o tanh(c_t), with i, f, o = sigmoid, g = tanh of W x + V h_(t-1) + b.

    Shapes: x (T N, ...) with N = batch_size, row t N + n step t of sequence n; optional clip of T N values, 0
    where a sequence begins; top h (T N, H). A bottom (T, N, D) where batch_size is not given: top (T, N, H), as
    in CTPN's Caffe. Blobs W (4H, D), V (4H, H), b (4H,); gates in the order i, f, o, g.
    With clip a forward starts from the last state of the forward before (0 at first), and no gradient crosses
    forwards; without it every forward begins anew. clipping_threshold cuts the gradients of W x + V h + b at
    each step. The state before a step with clip 0 has no effect, also when it is NaN; other NaN pass on.
    Raises SpecError for missing num_output or shapes that do not fit. Source: Junhyuk Oh's caffe-lstm,
    lstm_layer.cpp, whose gradient of V also counts states that clip cuts off.
    """

    family, roles = "recurrent", ("sequence", "continuation")
    bottoms = between(1, 2)
    param_field = "lstm_param"

    def setup(self, *shapes: Shape) -> None:
        p, shape = self.param, shapes[0]
        self.require(p.num_output and p.batch_size, "num_output", "needs num_output > 0 and batch_size > 0")
        self.side = len(shape) == 3 and not p.HasField("batch_size")
        self.beside = shape[1] if self.side else int(p.batch_size)
        rows = prod(shape[:2]) if self.side else shape[0] if shape else 0
        if len(shape) < 2 or not self.beside or rows % self.beside:
            self.fail(f"needs {p.batch_size} rows or a multiple of it, found shape {shape}", "bottom", 0)
        if len(shapes) == 2 and prod(shapes[1]) != rows:
            self.fail(f"needs {rows} values, one a row, found shape {shapes[1]}", "bottom", 1)
        self.add_blob((4 * p.num_output, prod(shape) // max(rows, 1)), p.weight_filler)
        self.add_blob((4 * p.num_output, p.num_output), p.weight_filler)
        self.add_blob((4 * p.num_output,), p.bias_filler)
        for name in ("h_state", "c_state"):
            self.register_buffer(name, torch.zeros(self.beside, p.num_output))

    def forward(self, *bottoms: Tensor) -> Tensor:
        p, x = self.param, bottoms[0].flatten(0, 1) if self.side else bottoms[0]
        inputs = linear(x.flatten(1), self.blob(0), self.blob(2)).reshape(-1, self.beside, 4 * p.num_output)
        if len(bottoms) == 2:
            goes_on = (bottoms[1].detach() != 0).to(x.dtype).reshape(-1, self.beside, 1)
            # A copy: backward needs the state that this forward began with, and the buffer is overwritten below.
            h, c = self.get_buffer("h_state").clone(), self.get_buffer("c_state").clone()
        else:
            goes_on = torch.ones_like(inputs[:, :, :1])
            goes_on[0] = 0
            h = c = inputs.new_zeros(self.beside, p.num_output)
        # A program that is written for others computes no gradients, and they lack the operator.
        cuts = p.clipping_threshold > 0 and not torch.compiler.is_exporting()
        hidden = []
        for gates, cont in zip(inputs.unbind(0), goes_on.unbind(0), strict=True):
            gates = gates + linear(carried(cont, h), self.blob(1))
            if cuts:
                gates = cut_gradient(gates, p.clipping_threshold)
            c, h = lstm_step(c, gates, cont)
            hidden.append(h)
        if len(bottoms) == 2:
            self.get_buffer("h_state").copy_(h.detach())
            self.get_buffer("c_state").copy_(c.detach())
        return torch.stack(hidden) if self.side else torch.cat(hidden)


@register("ContinuationIndicator")
class ContinuationIndicator(Layer):
    """y = 0 at the first step, 1 at the others: the bottom that tells RNN and LSTM where sequences begin.

    Shapes: top (time_step, batch_size). No bottom, no gradient. Raises SpecError where a number is missing.
    Source: continuation_indicator_layer.cpp of Intel's Caffe and of OCR forks.
    """

    family, roles = "recurrent", ()
    bottoms = exactly(0)
    param_field = "continuation_indicator_param"

    def setup(self, *shapes: Shape) -> None:
        p = self.param
        self.require(p.time_step and p.batch_size, "time_step", "needs time_step > 0 and batch_size > 0")
        self.register_buffer("anchor", torch.empty(0), persistent=False)  # follows the net's device and dtype

    def forward(self, *bottoms: Tensor) -> Tensor:
        steps = torch.arange(self.param.time_step, device=self.get_buffer("anchor").device) > 0
        values = steps.to(self.get_buffer("anchor").dtype)
        return values[:, None].expand(-1, self.param.batch_size).clone()
