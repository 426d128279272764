"""Pictures of a latent tree: one sample as its tree of patches, and the pictures that the neurons of a level
stand for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from netspec.draw.canvas import DrawError, check_path
from netspec.draw.pixels import MISSING, Bitmap, Range, array, bitmaps, value_range
from netspec.draw.scene import Curve, Image, Item, Point, Rect, Scene, Text, save
from netspec.draw.text import visible, width

_LINK, _FRAME = "#9a9a9a", "#666666"
CROWD = 100
"""Children in a level above which links lead to groups, not to each child."""


@dataclass(frozen=True)
class Level:
    """One level of a latent tree drawn for one image, positions as in the image.

    states: (h, w) integers, the state of each node.
    patches: (h, w, C, ph, pw) pixels, what each node stands for; NaN is missing.
    extent: (rows, columns) of nodes that would cover the root's area, where the last nodes of the level reach beyond
    the image or do not exist; default (h, w).
    """

    name: str
    states: Any
    patches: Any
    extent: tuple[int, int] | None = None


def tree(
    levels: Sequence[Level],
    path: str | Path,
    *,
    title: str = "",
    limits: Range | None = None,
    missing: str = MISSING,
    side: float = 420.0,
    page: tuple[float, float] | None = None,
) -> Path:
    """Draw one latent tree as planes, the root's on top: each node's patch, state and children at its place.

    levels: from the root down to the leaves; a node's children are the nodes of the next level that cover the
    same part of the image. side: width of a plane in points; page: (width, height) in inches to fit into.
    Gives the path; raises DrawError when shapes do not fit.
    """
    path = check_path(path)
    planes = [_plane(level, limits or _common_range(levels), missing) for level in levels]
    if not planes:
        raise DrawError("a tree needs at least one level")
    save(_Stack(planes, title, side).scene(), path, page)
    return path


def _common_range(levels: Sequence[Level]) -> Range:
    return value_range(np.concatenate([array(level.patches).ravel() for level in levels]))


@dataclass(frozen=True)
class _Plane:
    name: str
    states: npt.NDArray[np.int64]
    patches: list[list[Bitmap]]
    extent: tuple[int, int]


def _plane(level: Level, limits: Range, missing: str) -> _Plane:
    states, patches = array(level.states).astype(np.int64), array(level.patches)
    if states.ndim != 2 or patches.ndim != 5 or patches.shape[:2] != states.shape or 0 in patches.shape:
        raise DrawError(
            f"level {level.name!r}: states must be (h, w) and patches (h, w, C, ph, pw); "
            f"found {states.shape} and {patches.shape}"
        )
    rows = [list(bitmaps(row, limits, missing)) for row in patches]
    extent = level.extent or (states.shape[0], states.shape[1])
    if extent[0] < states.shape[0] or extent[1] < states.shape[1]:
        raise DrawError(f"level {level.name!r}: an extent of {extent} does not hold states of {states.shape}")
    return _Plane(level.name, states, rows, extent)


class _Stack:
    """Planes seen from above: the far side of the image is further up and to the right."""

    LEAN, DEPTH, MARGIN, GAP = 0.32, 0.55, 14.0, 46.0
    """Right shift and height on the page of one unit of depth; points around, and between planes."""

    def __init__(self, planes: list[_Plane], title: str, side: float):
        self.planes, self.title, self.side = planes, title, side
        self.left = self.MARGIN + max(width(visible(plane.name), 10.0, True) for plane in planes) + 12
        self.top = self.MARGIN + (24 if title else 0)
        self.height = self.DEPTH * side

    def place(self, plane: int, u: float, v: float) -> Point:
        """The page's point of (u, v) in a plane, both 0 to 1: u to the right, v from the far side to us."""
        x = self.left + self.side * (u + self.LEAN * (1 - v))
        return x, self.top + plane * (self.height + self.GAP) + self.height * v

    def scene(self) -> Scene:
        count = len(self.planes)
        right = self.left + self.side * (1 + self.LEAN) + self.MARGIN
        bottom = self.top + count * (self.height + self.GAP) - self.GAP + self.MARGIN
        page = Scene(
            max(right, width(self.title, 12.0, True) + 2 * self.MARGIN), bottom + 4, title=self.title
        )
        if self.title:
            page.items.append(
                Text(self.MARGIN, self.MARGIN + 7, visible(self.title), 12.0, True, anchor="start")
            )
        for k in reversed(range(count)):  # from below: what is higher hides what is lower
            if k + 1 < count:
                page.items += self.links(k)
            page.items += self.plane(k)
        return page

    def plane(self, k: int) -> list[Item]:
        """The level's name, a faint outline of the whole image, then patches with their states."""
        plane = self.planes[k]
        rows, columns = plane.states.shape
        middle = self.place(k, 0, 1)[1] - self.height / 2
        items: list[Item] = [
            Text(self.MARGIN, middle - 7, visible(plane.name), 10.0, True, anchor="start"),
            Text(self.MARGIN, middle + 7, f"{rows}×{columns}", 9.0, colour="#444444", anchor="start"),
            self.outline(k),
        ]
        for i in range(rows):
            for j in range(columns):
                items += self.node(k, i, j)
        return items

    def outline(self, k: int) -> Curve:
        corners = [self.place(k, u, v) for u, v in ((0, 0), (1, 0), (1, 1), (0, 1), (0, 0))]
        return _straight(corners, "#cccccc", 0.6)

    def node(self, k: int, i: int, j: int) -> list[Item]:
        """One patch, smaller than its cell so that neighbours and states have room."""
        plane = self.planes[k]
        rows, columns = plane.extent
        u0, v0, u1, v1 = (j + 0.07) / columns, (i + 0.05) / rows, (j + 0.93) / columns, (i + 0.8) / rows
        corner, across, down = self.place(k, u0, v0), self.place(k, u1, v0), self.place(k, u0, v1)
        vectors = ((across[0] - corner[0], across[1] - corner[1]), (down[0] - corner[0], down[1] - corner[1]))
        frame = [corner, across, self.place(k, u1, v1), down, corner]
        low = self.place(k, (u0 + u1) / 2, (i + 0.9) / rows)
        size = min(10.0, 0.19 * self.height / rows, 0.3 * self.side / columns)
        return [
            Image(*corner, *vectors, plane.patches[i][j]),
            _straight(frame, _FRAME, 0.5),
            Text(*low, str(plane.states[i, j]), round(max(size, 2.5), 2)),
        ]

    def links(self, k: int) -> list[Item]:
        """A line from each node of plane k to each child; in a crowd, to the frame around its children."""
        parents, children, there = (
            self.planes[k].extent,
            self.planes[k + 1].extent,
            self.planes[k + 1].states.shape,
        )
        below = _children(parents, children, there)
        crowd = there[0] * there[1] > CROWD and len(below) > 1
        drawn: list[Item] = []
        for (i, j), cells in below.items():
            start = self.place(k, (j + 0.5) / parents[1], (i + 0.5) / parents[0])
            if crowd:
                v0, v1 = min(a for a, _ in cells) / children[0], (max(a for a, _ in cells) + 1) / children[0]
                u0, u1 = min(b for _, b in cells) / children[1], (max(b for _, b in cells) + 1) / children[1]
                corners = ((u0, v0), (u1, v0), (u1, v1), (u0, v1), (u0, v0))
                drawn.append(_straight([self.place(k + 1, u, v) for u, v in corners], _LINK, 0.5))
                drawn.append(_straight([start, self.place(k + 1, (u0 + u1) / 2, v0)], _LINK, 0.5))
                continue
            for a, b in cells:
                end = self.place(k + 1, (b + 0.5) / children[1], (a + 0.42) / children[0])
                drawn.append(_straight([start, end], _LINK, 0.6))
        return drawn


