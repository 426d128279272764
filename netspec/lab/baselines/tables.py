"""Imputers and a classifier of scikit-learn for tables with missing cells, to stand beside nets."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from netspec.data.files.idx import Array
from netspec.errors import DataError, did_you_mean

TREES, ROUNDS = 30, 5
"""Extra trees of each regression of IterativeImputer, and rounds over the columns."""


def mean(seed: int) -> Any:
    """Each column's mean."""
    from sklearn.impute import SimpleImputer

    return SimpleImputer(keep_empty_features=True)


def neighbours(seed: int) -> Any:
    """The mean over the five rows nearest in the observed cells."""
    from sklearn.impute import KNNImputer

    return KNNImputer(keep_empty_features=True)


def forests(seed: int) -> Any:
    """Columns regressed on each other in turn by extra trees, like missForest (Stekhoven and Buehlmann 2012)."""
    from sklearn.ensemble import ExtraTreesRegressor
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401
    from sklearn.impute import IterativeImputer

    trees = ExtraTreesRegressor(n_estimators=TREES, random_state=seed)
    return IterativeImputer(trees, max_iter=ROUNDS, random_state=seed, keep_empty_features=True)


IMPUTERS: dict[str, Callable[[int], Any]] = {
    "mean": mean,
    "KNNImputer": neighbours,
    "IterativeImputer": forests,
}
BOOSTING = "HistGradientBoosting"
"""Gradient boosting, which takes NaN as it is."""
BASELINES = (*IMPUTERS, BOOSTING)


def imputed(name: str, training: Array, holed: Array, seed: int) -> Array:
    """The rows `holed` (n, D) filled in by an imputer that learnt from the rows `training`, both with NaN."""
    if name not in IMPUTERS:
        raise DataError(
            f"no imputer is called {name!r}{did_you_mean(name, IMPUTERS, 'there are ' + ', '.join(IMPUTERS))}"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the rounds ended before the cells stood still
        rows: Array = np.asarray(IMPUTERS[name](seed).fit(training).transform(holed))
    return rows


def boosted(training: Array, labels: Array, holed: Array, classes: int, seed: int) -> Array:
    """p(class) (n, K) of rows with NaN by gradient boosting; labels: numbers of classes, NaN where unknown."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    known = ~np.isnan(labels)
    model = HistGradientBoostingClassifier(random_state=seed).fit(training[known], labels[known].astype(int))
    probabilities = np.zeros((len(holed), classes))
    probabilities[:, model.classes_] = model.predict_proba(holed)
    return probabilities
