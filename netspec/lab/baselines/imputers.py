"""Imputers: what stands in for missing pixels in front of a classifier of whole images."""

from __future__ import annotations

import numpy as np

from netspec.data.files.idx import Array
from netspec.errors import DataError, did_you_mean
from netspec.model.model import Model


class Zero:
    """Missing pixels are 0 (black)."""

    def fill(self, pixels: Array, observed: Array) -> Array:
        return filled(pixels, observed, np.zeros((), np.float32))


class Mean:
    """Missing pixels are the mean of the training pixels: one number, or with `per_pixel` one a place."""

    def __init__(self, training: Array, per_pixel: bool = False):
        """training: (N, C, H, W) 0..255."""
        self.value = training.mean(0 if per_pixel else None, dtype=np.float64, keepdims=True)

    def fill(self, pixels: Array, observed: Array) -> Array:
        return filled(pixels, observed, self.value)


class ByModel:
    """Missing pixels come from a generative model: "expected", "most_probable" or "sampled" given
    the observed.
    """

    KINDS = ("expected", "most_probable", "sampled")

    def __init__(self, model: Model, kind: str = "expected", seed: int = 0):
        """seed: of the draws of "sampled", the same in each call: an answer does not depend on
        earlier ones.
        """
        if kind not in self.KINDS:
            hint = did_you_mean(kind, self.KINDS, f"known: {', '.join(self.KINDS)}")
            raise DataError(f"no completion is called {kind!r}{hint}")
        self.model, self.kind, self.seed = model, kind, seed

    def fill(self, pixels: Array, observed: Array) -> Array:
        x = self.model.from_pixels(pixels, observed)
        if self.kind == "expected":
            whole = self.model.expected_completion(x)[0]
        elif self.kind == "most_probable":
            whole = self.model.most_probable_completion(x)
        else:
            whole = self.model.complete(x, seed=self.seed)
        return filled(pixels, observed, self.model.to_pixels(whole))


def filled(pixels: Array, observed: Array, values: Array) -> Array:
    """`values` where pixels are missing."""
    whole: Array = np.where(observed, pixels, values).astype(np.float32)
    return whole
