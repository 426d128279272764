"""Estimators of scikit-learn over nets: classifiers, a regressor, an imputer, a density. NaN is a missing value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import ClassifierMixin, DensityMixin, RegressorMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from netspec.data.files.idx import Array
from netspec.errors import DataError, did_you_mean
from netspec.sklearn.base import NetEstimator

HOWS = ("mean", "mode", "sample")


class NetClassifier(ClassifierMixin, NetEstimator):  # type: ignore[misc]
    """p(class | values) by any net whose scores have one value per class; by default a latent tree, which takes NaN.

    tuning: iterations by gradients on p(class | row) after a table's EM; 0: p(row, class) alone. rate: of Nadam, where
    `net` has no solver. For the rest see NetEstimator.
    """

    def __init__(
        self,
        net: str | Path | None = None,
        values: Mapping[str, Any] | None = None,
        solver: str | Path | None = None,
        image_shape: Sequence[int] | None = None,
        iterations: int | None = None,
        states: int = 16,
        tree: str = "chow_liu",
        min_scale: float = 0.1,
        prior: float = 1.0,
        random_state: Any = None,
        tuning: int = 200,
        rate: float = 0.01,
    ):
        super().__init__(
            net, values, solver, image_shape, iterations, states, tree, min_scale, prior, random_state
        )
        self.tuning, self.rate = tuning, rate

    def _rate(self) -> float:
        return self.rate

    def fit(self, X: Any, y: Any) -> NetClassifier:
        """Fit to rows X (n, D), NaN where missing, and their classes y (n,)."""
        values, y = validate_data(self, X, y, ensure_all_finite="allow-nan", dtype=np.float64)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        self._learn(values, labels.astype(float), len(self.classes_), self.tuning)
        scores = self.model_.net.shapes[self.model_.net.graph.outputs[0]][1]
        if scores < len(self.classes_):
            raise DataError(f"{self.net}: the net has scores of {scores} classes, y has {len(self.classes_)}")
        return self

    def predict_log_proba(self, X: Any) -> Array:
        """log p(class | observed values) (n, K)."""
        _, x = self._read(X)
        logs: Array = self.model_.log_probabilities(x)[:, : len(self.classes_)].log_softmax(1).numpy()
        return logs

    def predict_proba(self, X: Any) -> Array:
        """p(class | observed values) (n, K)."""
        probabilities: Array = np.exp(self.predict_log_proba(X))
        return probabilities

    def predict(self, X: Any) -> Array:
        """The likeliest class (n,)."""
        likeliest = self.predict_log_proba(X).argmax(1)
        chosen: Array = self.classes_[likeliest]
        return chosen


class GenerativeClassifier(NetClassifier):
    """p(class | observed values) by p(observed values | class) and the classes' shares among the training rows: a
    NetClassifier whose net must be generative, and that by default learns p(row, class) alone.
    """

    def __init__(
        self,
        net: str | Path | None = None,
        values: Mapping[str, Any] | None = None,
        solver: str | Path | None = None,
        image_shape: Sequence[int] | None = None,
        iterations: int | None = None,
        states: int = 16,
        tree: str = "chow_liu",
        min_scale: float = 0.1,
        prior: float = 1.0,
        random_state: Any = None,
        tuning: int = 0,
        rate: float = 0.01,
    ):
        super().__init__(
            net,
            values,
            solver,
            image_shape,
            iterations,
            states,
            tree,
            min_scale,
            prior,
            random_state,
            tuning,
            rate,
        )

    def fit(self, X: Any, y: Any) -> GenerativeClassifier:
        """As NetClassifier; SpecError that says which layer makes the net no probability model of the rows."""
        super().fit(X, y)
        assert_generative(self)
        return self


class NetRegressor(RegressorMixin, NetEstimator):  # type: ignore[misc]
    """E[y | values] by any net whose first output has one value per row; by default a latent tree over the columns and
    y, which takes NaN.

    rate: of Nadam, where `net` has no solver. The net learns y standardised. For the rest see NetEstimator.
    """

    def __init__(
        self,
        net: str | Path | None = None,
        values: Mapping[str, Any] | None = None,
        solver: str | Path | None = None,
        image_shape: Sequence[int] | None = None,
        iterations: int | None = None,
        states: int = 32,
        tree: str = "chow_liu",
        min_scale: float = 0.1,
        prior: float = 1.0,
        random_state: Any = None,
        rate: float = 0.01,
    ):
        super().__init__(
            net, values, solver, image_shape, iterations, states, tree, min_scale, prior, random_state
        )
        self.rate = rate

    def _rate(self) -> float:
        return self.rate

    def fit(self, X: Any, y: Any) -> NetRegressor:
        """Fit to rows X (n, D), NaN where missing, and their values y (n,)."""
        values, y = validate_data(self, X, y, ensure_all_finite="allow-nan", dtype=np.float64, y_numeric=True)
        y = np.asarray(y, np.float64)
        self.y_mean_, self.y_scale_ = float(y.mean()), float(y.std()) or 1.0
        targets = (y - self.y_mean_) / self.y_scale_
        if self.net is not None:
            self._learn(values, targets)
            return self
        if self.image_shape is not None:
            raise DataError("NetRegressor has no net of its own for pictures: give `net`")
        self._learn(np.column_stack([values, targets]))
        return self

    def predict(self, X: Any) -> Array:
        """E[y | observed values] (n,)."""
        check_is_fitted(self, "weights_")
        if self.net is not None:
            scores = self.model_.scores(self._read(X)[1])
            if scores.shape[1] != 1:
                raise DataError(f"{self.net}: the net gives {scores.shape[1]} values a row; y has one")
            scaled: Array = scores[:, 0].numpy()
        else:
            values = validate_data(self, X, reset=False, ensure_all_finite="allow-nan", dtype=np.float64)
            whole = np.column_stack([values, np.full(len(values), np.nan)])
            x = torch.from_numpy((whole - self.center_) / self.scale_)[:, None, None]
            scaled = self.model_.expected_completion(x)[0][:, 0, 0, -1].numpy()
        return scaled * self.y_scale_ + self.y_mean_


class GenerativeImputer(TransformerMixin, NetEstimator):  # type: ignore[misc]
    """Missing values filled in from p(missing | observed): its mean, its mode, or a draw; observed ones as they are.

    how: "mean", "mode" (all missing values of a row together) or "sample". A column without any value in training is
    filled with 0. For the rest see NetEstimator; a net of one's own must be generative.
    """

    def __init__(
        self,
        how: str = "mean",
        net: str | Path | None = None,
        values: Mapping[str, Any] | None = None,
        solver: str | Path | None = None,
        image_shape: Sequence[int] | None = None,
        iterations: int | None = None,
        states: int = 16,
        tree: str = "chow_liu",
        min_scale: float = 0.1,
        prior: float = 1.0,
        random_state: Any = None,
    ):
        super().__init__(
            net, values, solver, image_shape, iterations, states, tree, min_scale, prior, random_state
        )
        self.how = how

    def fit(self, X: Any, y: Any = None) -> GenerativeImputer:
        """Fit to rows X (n, D), NaN where missing."""
        self._check_how()
        self._learn(self._take(X))
        assert_generative(self)
        return self

    def transform(self, X: Any) -> Array:
        """X with its missing values filled in (n, D)."""
        self._check_how()
        return self.samples(X, 1)[0] if self.how == "sample" else self._filled(X, self.how, 0)

    def _check_how(self) -> None:
        if self.how not in HOWS:
            text = did_you_mean(str(self.how), HOWS, ", ".join(HOWS))
            raise DataError(f"no imputation is called {self.how!r}{text}")

    def samples(self, X: Any, count: int = 5) -> Array:
        """Several draws of the missing values (count, n, D), for multiple imputation."""
        return np.stack([self._filled(X, "sample", i + 1) for i in range(count)])

    def _filled(self, X: Any, how: str, seed: int) -> Array:
        values, x = self._read(X)
        if how == "sample":
            whole = self.model_.complete(x, seed=seed)
        elif how == "mode":
            whole = self.model_.most_probable_completion(x)
        else:
            whole = self.model_.expected_completion(x)[0]
        # What nothing is known of (a column without any value) is its mean in training, or 0.
        own = np.nan_to_num(whole.flatten(1).numpy(), nan=0.0) * self.scale_ + self.center_
        return np.where(np.isnan(values), own, values)

    def get_feature_names_out(self, input_features: Any = None) -> Array:
        """The columns' names."""
        names = getattr(self, "feature_names_in_", None) if input_features is None else input_features
        columns = [f"x{i}" for i in range(self.n_features_in_)] if names is None else names
        return np.asarray(columns, dtype=object)


