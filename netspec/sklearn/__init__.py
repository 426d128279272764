"""Estimators for scikit-learn: generative trees over tables and pictures that take NaN, and any net."""

from netspec.sklearn.estimators import (
    GenerativeClassifier,
    GenerativeDensity,
    GenerativeImputer,
    NetClassifier,
    NetRegressor,
)

__all__ = ["GenerativeClassifier", "GenerativeDensity", "GenerativeImputer", "NetClassifier", "NetRegressor"]
