"""Similarity: how like a patch is to each of M templates; with normalization_term, the log density of M
Gaussians.

Shape letters: B batch; c, h, w grid of windows; K values of a patch; M instances.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isnan, log, pi, prod

import torch
from torch import Tensor

from netspec.errors import Problem, SpecError
from netspec.layers.base import Shape, at_least, register
from netspec.layers.simnets.block import normalise, read_block, same_shapes
from netspec.layers.simnets.logsumexp import may_look
from netspec.layers.simnets.tiles import tiles_pay
from netspec.layers.traits import Field
from netspec.layers.tree import Leaf

LOG_2PI = log(2 * pi)
ALLOWED = 5e-3
"""Rounding, in nats, that is taken for the speed of a matrix product."""
UNKNOWN = 1e-30
"""Weights up to this mean that nothing is known of a value, because an initialisation never observed it."""


@register("Similarity")
class Similarity(Leaf):
    """y_m = -sum_k w_mk (t_mk - x_k)^2 (L2), -sum w |t - x| (L1) or sum w t x (CONVOLUTION), per patch x.

    With `normalization_term` (L2): y_m = 1/2 sum_k [-w (t - x)^2 + log(w + fudge) - log 2pi], the log density
    in nats of a Gaussian with mean t and precisions w. `use_log_space_weight_param`: exp(w) in place of w,
    and w in place of log(w + fudge). Shapes: bottoms (N, C, H, W); tops (N, M * c, h, w), instance slowest;
    blobs: templates and weights (M, block_c, block_h, block_w), with `bias_term` also (1, 1, 1, M), added
    last.
    NaN in a bottom: with `ignore_nan_input` and `normalization_term` the coordinate is missing and integrated
    out (adds exactly 0, no gradient); otherwise it passes through. `out_of_bounds_value: nan` makes padding
    missing.
    Raises SpecError for num_instances 0, a block that does not fit, normalization_term without L2.
    Source: Cohen, Sharir and Shashua 2016 (SimNets); similarity_layer.cpp of the SimNets fork.
    """

    family, roles = "similarity, MEX", ("image",)
    bottoms = at_least(1)
    tops = at_least(1)
    paired = True
    param_field = "similarity_param"
    looks_for = ("needs_double", "needs_terms")

    def setup(self, *shapes: Shape) -> None:
        p = self.param
        self.kind = p.SimilarityFunction.Name(p.similarity_function)
        if not p.num_instances:
            self.fail("needs num_instances > 0", "similarity_param")
        if p.normalization_term and self.kind != "L2":
            self.fail(f"normalization_term needs L2, not {self.kind}", "normalization_term")
        if p.normalization_term_fudge < 0:
            self.fail("normalization_term_fudge is negative", "normalization_term_fudge")
        if p.unsupervised_init.type not in ("none", "kmeans", "gmm"):
            self.fail(
                f"knows no unsupervised_init of type {p.unsupervised_init.type!r}; there are kmeans and gmm",
                "unsupervised_init",
                "type",
            )
        if p.unsupervised_init.type == "gmm" and self.kind != "L2":
            self.fail(f"unsupervised_init of type 'gmm' needs L2, not {self.kind}", "similarity_param")
        self.block = read_block(self, p.block_param, same_shapes(self, shapes), can_round_up=False)
        self.ignores_nan = p.ignore_nan_input and p.normalization_term
        self.needs_double = self.needs_terms = False
        self.components = int(p.num_instances)
        shape = (p.num_instances, *self.block.size)
        fit = p.unsupervised_init
        # The fork leaves at 0 what the initialisation will write; here it is filled, in case none is run.
        waits = self.strict and fit.type != "none"
        keeps_weights = fit.type == "kmeans" and not fit.use_centroids_variance
        self.add_blob(shape, None if waits else p.template_filler)
        self.add_blob(shape, None if waits and not keeps_weights else p.weight_filler)
        if p.bias_term:
            self.add_blob((1, 1, 1, p.num_instances), p.bias_filler)

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        self.glance()
        t_MK, w_MK = self.blob(0).flatten(1), self.blob(1).flatten(1)
        if self.evidence is not None:
            t_MK, w_MK = t_MK.detach(), w_MK.detach()
        tops = []
        for x_BCHW in bottoms:
            patches = self.patches(x_BCHW)
            y_BchwM = self.compare(patches, t_MK, w_MK)
            if self.evidence is not None:
                y_BchwM = y_BchwM + self.counting(patches, self.evidence)
            if self.param.bias_term:
                y_BchwM = y_BchwM + self.blob(2).flatten()
            tops.append(y_BchwM.permute(0, 4, 1, 2, 3).flatten(1, 2))
        return tuple(tops)

    def patches(self, x_BCHW: Tensor) -> Tensor:
        """The patches (B, c, h, w, K) that are compared: unrolled and, where asked for, normalised."""
        patches, p = self.block.patches(x_BCHW), self.param
        if p.normalize_patches:
            return normalise(patches, p.normalize_variance, p.normalization_fudge_factor)
        return patches

    def compare(self, x_BchwK: Tensor, t_MK: Tensor, w_MK: Tensor) -> Tensor:
        """y (B, c, h, w, M) for templates t and stored weights w."""
        if self.kind == "CONVOLUTION":
            return x_BchwK @ (w_MK * t_MK).t()
        if self.kind == "L1":
            return -(w_MK * self.distance(x_BchwK, t_MK)).sum(-1)
        precision_MK = w_MK.exp() if self.param.use_log_space_weight_param else w_MK
        if not self.param.normalization_term:
            return self.parabolas(x_BchwK, t_MK, precision_MK, torch.zeros_like(w_MK))
        return self.parabolas(x_BchwK, t_MK, 0.5 * precision_MK, 0.5 * (self.log_weights(w_MK) - LOG_2PI))

    def log_weights(self, w_MK: Tensor) -> Tensor:
        """log w as the density counts it: the fudge inside, or w itself when it is stored as a logarithm."""
        p = self.param
        return w_MK if p.use_log_space_weight_param else torch.log(w_MK + p.normalization_term_fudge)

    def parabolas(self, x_BchwK: Tensor, t_MK: Tensor, a_MK: Tensor, c_MK: Tensor) -> Tensor:
        """sum_k [c_mk - a_mk (x_k - t_mk)^2] over the observed coordinates.

        As one matrix product, (x^2, x, 1) times whether x is observed, with the origin moved to the mean
        template; in double precision, where `look` finds that a single one would round away more than can be
        allowed; term by term where even that would (templates far apart beside their spread), and under `strict`.
        """
        seen = ~x_BchwK.isnan() if self.ignores_nan else None
        # The first of two `where`s: no NaN enters the formula, so none can come back as a gradient.
        x = x_BchwK if seen is None else torch.where(seen, x_BchwK, 0.0)
        given = x.dtype
        if self.needs_double and not self.strict:
            x, t_MK, a_MK, c_MK = x.double(), t_MK.double(), a_MK.double(), c_MK.double()
        if self.strict or self.needs_terms:
            terms = c_MK - a_MK * (t_MK - x.unsqueeze(-2)).square()
            return (terms if seen is None else torch.where(seen.unsqueeze(-2), terms, 0.0)).sum(-1).to(given)
        origin = t_MK.detach().mean(0)
        x, t_MK = x - origin, t_MK - origin
        rest_MK = c_MK - a_MK * t_MK.square()
        if seen is None:
            powers = torch.cat([x.square(), x], -1)
            return (weighed(powers, torch.cat([-a_MK, 2 * a_MK * t_MK], 1)) + rest_MK.sum(1)).to(given)
        x = torch.where(seen, x, 0.0)
        powers = torch.cat([x.square(), x, seen.to(x.dtype)], -1)
        return weighed(powers, torch.cat([-a_MK, 2 * a_MK * t_MK, rest_MK], 1)).to(given)

    def look(self) -> None:
        """Note whether the product would lose more than ALLOWED. Compiled code keeps what was seen last."""
        t, w = (self.blobs[i].detach() for i in (0, 1))
        if not may_look(w) or not self.changed(t, w):
            return
        extent = (t - t.mean(0)).abs().amax(0).square()
        largest = (self.precisions().abs().view(w.shape) * extent).flatten(1).sum(1).max()
        self.needs_double = bool(largest * torch.finfo(w.dtype).eps > ALLOWED)
        self.needs_terms = bool(largest * torch.finfo(torch.float64).eps > ALLOWED)

    def fill(self, blobs: Iterable[int], generator: torch.Generator) -> None:
        super().fill(blobs, generator)
        self.look()

    def distance(self, x_BchwK: Tensor, t_MK: Tensor) -> Tensor:
        """|t - x| (B, c, h, w, M, K), with gradient 0 where they are equal."""
        apart = t_MK - x_BchwK.unsqueeze(-2)
        if not self.strict:
            return apart.abs()
        # In the fork sign(NaN) = 0: no gradient to x and t, though the value is NaN.
        return torch.where(apart.isnan(), apart.detach(), apart).abs()

    # As the leaf of a latent tree: component d at a position is a Gaussian over its patch

    def tree_problem(self) -> Problem | None:
        p, field = self.param, "similarity_param"
        if not p.normalization_term:
            return self.spec.problem("gives no log densities; set normalization_term: true", field)
        if not p.ignore_nan_input:
            return self.spec.problem("lets NaN through; set ignore_nan_input: true", field)
        if p.bias_term or p.normalize_patches:
            name = "bias_term" if p.bias_term else "normalize_patches"
            return self.spec.problem(
                f"has {name}, so that its tops are no densities of the pixels", field, name
            )
        if not self.block.tiles:
            return self.spec.problem(
                f"has windows of {self.block.size} with stride {self.block.stride} over {self.block.shape}; "
                "every pixel must lie in one window: set stride to the block's size, pad until covered",
                field, "block_param",
            )  # fmt: skip
        if any(self.margins()) and not isnan(self.block.outside):
            return self.spec.problem(
                f"has windows that reach beyond the image and see pixels of {self.block.outside:g} there, which are "
                "part of no image; set out_of_bounds_value: nan",
                field, "block_param", "out_of_bounds_value",
            )  # fmt: skip
        if bool((self.precisions() < 0).any()):
            return self.spec.problem(
                "has weights below 0, which no Gaussian has; keep them with param { min_value: 0 }",
                "param",
                1,
            )
        return None

    def margins(self) -> tuple[int, int, int, int]:
        return self.block.margins

    def precisions(self) -> Tensor:
        """1 / variance of each component's values (M, K)."""
        w_MK = self.blob(1).flatten(1)
        return w_MK.exp() if self.param.use_log_space_weight_param else w_MK

    def variances(self) -> Tensor:
        """Variance of each component's values (M, K), finite for a weight of 0 too: there the fudge stands for it."""
        p, w_MK = self.param, self.precisions()
        fudge = 0.0 if p.use_log_space_weight_param else p.normalization_term_fudge
        return 1 / w_MK.clamp_min(max(fudge, torch.finfo(w_MK.dtype).tiny))

    def upward_max(self, x: Tensor) -> Tensor:
        peaks_MK = 0.5 * (self.log_weights(self.blob(1).flatten(1)) - LOG_2PI)
        inside = ~self.block.patches(torch.zeros_like(x)).isnan()
        missing_BchwK = self.block.patches(x).isnan() & inside
        gain = missing_BchwK.to(x.dtype) @ peaks_MK.t()
        (y,) = self.forward(x)
        return y + gain.permute(0, 4, 1, 2, 3).flatten(1, 2)

    def mean_image(self, weights: Tensor) -> Tensor:
        t_MK = self.blob(0).detach().flatten(1).double()
        origin = t_MK.mean(0)
        mass = weights.double().movedim(1, -1)
        return self.told(mass @ (t_MK - origin) + origin * mass.sum(-1, keepdim=True))

    def variance_image(self, weights: Tensor, centre: Tensor) -> Tensor:
        t_MK, variance_MK = self.blob(0).detach().flatten(1).double(), self.variances().detach().double()
        mass, centre_BhwK = weights.double().movedim(1, -1), self.block.patches(centre.double()).squeeze(1)
        total = mass @ variance_MK
        for m in range(self.components):
            total = total + mass[..., m : m + 1] * (t_MK[m] - centre_BhwK).square()
        return self.told(total)

    def multiply_adds(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int:
        """The weighted square distance is a sum over x^2 and x (two products), the others over x or |t - x|."""
        return sum(prod(top) for top in tops) * self.block.values * (2 if self.kind == "L2" else 1)

    def field(self, below: Field, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> Field | None:
        return below.grown(self.block.size[1:], self.block.stride[1:], self.block.pad[1:])

    def mode_image(self, states: Tensor) -> Tensor:
        return self.told(self.blob(0).detach().flatten(1).double()[states])

    def sample_image(self, states: Tensor, generator: torch.Generator | None) -> Tensor:
        mean, scale = self.blob(0).detach().flatten(1)[states], self.variances().detach().sqrt()[states]
        normal = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
        return self.told(mean.double() + normal.double() * scale.double())

    def told(self, patches_BhwK: Tensor) -> Tensor:
        """Patches as pixels, NaN where every component has weight 0: there nothing was ever observed."""
        unknown_K = (self.precisions().detach() <= UNKNOWN).all(0)
        return self.block.image(torch.where(unknown_K, torch.nan, patches_BhwK))

    # Expectation maximisation: expected counts, deviations from the mean template and their squares (M, K)

    def new_evidence(self) -> list[Tensor]:
        if problem := self.tree_problem():
            raise SpecError([problem])
        return [torch.zeros_like(self.blob(0).flatten(1)) for _ in range(3)]

    def counting(self, x_BchwK: Tensor, evidence: list[Tensor]) -> Tensor:
        """0 (B, c, h, w, M), as a function of `evidence` whose gradient are expected counts."""
        seen = ~x_BchwK.isnan()
        apart = torch.where(seen, x_BchwK - self.blob(0).detach().flatten(1).mean(0), 0.0)
        powers = torch.cat([seen.to(apart.dtype), apart, apart.square()], -1)
        return powers @ torch.cat(evidence, 1).t()

    def maximise(self, counts: list[Tensor], prior_states: float, prior_values: float) -> None:
        n, first, second = (count.double() for count in counts)
        alive, some = n > 0, n.clamp_min(torch.finfo(torch.float64).tiny)
        shift = first / some
        variance = (second / some - shift.square()).clamp_min(torch.finfo(torch.float32).tiny)
        weight = 1 / variance
        if self.param.use_log_space_weight_param:
            stored = weight.log()
        else:  # log(w + fudge) - w variance is largest here
            stored = (weight - self.param.normalization_term_fudge).clamp_min(0)
        with torch.no_grad():
            t_MK, w_MK = (self.blob(i).flatten(1) for i in (0, 1))
            origin = t_MK.double().mean(0)
            shape = self.blob_shapes[0]
            self.blob(0).copy_(torch.where(alive, origin + shift, t_MK.double()).view(shape))
            self.blob(1).copy_(torch.where(alive, stored, w_MK.double()).view(shape))
            moved = self.blob(0).flatten(1).double().mean(0) - origin
            counts[2].copy_((second - 2 * moved * first + moved.square() * n).clamp_min(0))
            counts[1].copy_(first - moved * n)


def weighed(powers_BchwJ: Tensor, weights_MJ: Tensor) -> Tensor:
    """powers @ weights^T (B, c, h, w, M); for a long batch it lies in memory as (c, h, w, M, B), as MEX takes it."""
    if not tiles_pay(powers_BchwJ):
        return powers_BchwJ @ weights_MJ.t()
    grid = powers_BchwJ.shape[1:4]
    powers = powers_BchwJ.permute(1, 2, 3, 4, 0).flatten(0, 2).contiguous()
    y = torch.bmm(weights_MJ.expand(len(powers), -1, -1), powers)
    return torch.unflatten(y, 0, grid).permute(4, 0, 1, 2, 3)
