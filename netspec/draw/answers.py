"""Pictures of a model's answers: completions side by side, and the evidence for each class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from netspec.draw.canvas import DrawError, check_path
from netspec.draw.grids import LEADING, MARGIN, SIZE, Panels, scene_of
from netspec.draw.pixels import (
    MISSING,
    Bitmap,
    Floats,
    Range,
    array,
    bitmaps,
    diverging,
    images,
    over,
    value_range,
)
from netspec.draw.scene import Image, Item, Scene, Text, save

UNKNOWN = "#d9c15a"
"""Colour of missing pixels beside heat maps, where blue and red have a meaning."""


def completion(
    path: str | Path,
    observed: Any,
    *,
    original: Any = None,
    expected: Any = None,
    deviation: Any = None,
    samples: Any = None,
    most_probable: Any = None,
    row_labels: Sequence[str] = (),
    title: str = "",
    limits: Range | None = None,
    missing: str = MISSING,
    cell: float | None = None,
    page: tuple[float, float] | None = None,
) -> Path:
    """Draw the given completions side by side, one row per image.

    observed: (N, C, H, W), NaN where missing. original, expected, most_probable: the same shape.
    deviation: the standard deviation of each pixel, from black (0) to white (the largest one, named above).
    samples: (N, S, C, H, W), or a sequence of S arrays like `observed`.
    Gives the path; raises DrawError when shapes do not fit.
    """
    path = check_path(path)
    seen = images(observed)
    given: list[tuple[str, Floats]] = []
    for name, values in (("original", original), ("observed", seen), ("expected", expected)):
        given += [(name, _like(seen, values, name))] if values is not None else []
    drawn = _samples(seen, samples)
    label = "sample" if len(drawn) == 1 else "sample {}"
    given += [(label.format(i + 1), values) for i, values in enumerate(drawn)]
    if most_probable is not None:
        given.append(("most probable", _like(seen, most_probable, "most_probable")))
    limits = limits or value_range(np.concatenate([values.ravel() for _, values in given]))
    columns = [(name, bitmaps(values, limits, missing)) for name, values in given]
    if deviation is not None:
        spread = _like(seen, deviation, "deviation")
        largest = float(np.nanmax(spread)) if np.isfinite(spread).any() else 0.0
        place = 1 + [name for name, _ in columns].index("expected" if expected is not None else "observed")
        head = f"deviation, 0 to {largest:.3g}"
        columns.insert(place, (head, bitmaps(spread, (0.0, largest or 1.0), missing)))
    cells: list[list[Bitmap | None]] = [[pictures[i] for _, pictures in columns] for i in range(len(seen))]
    heads = [name for name, _ in columns]
    _check_rows(row_labels, len(cells))
    gone = missing if np.isnan(seen).any() else None
    save(scene_of(Panels(cells, row_labels, heads, [], title, gone), cell, page), path, page)
    return path


def _like(seen: Floats, values: Any, name: str) -> Floats:
    shaped = images(values)
    if shaped.shape != seen.shape:
        raise DrawError(
            f"{name} must have the shape of the observed images, {seen.shape}; found {shaped.shape}"
        )
    return shaped


def _samples(seen: Floats, samples: Any) -> list[Floats]:
    """One array like `seen` for each sample."""
    if samples is None:
        return []
    if isinstance(samples, list | tuple):
        return [_like(seen, values, "samples") for values in samples]
    x = array(samples)
    if x.ndim != seen.ndim + 1 or len(x) != len(seen):
        raise DrawError(f"samples must have shape (N, S, C, H, W) with N {len(seen)}; found {x.shape}")
    return [_like(seen, x[:, i], "samples") for i in range(x.shape[1])]


def _check_rows(row_labels: Sequence[str], rows: int) -> None:
    if row_labels and len(row_labels) != rows:
        raise DrawError(f"{len(row_labels)} row labels given for {rows} rows")


def explain(
    path: str | Path,
    values: Any,
    heat: Any,
    *,
    column_labels: Sequence[str] = (),
    row_labels: Sequence[str] = (),
    titles: Sequence[Sequence[str]] = (),
    title: str = "",
    unit: str = "nats",
    limits: Range | None = None,
    missing: str = UNKNOWN,
    cell: float | None = None,
    page: tuple[float, float] | None = None,
) -> Path:
    """Draw signed heat maps over images, a row per image: the image, then a panel per map, one scale for all.

    values: (N, C, H, W). heat: (N, h, w) or (N, K, h, w), each value covering a block of the image: red
    speaks for, blue against, NaN is grey; the bar below gives the scale in `unit`.
    titles: a line above each map, N rows of K. column_labels: K words.
    Gives the path; raises DrawError when shapes do not fit.
    """
    path = check_path(path)
    x, maps = images(values), array(heat)
    maps = maps[:, None] if maps.ndim == 3 else maps
    if maps.ndim != 4 or len(maps) != len(x) or 0 in maps.shape:
        raise DrawError(
            f"heat must have shape ({len(x)}, h, w) or ({len(x)}, K, h, w); found {np.shape(heat)}"
        )
    n, k = maps.shape[:2]
    counts = (
        ("row labels", row_labels, n),
        ("column labels", column_labels, k),
        ("rows of titles", titles, n),
    )
    for word, labels, count in counts:
        if labels and len(labels) != count:
            raise DrawError(f"{len(labels)} {word} given for {count}")
    pictures, under = bitmaps(x, limits, missing), bitmaps(x, limits, "#000000")
    finite = np.abs(maps[np.isfinite(maps)])
    most = float(finite.max()) if finite.size else 0.0
    cells: list[list[Bitmap | None]] = []
    for i in range(n):
        row: list[Bitmap | None] = [pictures[i]]
        row += [over(under[i], diverging(_enlarged(m, x.shape[2:]), most)) for m in maps[i]]
        cells.append(row)
    heads = ["", *column_labels] if column_labels else []
    above = [["", *row] for row in titles] if titles else []
    gone = missing if np.isnan(x).any() else None
    scene = scene_of(
        Panels(cells, row_labels, heads, above, title, gone), cell or (None if page else 80.0), page
    )
    _add_bar(scene, most, unit)
    save(scene, path, page)
    return path


def _enlarged(heat: Floats, size: tuple[int, ...]) -> Floats:
    """A map of blocks (h, w) as a map of pixels: pixel (i, j) takes the block that covers it."""
    down, right = (-(-n // m) for n, m in zip(size, heat.shape, strict=True))
    return heat.repeat(down, 0).repeat(right, 1)[: size[0], : size[1]]


def _add_bar(scene: Scene, most: float, unit: str) -> None:
    """A colour bar below everything, its ends and its middle labelled."""
    length, height = min(220.0, max(90.0, scene.width - 2 * MARGIN - 80)), 9.0
    left, top = MARGIN + 30, scene.height
    ramp: npt.NDArray[np.float64] = np.linspace(-most, most, 101)[None]
    texts = [(0.0, f"-{most:.3g}"), (0.5, "0"), (1.0, f"+{most:.3g} {unit}")]
    items: list[Item] = [Image(left, top, (length, 0.0), (0.0, height), diverging(ramp, most))]
    items += [Text(left + at * length, top + height + 7, text, SIZE) for at, text in texts]
    scene.items += items
    scene.width = max(scene.width, left + length + 60)
    scene.height = top + height + LEADING + MARGIN
