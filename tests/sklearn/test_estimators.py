"""Estimators of scikit-learn: they learn from holes, survive pickling, and stand in pipelines."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from netspec.errors import DataError
from netspec.sklearn import GenerativeClassifier, GenerativeDensity, GenerativeImputer

X, Y = load_iris(return_X_y=True)
HOLES = X.copy()
HOLES[np.random.default_rng(0).random(X.shape) < 0.3] = np.nan
GONE = np.isnan(HOLES)


def test_classes_from_rows_with_holes() -> None:
    names = np.array(["a", "b", "c"])[Y]
    found = make_pipeline(StandardScaler(), GenerativeClassifier(states=4, iterations=10, random_state=0))
    found.fit(HOLES, names)
    assert found.score(X, names) > 0.9
    p = found.predict_proba(HOLES)
    np.testing.assert_allclose(p.sum(1), 1)
    again = pickle.loads(pickle.dumps(found))  # what this test made itself
    np.testing.assert_array_equal(again.predict_proba(HOLES), p)
    np.testing.assert_allclose(found.predict_proba(HOLES[:3]), p[:3], atol=1e-9)


def test_imputation_is_better_than_the_mean_and_keeps_what_is_there() -> None:
    found = GenerativeImputer(states=4, iterations=10, random_state=0).fit(HOLES)
    whole = found.transform(HOLES)
    np.testing.assert_array_equal(whole[~GONE], X[~GONE])
    by_mean = np.where(GONE, np.nanmean(HOLES, 0), HOLES)
    assert np.square(whole - X)[GONE].mean() < 0.5 * np.square(by_mean - X)[GONE].mean()
    draws = found.samples(HOLES, 3)
    assert draws.shape == (3, *X.shape)
    assert not np.array_equal(draws[0], draws[1])
    with pytest.raises(DataError, match="did you mean 'mean'"):
        GenerativeImputer(how="maen").fit(HOLES)


def test_a_density_in_the_units_of_the_data() -> None:
    values = 1000 + 10 * np.random.default_rng(0).normal(size=(200, 1))
    found = GenerativeDensity(states=2, iterations=5, random_state=0).fit(values)
    grid = np.linspace(900, 1100, 2001)
    assert np.trapezoid(np.exp(found.score_samples(grid[:, None])), grid) == pytest.approx(1, abs=1e-3)
    assert found.sample(500, 0).mean() == pytest.approx(1000, abs=3)
