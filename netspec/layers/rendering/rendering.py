"""Layers of rendering models (Patel, Nguyen, Baraniuk 2016): the way top-down through a DCN, and its losses.

A level renders z (its pooled templates) into the level below: Unpooling by the switches t that the pooling
of the way up found, a product with the RenderingMask a, and a Deconvolution with the Convolution's own
weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log, prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from netspec.layers.base import Layer, Shape, between, exactly, register
from netspec.layers.basic.batch_norm import refuse_learning
from netspec.layers.basic.pools import Frame, max_pool, window_sizes
from netspec.layers.loss.labels import classes, ignored
from netspec.layers.traits import Field
from netspec.schema.spec import TRAIN

SWITCH, REPEAT, MEAN = range(3)
"""UnpoolParameter.Mode."""


@register("Unpooling")
class Unpooling(Layer):
    """up = z at the switch of its window (SWITCH), in all of the window (REPEAT), or z / cells in all (MEAN).

    Shapes: bottom z (N, C, h, w); SWITCH has a second bottom like z, the mask of the MAX pooling with flat
    places y W + x; a last bottom `like` (N', C', H, W) gives the size of the top (N, C, H, W), without it H =
    kernel h. Windows lie side by side, as poolings with stride = kernel make them. Where `like` is larger
    than the windows, REPEAT repeats the last row and column, SWITCH and MEAN leave 0; where it is smaller,
    windows are cut, and MEAN divides by what is left of them. The gradient gathers at the switches; switch
    and `like` have none. NaN moves along. Raises SpecError for shapes that do not fit; a switch outside the
    top raises in forward. Source: Patel et al. 2016, appendix B, T_t and Z; the three ways are those of their
    code.
    """

    family, roles = "rendering", ("image", "switches", "like")
    products = 0
    bottoms = between(1, 3)
    param_field = "unpool_param"

    def setup(self, *shapes: Shape) -> None:
        p, shape = self.param, shapes[0]
        self.mode = int(p.mode)
        self.by_switch = self.mode == SWITCH
        least, most = (2, 3) if self.by_switch else (1, 2)
        if not least <= len(shapes) <= most:
            word = p.Mode.Name(self.mode)
            self.fail(f"mode {word} takes {least} to {most} bottoms, found {len(shapes)}", "bottom", 0)
        for i, other in enumerate(shapes):
            self.require(len(other) == 4, ("bottom", i), f"needs bottoms (N, C, H, W), found shape {other}")
        if self.by_switch and shapes[1] != shape:
            self.fail(f"needs switches of the shape {shape} of z, found {shapes[1]}", "bottom", 1)
        self.kernel = (
            int(p.kernel_h if p.HasField("kernel_h") else p.kernel_size),
            int(p.kernel_w if p.HasField("kernel_w") else p.kernel_size),
        )
        self.require(min(self.kernel) >= 1, "kernel_size", f"needs kernel_size > 0, found {self.kernel}")
        whole = (shape[2] * self.kernel[0], shape[3] * self.kernel[1])
        self.size = whole if len(shapes) == least else (shapes[-1][2], shapes[-1][3])
        if any(n <= w - k for n, w, k in zip(self.size, whole, self.kernel, strict=True)):
            self.fail(
                f"the top would be {self.size}, which has no place for {shape[2]} x {shape[3]} windows of "
                f"{self.kernel}",
                "bottom",
                len(shapes) - 1,
            )

    def forward(self, *bottoms: Tensor) -> Tensor:
        z = bottoms[0]
        if self.by_switch:
            up = z.new_zeros(*z.shape[:2], self.size[0] * self.size[1])
            places = bottoms[1].detach().long().flatten(2)
            return up.scatter(2, places, z.flatten(2)).reshape(*z.shape[:2], *self.size)
        if self.mode == MEAN:
            down, right = (
                window_sizes(z, size, count, kernel, kernel, 0)
                for size, count, kernel in zip(self.size, z.shape[2:], self.kernel, strict=True)
            )
            z = z / (down[:, None] * right)
        up = z.repeat_interleave(self.kernel[0], 2).repeat_interleave(self.kernel[1], 3)
        extra = [max(n - have, 0) for n, have in zip(self.size, up.shape[2:], strict=True)]
        up = up[:, :, : self.size[0], : self.size[1]]
        if not any(extra):
            return up
        if self.mode == MEAN:
            return functional.pad(up, (0, extra[1], 0, extra[0]))
        return functional.pad(up, (0, extra[1], 0, extra[0]), mode="replicate")

    def field(self, below: Field, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> Field | None:
        return below.enlarged(self.kernel, self.kernel)


@register("RenderingMask")
class RenderingMask(Layer):
    """a = 1 where u > threshold, else `leak` (default 0): which units render, the ReLU's latent switch.

    Shapes: bottom u (the value before the ReLU) and top alike. No gradient. NaN gives `leak`. Source: Patel
    et al. 2016, M_a of appendix B; leak 0.1 belongs to leaky ReLUs.
    """

    family, roles = "rendering", ("values",)
    param_field = "rendering_mask_param"
    differentiable = False

    def forward(self, *bottoms: Tensor) -> Tensor:
        u, leak = bottoms[0], self.param.leak
        a: Tensor = (u > self.param.threshold).to(u.dtype)
        return a + leak * (1 - a) if leak else a


@register("ArgMaxOneHot")
class ArgMaxOneHot(Layer):
    """y = 1 at the largest score along `axis` (the label's place, where there is one), 0 elsewhere.

    Shapes: bottom scores (..., C, ...) and top alike; an optional second bottom of labels holds one value for
    each position off the axis. A label that is NaN or loss_param's ignore_label leaves the choice to the
    scores; of equal scores the first wins. No gradient. NaN counts as largest. Raises SpecError for labels
    that do not fit; IndexError or RuntimeError in forward for a label outside 0..C-1. Source: Patel et al.
    2016, equation 8: the class that the top-down pass starts from.
    """

    family, roles = "rendering", ("scores", "label")
    bottoms = between(1, 2)
    param_field = "argmax_one_hot_param"
    differentiable = False

    def setup(self, *shapes: Shape) -> None:
        shape = shapes[0]
        self.along = self.axis(self.param.axis, len(shape), "axis")
        self.ignore = ignored(self)
        wanted = torch.Size((*shape[: self.along], *shape[self.along + 1 :])).numel()
        if len(shapes) == 2 and torch.Size(shapes[1]).numel() != wanted:
            self.fail(f"needs {wanted} labels for scores {shape}, found shape {shapes[1]}", "bottom", 1)

    def forward(self, *bottoms: Tensor) -> Tensor:
        scores = bottoms[0]
        winner = scores.argmax(self.along, keepdim=True)
        if len(bottoms) == 2:
            index, valid = classes(bottoms[1].reshape(winner.shape), self.ignore)
            winner = torch.where(valid, index, winner)
        return torch.zeros_like(scores).scatter(self.along, winner, 1.0)


@register("PriorKLLoss")
class PriorKLLoss(Layer):
    """loss = sign * mean KL(softmax(x) || prior) in nats; sign -1 (default) makes posteriors confident.

    Shapes: logits x (..., C at `axis`, ...), top (): the mean over all other positions. With the uniform
    prior KL = ln C - entropy lies in [0, ln C]. The papers add "a KL term as a regulariser"; the authors'
    code gives it the sign -1, which minimises the entropy; +1 draws to the prior. NaN makes the loss NaN.
    Raises SpecError for a prior of another length or with values <= 0, or sign 0. Source: Patel et al. 2016,
    section 4; minhtannguyen/drmm-tensorflow for the sign.
    """

    family, roles = "loss", ("scores",)
    is_loss = True
    param_field = "prior_kl_param"

    def setup(self, *shapes: Shape) -> None:
        p, shape = self.param, shapes[0]
        self.along = self.axis(p.axis, len(shape), "axis")
        count = shape[self.along]
        self.require(p.sign != 0, "sign", "sign 0 leaves no loss; use +1 or -1")
        if p.prior and len(p.prior) != count:
            self.fail(f"needs a prior of {count} classes, found {len(p.prior)}", "prior")
        self.require(all(value > 0 for value in p.prior), "prior", "needs priors > 0")
        total, self.uniform, self.sign = sum(p.prior), None if p.prior else -log(count), float(p.sign)
        after = (1,) * (len(shape) - 1 - self.along)
        given = torch.tensor([log(value / total) for value in p.prior]).reshape(-1, *after)
        self.register_buffer("logprior", given)

    def forward(self, *bottoms: Tensor) -> Tensor:
        logq = bottoms[0].log_softmax(self.along)
        logprior = self.get_buffer("logprior").to(logq.dtype) if self.uniform is None else self.uniform
        divergence = (logq.exp() * (logq - logprior)).sum(self.along)
        return self.sign * divergence.mean()


@register("NonNegativityLoss")
class NonNegativityLoss(Layer):
    """loss = mean max(0, -z)^power, power 2 by default: the penalty that makes a DRMM a nonnegative one.

    Shapes: bottom z of any shape, top (). NaN makes the loss NaN. Raises SpecError for power < 1. Source:
    Patel et al. 2016, definition B.2; the square and the mean are those of the authors' code.
    """

    family, roles = "loss", ("values",)
    is_loss = True
    param_field = "non_negativity_param"

    def setup(self, *shapes: Shape) -> None:
        self.require(self.param.power >= 1, "power", f"needs power >= 1, found {self.param.power}")

    def forward(self, *bottoms: Tensor) -> Tensor:
        negative = (-bottoms[0]).clamp(min=0)
        return (negative.square() if self.param.power == 2 else negative**self.param.power).mean()


@register("SignedPooling")
class SignedPooling(Layer):
    """I = s max relu(s u) of each window, s the window's sign: max-sum inference of a template that may be
    negative.

    Shapes: bottoms u (N, C, H, W) and sign (N, C, h, w) with h = ceil(H / kernel); tops I (N, C, h, w) and,
    if wanted, the switch: the flat place y W + x of the maximum, the first of ties. s = -1 where the sign
    bottom is below 0, else 1; with s = 1 this is a ReLU and a MAX pooling. The unit renders where I != 0. The
    gradient goes to the switch; signs have none. NaN in a window makes its top NaN. Raises SpecError for
    shapes that do not fit. Source: Patel et al. 2016, appendix B (general DRMM).
    """

    family, roles = "rendering", ("image", "image")
    products = 2
    bottoms, tops = exactly(2), between(1, 2)
    param_field = "signed_pooling_param"

    def setup(self, *shapes: Shape) -> None:
        k, shape = int(self.param.kernel_size), shapes[0]
        self.require(len(shape) == 4, ("bottom", 0), f"needs a bottom (N, C, H, W), found shape {shape}")
        self.require(k >= 1, "kernel_size", "needs kernel_size > 0")
        wanted = (*shape[:2], -(-shape[2] // k), -(-shape[3] // k))
        if shapes[1] != wanted:
            self.fail(f"needs signs of shape {wanted} for {shape}, found {shapes[1]}", "bottom", 1)
        self.frame = Frame((k, k), (k, k), (0, 0))

    def forward(self, *bottoms: Tensor) -> Tensor | tuple[Tensor, ...]:
        u, k = bottoms[0], self.frame.kernel[0]
        s = torch.where(bottoms[1].detach() < 0, -1.0, 1.0).to(u.dtype)
        spread = s.repeat_interleave(k, 2).repeat_interleave(k, 3)[:, :, : u.shape[2], : u.shape[3]]
        largest: Any = max_pool((spread * u).relu(), self.frame, True)
        return (s * largest[0], largest[1])[: len(self.spec.tops)]

    def field(self, below: Field, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> Field | None:
        return below.grown(self.frame.kernel, self.frame.stride)


@register("RenderStats")
class RenderStats(Layer):
    """Keeps running frequencies of a = 1, of t at each place, and of both at once; its tops, if wanted.

    Shapes: bottoms a (N, C, H, W), the RenderingMask, and t (N, C, h, w), the MAX pooling's mask of flat
    places; blobs sums (C, H, W) for a, t and both, and their weight (1,), none of them learned; up to three
    tops (C, H, W), the frequencies sums / weight, 0 before the first step. TRAIN adds: sums = momentum sums +
    (1 - momentum) means of the batch, the weight alike with 1. They are what sampling draws switches from.
    Raises SpecError for shapes that do not fit or a non-zero lr_mult. Source: the authors' code, which keeps
    such averages with momentum 0.99.
    """

    family, roles = "rendering", ("mask", "switches")
    bottoms, tops = exactly(2), between(0, 3)
    param_field = "render_stats_param"
    differentiable = False

    def setup(self, *shapes: Shape) -> None:
        a, t = shapes
        if len(a) != 4 or len(t) != 4 or a[:2] != t[:2]:
            self.fail(f"needs a (N, C, H, W) and switches (N, C, h, w), found {a} and {t}", "bottom", 1)
        if not 0 <= self.param.momentum < 1:
            self.fail(f"needs momentum in [0, 1), found {self.param.momentum}", "momentum")
        for _ in range(3):
            self.add_blob(a[1:], lr_mult=0.0)
        self.add_blob((1,), lr_mult=0.0)
        refuse_learning(self, range(4))

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        a, t = bottoms
        if self.phase == TRAIN:
            on = (a > 0).to(a.dtype)
            won = torch.zeros_like(on).flatten(2).scatter(2, t.long().flatten(2), 1.0).view_as(on)
            with torch.no_grad():
                for blob, now in zip(self.blobs, (on, won, on * won, None), strict=True):
                    mean = on.new_ones(1) if now is None else now.mean(0)
                    blob.mul_(self.param.momentum).add_((1 - self.param.momentum) * mean)
        return self.frequencies()[: len(self.spec.tops)]

    def frequencies(self) -> tuple[Tensor, ...]:
        """(of a = 1, of t, of both), each (C, H, W)."""
        weight = self.blob(3).detach()
        inverse = torch.where(weight == 0, 0.0, 1 / torch.where(weight == 0, 1.0, weight))
        return tuple(self.blob(i).detach() * inverse for i in range(3))

    def multiply_adds(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int:
        """A product for each unit, that of the two switches."""
        return prod(bottoms[0])
