"""Estimators for scikit-learn: generative trees over tables that take NaN, and any net."""

from netspec.sklearn.estimators import GenerativeClassifier, GenerativeDensity, GenerativeImputer

__all__ = ["GenerativeClassifier", "GenerativeDensity", "GenerativeImputer"]
