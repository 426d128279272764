"""k nearest neighbours on the observed pixels."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from netspec.data.files.idx import Array
from netspec.errors import DataError

CHUNK = 200
"""Images whose distances to all training images are held at a time."""


class Neighbours:
    """The majority among the k whole training images that are nearest in the observed pixels.

    d(x', x) = sum over observed i of (x'_i - x_i)^2 (Sharir et al. 2018, section 6.1), by two matrix
    products: with the
    mask m, d = m . x'^2 - 2 (m x) . x' + a constant of x. Votes are equal; of classes with equally many
    votes the first
    wins, as in scikit-learn.
    """

    def __init__(
        self,
        training: Array,
        labels: Array,
        k: int = 5,
        name: str = "",
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ):
        """training: (N, C, H, W) 0..255; labels: (N,). dtype float64 makes distances of whole
        pixels exact. Raises DataError where there are no k training images.
        """
        if not 0 < k <= len(training):
            raise DataError(f"{k} nearest neighbours: there are {len(training)} training images")
        self.k, self.name, self.device, self.dtype = k, name or f"{k} nearest neighbours", device, dtype
        flat = self._tensor(training).flatten(1) / 255
        self.x, self.square = flat.T.contiguous(), flat.square().T.contiguous()
        self.labels = torch.from_numpy(np.asarray(labels, np.int64)).to(device)
        self.classes = int(self.labels.max()) + 1

    def _tensor(self, values: Array) -> Tensor:
        return torch.from_numpy(np.array(values)).to(self.device, self.dtype)

    def distances(self, pixels: Array, observed: Array) -> Tensor:
        """(B, N): squared distances over the observed pixels, less a number that is the same along a row."""
        mask = self._tensor(np.broadcast_to(observed, pixels.shape)).flatten(1)
        seen = self._tensor(pixels).flatten(1) / 255 * mask
        return torch.addmm(mask @ self.square, seen, self.x, alpha=-2)

    def nearest(self, pixels: Array, observed: Array) -> Array:
        """(B, k): numbers of the nearest training images."""
        parts = [slice(begin, begin + CHUNK) for begin in range(0, len(pixels), CHUNK)]
        numbers = [
            self.distances(pixels[p], observed[p]).topk(self.k, 1, largest=False).indices for p in parts
        ]
        return torch.cat(numbers).cpu().numpy()

    def votes(self, pixels: Array, observed: Array) -> Tensor:
        """(B, K): votes for each class."""
        counts = torch.zeros(len(pixels), self.classes, device=self.device)
        nearest = torch.from_numpy(self.nearest(pixels, observed)).to(self.device)
        return counts.scatter_add_(1, self.labels[nearest], torch.ones(nearest.shape, device=self.device))

    def predict(self, pixels: Array, observed: Array) -> Array:
        answers: Array = self.votes(pixels, observed).argmax(1).cpu().numpy()
        return answers
