"""The base of all estimators: converts rows to a net's input and back, trains, and pickles without pickled weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from netspec.data.files.idx import Array
from netspec.errors import DataError
from netspec.model.model import Model
from netspec.sklearn import training

BATCH = 100
"""Pictures, and rows of a net file, of a batch."""
SHORT, LONG = 60, 600
"""Default numbers of iterations: of EM over all rows of a table, and of batches."""


class NetEstimator(BaseEstimator):  # type: ignore[misc]
    """Rows (n, D) with NaN where missing, under a net that was trained on them.

    net: a net file, a template (.prototmp) filled with `values`, or None: a latent tree over the columns of a table,
    or with image_shape (C, H, W) or (H, W) one over the pixels. solver: a solver file for `net`; default the one beside
    it, else Nadam. iterations: of full-batch EM for a table (default 60), of batches of 100 otherwise (default 600).
    states: of every hidden variable; tree: "chow_liu" (learnt) or "pairs" (of columns in an order in which dependent
    ones are neighbours); min_scale: least deviation of a component, in deviations of its column; prior: rows' worth of
    what all states share, mixed into each. random_state: seed of the first weights.
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
    ):
        self.net, self.values, self.solver, self.image_shape = net, values, solver, image_shape
        self.iterations, self.states, self.tree = iterations, states, tree
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
            self._model = training.model_of(self.net_, self.weights_)

    def _learn(self, values: Array, labels: Array | None = None, classes: int = 0, tuning: int = 0) -> None:
        """Fit the net to rows; labels (n,): numbers of classes, or values. tuning: iterations by gradients on top."""
        counts: list[tuple[str, Any, int]] = [("iterations", self.iterations, 1), ("tuning", tuning, 0)]
        for name, count, least in counts:
            if count is not None and not (isinstance(count, Integral) and int(count) >= least):
                raise DataError(f"{name}: {count}, expected a whole number of at least {least}")
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        given = np.full(len(values), np.nan) if labels is None else labels
        self._measure(values)
        scaled = (values - self.center_) / self.scale_
        settings = {
            "states": self.states,
            "tree": self.tree,
            "min_scale": self.min_scale,
            "prior": self.prior,
        }
        batch = min(BATCH, len(values))
        batches = LONG if self.iterations is None else self.iterations
        if self.net is not None:
            net = training.of_file(
                self.net, self.values or {}, self.solver, values.shape[1], batch, batches, self._rate(),
                self._shape(),
            )  # fmt: skip
            text, weights = training.learn(net, scaled, given, seed)
        elif (shape := self._shape()) is not None:
            sizes = {"gaussians": self.states, "states": self.states}
            net = training.of_pictures(shape, classes, batch, batches, sizes)
            text, weights = training.learn(net, scaled, given, seed)
        else:
            settings["iterations"] = SHORT if self.iterations is None else self.iterations
            text, weights = training.learn(training.of_table(scaled, classes, settings), scaled, given, seed)
            if tuning:
                settings |= {"iterations": tuning, "discriminative": GENERATIVE, "keep": KEEP}
                tuned = training.of_table(scaled, classes, settings, tuned=True)
                text, weights = training.learn(tuned, scaled, given, seed, weights)
        self.net_, self.weights_ = text, weights
        self._model = training.model_of(text, weights)

    def _rate(self) -> float:
        return 0.01

    def _shape(self) -> tuple[int, ...] | None:
        if self.image_shape is None:
            return None
        shape = tuple(int(n) for n in self.image_shape)
        return (1, *shape) if len(shape) == 2 else shape

    def _measure(self, values: Array) -> None:
        """Measure the units: the range of all values of pictures, the mean and deviation of each column of other
        rows.
        """
        if self._shape() is not None:
            low, high = (
                (float(np.nanmin(values)), float(np.nanmax(values)))
                if np.isfinite(values).any()
                else (0.0, 1.0)
            )
            self.center_ = np.full(values.shape[1], (low + high) / 2)
            self.scale_ = np.full(values.shape[1], (high - low) or 1.0)
            return
        columns = training.columns_of(values)
        self.center_ = np.array([column.mean for column in columns])
        self.scale_ = np.array([column.deviation for column in columns])

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
        if np.isnan(values).any() and not self.model_.takes_missing:
            raise ValueError(
                f"Input X contains NaN, and the net {self.net} takes no missing values: impute them first"
            )
        scaled = (values - self.center_) / self.scale_
        return values, torch.from_numpy(scaled.reshape(len(values), *self.model_.image_shape))

    def _take(self, X: Any, **options: Any) -> Array:
        values: Array = validate_data(self, X, ensure_all_finite="allow-nan", dtype=np.float64, **options)
        return values


GENERATIVE = 0.05
"""Weight of -log p(row) beside -log p(class | row), where a tree is tuned to tell classes apart."""
KEEP = 0.7
"""Share of the cells that is seen meanwhile."""
