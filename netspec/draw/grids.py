"""Pages of image panels in rows and columns with labels: sample grids, completions, and the like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from math import ceil, sqrt
from pathlib import Path
from typing import Any

from netspec.draw.canvas import DrawError, check_path
from netspec.draw.pixels import MISSING, Bitmap, Range, bitmaps, images, value_range
from netspec.draw.scene import Image, Item, Rect, Scene, Text, save
from netspec.draw.text import fit, visible, width

MARGIN, SIZE, LEADING = 14.0, 9.0, 11.5
"""Points around the page; size of labels; distance of their lines."""


@dataclass
class Panels:
    """A table of bitmaps, all of one size; None leaves a place empty."""

    cells: list[list[Bitmap | None]]
    row_labels: Sequence[str] = ()
    column_labels: Sequence[str] = ()
    titles: list[list[str]] = field(default_factory=list)
    """A line above each panel; as `cells`, or empty."""
    title: str = ""
    missing: str | None = None
    """Colour of missing pixels, explained below the page; None when nothing is missing."""


def grid(
    values: Any,
    path: str | Path,
    *,
    rows: int | None = None,
    columns: int | None = None,
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    titles: Sequence[str] = (),
    title: str = "",
    limits: Range | str | None = None,
    missing: str = MISSING,
    bgr: bool = False,
    cell: float | None = None,
    page: tuple[float, float] | None = None,
) -> Path:
    """Draw images (N, C, H, W) in rows to `path` (.png, .svg, .pdf); gives the path.

    values: tensor or array, C 1 or 3, also (N, H, W); NaN is a missing pixel and gets the colour `missing`.
    rows, columns: the table's size; one that is not given follows from N (default: about square). titles: one per
    panel. limits: (black, white), "each" for every image its own, None for all together.
    cell: size of a panel's longer side in points (1/72 inch); page: (width, height) in inches to fit into, which then
    decides the size.
    Raises DrawError when shapes, counts of labels or the suffix are wrong.
    """
    path = check_path(path)
    x = images(values)
    n = len(x)
    columns = columns or (ceil(n / rows) if rows else ceil(sqrt(n)))
    rows = rows or ceil(n / columns)
    if rows * columns < n:
        raise DrawError(f"{n} images do not fit into {rows} rows of {columns}")
    for word, labels, count in (
        ("row", row_labels, rows),
        ("column", column_labels, columns),
        ("panel", titles, n),
    ):
        if labels and len(labels) != count:
            raise DrawError(f"{len(labels)} {word} labels or titles given for {count}")
    if limits == "each":
        pictures = [bitmaps(x[i : i + 1], value_range(x[i]), missing, bgr)[0] for i in range(n)]
    elif isinstance(limits, str):
        raise DrawError(f'limits are (black, white), "each" or None; found {limits!r}')
    else:
        pictures = list(bitmaps(x, limits, missing, bgr))
    cells = [
        [pictures[i] if i < n else None for i in range(r * columns, (r + 1) * columns)] for r in range(rows)
    ]
    heads = [
        [titles[i] if i < len(titles) else "" for i in range(r * columns, (r + 1) * columns)]
        for r in range(rows)
    ]
    panels = Panels(
        cells, row_labels, column_labels, heads if titles else [], title, missing if _any_missing(x) else None
    )
    save(scene_of(panels, cell, page), path, page)
    return path


def _any_missing(x: Any) -> bool:
    return bool((x != x).any())


def scene_of(panels: Panels, cell: float | None = None, page: tuple[float, float] | None = None) -> Scene:
    """The page of a table of panels; every label gets the room that it needs."""
    h, w = _bitmap_size(panels.cells)
    side = max(h, w)
    if cell is None:
        cell = (
            _side_for_page(panels, h / side, w / side, page) if page else max(40.0, min(160.0, float(side)))
        )
    return _Page(panels, w / side * cell, h / side * cell).scene()


def _bitmap_size(cells: list[list[Bitmap | None]]) -> tuple[int, int]:
    sizes = {cell.shape[:2] for row in cells for cell in row if cell is not None}
    if len(sizes) != 1:
        raise DrawError(f"the panels of one page must have one size; found {sorted(sizes) or 'none'}")
    h, w = sizes.pop()
    return int(h), int(w)


def _side_for_page(panels: Panels, h: float, w: float, page: tuple[float, float]) -> float:
    """The largest panel side that keeps the page, tried from large to small, as small ones wrap more.

    The usual side where none does because the labels alone are too large; the whole page is then scaled down when
    saved.
    """
    side = 72 * max(page)
    while side > 2:
        scene = _Page(panels, w * side, h * side).scene()
        if scene.width <= 72 * page[0] and scene.height <= 72 * page[1]:
            return side
        side *= 0.97
    return 60.0


def _longest_word(texts: Sequence[str], most: float = 90.0) -> float:
    """Width that keeps every word in one piece, within reason."""
    words = [word for text in texts for word in visible(text).split()]
    return min(most, max((width(word, SIZE) + 1 for word in words), default=0.0))


class _Page:
    """Measures and places; w and h are a panel's size in points."""

    def __init__(self, panels: Panels, w: float, h: float):
        self.panels, self.w, self.h = panels, w, h
        self.gap = max(2.0, 0.06 * min(w, h))
        labels = [visible(label) for label in panels.row_labels]
        self.left = MARGIN + max((width(label, SIZE) + 6 for label in labels), default=0.0)
        self.pitch = max(w, _longest_word([*panels.column_labels, *chain.from_iterable(panels.titles)]))
        self.heads = [fit(visible(label), SIZE, self.pitch) for label in panels.column_labels]
        self.titles = [[fit(visible(text), SIZE, self.pitch) for text in row] for row in panels.titles]
        self.columns = max(len(row) for row in panels.cells)
        self.right = self.left + self.columns * self.pitch + (self.columns - 1) * self.gap
        note = "missing" if panels.missing else ""
        self.width = max(self.right, self.left + width(note, SIZE) + 16) + MARGIN
        self.name = fit(visible(panels.title), 12.0, max(self.width - 2 * MARGIN, 150.0) / 1.13)
        self.width = max(self.width, *(width(line, 12.0, True) + 2 * MARGIN for line in self.name), 0.0)

    def scene(self) -> Scene:
        scene = Scene(self.width, 0.0, title=self.panels.title)
        y = MARGIN
        for line in self.name:
            scene.items.append(Text(MARGIN, y + 7, line, 12.0, True, anchor="start"))
            y += 16
        lines = max((len(head) for head in self.heads), default=0)
        for k, head in enumerate(self.heads):
            scene.items += self.centred(head, k, y + (lines - len(head)) * LEADING)
        y += lines * LEADING + (3 if lines else 0)
        for r, row in enumerate(self.panels.cells):
            y = self.row(scene.items, r, row, y)
        y -= self.gap
        if self.panels.missing:
            y += 8
            scene.items.append(Rect(self.left, y, 9, 9, self.panels.missing))
            scene.items.append(Text(self.left + 13, y + 4.5, "missing", SIZE, anchor="start"))
            y += 9
        scene.height = y + MARGIN
        return scene

    def x(self, column: int) -> float:
        """Left end of a panel, in the middle of its column."""
        return self.left + column * (self.pitch + self.gap) + (self.pitch - self.w) / 2

    def centred(self, lines: list[str], column: int, y: float) -> list[Item]:
        middle = self.x(column) + self.w / 2
        return [Text(middle, y + LEADING * (i + 0.5), line, SIZE) for i, line in enumerate(lines)]

    def row(self, items: list[Item], r: int, row: list[Bitmap | None], y: float) -> float:
        """Place one row from height y on; gives where the next begins."""
        if self.titles:
            lines = max(len(text) for text in self.titles[r])
            for k, text in enumerate(self.titles[r]):
                items += self.centred(text, k, y + (lines - len(text)) * LEADING)
            y += lines * LEADING + 1
        if self.panels.row_labels:
            label = visible(self.panels.row_labels[r])
            items.append(Text(self.left - 6, y + self.h / 2, label, SIZE, anchor="end"))
        for k, pixels in enumerate(row):
            if pixels is not None:
                items.append(Image(self.x(k), y, (self.w, 0.0), (0.0, self.h), pixels))
        step = self.h
        if self.panels.row_labels:
            step = max(step, LEADING)
        return y + step + self.gap
