"""Estimators of scikit-learn: they learn from holes, survive pickling, and stand in pipelines."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load as read_weights
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import check_estimator

from netspec.errors import DataError, SpecError
from netspec.sklearn import (
    GenerativeClassifier,
    GenerativeDensity,
    GenerativeImputer,
    NetClassifier,
    NetRegressor,
)
from netspec.sklearn.base import NetEstimator

X, Y = load_iris(return_X_y=True)
HOLES = X.copy()
HOLES[np.random.default_rng(0).random(X.shape) < 0.3] = np.nan
GONE = np.isnan(HOLES)


def test_classes_from_rows_with_holes() -> None:
    names = np.array(["a", "b", "c"])[Y]
    estimator = make_pipeline(StandardScaler(), GenerativeClassifier(states=4, iterations=10, random_state=0))
    estimator.fit(HOLES, names)
    assert estimator.score(X, names) > 0.9
    p = estimator.predict_proba(HOLES)
    np.testing.assert_allclose(p.sum(1), 1)
    again = pickle.loads(pickle.dumps(estimator))  # what this test made itself
    np.testing.assert_array_equal(again.predict_proba(HOLES), p)
    np.testing.assert_allclose(estimator.predict_proba(HOLES[:3]), p[:3], atol=1e-9)


def test_imputation_is_better_than_the_mean_and_keeps_what_is_there() -> None:
    estimator = GenerativeImputer(states=4, iterations=10, random_state=0).fit(HOLES)
    whole = estimator.transform(HOLES)
    np.testing.assert_array_equal(whole[~GONE], X[~GONE])
    by_mean = np.where(GONE, np.nanmean(HOLES, 0), HOLES)
    assert np.square(whole - X)[GONE].mean() < 0.5 * np.square(by_mean - X)[GONE].mean()
    draws = estimator.samples(HOLES, 3)
    assert draws.shape == (3, *X.shape)
    assert not np.array_equal(draws[0], draws[1])
    with pytest.raises(DataError, match="did you mean 'mean'"):
        GenerativeImputer(how="maen").fit(HOLES)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tree": "pair"}, "no tree is called 'pair'; did you mean 'pairs'"),
        ({"tree": "nonsense"}, "chow_liu, pairs"),
        ({"iterations": 0}, "iterations: 0, expected a whole number of at least 1"),
        ({"iterations": 2.5}, "iterations: 2.5"),
    ],
)
def test_settings_that_are_none(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        GenerativeDensity(**{"states": 2, "iterations": 2, **settings}).fit(HOLES)


def test_an_imputation_that_is_none_after_the_fit() -> None:
    estimator = GenerativeImputer(states=2, iterations=2, random_state=0).fit(HOLES)
    with pytest.raises(DataError, match="no imputation is called 'maen'"):
        estimator.set_params(how="maen").transform(HOLES)


def test_a_density_in_the_units_of_the_data() -> None:
    values = 1000 + 10 * np.random.default_rng(0).normal(size=(200, 1))
    estimator = GenerativeDensity(states=2, iterations=5, random_state=0).fit(values)
    grid = np.linspace(900, 1100, 2001)
    assert np.trapezoid(np.exp(estimator.score_samples(grid[:, None])), grid) == pytest.approx(1, abs=1e-3)
    assert estimator.sample(500, 0).mean() == pytest.approx(1000, abs=3)


# Pipelines, searches, pickles


@pytest.mark.parametrize("made", [NetClassifier(states=4, iterations=5, tuning=20, random_state=0),
                                  GenerativeClassifier(states=4, iterations=5, random_state=0)])  # fmt: skip
def test_classifiers_in_searches_and_folds(made: NetClassifier) -> None:
    assert cross_val_score(made, HOLES, Y, cv=2).mean() > 0.8
    search = GridSearchCV(
        make_pipeline(StandardScaler(), made), {f"{type(made).__name__.lower()}__states": [4]}, cv=2
    )
    search.fit(HOLES, Y)
    assert search.best_estimator_.predict_proba(HOLES).shape == (150, 3)
    assert get_tags(made).input_tags.allow_nan


def test_class_shares_count_where_nothing_is_seen() -> None:
    rows = np.concatenate([np.arange(100, 150), np.arange(40)])
    estimator = GenerativeClassifier(states=4, iterations=10, random_state=0).fit(X[rows], Y[rows])
    p = estimator.predict_proba(np.full((1, 4), np.nan))[0]
    np.testing.assert_allclose(p, [40 / 90, 50 / 90], atol=0.02)


def test_tuning_tells_classes_apart_that_a_joint_density_does_not() -> None:
    """Classes on both sides of a plane through independent columns, beside which others lie."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 5))
    x[:, 3:] += x[:, :2]
    y = (x[:, 0] + x[:, 1] + x[:, 2] > 0).astype(int)
    plain = NetClassifier(states=4, iterations=10, tuning=0, random_state=0).fit(x[:400], y[:400])
    tuned = NetClassifier(states=4, iterations=10, tuning=100, random_state=0).fit(x[:400], y[:400])
    assert tuned.score(x[400:], y[400:]) > plain.score(x[400:], y[400:]) + 0.1


