"""Imputers: fill in missing pixels for a classifier of whole images."""

from __future__ import annotations

import numpy as np

from netspec.data.files.idx import Array
from netspec.errors import DataError
from netspec.lab.baselines.matrices import miss_forest
from netspec.lab.baselines.neighbours import Neighbours
from netspec.model.completing import OfTree, check_way, completed
from netspec.model.model import Model


class Zero:
    """Missing pixels are 0 (black)."""

    def fill(self, pixels: Array, observed: Array) -> Array:
        return filled(pixels, observed, np.zeros((), np.float32))


class Mean:
    """Missing pixels are the mean of the training pixels: one number, or with `per_pixel` one per place."""

    def __init__(self, training: Array, per_pixel: bool = False):
        """training: (N, C, H, W) 0..255."""
        self.value = training.mean(0 if per_pixel else None, dtype=np.float64, keepdims=True)

    def fill(self, pixels: Array, observed: Array) -> Array:
        return filled(pixels, observed, self.value)


class ByModel:
    """Missing pixels come from a trained net that completes rows (`netspec.model.completing`)."""

    KINDS = OfTree.ways

    def __init__(self, model: Model, kind: str = "", seed: int = 0, effort: int = 0):
        """kind, effort: see `completing.completed`. seed: of all draws, the same in each call: an answer does not
        depend on earlier ones.
        """
        self.kind = check_way(model, kind)
        self.model, self.seed, self.effort = model, seed, effort

    def fill(self, pixels: Array, observed: Array) -> Array:
        x = self.model.from_pixels(pixels, observed)
        whole = completed(self.model, x, self.kind, self.effort, self.seed)
        return filled(pixels, observed, self.model.to_pixels(whole))


class NearestMean:
    """Missing pixels are their mean over the k training images that are nearest in the observed pixels."""

    def __init__(self, training: Array, k: int = 5):
        """training: (N, C, H, W) 0..255. DataError where there are no k of them."""
        self.training = np.asarray(training)
        self.near = Neighbours(training, np.zeros(len(training), np.int64), k)

    def fill(self, pixels: Array, observed: Array) -> Array:
        nearest = self.near.nearest(pixels, observed)
        means = np.stack([self.training[places].mean(0) for places in nearest])
        if (blank := ~np.broadcast_to(observed, pixels.shape).reshape(len(pixels), -1).any(1)).any():
            means[blank] = self.training.mean(0)  # nothing is nearer than anything else
        return filled(pixels, observed, means)


class PrincipalComponents:
    """Missing pixels lie on the plane of the training images' first components that is nearest in the observed pixels:
    where iterative PCA ends.
    """

    def __init__(self, training: Array, rank: int = 50):
        """training: (N, C, H, W) 0..255. DataError for a rank that their number or size does not allow."""
        flat = np.asarray(training, np.float64).reshape(len(training), -1) / 255
        if not 0 < rank <= min(flat.shape):
            raise DataError(f"{rank} components: {len(flat)} training images have at most {min(flat.shape)}")
        self.mean = flat.mean(0)
        self.axes = np.linalg.svd(flat - self.mean, full_matrices=False)[2][:rank]

    def fill(self, pixels: Array, observed: Array) -> Array:
        seen = np.broadcast_to(observed, pixels.shape).reshape(len(pixels), -1) != 0
        flat = pixels.reshape(len(pixels), -1) / 255
        whole = np.empty_like(flat)
        for row, mask, values in zip(whole, seen, flat, strict=True):
            place = np.linalg.lstsq(self.axes[:, mask].T, (values - self.mean)[mask], rcond=1e-6)[0]
            row[:] = self.mean + place @ self.axes
        return filled(pixels, observed, 255 * whole.clip(0, 1).reshape(pixels.shape))


class MissForest:
    """Missing pixels are regressed on all others in turn by random trees, again and again, in the table of training
    images and images together; the time grows with the square of the image's size. Source: Stekhoven and Buehlmann
    2012.
    """

    def __init__(self, training: Array, trees: int = 100, rounds: int = 20, seed: int = 0):
        """training: (N, C, H, W) 0..255. trees of each regression; rounds over all pixels."""
        self.training, self.trees, self.rounds, self.seed = np.asarray(training), trees, rounds, seed

    def fill(self, pixels: Array, observed: Array) -> Array:
        holed = np.where(observed, pixels, np.nan).reshape(len(pixels), -1)
        table = np.concatenate([self.training.reshape(len(self.training), -1), holed])
        whole = miss_forest(table, self.trees, self.rounds, self.seed)[len(self.training) :]
        return filled(pixels, observed, whole.reshape(pixels.shape).clip(0, 255))


def filled(pixels: Array, observed: Array, values: Array) -> Array:
    """`values` where pixels are missing."""
    whole: Array = np.where(observed, pixels, values).astype(np.float32)
    return whole
