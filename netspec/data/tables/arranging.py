"""An order of columns in which dependent ones are neighbours: hierarchical clustering by mutual information."""

from __future__ import annotations

import numpy as np

from netspec.data.files.idx import Array

BINS = 8
"""Parts of equal size that numbers are cut into."""
MOST_ROWS = 20_000
"""Most rows examined; from larger tables, rows at equal distances."""


def levels(values: Array) -> Array:
    """Values (n,) as level numbers from 0, -1 where NaN: each value is a level where there are few, else each of BINS
    parts of equal size.
    """
    seen = ~np.isnan(values)
    out = np.full(len(values), -1, np.int64)
    distinct = np.unique(values[seen])
    if len(distinct) > BINS:
        cuts = np.unique(np.quantile(values[seen], np.arange(1, BINS) / BINS))
        out[seen] = np.searchsorted(cuts, values[seen], side="right")
    else:
        out[seen] = np.searchsorted(distinct, values[seen])
    return out


def mutual_information(rows: Array) -> Array:
    """(D, D) nats between columns of rows (n, D), from the rows in which both are observed; NaN is missing.

    Numbers are cut into parts of equal size. The amount that independent columns show by chance, (a - 1) (b - 1) / 2n
    for a and b levels, is subtracted; the result is at least 0. The diagonal is 0.
    """
    step = -(-len(rows) // MOST_ROWS) if len(rows) else 1
    coded = [levels(column.astype(np.float64)) for column in rows[::step].T]
    sizes = [int(code.max(initial=-1)) + 1 for code in coded]
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(int)
    hot = np.zeros((len(coded[0]) if coded else 0, starts[-1]), np.float32)
    for code, start in zip(coded, starts[:-1], strict=True):
        seen = np.flatnonzero(code >= 0)
        hot[seen, start + code[seen]] = 1
    counts = hot.T @ hot
    nats = np.zeros((len(coded), len(coded)))
    for i in range(len(coded)):
        for j in range(i):
            table = counts[starts[i] : starts[i + 1], starts[j] : starts[j + 1]].astype(float)
            nats[i, j] = nats[j, i] = information(table)
    return nats


def information(counts: Array) -> float:
    """Mutual information in nats of a table of counts, less the amount due to chance."""
    total = counts.sum()
    if not total:
        return 0.0
    joint = counts / total
    apart = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    inside = joint > 0
    raw = float((joint[inside] * np.log(joint[inside] / apart[inside])).sum())
    a, b = (int((joint.sum(axis) > 0).sum()) for axis in (0, 1))
    return float(max(raw - (a - 1) * (b - 1) / (2 * total), 0.0))


def order(information: Array) -> list[int]:
    """Columns in the order of the leaves of an average-linkage clustering, whose branches are flipped to make
    neighbours as dependent as possible.
    """
    count = len(information)
    if count < 3:
        return list(range(count))
    from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
    from scipy.spatial.distance import squareform

    distance = information.max() - information
    np.fill_diagonal(distance, 0)
    condensed = squareform(distance, checks=False)
    tree = optimal_leaf_ordering(linkage(condensed, "average"), condensed)
    return [int(leaf) for leaf in leaves_list(tree)]
