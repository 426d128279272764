"""Estimators of scikit-learn over a generative tree: a classifier, an imputer, a density. NaN is a missing value."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, DensityMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from netspec.data.files.idx import Array
from netspec.errors import DataError, did_you_mean
from netspec.model.model import Model
from netspec.sklearn.training import columns_of, model_of, trained

HOWS = ("mean", "mode", "sample")


class GenerativeTree(BaseEstimator):  # type: ignore[misc]
    """What the estimators share: rows (n, D) with NaN, standardised, under a latent tree fitted by EM.

    states: of every latent variable. iterations: of full-batch EM. tree: "chow_liu" (learnt) or "pairs" (of columns in
    an order in which dependent ones are neighbours). min_scale: least deviation of a component, in deviations of its
    column. prior: rows' worth of what all states share, mixed into each. random_state: seed of the first components.
    """

    def __init__(
        self,
        states: int = 16,
        iterations: int = 60,
        tree: str = "chow_liu",
        min_scale: float = 0.1,
        prior: float = 1.0,
        random_state: Any = None,
    ):
        self.states, self.iterations, self.tree = states, iterations, tree
        self.min_scale, self.prior, self.random_state = min_scale, prior, random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.non_deterministic = False
        return tags

    def __getstate__(self) -> Any:
        state = dict(super().__getstate__())
        state.pop("_model", None)  # made again from text and weights
        return state

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state)
        if "weights_" in self.__dict__:
            self._model = model_of(self.net_, self.weights_)

    def _learn(self, values: Array, labels: Array | None = None, classes: int = 0) -> None:
        """Fit the tree to rows; labels (n,) are numbers of classes."""
        columns = columns_of(values)
        self.center_ = np.array([column.mean for column in columns])
        self.scale_ = np.array([column.deviation for column in columns])
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        settings = {
            "states": self.states, "iterations": self.iterations, "tree": self.tree, "min_scale": self.min_scale,
            "prior": self.prior,
        }  # fmt: skip
        given = np.full(len(values), np.nan) if labels is None else labels
        self.net_, self.weights_ = trained(
            (values - self.center_) / self.scale_, given, classes, columns, settings, seed
        )
        self._model = model_of(self.net_, self.weights_)

    @property
    def model_(self) -> Model:
        """The trained net."""
        check_is_fitted(self, "weights_")
        model: Model = self._model
        return model

    def _read(self, X: Any) -> tuple[Array, torch.Tensor]:
        """(rows as given, rows as the net reads them)."""
        check_is_fitted(self, "weights_")
        values = validate_data(self, X, reset=False, ensure_all_finite="allow-nan", dtype=np.float64)
        return values, torch.from_numpy((values - self.center_) / self.scale_)[:, None, None]

    def _take(self, X: Any, **options: Any) -> Array:
        values: Array = validate_data(self, X, ensure_all_finite="allow-nan", dtype=np.float64, **options)
        return values


class GenerativeClassifier(ClassifierMixin, GenerativeTree):  # type: ignore[misc]
    """p(class | observed values) by p(observed values | class) and the classes' shares among the training rows."""

    def fit(self, X: Any, y: Any) -> GenerativeClassifier:
        """Fit to rows X (n, D), NaN where missing, and their classes y (n,)."""
        values, y = validate_data(self, X, y, ensure_all_finite="allow-nan", dtype=np.float64)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        self.class_prior_ = np.bincount(labels) / len(labels)
        self._learn(values, labels.astype(float), len(self.classes_))
        return self

    def predict_log_proba(self, X: Any) -> Array:
        """log p(class | observed values) (n, K)."""
        _, x = self._read(X)
        scores = self.model_.class_log_likelihood(x).numpy() + np.log(self.class_prior_)
        peak = scores.max(1, keepdims=True)
        found: Array = scores - peak - np.log(np.exp(scores - peak).sum(1, keepdims=True))
        return found

    def predict_proba(self, X: Any) -> Array:
        """p(class | observed values) (n, K)."""
        found: Array = np.exp(self.predict_log_proba(X))
        return found

    def predict(self, X: Any) -> Array:
        """The likeliest class (n,)."""
        likeliest = self.predict_log_proba(X).argmax(1)
        chosen: Array = self.classes_[likeliest]
        return chosen


class GenerativeImputer(TransformerMixin, GenerativeTree):  # type: ignore[misc]
    """Missing values filled in from p(missing | observed): its mean, its mode, or a draw; observed ones as they are.

    how: "mean", "mode" (all missing values of a row together) or "sample". A column without any value in training is
    filled with 0.
    """

    def __init__(
        self,
        how: str = "mean",
        states: int = 16,
        iterations: int = 60,
        tree: str = "chow_liu",
        min_scale: float = 0.1,
        prior: float = 1.0,
        random_state: Any = None,
    ):
        super().__init__(states, iterations, tree, min_scale, prior, random_state)
        self.how = how

    def fit(self, X: Any, y: Any = None) -> GenerativeImputer:
        """Fit to rows X (n, D), NaN where missing."""
        if self.how not in HOWS:
            raise DataError(
                f"no imputation is called {self.how!r}{did_you_mean(self.how, HOWS, ', '.join(HOWS))}"
            )
        self._learn(self._take(X))
        return self

    def transform(self, X: Any) -> Array:
        """X with its missing values filled in (n, D)."""
        return self.samples(X, 1)[0] if self.how == "sample" else self._filled(X, self.how, 0)

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
        own = np.nan_to_num(whole[:, 0, 0].numpy(), nan=0.0) * self.scale_ + self.center_
        return np.where(np.isnan(values), own, values)

    def get_feature_names_out(self, input_features: Any = None) -> Array:
        """The columns' names."""
        names = getattr(self, "feature_names_in_", None) if input_features is None else input_features
        made = [f"x{i}" for i in range(self.n_features_in_)] if names is None else names
        return np.asarray(made, dtype=object)


class GenerativeDensity(DensityMixin, GenerativeTree):  # type: ignore[misc]
    """log p(observed values) of rows, in the units of the data, and new rows."""

    def fit(self, X: Any, y: Any = None) -> GenerativeDensity:
        """Fit to rows X (n, D), NaN where missing."""
        self._learn(self._take(X))
        return self

    def score_samples(self, X: Any) -> Array:
        """log p(observed values) (n,), nats."""
        values, x = self._read(X)
        found: Array = self.model_.log_likelihood(x).numpy() - (~np.isnan(values)) @ np.log(self.scale_)
        return found

    def score(self, X: Any, y: Any = None) -> float:
        """The sum of log p over rows."""
        return float(self.score_samples(X).sum())

    def sample(self, n_samples: int = 1, random_state: Any = None) -> Array:
        """New rows (n_samples, D)."""
        seed = int(check_random_state(random_state).randint(2**31 - 1))
        drawn = self.model_.sample(torch.zeros(n_samples, dtype=torch.long), seed)
        found: Array = drawn[:, 0, 0].numpy() * self.scale_ + self.center_
        return found