def test_pickles_hold_weights_as_safetensors_alone() -> None:
    estimator = NetRegressor(states=4, iterations=5, random_state=0).fit(HOLES[:, :3], X[:, 3])
    state = estimator.__getstate__()
    assert isinstance(state["weights_"], bytes)
    assert read_weights(state["weights_"]).keys() == estimator.model_.net.weights().keys()
    assert not any(isinstance(value, torch.nn.Module | torch.Tensor) for value in state.values())
    again = pickle.loads(pickle.dumps(estimator))  # what this test made itself
    np.testing.assert_array_equal(again.predict(HOLES[:, :3]), estimator.predict(HOLES[:, :3]))


def test_frames_in_and_out() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(HOLES, columns=list("abcd"), index=range(7, 157))
    estimator = GenerativeImputer(states=4, iterations=5, random_state=0).set_output(transform="pandas")
    whole = estimator.fit_transform(frame)
    assert list(whole.columns) == list("abcd")
    assert list(whole.index) == list(range(7, 157))
    assert not whole.isna().any().any()
    np.testing.assert_array_equal(whole.to_numpy()[~GONE], X[~GONE])


def test_values_of_another_column() -> None:
    estimator = NetRegressor(states=16, iterations=30, random_state=0).fit(X[::2, :3], X[::2, 3])
    assert estimator.score(X[1::2, :3], X[1::2, 3]) > 0.85
    assert estimator.score(HOLES[1::2, :3], X[1::2, 3]) > 0.6
    # Far from 0 beside its deviation, in its own units.
    far = NetRegressor(states=16, iterations=30, random_state=0).fit(X[::2, :3], 1e6 + X[::2, 3])
    assert far.score(X[1::2, :3], 1e6 + X[1::2, 3]) > 0.85


# Nets of one's own

LOGISTIC = """name: "own"
layer { name: "rows" type: "Input" top: "x" top: "y" input_param { shape { dim: 1 dim: 4 } shape { dim: 1 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" inner_product_param { num_output: OUT
  weight_filler { type: "xavier" } } }
layer { name: "loss" type: "LOSS" bottom: "ip" bottom: "y" top: "loss" }
"""


def own_net(tmp_path: Path, out: int, loss: str, name: str = "own.prototxt") -> Path:
    path = tmp_path / name
    path.write_text(LOGISTIC.replace("OUT", str(out)).replace("LOSS", loss))
    return path


def test_any_net_file(tmp_path: Path) -> None:
    net = own_net(tmp_path, 3, "SoftmaxWithLoss")
    estimator = NetClassifier(net, iterations=200, rate=0.05, random_state=0).fit(X, Y)
    linear = LogisticRegression(C=1e6, max_iter=1000).fit(StandardScaler().fit_transform(X), Y)
    assert estimator.score(X, Y) >= linear.score(StandardScaler().fit_transform(X), Y) - 0.03
    with pytest.raises(ValueError, match="takes no missing values"):
        estimator.predict(HOLES)
    again = clone(estimator).fit(X, Y)  # the same seed, the same net
    np.testing.assert_array_equal(again.predict_proba(X), estimator.predict_proba(X))
    with pytest.raises(SpecError, match="labels reach 2, the scores have 2 classes"):
        NetClassifier(own_net(tmp_path, 2, "SoftmaxWithLoss"), iterations=2).fit(X, Y)
    with pytest.raises(DataError, match=r"reads rows of \(4,\), these have 3 values"):
        NetClassifier(net, iterations=2).fit(X[:, :3], Y)
    with pytest.raises(SpecError, match="no such file"):
        NetClassifier(tmp_path / "none.prototxt").fit(X, Y)
    with pytest.raises(SpecError):
        GenerativeClassifier(net, iterations=2).fit(X, Y)