def _children(
    parents: tuple[int, ...], children: tuple[int, ...], there: tuple[int, ...] = ()
) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """For each node the nodes of the next level whose middle lies in its part of the image.

    Both levels are given by their extents; there: (rows, columns) of the children that exist, default all.
    """
    cells: dict[tuple[int, int], list[tuple[int, int]]] = {}
    rows, columns = there or children
    for i in range(rows):
        for j in range(columns):
            place = (
                int((i + 0.5) / children[0] * parents[0]),
                int((j + 0.5) / children[1] * parents[1]),
            )
            cells.setdefault(place, []).append((i, j))
    return cells


def _straight(points: Sequence[Point], colour: str, thick: float) -> Curve:
    """A line through points."""
    pieces = tuple((a, b, b) for a, b in pairwise(points))
    return Curve(points[0], pieces, colour, thick, arrow=False)


def neurons(
    pictures: Any,
    path: str | Path,
    *,
    columns: int | None = None,
    states: Any = None,
    title: str = "",
    limits: Range | None = None,
    missing: str = MISSING,
    side: float = 480.0,
    page: tuple[float, float] | None = None,
) -> Path:
    """Draw what the neurons of a level stand for, laid out by their position in the image.

    pictures: (h, w, K, C, ph, pw): K pictures (samples, means, most probable patches) at h x w places,
    as in Fig. 6 of Sharir et al. 2018. columns: pictures in a row of one position (default: about square).
    states: (h, w, K) numbers to write under the pictures. side: width in points; page: inches to fit into.
    Gives the path; raises DrawError when shapes do not fit.
    """
    path = check_path(path)
    x = array(pictures)
    if x.ndim != 6 or 0 in x.shape:
        raise DrawError(f"pictures must have shape (h, w, K, C, ph, pw); found {x.shape}")
    numbers = None if states is None else array(states).astype(np.int64)
    if numbers is not None and numbers.shape != x.shape[:3]:
        raise DrawError(f"states must have shape {x.shape[:3]}, as pictures have; found {numbers.shape}")
    save(_areas(x, columns, numbers, title, limits or value_range(x), missing, side), path, page)
    return path


