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

from netspec.data.files.idx import Array
from netspec.errors import NetspecError

STEPS = 400


@dataclass(frozen=True)
class Solution:
    """Weights (..., d) and biases (...) of one or many problems."""

    w: Tensor
    b: Tensor
    objective: Tensor


@dataclass(frozen=True)
class Examples:
    """m examples by their features that are not 0, k at most: only those can be deleted, four fifths of a digit
    cannot.

    values (m, k): y x, 0 beyond an example's own number; places (m, k): of which features; y (m,); d: features
    in all.
    """

    values: Tensor
    places: Tensor
    y: Tensor
    d: int

    @classmethod
    def of(cls, x: Tensor, y: Tensor) -> Examples:
        """x (m, d), y (m,) of -1 and 1."""
        most = max(int((x != 0).sum(-1).max()), 1)
        places = (x != 0).to(torch.uint8).topk(most, -1).indices
        return cls(x.gather(-1, places) * y.unsqueeze(-1), places, y, x.shape[-1])

    def spread(self, values: Tensor) -> Tensor:
        """Sums (Q, d) over examples of values (Q, m, k), each at its feature."""
        sums = values.new_zeros(len(values), self.d)
        return sums.index_add_(1, self.places.flatten(), values.flatten(1))


def excess(examples: Examples, w: Tensor, b: Tensor, deleted: Tensor, scaled: bool) -> tuple[Tensor, Tensor]:
    """(worst-case margin deficits (Q, m), which of the examples' values are left (Q, m, k)).

    w (Q, d), b (Q,), deleted (Q,) the adversary's N.
    """
    products = examples.values * w[:, examples.places]
    gain = products - (1 / examples.d if scaled else 0.0)
    left = torch.ones_like(products)
    if most := min(int(deleted.max()), gain.shape[-1]):
        top = gain.topk(most, -1)
        rank = torch.arange(most, device=w.device)
        taken = (top.values > 0) & (rank < deleted.view(-1, 1, 1))
        left.scatter_(-1, top.indices, 1 - taken.to(left.dtype))
    worst = 1 - products.sum(-1) - examples.y * b.unsqueeze(1) + ((1 - left) * gain).sum(-1)
    return worst, left


def robust_objective(
    examples: Examples, w: Tensor, b: Tensor, deleted: Tensor, scaled: bool = True
) -> Tensor:
    """Mean worst-case hinge loss (Q,) of classifiers; shapes as in `excess`."""
    return excess(examples, w, b, deleted, scaled)[0].clamp_min(0).mean(-1)


def fit_robust(
    x: Tensor, y: Tensor, deleted: Tensor, bound: Tensor, scaled: bool = True, steps: int = STEPS
) -> Solution:
    """Solve Q problems on the same examples by projected subgradients, all at once; gives the best iterate of
    each.

    x (m, d), y (m,) of -1 and 1, deleted (Q,) the adversary's N, bound (Q,) the box C.
    Steps of length R / sqrt(t + 1), R = half the diagonal of the box shared by the features that ever differ
    from 0.
    Each iterate's average over the run so far is a candidate too: averages settle where iterates zigzag.
    """
    q, (m, d) = len(deleted), x.shape
    examples = Examples.of(x, y)
    w, b = x.new_zeros(q, d), x.new_zeros(q)
    mean_w, mean_b, weight = w.clone(), b.clone(), 0.0
    best = Solution(w.clone(), b.clone(), robust_objective(examples, w, b, deleted, scaled))
    radius = bound * (x != 0).any(0).sum().to(x.dtype).sqrt()
    for t in range(steps):
        worst, left = excess(examples, w, b, deleted, scaled)
        best = better(best, w, b, worst.clamp_min(0).mean(-1))
        active = (worst > 0).to(x.dtype) / m
        grad_w = -examples.spread(active.unsqueeze(-1) * left * examples.values)
        grad_b = -active @ y
        norm = (grad_w.square().sum(1) + grad_b.square()).sqrt().clamp_min(1e-12)
        step = 0.5 * radius / (t + 1) ** 0.5 / norm
        w = (w - step.unsqueeze(1) * grad_w).clamp(-bound.unsqueeze(1), bound.unsqueeze(1))
        b = b - step * grad_b
        if t >= steps // 4:
            share = 1 / (weight + 1)
            mean_w, mean_b, weight = mean_w + share * (w - mean_w), mean_b + share * (b - mean_b), weight + 1
        if t % 20 == 19:
            best = better(best, mean_w, mean_b, robust_objective(examples, mean_w, mean_b, deleted, scaled))
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
    solution = linprog(cost, sparse.vstack([margin, dual]).tocsc(), right, bounds=bounds, method="highs")
    if not solution.success:
        raise NetspecError(f"the linear program was not solved: {solution.message}")
    return solution.x[:d], float(solution.x[d]), float(solution.fun)


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
        solutions = [
            self._fit(training, labels, self.classes[[i, j]], deleted, bound, scaled, steps)
            for i, j in self.pairs
        ]
        self.w = torch.cat([solution.w for solution in solutions])
        self.b = torch.cat([solution.b for solution in solutions])

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
        return fit_robust(x, y, n, c, scaled, steps)

    def predict(self, pixels: Array, observed: Array) -> Array:
        x = torch.from_numpy(np.where(observed, pixels, 0).reshape(len(pixels), -1)).to(self.w) / 255
        upper = x @ self.w.T + self.b > 0
        votes = torch.zeros(len(x), len(self.classes), device=self.w.device)
        for k, (i, j) in enumerate(self.pairs):
            votes[:, j] += upper[:, k]
            votes[:, i] += ~upper[:, k]
        answers: Array = self.classes[votes.argmax(1).cpu().numpy()]
        return answers