class GenerativeDensity(DensityMixin, NetEstimator):  # type: ignore[misc]
    """log p(observed values) of rows, in the units of the data, and new rows. See NetEstimator for the parameters; a
    net of one's own must be generative.
    """

    def fit(self, X: Any, y: Any = None) -> GenerativeDensity:
        """Fit to rows X (n, D), NaN where missing."""
        self._learn(self._take(X))
        assert_generative(self)
        return self

    def score_samples(self, X: Any) -> Array:
        """log p(observed values) (n,), nats."""
        values, x = self._read(X)
        logs: Array = self.model_.log_likelihood(x).numpy() - (~np.isnan(values)) @ np.log(self.scale_)
        return logs

    def score(self, X: Any, y: Any = None) -> float:
        """The sum of log p over rows."""
        return float(self.score_samples(X).sum())

    def sample(self, n_samples: int = 1, random_state: Any = None) -> Array:
        """New rows (n_samples, D)."""
        seed = int(check_random_state(random_state).randint(2**31 - 1))
        drawn = self.model_.sample(torch.zeros(n_samples, dtype=torch.long), seed)
        rows: Array = drawn.flatten(1).numpy() * self.scale_ + self.center_
        return rows


def assert_generative(estimator: NetEstimator) -> None:
    """SpecError, that says which layer is to blame, where the estimator's net is no probability model of its rows."""
    if estimator.model_.tree is None:  # `tree` raises
        raise AssertionError