def _areas(
    x: npt.NDArray[np.float64],
    columns: int | None,
    numbers: npt.NDArray[np.int64] | None,
    title: str,
    limits: Range,
    missing: str,
    side: float,
) -> Scene:
    """A frame per position with its pictures in rows, and the position above it."""
    h, w, k, _, ph, pw = x.shape
    columns = min(columns or int(np.ceil(np.sqrt(k))), k)
    rows = -(-k // columns)
    margin, inner, head = 14.0, 5.0, 12.0
    area = side / w
    size = (area - 3 * inner) / columns
    patch_w, patch_h = 0.94 * size, 0.94 * size * ph / pw
    foot = 9.0 if numbers is not None else 0.0
    step = patch_h + 0.06 * size + foot
    top = margin + (22 if title else 0)
    area_h = rows * step + 2 * inner + head
    place = "row {}, column {}"
    if width(place.format(h - 1, w - 1), 8.0) > area - 4:
        place = "{}, {}"
        title = f"{title} (row, column)" if title else ""
    scene = Scene(2 * margin + side, top + h * area_h + margin, title=title)
    if title:
        scene.items.append(Text(margin, margin + 7, visible(title), 12.0, True, anchor="start"))
        scene.width = max(scene.width, width(title, 12.0, True) + 2 * margin)
    for i in range(h):
        for j in range(w):
            x0, y0 = margin + j * area, top + i * area_h
            frame = Rect(x0 + 1, y0 + head, area - 2, area_h - head - 2, "#f4f4f4", "#b0b0b0", 3.0, 0.6)
            scene.items.append(frame)
            scene.items.append(Text(x0 + area / 2, y0 + head / 2, place.format(i, j), 8.0, colour="#444444"))
            for n, pixels in enumerate(bitmaps(x[i, j], limits, missing)):
                left = x0 + 1.5 * inner + (n % columns) * size
                upper = y0 + head + inner + (n // columns) * step
                scene.items.append(Image(left, upper, (patch_w, 0.0), (0.0, patch_h), pixels))
                if numbers is not None:
                    label = str(numbers[i, j, n])
                    small = min(8.0, 0.9 * patch_w / max(width(label, 1.0), 0.1))
                    scene.items.append(
                        Text(left + patch_w / 2, upper + patch_h + 4.5, label, round(small, 2))
                    )
    return scene
