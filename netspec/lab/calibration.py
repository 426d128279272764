"""Expected calibration error: how far a method's certainty lies from its accuracy."""

from __future__ import annotations

import numpy as np

from netspec.data.files.idx import Array
from netspec.errors import DataError

BINS = 15
"""Bins of equal width; Guo et al. 2017 have as many."""


def calibration_error(probabilities: Array, labels: Array, bins: int = BINS) -> float:
    """sum over bins of (share of the images) |accuracy - mean certainty|, 0 to 1.

    probabilities: (N, K), rows that sum to 1; labels: (N,). An image's certainty is the probability of its most
    probable class; bin b holds certainties above b / bins and up to (b + 1) / bins. Raises DataError for no images
    and where probabilities are NaN. Source: Guo et al. 2017, On Calibration of Modern Neural Networks.
    """
    probabilities, labels = np.asarray(probabilities, np.float64), np.asarray(labels)
    if len(labels) == 0 or np.isnan(probabilities).any():
        raise DataError(
            f"calibration of {len(labels)} images: needs at least one, and probabilities without NaN"
        )
    certainty, answers = probabilities.max(1), probabilities.argmax(1)
    places = np.clip(np.ceil(certainty * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(places, (answers == labels) - certainty, bins)
    return float(np.abs(gaps).sum() / len(labels))
