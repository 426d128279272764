"""Normalisation by statistics of a batch: BatchNorm as Caffe defines it, and the layers that forks call BN.

Running statistics are blobs; a forward in TRAIN moves them in place, outside of autograd.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from netspec.layers import ranks
from netspec.layers.base import Layer, Shape, between, register
from netspec.schema import FillerParameter
from netspec.schema.spec import TEST, TRAIN, LayerSpec


def by_batch(
    x: Tensor, scale: Tensor | None, shift: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor, int]:
    """(y, mean, variance, m): x (N, C, ...) normalised over its m values a channel, and these statistics.

    The variance is the one of the sample, over m - 1 (over 1 when m is 1). Among ranks that share a batch all of this
    is of the whole batch.
    """
    m = x.numel() // x.shape[1]
    if ranks.current().split:
        return by_batch_of_ranks(x, scale, shift, eps, m * ranks.current().world)
    mean, variance = x.new_zeros(x.shape[1]), x.new_zeros(x.shape[1])
    if m == 1:  # torch would divide 0 by 0
        return by_given(x - x, mean, variance, scale, shift, eps), x.detach().flatten(), variance, m
    y = torch.batch_norm(x, scale, shift, mean, variance, True, 1.0, eps, torch.backends.cudnn.enabled)
    return y, mean, variance, m


def by_batch_of_ranks(
    x: Tensor, scale: Tensor | None, shift: Tensor | None, eps: float, m: int
) -> tuple[Tensor, Tensor, Tensor, int]:
    """`by_batch` where x is a rank's part of the batch: the statistics are of the m values of all ranks.

    The mean first, then the squares around it: one exchange more than sums of x and x^2 take, and precise far from 0.
    """
    other, wide = [0, *range(2, x.dim())], (1, -1, *(1,) * (x.dim() - 2))
    mean = ranks.total(x.sum(other)) / m
    off = x - mean.view(wide)
    spread = ranks.total(off.square().sum(other))
    y = off * torch.rsqrt(spread / m + eps).view(wide)
    if scale is not None:
        y = y * scale.view(wide)
    if shift is not None:
        y = y + shift.view(wide)
    return y, mean.detach(), spread.detach() / max(m - 1, 1), m


def by_given(
    x: Tensor, mean: Tensor, variance: Tensor, scale: Tensor | None, shift: Tensor | None, eps: float
) -> Tensor:
    """(x - mean) / sqrt(variance + eps) * scale + shift, by channel."""
    return torch.batch_norm(x, scale, shift, mean, variance, False, 0.0, eps, torch.backends.cudnn.enabled)


@register("BatchNorm")
class BatchNorm(Layer):
    """y = (x - mean) / sqrt(var + eps) by channel: of the batch in TRAIN, else of the running statistics.

    Shapes: bottom and top (N, C, ...), or (N,) as one channel; blobs sum of means (C,), sum of variances (C,)
    and their weight (1,), none of them learned. TRAIN adds: weight = 1 + f weight, sums = batch + f sums,
    with f = moving_average_fraction and the variance over m - 1; the statistics are sums / weight, or 0 for
    weight 0. `use_global_stats` overrides the choice by phase. With `strict`, lr_mult is 1 by default, so
    that weight decay moves the statistics, as in the SimNets fork. NaN spreads over its channel, and into the
    statistics. NVIDIA's layer (`scale_bias`, `scale_filler` or `bias_filler` is given): y * scale + shift, two
    more blobs (C,), 1 and 0 without fillers; eps is at least 1e-5, the weight stays 1, and TRAIN sets
    statistics = f statistics + (1 - f) batch, the variance over m, or the batch's where the variance is 0.
    Raises SpecError for a non-zero lr_mult of statistics. Source: Caffe, batch_norm_layer.cpp, and NVIDIA's;
    Ioffe and Szegedy 2015.
    """

    family, roles = "normalisation", ("image",)
    products = 1
    param_field = "batch_norm_param"

    def setup(self, *shapes: Shape) -> None:
        p, shape = self.param, shapes[0]
        self.require(shape, ("bottom", 0), "needs a bottom (N, C, ...), found a scalar")
        channels = shape[1] if len(shape) > 1 else 1
        self.globally = bool(p.use_global_stats) if p.HasField("use_global_stats") else self.phase == TEST
        self.fraction, self.eps = float(p.moving_average_fraction), float(p.eps)
        self.learns = bool(p.scale_bias) or p.HasField("scale_filler") or p.HasField("bias_filler")
        for size in (channels, channels, 1):
            whole = constant(1) if self.learns and len(self.blobs) == 2 else None
            self.add_blob((size,), whole, lr_mult=1.0 if self.strict else 0.0)
        refuse_learning(self, range(3))
        if self.learns:
            self.eps = max(self.eps, 1e-5)
            for name, value in (("scale_filler", 1), ("bias_filler", 0)):
                self.add_blob((channels,), getattr(p, name) if p.HasField(name) else constant(value))

    def forward(self, *bottoms: Tensor) -> Tensor:
        x = bottoms[0] if bottoms[0].dim() > 1 else bottoms[0][:, None]
        scale, shift = (self.blob(3), self.blob(4)) if self.learns else (None, None)
        if self.globally:
            weight = self.blob(2).detach()
            inverse = torch.where(weight == 0, 0.0, 1 / weight)
            mean, variance = (self.blob(i).detach() * inverse for i in range(2))
            y = by_given(x, mean, variance, scale, shift, self.eps)
        else:
            y, mean, variance, m = by_batch(x, scale, shift, self.eps)
            with torch.no_grad():
                if self.learns:
                    self.follow(mean, variance * ((m - 1) / m))
                else:
                    for blob, now in zip(self.blobs, (mean, variance, 1), strict=True):
                        blob.mul_(self.fraction).add_(now)
        return y.reshape(bottoms[0].shape)

    def follow(self, mean: Tensor, variance: Tensor) -> None:
        """Move NVIDIA's running statistics towards the batch's, or to them where there are none yet."""
        new = self.blobs[1] == 0
        for blob, now in zip(self.blobs, (mean, variance), strict=False):
            blob.copy_(torch.where(new, now, self.fraction * blob + (1 - self.fraction) * now))


def constant(value: float) -> Any:
    """A filler that sets every value."""
    return FillerParameter(type="constant", value=value)


def refuse_learning(layer: Layer, blobs: range) -> None:
    """SpecError when the file gives a blob of statistics a learning rate."""
    if layer.strict:
        return
    for i, param in enumerate(layer.spec.message.param):
        if i in blobs and param.HasField("lr_mult") and param.lr_mult != 0:
            layer.fail(
                "batch statistics are not learned; lr_mult must be 0 or left out", "param", i, "lr_mult"
            )


SEGNET, EARLY, LATE = range(3)
"""The three layers that forks call BN."""

BN_FIELDS = {
    EARLY: ("var_eps", "moving_average", "decay", "axis"),
    LATE: ("slope_filler", "bias_filler", "momentum", "eps", "frozen"),
    SEGNET: ("bn_mode",),
}
"""Fields of bn_param that only one kind has, the first kind found with one of its own wins."""


FILLERS = ("slope_filler", "bias_filler")
"""PSPNet's fillers, which yjxiong's data-parallel version of the early layer has too."""


BN_DIALECTS = {"segnet": SEGNET, "pspnet": LATE, "yjxiong": EARLY}
"""Whose layer it is where bn_param does not tell, by the net's `dialect`."""


