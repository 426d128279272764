"""LowRankGaussianNLL: how well hidden values fit a normal density with a few factors."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from netspec.layers.base import Layer, Shape, between, register
from netspec.layers.latent.density import LOG_2PI
from netspec.layers.latent.fill import check_mask, observed


@register("LowRankGaussianNLL")
class LowRankGaussianNLL(Layer):
    """loss = -mean over rows of log N(x_H; mu_H, sum_k a_k a_k^T + diag(d)) on the scored values H, in nats.

    Shapes: bottoms x (N, C, ...), scored (as x or with one channel), mu (N, m C, ...), A (N, m l C, ...), d >
    0 (N, m C, ...) and, for m > 1 components, their shares > 0 (N, m); l = factors; channels are ordered
    component, factor, colour; tops loss () and the rows' losses (N,). A value is scored where `scored` is
    neither 0 nor NaN and x is not NaN. Computed with an l x l matrix (Woodbury). A row without scored values
    has loss 0. Gradients go to x, mu, A, d and the shares. Raises SpecError for shapes that do not fit.
    Source: Przewiezlikowski et al. 2020 (DMFA).
    """

    bottoms, tops, is_loss = between(5, 6), between(1, 2), True
    family, roles = "loss", ("image", "mask", "image")
    param_field = "low_rank_gaussian_param"

    def setup(self, *shapes: Shape) -> None:
        p, data = self.param, shapes[0]
        self.require(len(data) >= 2, ("bottom", 0), f"needs a bottom (N, C, ...), found {data}")
        for name in ("components", "factors"):
            self.require(getattr(p, name) >= 1, name, f"{name} must be at least 1")
        check_mask(self, data, shapes[1], 1)
        m, factors = int(p.components), int(p.factors)
        if (len(shapes) == 6) != (m > 1):
            self.fail(f"{m} components: the shares (N, m) are a sixth bottom where m > 1 only", "bottom", 0)
        sizes = [("mu", m), ("A", m * factors), ("d", m)]
        for i, (name, times) in enumerate(sizes, 2):
            if shapes[i][:1] != data[:1] or prod(shapes[i]) != times * prod(data):
                self.fail(
                    f"{name} {shapes[i]} does not hold {times} times the values of x {data}", "bottom", i
                )
        if m > 1 and shapes[5] != (data[0], m):
            self.fail(f"needs shares {(data[0], m)}, found {shapes[5]}", "bottom", 5)

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        x, scored, mu, a, d = bottoms[:5]
        n, m, factors = x.shape[0], int(self.param.components), int(self.param.factors)
        seen_ND = observed(x, scored).flatten(1)
        seen = seen_ND[:, None]
        r = torch.where(seen, torch.where(seen_ND, x.flatten(1), 0.0)[:, None] - mu.reshape(n, m, -1), 0.0)
        d = torch.where(seen, d.reshape(n, m, -1), 1.0)
        a = torch.where(seen[:, None], a.reshape(n, m, factors, -1), 0.0)
        nll_Nm = self.negative(r, a, d) + 0.5 * LOG_2PI * seen_ND.sum(1, keepdim=True)
        if m == 1:
            nll = nll_Nm[:, 0]
        else:
            nll = -(bottoms[5].log() - nll_Nm).logsumexp(1)
            nll = torch.where(seen_ND.any(1), nll, 0.0)
        return (nll.mean(), nll)[: len(self.spec.tops)]

    def negative(self, r_NmD: Tensor, a_NmlD: Tensor, d_NmD: Tensor) -> Tensor:
        """(N, m): half of r^T S^-1 r + log det S, for S = A^T A + diag(d)."""
        total = (r_NmD.square() / d_NmD + d_NmD.log()).sum(2)
        scaled = a_NmlD / d_NmD[:, :, None]
        inner = scaled @ a_NmlD.transpose(2, 3)
        inner = inner + torch.eye(inner.shape[-1], dtype=inner.dtype, device=inner.device)
        root = torch.linalg.cholesky(inner)
        u = scaled @ r_NmD[..., None]
        v = torch.linalg.solve_triangular(root, u, upper=False)
        logdet = 2 * root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        half: Tensor = 0.5 * (total - v.square().sum((2, 3)) + logdet)
        return half
