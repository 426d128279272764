"""ImportanceBound, SelfNormalisedMean, ImportanceResample: what the weights of K draws are for."""

from __future__ import annotations

from math import log, prod

import torch
from torch import Tensor

from netspec.layers.base import Layer, Shape, between, exactly, register


@register("ImportanceBound")
class ImportanceBound(Layer):
    """loss = -mean over rows of log( (1/K) sum_k w_k ), in nats: the bound of an importance-weighted autoencoder.

    Shapes: one bottom log w (K, n), or three: log p(x|z), log p(z), log q(z), each (K, n), with log w = the
    first + the second - the third; tops: loss (), then log w (K, n), then the bound of each row (n,). K = 1 is
    the bound of a VAE; a larger K is tighter. Gradients are weighted by softmax of log w over k. NaN in log w
    makes the loss NaN. Raises SpecError for 2 bottoms or bottoms of different shapes. Source: Burda, Grosse
    and Salakhutdinov 2016; with missing values Mattei and Frellsen 2019.
    """

    bottoms, tops, is_loss = between(1, 3), between(1, 3), True
    family, roles, alike = "loss", ("values",), True

    def setup(self, *shapes: Shape) -> None:
        if len(shapes) == 2:
            self.fail("takes log w, or log p(x|z), log p(z) and log q(z): 1 or 3 bottoms", "bottom", 1)
        for i, shape in enumerate(shapes):
            if shape != shapes[0] or len(shape) != 2:
                self.fail(f"needs bottoms (K, N) of one shape, found {shapes[0]} and {shape}", "bottom", i)

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        logw_KN = bottoms[0] + bottoms[1] - bottoms[2] if len(bottoms) == 3 else bottoms[0]
        bound_N = logw_KN.logsumexp(0) - log(logw_KN.shape[0])
        return (-bound_N.mean(), logw_KN, bound_N)[: len(self.spec.tops)]


class Weighted(Layer):
    """A layer of log weights (K, n) and values (K n, ...)."""

    bottoms = exactly(2)
    family, roles = "latent", ("values",)

    def setup(self, *shapes: Shape) -> None:
        weights, values = shapes
        self.require(len(weights) == 2, ("bottom", 0), f"needs log weights (K, N), found {weights}")
        if not values or values[0] != prod(weights):
            self.fail(f"needs {prod(weights)} rows for log weights {weights}, found {values}", "bottom", 1)


def weighted_mean(logw_KN: Tensor, x: Tensor) -> Tensor:
    """(n, ...): sum_k softmax(log w)_k x_k of values (K n, ...)."""
    k, n = logw_KN.shape
    x_KN = x.reshape(k, n, -1)
    return (logw_KN.softmax(0)[..., None] * x_KN).sum(0).reshape(n, *x.shape[1:])


@register("SelfNormalisedMean")
class SelfNormalisedMean(Weighted):
    """y = sum_k w_k x_k / sum_k w_k: the posterior mean by importance sampling.

    Shapes: bottoms log w (K, n) in nats and x (K n, ...), K-major; top (n, ...). Gradients go to both. NaN
    spreads to its row. Raises SpecError where the rows do not fit. Source: Mattei and Frellsen 2019, the
    single imputation.
    """

    def forward(self, *bottoms: Tensor) -> Tensor:
        return weighted_mean(*bottoms)


@register("ImportanceResample")
class ImportanceResample(Weighted):
    """y = rows of x drawn with probability w_k / sum_k w_k: sampling, importance, resampling.

    Shapes: bottoms log w (K, n) in nats and x (K n, ...), K-major; top (R n, ...), R = num_samples draws with
    replacement for each row, K-major. The rows drawn get the gradient, the weights none. Random numbers:
    torch's generator of the device. Raises SpecError where the rows do not fit and for num_samples 0; a
    RuntimeError in forward for weights that are NaN. Source: Rubin 1987; Mattei and Frellsen 2019, multiple
    imputation.
    """

    param_field = "importance_resample_param"

    def setup(self, *shapes: Shape) -> None:
        super().setup(*shapes)
        self.require(self.param.num_samples >= 1, "num_samples", "num_samples must be at least 1")

    def forward(self, *bottoms: Tensor) -> Tensor:
        logw_KN, x = bottoms
        n = logw_KN.shape[1]
        chosen_NR = torch.multinomial(logw_KN.detach().softmax(0).T, self.param.num_samples, replacement=True)
        rows = chosen_NR.T * n + torch.arange(n, device=x.device)
        return x.index_select(0, rows.reshape(-1))
