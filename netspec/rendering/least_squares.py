"""The M-step of a rendering level: filters by least squares, from Gram matrices summed over batches.

A level renders y[j, p] = sum over k, d of W[k, j, d] h[k, p - d]: linear in W, with the shifted planes of h
as predictors. Shape suffixes: N images, K filters of kernel s x s, J channels below, (H, W) the plane of h.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad, unfold


class Gram:
    """Sums of predictor times predictor and predictor times target, for a level of K filters.

    Where no shifted plane leaves y (no padding bottom-up), entries depend on differences of shifts only, and
    come from spectra: hundreds of times cheaper than from the predictors themselves. `weights` (H', W')
    weighs the pixels of y (generalised least squares with a diagonal covariance); it takes the long way.
    """

    def __init__(self, filters: int, below: int, kernel: tuple[int, int], padding: int = 0):
        self.filters, self.below, self.kernel, self.padding = filters, below, kernel, padding
        self.size = filters * kernel[0] * kernel[1]
        self.predictors = torch.zeros(self.size, self.size, dtype=torch.float64)
        self.targets = torch.zeros(self.size, below, dtype=torch.float64)
        self.summed = torch.zeros((), dtype=torch.float64)
        self.count = 0

    def add(self, h: Tensor, y: Tensor, weights: Tensor | None = None) -> None:
        """Add images: h (N, K, H, W) and y (N, J, H', W')."""
        h, y = h.detach(), y.detach()
        for name in ("predictors", "targets", "summed"):  # sums stay where the images are: no wait a batch
            setattr(self, name, getattr(self, name).to(h.device))
        if self.padding or weights is not None:
            self._add_columns(h, y, weights)
        else:
            self._add_spectra(h, y)
        weighted = y.square() if weights is None else y.square() * weights
        self.summed += weighted.sum(dtype=torch.float64)
        self.count += y.numel()

    def _add_columns(self, h: Tensor, y: Tensor, weights: Tensor | None) -> None:
        rows, columns = (k - 1 - self.padding for k in self.kernel)
        whole = pad(h, (columns, columns, rows, rows))  # a negative pad cuts
        taps = unfold(whole, self.kernel).unflatten(1, (self.filters, -1)).flip(2).flatten(1, 2)  # type: ignore[no-untyped-call]
        predictors_DM = taps.transpose(0, 1).flatten(1)
        targets_JM = y.transpose(0, 1).flatten(1)
        weighted_DM = predictors_DM
        if weights is not None:
            weighted_DM = predictors_DM * weights.flatten().repeat(len(y))
        self.predictors += (weighted_DM @ predictors_DM.t()).double()
        self.targets += (weighted_DM @ targets_JM.t()).double()

    def _add_spectra(self, h: Tensor, y: Tensor) -> None:
        side = y.shape[2:]  # H + s - 1: no shift wraps around
        spectrum_NKF, target_NJF = torch.fft.rfft2(h, side), torch.fft.rfft2(y, side)
        auto = self._correlation(spectrum_NKF, spectrum_NKF, side)
        cross = self._correlation(spectrum_NKF, target_NJF, side)
        rows, columns = (torch.arange(k) for k in self.kernel)
        down, right = (t.flatten() for t in torch.meshgrid(rows, columns, indexing="ij"))
        pairs = auto[
            :, :, down[:, None] - down, right[:, None] - right
        ]  # (K, K, d, d'); negative shifts wrap
        self.predictors += pairs.permute(0, 2, 1, 3).reshape(self.size, self.size)
        self.targets += cross[:, :, down, right].permute(0, 2, 1).reshape(self.size, self.below)

    @staticmethod
    def _correlation(a: Tensor, b: Tensor, side: torch.Size) -> Tensor:
        """sum over images and q of a[k, q] b[j, q + shift], (K, J, *side)."""
        left, right = a.flatten(2).permute(2, 1, 0).conj(), b.flatten(2).permute(2, 0, 1)
        product = (left @ right).permute(1, 2, 0).reshape(a.shape[1], b.shape[1], *a.shape[2:])
        sums: Tensor = torch.fft.irfft2(product, list(side))
        return sums.double()

    @property
    def square(self) -> float:
        """sum of y^2 over all images seen."""
        return float(self.summed)

    @property
    def usage(self) -> Tensor:
        """sum of h^2 of each filter, (K,)."""
        squares: Tensor = self.predictors.cpu().diagonal().view(self.filters, -1).amax(1)
        return squares

    def solve(self, ridge: float = 0.0) -> Tensor:
        """The filters (K, J, s, s) that minimise the objective, float64; ridge in units of the mean diagonal."""
        system, targets = self.predictors.to("cpu", copy=True), self.targets.cpu()
        system.diagonal().add_(ridge * float(system.diagonal().mean()))
        solution: Tensor = (
            torch.linalg.solve(system, targets)
            if ridge > 0
            else torch.linalg.pinv(system, hermitian=True) @ targets
        )
        return solution.view(self.filters, *self.kernel, self.below).permute(0, 3, 1, 2).contiguous()

    def objective(self, filters: Tensor) -> float:
        """sum of |y - rendered|^2 over all images seen, for filters (K, J, s, s)."""
        flat = filters.detach().to(self.predictors).permute(0, 2, 3, 1).reshape(self.size, self.below)
        fitted = (flat * (self.predictors @ flat)).sum() - 2 * (flat * self.targets).sum()
        return max(self.square + float(fitted), 0.0)
