"""Baselines that fill the holes of a table (rows, columns), NaN where missing, from the table itself."""

from __future__ import annotations

import warnings

import numpy as np

from netspec.data.files.idx import Array
from netspec.errors import DataError


def column_means(table: Array) -> Array:
    """Each hole is the mean of its column's observed cells."""
    return np.where(np.isnan(table), np.nanmean(table, 0), table)


def nearest_rows(table: Array, k: int = 5) -> Array:
    """Each hole is the mean of its column over the k rows nearest in the cells that both rows have."""
    from sklearn.impute import KNNImputer

    filled: Array = KNNImputer(n_neighbors=k, keep_empty_features=True).fit_transform(table)
    return filled


def iterative_pca(table: Array, rank: int, rounds: int = 1000, tolerance: float = 1e-6) -> Array:
    """Holes are filled with the table's own projection on its first `rank` components, until they settle.

    Each component is shrunk by the noise, the mean square of the components left out; without that a table with many
    holes fits what it has filled in itself. tolerance: the relative change of the holes at which it ends. Rank 0 gives
    the columns' means. Source: Josse and Husson 2012 (regularised iterative PCA, the default of R's missMDA).
    DataError for a rank above the number of columns or rows.
    """
    if not 0 <= rank <= min(table.shape):
        raise DataError(f"rank {rank}: a table {table.shape} has at most {min(table.shape)} components")
    holes, filled = np.isnan(table), column_means(table)
    if not holes.any():
        return filled
    for _ in range(rounds):
        mean = filled.mean(0)
        left, values, right = np.linalg.svd(filled - mean, full_matrices=False)
        projected = mean + (left[:, :rank] * shrunk(values, rank, table.shape)) @ right[:rank]
        change = np.square(projected - filled)[holes].sum()
        filled = np.where(holes, projected, table)
        if change <= tolerance**2 * np.square(filled[holes]).sum():
            break
    return filled


def shrunk(values: Array, rank: int, shape: tuple[int, ...]) -> Array:
    """The first `rank` singular values of a centred table of this shape without the noise's share of their squares.

    The noise's variance is estimated from the other values by their degrees of freedom.
    """
    rows, columns = shape
    freedom = (rows - 1 - rank) * (columns - rank)
    noise = np.square(values[rank:]).sum() / freedom if freedom > 0 else 0.0
    kept = values[:rank]
    with np.errstate(divide="ignore", invalid="ignore"):
        lowered: Array = np.where(kept > 0, np.maximum(kept - max(rows, columns) * noise / kept, 0), 0)
    return lowered


def held_out(table: Array, share: float, seed: int) -> Array:
    """Which observed cells are hidden as well, to choose among settings by."""
    seen = np.flatnonzero(~np.isnan(table))
    chosen = np.zeros(table.size, bool)
    chosen[np.random.default_rng(seed).permutation(seen)[: max(1, int(share * len(seen)))]] = True
    return chosen.reshape(table.shape)


def chosen_rank(table: Array, share: float = 0.1, seed: int = 0) -> int:
    """The rank of `iterative_pca` with the least square error on a share of the observed cells, hidden as well."""
    hidden = held_out(table, share, seed)
    holed = np.where(hidden, np.nan, table)
    errors = [
        np.square(iterative_pca(holed, rank) - table)[hidden].mean() for rank in range(min(table.shape))
    ]
    return int(np.argmin(errors))


def chosen_neighbours(
    table: Array, candidates: tuple[int, ...] = (1, 2, 5, 10, 20, 50), share: float = 0.1, seed: int = 0
) -> int:
    """The k of `nearest_rows` with the least square error on a share of the observed cells, hidden as well."""
    hidden = held_out(table, share, seed)
    holed = np.where(hidden, np.nan, table)
    errors = [np.square(nearest_rows(holed, k) - table)[hidden].mean() for k in candidates]
    return candidates[int(np.argmin(errors))]


def miss_forest(table: Array, trees: int = 100, rounds: int = 20, seed: int = 0) -> Array:
    """scikit-learn's stand-in for missForest: IterativeImputer with ExtraTrees, as the notebooks of Mattei and Frellsen
    2019 have it.
    """
    from sklearn.ensemble import ExtraTreesRegressor
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401
    from sklearn.impute import IterativeImputer

    forest = ExtraTreesRegressor(n_estimators=trees, random_state=seed)
    imputer = IterativeImputer(forest, max_iter=rounds, random_state=seed, keep_empty_features=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the rounds are the protocol's
        filled: Array = imputer.fit_transform(table)
    return filled
