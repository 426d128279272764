"""Connectionist temporal classification: the likelihood of a row of labels, wherever in time they lie."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from netspec.layers.base import Layer, Shape, between, register
from netspec.layers.loss.labels import from_start, value_with_gradient_of
from netspec.schema.spec import LayerSpec


@torch.library.custom_op("netspec::ctc", mutates_args=())
def ctc(
    logp_TNC: Tensor, label_NL: Tensor, steps_N: Tensor, lengths_N: Tensor, blank: int
) -> tuple[Tensor, Tensor]:
    """(loss of each sequence, 0 where it is too short; their gradients); torch's own has no shapes for compilers."""
    given = (logp_TNC, label_NL, steps_N, lengths_N)
    loss_N, alpha = torch.ops.aten._ctc_loss.Tensor(*given, blank, True)
    grad = torch.ops.aten._ctc_loss_backward.Tensor(
        torch.ones_like(loss_N), *given, loss_N, alpha, blank, True
    )
    return torch.where(loss_N == torch.inf, 0.0, loss_N), grad


@ctc.register_fake
def _(
    logp_TNC: Tensor, label_NL: Tensor, steps_N: Tensor, lengths_N: Tensor, blank: int
) -> tuple[Tensor, Tensor]:
    return logp_TNC.new_empty(logp_TNC.shape[1]), torch.empty_like(logp_TNC)


def keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(output[1])


def scaled(ctx: Any, grad_N: Tensor, _: Tensor) -> tuple[Tensor, None, None, None, None]:
    """The gradient of the log probabilities."""
    (grad_TNC,) = ctx.saved_tensors
    return grad_TNC * grad_N[:, None], None, None, None, None


ctc.register_autograd(scaled, setup_context=keep)


