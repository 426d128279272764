"""Methods that the laboratory compares: each predicts a class from pixels of which some are missing."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from netspec.data.files.idx import Array
from netspec.errors import DataError
from netspec.model.mixture import Mixture
from netspec.model.model import Model
from netspec.queries.whitened import from_other_camera

SHIFTS = [(0, 0), *((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx)]
"""The nine translations by at most a pixel over which predictions are averaged (Sharir et al. 2018, section
6.1).
"""
SHIFTED = ", 9 shifts"
"""Suffix of the names of methods that average over translations."""


class Method(Protocol):
    """A row of a table."""

    name: str

    def predict(self, pixels: Array, observed: Array) -> Array:
        """Classes (N,) of pixels 0..255 (N, C, H, W), known only where `observed` (N, 1 or C, H,
        W) is true.
        """


class Certain(Method, Protocol):
    """A row that says how probable it holds each class."""

    def probabilities(self, pixels: Array, observed: Array) -> Array:
        """(N, K), rows that sum to 1."""


class Direct:
    """argmax of the net's own class scores, missing pixels marked as missing."""

    def __init__(self, model: Model | Mixture, name: str = "", shifts: bool = False, stereo: bool = False):
        """shifts: sum the scores (log likelihoods, or log probabilities) of the nine one-pixel
        translations.
        """
        if not model.takes_missing:
            raise DataError(
                f"{model.name}: this net does not know of missing pixels; use an imputation in front of it "
                "(zero, mean, expected, ...)"
            )
        self.model, self.shifts, self.stereo = model, shifts, stereo
        self.name = name or model.name

    def predict(self, pixels: Array, observed: Array) -> Array:
        return self._scores(pixels, observed).argmax(1).cpu().numpy()

    def probabilities(self, pixels: Array, observed: Array) -> Array:
        """(N, K): the softmax of the scores that `predict` takes the highest of."""
        return self._scores(pixels, observed).double().softmax(1).cpu().numpy()

    def _scores(self, pixels: Array, observed: Array) -> Tensor:
        x = self.model.from_pixels(pixels, observed)
        if self.stereo:
            x = from_other_camera(x)
        return translated_scores(self.model, x) if self.shifts else self.model.scores(x)


def translated_scores(model: Model | Mixture, x: Tensor) -> Tensor:
    """Sum over the nine one-pixel translations of the class scores (N, K), in one pass of batches nine times
    as tall.

    What a translation brings in is missing. Scores of nets that are not generative are normalised first (log
    softmax).
    """

    def score(part: Tensor) -> Tensor:
        scores = model._scores(torch.cat([translate(part, dy, dx) for dy, dx in SHIFTS]))
        if not model.generative:
            scores = scores.log_softmax(1)
        return scores.view(len(SHIFTS), len(part), -1).sum(0)

    summed: Tensor = model.batched(score, x)
    return summed


def translate(x: Tensor, dy: int, dx: int) -> Tensor:
    """x moved down by dy and right by dx pixels, NaN where nothing comes from."""
    height, width = x.shape[2:]
    out = torch.full_like(x, torch.nan)
    to_y, to_x = slice(max(dy, 0), height + min(dy, 0)), slice(max(dx, 0), width + min(dx, 0))
    from_y, from_x = slice(max(-dy, 0), height + min(-dy, 0)), slice(max(-dx, 0), width + min(-dx, 0))
    out[:, :, to_y, to_x] = x[:, :, from_y, from_x]
    return out


class Imputer(Protocol):
    """Fills missing pixels in."""

    def fill(self, pixels: Array, observed: Array) -> Array:
        """Whole pixels 0..255 (N, C, H, W), float32; observed ones as they are."""


class Imputed:
    """A net trained on whole images, after an imputer."""

    def __init__(self, imputer: Imputer, classifier: Model, name: str):
        self.imputer, self.classifier, self.name = imputer, classifier, name

    def predict(self, pixels: Array, observed: Array) -> Array:
        filled = self.imputer.fill(pixels, observed)
        return self.classifier.predict(self.classifier.from_pixels(filled)).cpu().numpy()

    def probabilities(self, pixels: Array, observed: Array) -> Array:
        """(N, K): the classifier's, of the images as they were filled in."""
        filled = self.classifier.from_pixels(self.imputer.fill(pixels, observed))
        return self.classifier.scores(filled).double().softmax(1).cpu().numpy()