def test_a_net_file_without_a_shape(tmp_path: Path) -> None:
    net = own_net(tmp_path, 3, "SoftmaxWithLoss")
    net.write_text(net.read_text().replace("shape { dim: 1 dim: 4 } shape { dim: 1 }", ""))
    with pytest.raises(DataError, match="layer 'rows' has no shape"):
        NetClassifier(net, iterations=2).fit(X, Y)
    assert NetClassifier(net, image_shape=(4,), iterations=2).fit(X, Y).predict(X).shape == Y.shape


def test_a_net_file_with_its_solver_for_values(tmp_path: Path) -> None:
    net = own_net(tmp_path, 1, "EuclideanLoss")
    (tmp_path / "own_solver.prototxt").write_text(
        'net: "elsewhere.prototxt" type: "SGD" base_lr: 0.05 lr_policy: "fixed" max_iter: 9 test_iter: 3 '
        "test_interval: 1"
    )
    estimator = NetRegressor(net, iterations=400, random_state=0).fit(X[:, [0, 1, 2, 2]], X[:, 3])
    exact = LinearRegression().fit(X[:, :3], X[:, 3])
    assert estimator.score(X[:, [0, 1, 2, 2]], X[:, 3]) > exact.score(X[:, :3], X[:, 3]) - 0.01


def test_a_template_with_values(tmp_path: Path) -> None:
    template = tmp_path / "own.prototmp"
    template.write_text(LOGISTIC.replace("OUT", "{{ classes }}").replace("LOSS", "SoftmaxWithLoss"))
    estimator = NetClassifier(template, {"classes": 3}, iterations=100, rate=0.05, random_state=0).fit(X, Y)
    assert estimator.score(X, Y) > 0.9
    with pytest.raises(DataError, match="is no template"):
        NetClassifier(own_net(tmp_path, 3, "SoftmaxWithLoss"), {"classes": 3}).fit(X, Y)
    with pytest.raises(SpecError, match="classes"):
        NetClassifier(template).fit(X, Y)


def test_pictures_have_a_tree_of_their_own() -> None:
    digits, labels = load_digits(n_class=3, return_X_y=True)
    holes = np.where(np.random.default_rng(0).random(digits.shape) < 0.3, np.nan, digits)
    estimator = NetClassifier(image_shape=(8, 8), states=16, iterations=200, random_state=0).fit(
        holes[::2], labels[::2]
    )
    assert estimator.score(digits[1::2], labels[1::2]) > 0.95
    assert estimator.score(holes[1::2], labels[1::2]) > 0.9
    filler = GenerativeImputer(image_shape=(8, 8), states=16, iterations=200, random_state=0).fit(holes[::2])
    whole, gone = filler.transform(holes[1::2]), np.isnan(holes[1::2])
    by_mean = np.broadcast_to(np.nanmean(holes[::2], 0), gone.shape)
    error = np.square(whole - digits[1::2])[gone].mean()
    assert error < 0.6 * np.square(by_mean - digits[1::2])[gone].mean()


# scikit-learn's own checks

SKIPPED = {"check_array_api_input"}
"""Checks that skip themselves: array API input needs SCIPY_ARRAY_API to be set before scipy is imported."""


@pytest.mark.parametrize("made", [
    GenerativeDensity(iterations=10), GenerativeImputer(iterations=10), GenerativeClassifier(iterations=10),
    NetClassifier(iterations=10, tuning=30), NetRegressor(iterations=10),
], ids=lambda made: type(made).__name__)  # fmt: skip
@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_own_checks(made: NetEstimator) -> None:
    results = check_estimator(made, on_fail=None, on_skip=None)
    failed = {one["check_name"]: one["exception"] for one in results if one["status"] == "failed"}
    assert not failed
    assert {one["check_name"] for one in results if one["status"] != "passed"} <= SKIPPED
    assert len(results) > 35
