"""Curves of many runs over common iterations, thinned to the extremes of each stretch where there are more points than
can be seen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

MOST = 1200
"""Places of a curve that are kept."""
Points = Sequence[tuple[int, float | None]]


def joined(series: Sequence[Points], most: int = MOST) -> dict[str, Any]:
    """{"x": iterations, "y": a list per series, None where it has no value there}.

    At most `most` places: longer series keep the least and the largest value of every stretch of iterations, in their
    order, so that no peak is lost. Values that are not finite are left out.
    """
    kept = [sorted((x, y) for x, y in points if y is not None and math.isfinite(y)) for points in series]
    places = sorted({x for points in kept for x, _ in points})
    if len(places) <= most:
        at = {x: i for i, x in enumerate(places)}
        rows: list[list[float | None]] = []
        for points in kept:
            row: list[float | None] = [None] * len(places)
            for x, y in points:
                row[at[x]] = y
            rows.append(row)
        return {"x": places, "y": [[short(y) for y in row] for row in rows]}
    first, last = places[0], places[-1]
    stretches = most // 2
    step = (last - first + 1) / stretches
    middles = [first + step * (i // 2 + 0.25 + 0.5 * (i % 2)) for i in range(2 * stretches)]
    return {
        "x": [round(value, 2) for value in middles],
        "y": [[short(y) for y in extremes(points, first, step, stretches)] for points in kept],
    }


def extremes(points: Points, first: int, step: float, stretches: int) -> list[float | None]:
    """The least and the largest value of each stretch, in the order of their places."""
    per_stretch: list[list[tuple[int, float]]] = [[] for _ in range(stretches)]
    for x, y in points:
        if y is not None:
            per_stretch[min(stretches - 1, int((x - first) / step))].append((x, y))
    row: list[float | None] = []
    for inside in per_stretch:
        if not inside:
            row += [None, None]
            continue
        low, high = min(inside, key=lambda p: p[1]), max(inside, key=lambda p: p[1])
        row += [low[1], high[1]] if low[0] <= high[0] else [high[1], low[1]]
    return row


def short(value: float | None) -> float | None:
    """A number rounded to five significant digits, enough for any screen."""
    return None if value is None else float(f"{value:.5g}")