def is_open(spec: LayerSpec) -> bool:
    """Whether neither the fields of a layer nor its net's dialect say which of the layers called BN it is."""
    written = {field.name for field, _ in spec.message.bn_param.ListFields()}
    return (
        spec.type == "BN"
        and spec.dialect not in BN_DIALECTS
        and not any(map(written.intersection, BN_FIELDS.values()))
    )


def dialect_of(shapes: Sequence[Shape]) -> str:
    """The dialect whose BN has blobs of these shapes; "" where none has."""
    if len(shapes) == 2:
        return "segnet"
    if len(shapes) == 4:
        return "yjxiong" if len(shapes[0]) == 4 and shapes[0][0] == shapes[0][3] == 1 else "pspnet"
    return ""


@register("BN")
class BN(Layer):
    """y = scale * (x - mean) / sqrt(var + eps) + shift by channel; three forks' layers, told apart by their
    fields, then by the net's `dialect`, then by the blobs of the weights that are loaded.

    SegNet (bn_mode, or fillers only): blobs scale and shift (1, C, 1, 1), eps 1e-9, the batch's statistics in
    both phases; with `bn_mode: INFERENCE` no statistics at all (they are folded into scale and shift). PSPNet
    (slope_filler, bias_filler, momentum, eps, frozen; also without bn_param): blobs slope, bias, running mean
    and running variance, (1, C). TRAIN uses the batch and sets running = momentum running + (1 - momentum)
    batch, the variance over m; TEST, and `frozen` in both phases, use the running ones. yjxiong (var_eps,
    decay, moving_average, axis; all with `dialect` in the net where no field tells): as PSPNet with blobs (1,
    C, 1, 1) and running = (1 - decay) running + decay batch; TEST uses the running ones only with
    `moving_average`; its data-parallel version has PSPNet's names for the fillers. Tops 2 and 3, as DeconvNet's
    layer has them: the batch's mean and variance (1, C, 1, ...), without gradient. Fillers default to constant 0.
    Shapes: bottom and top (N, C, ...). NaN spreads over its
    channel. Raises SpecError for a bottom without the channel axis, fields of two kinds, or lr_mult on
    statistics. Source: bn_layer.cpp of these forks.
    """

    family, roles = "normalisation", ("image",)
    products = 1
    tops = between(1, 3)
    param_field = "bn_param"

    def setup(self, *shapes: Shape) -> None:
        p, shape = self.param, shapes[0]
        self.kind = self.read_kind()
        self.channel_axis = self.axis(p.axis, max(len(shape), 2), "axis") if self.kind == EARLY else 1
        if len(shape) <= self.channel_axis:
            self.fail(f"needs a bottom (N, C, ...), found shape {shape}", "bottom", 0)
        self.channels, self.tail = shape[self.channel_axis], (1,) * (len(shape) - 2)
        self.frozen = bool(p.frozen)
        if self.kind == SEGNET:
            self.eps, self.statistics = 1e-9, "none" if p.bn_mode == p.INFERENCE else "batch"
        elif self.kind == EARLY:
            self.eps, self.keep = float(p.var_eps), 1 - float(p.decay)
            self.statistics = "running" if self.phase == TEST and p.moving_average else "batch"
        else:
            self.eps, self.keep = float(p.eps), float(p.momentum)
            self.statistics = "running" if self.phase == TEST or self.frozen else "batch"
        self.add_blobs(p)

    def read_kind(self) -> int:
        p = self.param
        written = {kind: [f for f in fields if p.HasField(f)] for kind, fields in BN_FIELDS.items()}
        if written[EARLY]:  # its data-parallel version has PSPNet's names for the fillers
            written[LATE] = [name for name in written[LATE] if name not in FILLERS]
        kinds = [kind for kind, fields in written.items() if fields]
        if len(kinds) > 1:
            one, other = written[kinds[0]][0], written[kinds[1]][0]
            self.fail(f"{one} and {other} belong to different layers called BN", other)
        if kinds:
            return kinds[0]
        if self.spec.dialect in BN_DIALECTS:
            return BN_DIALECTS[self.spec.dialect]
        return SEGNET if p.HasField("scale_filler") or p.HasField("shift_filler") else LATE

    def add_blobs(self, p: Any) -> None:
        shape = [1, 1, 1, 1] if self.kind != LATE else [1, 1]
        shape[self.channel_axis] = self.channels
        late = self.kind == LATE or (self.kind == EARLY and any(map(p.HasField, FILLERS)))
        fillers = (p.slope_filler, p.bias_filler) if late else (p.scale_filler, p.shift_filler)
        for filler in fillers:
            self.add_blob(tuple(shape), filler, 0.0 if self.frozen else 1.0)
        if self.kind != SEGNET:
            self.add_blob(tuple(shape), lr_mult=0.0)
            variance = type(fillers[0])(type="constant", value=1.0 if self.frozen else 0.0)
            self.add_blob(tuple(shape), variance, lr_mult=0.0)
            refuse_learning(self, range(2, 4))

    def forward(self, *bottoms: Tensor) -> Tensor | tuple[Tensor, ...]:
        x = bottoms[0].transpose(1, self.channel_axis)
        y = self.normalised(x).transpose(1, self.channel_axis)
        if len(self.spec.tops) == 1:
            return y
        statistics = (self.batch_mean(x), self.batch_variance(x))
        return (y, *(value.transpose(1, self.channel_axis) for value in statistics))[: len(self.spec.tops)]

    def batch_mean(self, x: Tensor) -> Tensor:
        """The mean (1, C, 1, ...) of each channel of x (N, C, ...), without gradient."""
        return x.detach().mean((0, *range(2, x.dim())), keepdim=True)

    def batch_variance(self, x: Tensor) -> Tensor:
        """The variance (1, C, 1, ...) of each channel of x (N, C, ...), without gradient."""
        return (x.detach() - self.batch_mean(x)).square().mean((0, *range(2, x.dim())), keepdim=True)

    def normalised(self, x: Tensor) -> Tensor:
        """The top for x (N, C, ...)."""
        scale, shift = self.blob(0).flatten(), self.blob(1).flatten()
        if self.frozen:
            scale, shift = scale.detach(), shift.detach()
        if self.statistics == "none":
            return torch.addcmul(shift.reshape(-1, *self.tail), x, scale.reshape(-1, *self.tail))
        if self.statistics == "running":
            return by_given(
                x, self.blob(2).detach().flatten(), self.blob(3).detach().flatten(), scale, shift, self.eps
            )
        y, mean, variance, m = by_batch(x, scale, shift, self.eps)
        if self.kind != SEGNET and self.phase == TRAIN:
            with torch.no_grad():
                for blob, now in ((self.blobs[2], mean), (self.blobs[3], variance * ((m - 1) / max(m, 1)))):
                    blob.mul_(self.keep).add_(now.reshape(blob.shape), alpha=1 - self.keep)
        return y
