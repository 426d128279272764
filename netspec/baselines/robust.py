"""Linear classifiers that expect features to be deleted: Globerson and Roweis 2006, Dekel and Shamir 2008.

For labels y of -1 and 1, an adversary who sets at most N features of an example to 0, and weights within
[-C, C]:

    minimise over |w_j| <= C and b the mean of  max(0, 1 - y (w . x + b) + sum of the N largest positive g_j)

constant margin (Globerson and Roweis): g_j = y w_j x_j.
scaled margin (Dekel and Shamir): the margin asked for shrinks with the share of features left, g_j = y w_j
x_j - 1/P, P
features in all. Both are convex; `solve_robust` solves them as linear programs, `fit_robust` by projected
subgradients,
many problems at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from netspec.data.idx import Array
from netspec.errors import NetspecError

STEPS = 400


@dataclass(frozen=True)
class Solution:
    """Weights (..., d) and biases (...) of one or many problems."""

    w: Tensor
    b: Tensor
    objective: Tensor


def excess(
    x: Tensor, y: Tensor, w: Tensor, b: Tensor, deleted: Tensor, scaled: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """(worst-case margin deficits (Q, m), per-feature products y w_j x_j (Q, m, d), which are deleted (Q, m,
    d)).

    x (Q or 1, m, d), y (Q or 1, m), w (Q, d), b (Q,), deleted (Q,) the adversary's N.
    """
    products = x * (y.unsqueeze(-1) * w.unsqueeze(1))
    gain = products - (1 / x.shape[-1] if scaled else 0.0)
    most = int(deleted.max())
    chosen = torch.zeros_like(products)
    if most:
        top = gain.topk(min(most, gain.shape[-1]), -1)
        rank = torch.arange(top.values.shape[-1], device=x.device)
        taken = (top.values > 0) & (rank < deleted.view(-1, 1, 1))
        chosen.scatter_(-1, top.indices, taken.to(chosen.dtype))
    worst = 1 - products.sum(-1) - y * b.unsqueeze(1) + (chosen * gain).sum(-1)
    return worst, products, chosen


def robust_objective(
    x: Tensor, y: Tensor, w: Tensor, b: Tensor, deleted: Tensor, scaled: bool = True
) -> Tensor:
    """Mean worst-case hinge loss (Q,) of classifiers; shapes as in `excess`."""
    return excess(x, y, w, b, deleted, scaled)[0].clamp_min(0).mean(-1)


def fit_robust(
    x: Tensor, y: Tensor, deleted: Tensor, bound: Tensor, scaled: bool = True, steps: int = STEPS
) -> Solution:
    """Solve Q problems by projected subgradients, all at once; gives the best iterate of each.

    x (Q or 1, m, d), y (Q or 1, m) of -1 and 1, deleted (Q,) the adversary's N, bound (Q,) the box C.
    Steps of length R / sqrt(t + 1), R = half the diagonal of the box shared by the features that ever differ
    from 0.
    Each iterate's average over the run so far is a candidate too: averages settle where iterates zigzag.
    """
    q, d = len(deleted), x.shape[-1]
    w, b = x.new_zeros(q, d), x.new_zeros(q)
    mean_w, mean_b, weight = w.clone(), b.clone(), 0.0
    best = Solution(w.clone(), b.clone(), robust_objective(x, y, w, b, deleted, scaled))
    used = (x != 0).any(1).sum(-1).to(x.dtype).expand(q)
    radius = bound * used.sqrt()
    for t in range(steps):
        worst, _, chosen = excess(x, y, w, b, deleted, scaled)
        best = better(best, w, b, worst.clamp_min(0).mean(-1))
        active = (worst > 0).to(x.dtype) * y / x.shape[1]
        grad_w = -((active.unsqueeze(-1) * x) * (1 - chosen)).sum(1)
        grad_b = -active.sum(1)
        norm = (grad_w.square().sum(1) + grad_b.square()).sqrt().clamp_min(1e-12)
        step = 0.5 * radius / (t + 1) ** 0.5 / norm
        w = (w - step.unsqueeze(1) * grad_w).clamp(-bound.unsqueeze(1), bound.unsqueeze(1))
        b = b - step * grad_b
        if t >= steps // 4:
            share = 1 / (weight + 1)
            mean_w, mean_b, weight = mean_w + share * (w - mean_w), mean_b + share * (b - mean_b), weight + 1
        if t % 20 == 19:
            best = better(best, mean_w, mean_b, robust_objective(x, y, mean_w, mean_b, deleted, scaled))
    return best


def better(best: Solution, w: Tensor, b: Tensor, objective: Tensor) -> Solution:
    """For each problem the solution with the lower objective."""
    wins = objective < best.objective
    return Solution(
        torch.where(wins.unsqueeze(1), w, best.w),
        torch.where(wins, b, best.b),
        torch.where(wins, objective, best.objective),
    )


def solve_robust(
    x: Array, y: Array, deleted: int, bound: float, scaled: bool = True
) -> tuple[Array, float, float]:
    """(w, b, objective) of one problem, exactly, as a linear program (HiGHS); for small problems.

    Variables w, b, and for each example xi, lambda and one alpha a feature, from the dual of the adversary's
    choice:
    sum of the N largest positive g = min over lambda, alpha >= 0 of N lambda + sum alpha, lambda + alpha_j
    >= g_j.
    """
    from scipy import sparse
    from scipy.optimize import linprog

    m, d = x.shape
    identity, ones = sparse.identity(m), np.ones((m, 1))
    signed = x * y[:, None]
    # 1 - y (w . x + b) + N lambda + sum alpha <= xi
    margin = sparse.hstack(
        [-signed, -y[:, None], -identity, deleted * identity, sparse.kron(identity, np.ones((1, d)))]
    )
    # y w_j x_j - lambda - alpha_j <= 1/P or 0
    rows = sparse.vstack([sparse.diags(row) for row in signed])
    dual = sparse.hstack(
        [
            rows,
            sparse.csr_matrix((m * d, 1 + m)),
            -sparse.kron(identity, np.ones((d, 1))),
            -sparse.identity(m * d),
        ]
    )
    right = np.concatenate([-ones.ravel(), np.full(m * d, 1 / d if scaled else 0.0)])
    cost = np.concatenate([np.zeros(d + 1), np.full(m, 1 / m), np.zeros(m + m * d)])
    bounds = [(-bound, bound)] * d + [(None, None)] + [(0, None)] * (2 * m + m * d)
    found = linprog(cost, sparse.vstack([margin, dual]).tocsc(), right, bounds=bounds, method="highs")
    if not found.success:
        raise NetspecError(f"the linear program was not solved: {found.message}")
    return found.x[:d], float(found.x[d]), float(found.fun)


class RobustLinear:
    """Linear classifiers of every pair of classes, which vote; missing pixels are 0."""

    def __init__(
        self,
        training: Array,
        labels: Array,
        deleted: int = 5,
        bound: float = 0.1,
        scaled: bool = True,
        name: str = "",
        steps: int = STEPS,
        device: str | torch.device = "cpu",
    ):
        """training: (N, C, H, W) 0..255. deleted: the adversary's N; bound: the box C of the weights."""
        self.name = name or f"robust linear (N={deleted}, C={bound:g})"
        self.classes, self.device = np.unique(labels), device
        self.pairs = list(combinations(range(len(self.classes)), 2))
        found = [
            self._fit(training, labels, self.classes[[i, j]], deleted, bound, scaled, steps)
            for i, j in self.pairs
        ]
        self.w = torch.cat([solution.w for solution in found])
        self.b = torch.cat([solution.b for solution in found])

    def _fit(
        self,
        training: Array,
        labels: Array,
        pair: Array,
        deleted: int,
        bound: float,
        scaled: bool,
        steps: int,
    ) -> Solution:
        chosen = np.isin(labels, pair)
        x = torch.from_numpy(training[chosen].reshape(chosen.sum(), -1)).to(self.device, torch.float32) / 255
        y = torch.from_numpy(np.where(labels[chosen] == pair[1], 1.0, -1.0)).to(x)
        n, c = torch.tensor([deleted], device=x.device), torch.tensor([bound], device=x.device)
        return fit_robust(x[None], y[None], n, c, scaled, steps)

    def predict(self, pixels: Array, observed: Array) -> Array:
        x = torch.from_numpy(np.where(observed, pixels, 0).reshape(len(pixels), -1)).to(self.w) / 255
        upper = x @ self.w.T + self.b > 0
        votes = torch.zeros(len(x), len(self.classes), device=self.w.device)
        for k, (i, j) in enumerate(self.pairs):
            votes[:, j] += upper[:, k]
            votes[:, i] += ~upper[:, k]
        answers: Array = self.classes[votes.argmax(1).cpu().numpy()]
        return answers
