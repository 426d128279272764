"""Methods of others, for comparison: imputation, nearest neighbours, robust linear classifiers."""

from netspec.lab.baselines.imputers import ByModel, Mean, MissForest, NearestMean, PrincipalComponents, Zero
from netspec.lab.baselines.neighbours import Neighbours
from netspec.lab.baselines.robust import Examples, RobustLinear, fit_robust, robust_objective, solve_robust

__all__ = [
    "ByModel",
    "Examples",
    "Mean",
    "MissForest",
    "NearestMean",
    "Neighbours",
    "PrincipalComponents",
    "RobustLinear",
    "Zero",
    "fit_robust",
    "robust_objective",
    "solve_robust",
]