@register("CtcLoss", "CTCLoss", "WarpCTCLoss")
class CTCLoss(Layer):
    """loss = -sum log P(labels | softmax(x)) / N in nats, P summed over all ways to lay the labels into time.

    Shapes: scores x (T, N, C); with two bottoms labels (N, L); with three the sequences' indicators (T, N), 0 at the
    first step of each, and labels (L, N); with four the lengths (N,) of sequences and labels, and labels (L, N);
    top (). A sequence ends before its second 0, labels end before the first that is negative or NaN, and labels
    that are the blank are left out. The blank is blank_label (CtcLoss) or blank_index; by default class 0, but
    CTCLoss's is the last with three bottoms or four. WarpCTCLoss with three bottoms and without blank_index: label
    l is class l + 1. A sequence too short for its labels costs 0, and so does one of no steps, which with three
    bottoms is every one without labels; WarpCTCLoss's N counts only sequences of some steps. The gradient is that
    of the sum, without 1 / N, as published, but for CTCLoss with two bottoms. NaN scores make the loss NaN. Raises
    SpecError for shapes that do not fit, a blank of no class, alphabet_size other than C, time_step above T, and
    options that the field's manual excludes; in forward IndexError for a label of no class and RuntimeError for a
    length above T. Source: Graves et al. 2006; ctc_loss_layer.cpp of crnn.caffe, ctc_loss_layer.cpp and
    warp_ctc_loss_layer.cpp of ChWick's Caffe.
    """

    family, roles = "loss", ("scores", "label rows")
    bottoms, is_loss = between(2, 4), True
    param_field = "ctc_loss_param"

    @classmethod
    def classes_along(cls, spec: LayerSpec) -> int:
        return 2

    @classmethod
    def role(cls, i: int, count: int) -> str:
        if i in (0, count - 1):
            return cls.roles[bool(i)]
        return "continuation" if count == 3 else "lengths"

    @classmethod
    def needs(cls, spec: LayerSpec, i: int, known: Sequence[Shape | None], image: Shape) -> Shape | None:
        if i == 0 or known[0] is None:
            return None
        time, number = known[0][:2]
        if len(known) == 2:
            return number, max(time // 2, 1)
        return (number,) if cls.role(i, len(known)) == "lengths" else (time, number)

    def setup(self, *shapes: Shape) -> None:
        p, shape = self.param, shapes[0]
        if len(shape) < 3 or prod(shape[3:]) != 1:
            self.fail(f"needs scores (T, N, C), found {shape}", "bottom", 0)
        self.sizes = time, number, count = shape[:3]
        for name, only in (
            ("output_delay", 0),
            ("preprocess_collapse_repeated", False),
            ("ctc_merge_repeated", True),
        ):
            if getattr(p, name) != only:
                self.fail(f"{name} can be {str(only).lower()} only", name)
        if p.alphabet_size not in (0, count):
            self.fail(f"alphabet_size {p.alphabet_size} for {count} classes", "alphabet_size")
        self.require(p.time_step <= time, "time_step", f"time_step {p.time_step} for {time} steps")
        self.check_others(shapes, number)
        self.read_blank(count)

    def check_others(self, shapes: tuple[Shape, ...], number: int) -> None:
        for i, shape in enumerate(shapes[1:-1], 1):
            wanted = (self.sizes[0], number) if len(shapes) == 3 else (number,)
            if prod(shape) != prod(wanted) or shape[: len(wanted)] != wanted:
                self.fail(f"needs shape {wanted}, found {shape}", "bottom", i)
        labels, axis = shapes[-1], 0 if len(shapes) == 2 else 1
        if len(labels) < 2 or labels[axis] != number or prod(labels[2:]) != 1:
            wanted_text = f"({number}, L)" if axis == 0 else f"(L, {number})"
            self.fail(f"needs labels {wanted_text}, found {labels}", "bottom", len(shapes) - 1)

    def read_blank(self, count: int) -> None:
        p, kind, two = self.param, self.spec.type, len(self.spec.bottoms) == 2
        given, name = (p.blank_label, "blank_label") if kind == "CtcLoss" else (p.blank_index, "blank_index")
        last = count - 1 if kind == "CTCLoss" and not two else 0
        self.blank = int(given) if given >= 0 else last
        self.offset = 1 if kind == "WarpCTCLoss" and len(self.spec.bottoms) == 3 and given < 0 else 0
        self.averaged = kind == "CTCLoss" and two
        self.require(self.blank < count, name, f"{name} {self.blank} is none of {count} classes")

    def forward(self, *bottoms: Tensor) -> Tensor:
        time, number, count = self.sizes
        x = bottoms[0].reshape(time, number, count)
        labels = bottoms[-1].detach().flatten(1)
        labels, lengths = self.targets(labels if len(bottoms) == 2 else labels.t(), bottoms)
        index = torch.arange(count, device=x.device)[from_start(labels, count)]  # IndexError for no class
        steps = self.steps(bottoms, lengths)
        losses, _ = ctc(x.log_softmax(2), index, steps, lengths, self.blank)
        counted = (steps > 0).sum().clamp(min=1) if self.spec.type == "WarpCTCLoss" else number
        loss = losses.sum() / counted
        return loss if self.averaged else value_with_gradient_of(loss, losses.sum())

    def targets(self, label_NL: Tensor, bottoms: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Labels without blanks, moved to the front of each row and 0 behind, and how many there are."""
        over = ((label_NL < 0) | label_NL.isnan()).cumsum(1) > 0
        if len(bottoms) == 4:
            place = torch.arange(label_NL.shape[1], device=label_NL.device)
            over = over | (place >= bottoms[2].detach().reshape(-1, 1))
        # A blank of the net's own numbering is no label.
        label_NL = torch.where(over, 0.0, label_NL + 0.5).long() + self.offset
        left_out = over if self.offset else over | (label_NL == self.blank)
        order = left_out.long().argsort(dim=1, stable=True)
        kept = torch.where(left_out, self.filler(), label_NL).gather(1, order)
        return kept, (~left_out).sum(1)

    def filler(self) -> int:
        """What stands behind the labels; never read."""
        return 0 if self.blank else min(1, self.sizes[2] - 1)

    def steps(self, bottoms: tuple[Tensor, ...], labels_N: Tensor) -> Tensor:
        """The length of each sequence, for the numbers of their labels."""
        time, number, _ = self.sizes
        if len(bottoms) == 4:
            return bottoms[1].detach().flatten().long()
        if len(bottoms) == 2:
            return torch.full((number,), int(self.param.time_step) or time, device=bottoms[0].device)
        begins = (bottoms[1].detach().reshape(time, number) + 0.5).long() == 0
        return torch.where(labels_N > 0, 1 + (begins[1:].cumsum(0) == 0).sum(0), 0)
