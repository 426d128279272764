"""Losses of single public forks: weighed squares, kernels, Dice's coefficient, ranks of hard examples."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from netspec.layers.base import Layer, Shape, between, exactly, register
from netspec.layers.loss.labels import check_same, value_with_gradient_of
from netspec.layers.loss.loss import EuclideanLoss


@register("WeightedEuclideanLoss")
class WeightedEuclideanLoss(Layer):
    """loss = sum w (a - b)^2 / (2 N), the weights of each row scaled to the mean 1.

    Shapes: a and b (N, ...) alike, weights (N, ...), or (1, ...) for all rows; top (). NaN spreads. Raises SpecError
    when sizes differ. Source: weighted_euclidean_loss_layer.cpp (Ridgeway).
    """

    family, roles = "loss", ("values", "target", "weights")
    alike = True
    bottoms, is_loss = exactly(3), True

    def setup(self, *shapes: Shape) -> None:
        check_same(self, shapes[0], shapes[1])
        if prod(shapes[2][1:]) != prod(shapes[0][1:]) or shapes[2][0] not in (1, shapes[0][0]):
            self.fail(f"needs weights for {shapes[0]}, for one row or all, found {shapes[2]}", "bottom", 2)

    def forward(self, *bottoms: Tensor) -> Tensor:
        a = bottoms[0].flatten(1)
        weight = bottoms[2].detach().flatten(1)
        weight = weight * weight.shape[1] / weight.abs().sum(1, keepdim=True)
        return ((a - bottoms[1].reshape(a.shape)).square() * weight).sum() / (2 * len(a))


@register("WeightEuclideanLoss")
class WeightEuclideanLoss(Layer):
    """loss = sum w (m d)^2 / (2 N s), d = a - b of 68 points of a face, weighed by their kind.

    Shapes: a and b (N, 136), the 68 x, then the 68 y; optional third bottom m, a factor for d alike; top (). w is
    contour_weight for the first 17 points, main_weight for the others, coarse_weight for 13 that stand out (0: 1 as
    before it); with normalized: 1 s is the distance of the outer corners of the eyes (normalized_type 0) or the
    diagonal of the points' box, in b (the original reads the row behind; here it is the row itself). The gradient is
    w d / (N s). NaN spreads. Raises SpecError when sizes differ. Source: weight_euclidean_loss_layer.cpp (Chen).
    """

    family, roles = "loss", ("values", "target", "weights")
    alike = True
    bottoms, is_loss = between(2, 3), True
    param_field = "weight_euclidean_loss_param"

    COARSE = (18, 22, 23, 27, 37, 40, 43, 46, 28, 32, 36, 49, 55)
    """Points that stand out, from 1: ends of brows, corners of eyes, nose and mouth."""

    def setup(self, *shapes: Shape) -> None:
        for i, shape in enumerate(shapes):
            if prod(shape[1:]) != 136 or shape[0] != shapes[0][0]:
                self.fail(f"needs 68 points (N, 136), found {shape}", "bottom", i)
        p = self.param
        weight = torch.ones(68)
        if p.contour_weight:
            weight[:17] = p.contour_weight
        if p.main_weight:
            weight[17:] = p.main_weight
        if p.coarse_weight:
            weight[[i - 1 for i in self.COARSE]] = p.coarse_weight
        self.register_buffer("weight", weight.repeat(2), persistent=False)

    def forward(self, *bottoms: Tensor) -> Tensor:
        a, b = (x.flatten(1) for x in bottoms[:2])
        d = a - b
        weighed = self.get_buffer("weight").to(d) * d / self.size(b.detach())
        factor = bottoms[2].detach().flatten(1) if len(bottoms) == 3 else 1.0
        value = (weighed * factor * d).sum() / (2 * len(d))
        return value_with_gradient_of(value, (weighed.detach() * d).sum() / len(d))

    def size(self, b: Tensor) -> Tensor | float:
        """s of each row (N, 1)."""
        p = self.param
        if p.normalized != 1:
            return 1.0
        x, y = b[:, :68], b[:, 68:]
        if p.normalized_type == 0:
            return torch.hypot(x[:, 36] - x[:, 42], y[:, 39] - y[:, 45]).unsqueeze(1)
        wide = x.amax(1).clamp(min=0) - x.amin(1).clamp(max=1)
        return torch.hypot(wide, y.amax(1).clamp(min=0) - y.amin(1).clamp(max=1)).unsqueeze(1)


@register("K1_EuclideanLoss")
class BinaryCodes(EuclideanLoss):
    """loss = -sum (a - 0.5)^2 / (2 N count): it drives values away from a half, to 0 and 1.

    Shapes: a and a second bottom alike, of which the values do not matter; top (). The gradient is -(a - 0.5) / (N
    count). NaN spreads. Raises SpecError when sizes differ. Source: Lin et al. 2015 (deep hashing),
    k1_euclidean_loss_layer.cpp.
    """

    roles = ("values", "like")

    def forward(self, *bottoms: Tensor) -> Tensor:
        a = bottoms[0]
        return -(a - 0.5).square().sum() / (2 * a.numel() * a.shape[0])


@register("K2_EuclideanLoss")
class EvenCodes(EuclideanLoss):
    """loss = (mean a - 0.5)^2 / (2 N): half of the values should be 0, half 1.

    Shapes: a and a second bottom alike, of which the values do not matter; top (). NaN spreads. Raises SpecError when
    sizes differ. Source: Lin et al. 2015 (deep hashing), k2_euclidean_loss_layer.cpp.
    """

    roles = ("values", "like")

    def forward(self, *bottoms: Tensor) -> Tensor:
        a = bottoms[0]
        loss: Tensor = (a.mean() - 0.5).square() / (2 * a.shape[0])
        return loss


@register("KernelLoss")
class KernelLoss(Layer):
    """loss = mean of s (1 - exp(-|a - b|^2 / (2 sigma_sq))), s = -1 where the labels are equal, else 1.

    Shapes: a and b (N, ...) alike, labels of a and of b (N,); top (). The gradient for a is s exp(...) (a - b) / (N
    sigma_sq), for b the negative (1 / N is rounded to a whole number in the original, which makes it 0 beyond one row).
    NaN spreads. Raises SpecError when sizes differ. Source: kernel_loss_layer.cpp (Zhang).
    """

    family, roles = "loss", ("features", "features", "row label", "row label")
    bottoms, is_loss = exactly(4), True
    param_field = "kernel_loss_param"

    def setup(self, *shapes: Shape) -> None:
        check_same(self, shapes[0], shapes[1])
        for i in (2, 3):
            self.require(prod(shapes[i]) == shapes[0][0], ("bottom", i), f"needs {shapes[0][0]} labels")
        self.require(self.param.sigma_sq > 0, "sigma_sq", "must be > 0")

    def forward(self, *bottoms: Tensor) -> Tensor:
        a, b = (x.flatten(1) for x in bottoms[:2])
        near = (-(a - b).square().sum(1) / (2 * self.param.sigma_sq)).exp()
        first, second = (x.detach().flatten().trunc() for x in bottoms[2:])
        loss: Tensor = (torch.where(first == second, -1.0, 1.0) * (1 - near)).mean()
        return loss


@register("DiceCoefLoss")
class DiceCoefLoss(EuclideanLoss):
    """loss = 1 - mean over rows of (2 a.b + 1) / (a.a + b.b + 1), Dice's coefficient of a and b.

    Shapes: a and b (N, ...) alike; top (). The gradients are those of the sum over rows, not of their mean, as the
    original's. NaN spreads. Raises SpecError when sizes differ. Source: dice_coef_loss_layer.cpp (Guotai Wang).
    """

    def forward(self, *bottoms: Tensor) -> Tensor:
        a, b = (x.flatten(1) for x in bottoms)
        share = (2 * (a * b).sum(1) + 1) / (a.square().sum(1) + b.square().sum(1) + 1)
        return value_with_gradient_of(1 - share.mean(), -share.sum())


@register("RankHardLoss")
class RankHardLoss(Layer):
    """loss = sum over pairs (i, i + 1) and others j of max(0, m - x_i.x_p + x_i.x_j) + max(0, m - x_i.x_p + x_p.x_j),
    divided by 2 neg_num N / pair_size.

    Shapes: rows of features (N, D), pair_size of one thing in a row, of which the first two are the pair i and p, and
    labels (N,); top (). Others have another label and a loss: the neg_num nearest, of which neg_num hard_ratio are
    drawn, and neg_num rand_ratio of all the rest; all where there are no more than neg_num. Runs eagerly; random
    numbers by torch's generator. NaN spreads. Raises SpecError when sizes do not fit. Source: Wang and Gupta 2015,
    rank_hard_loss_layer.cpp.
    """

    family, roles = "loss", ("features", "row label")
    bottoms, is_loss = exactly(2), True
    param_field = "rank_param"

    def setup(self, *shapes: Shape) -> None:
        p, rows = self.param, shapes[0][0]
        self.require(
            p.pair_size >= 2 and rows % p.pair_size == 0, "pair_size", f"must divide {rows} rows, 2 at least"
        )
        self.require(p.neg_num > 0, "neg_num", "must be > 0")
        self.require(prod(shapes[1]) == rows, ("bottom", 1), f"needs {rows} labels, found {shapes[1]}")

    def infer(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        return (bottoms[0].new_empty(()),)

    def forward(self, *bottoms: Tensor) -> Tensor:
        p, x = self.param, bottoms[0].flatten(1)
        label = bottoms[1].detach().flatten()
        distance = -(x @ x.t())
        losses = []
        for i in range(0, len(x), p.pair_size):
            own = distance[i, i + 1]
            first = (own - distance[i] + p.margin).clamp(min=0)
            chosen = self.chosen(
                distance[i].detach(), ((label != label[i]) & (first > 0)).nonzero().flatten()
            )
            second = (own - distance[i + 1] + p.margin).clamp(min=0)
            losses.append((first + second)[chosen].sum())
        spread = 0.0 * x.sum()  # a NaN in a row that no pair chose would come back in the gradient alone
        return spread + torch.stack(losses).sum() / int(p.neg_num * len(x) / p.pair_size * 2)

    def chosen(self, distance: Tensor, others: Tensor) -> Tensor:
        """Which of the others count."""
        p, number = self.param, int(self.param.neg_num)
        if len(others) <= number:
            return others
        others = others[distance[others].argsort(stable=True)]
        hard, rest = others[:number], others[number:]
        hard = hard[torch.randperm(number)]
        kept = int(number * p.hard_ratio)
        rest = torch.cat((rest, hard[kept:]))
        rest = rest[torch.randperm(len(rest))]
        return torch.cat((hard[:kept], rest[: int(number * p.rand_ratio)]))
