"""A net for pictures of one's own: their size, colour and classes looked at, net and solver written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from netspec import schema
from netspec.data.pictures import open_pictures
from netspec.data.pictures.opening import ARRAYS, SUFFIXES, is_idx, is_list
from netspec.errors import DataError
from netspec.experiments.beginning import checked, held_out, next_steps, solver_of, whole_batches, write_both
from netspec.schema.printer import print_text

VALUES = ("gaussians", "states", "keep", "likelihood", "iterations", "batch", "batches")
"""Values of the template that the user chooses; the others come from the pictures."""
MOST_SIDE = 32
"""Larger pictures are scaled down to this side, unless a size is given."""
BATCH = 100
EPOCHS = 60
ITERATIONS = (200, 2000)
"""Least and most iterations by default."""


def are_pictures(source: str) -> bool:
    """Whether a path is one of pictures: a folder, a database, a picture, an array file, an idx file, or a list."""
    path = Path(source)
    known = (*SUFFIXES, *ARRAYS)
    return path.is_dir() or (
        path.is_file()
        and (path.suffix.lower() in known or path.name == "data.mdb" or is_idx(path) or is_list(path))
    )


@dataclass
class Begun:
    """The files written, and remarks for the user."""

    net: Path
    solver: Path
    source: str
    count: int
    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    notes: list[str] = field(default_factory=list)

    def text(self) -> str:
        """The pictures as they are read, and the files."""
        channels, height, width = self.shape
        colour = "colour" if channels == 3 else "grey"
        told = f"; classes {', '.join(self.classes)}" if self.classes else "; no labels"
        asked = "predict" if self.classes else "complete"
        steps = next_steps(
            self.net, self.solver, f"netspec {asked} runs/{self.net.stem} --images {self.source}"
        )
        return f"{self.count} pictures of {height}x{width}, {colour}{told}\n{steps}"


def arrange_pictures(
    source: str,
    out: Path | None = None,
    settings: Mapping[str, Any] | None = None,
    *,
    size: tuple[int, int] | None = None,
    test: float = 0.2,
) -> Begun:
    """Write a net for pictures to `out` (default <name>.prototxt in the working directory) and its solver beside it.

    size: height and width to resize to; by default those of the first picture, scaled down to a longer side of
    MOST_SIDE. test: share of pictures held out. settings: values of nets/pictures.prototmp. Nothing is left behind on
    failure.
    """
    if not 0 <= test < 1:
        raise DataError(f"--test {test:g}: a share is 0 or more, and less than 1")
    pictures = open_pictures(source)
    own = pictures.shape
    shape = (own[0], *(size or smaller(own[1], own[2])))
    numbers = pictures.labels[~np.isnan(pictures.labels)]
    names = pictures.class_names or tuple(str(i) for i in range(int(numbers.max(initial=-1)) + 1))
    p = schema.PicturesParameter(
        source=source, new_height=shape[1], new_width=shape[2], is_color=shape[0] == 3, class_name=names
    )
    net = out or Path(f"{Path(source).resolve().name.split('.')[0]}.prototxt")
    told = Begun(net, solver_of(net), source, len(pictures), shape, names, list(pictures.notes))
    if shape != own:
        told.notes.append(f"{source}: pictures of {own[1]}x{own[2]} are resized to {shape[1]}x{shape[2]}")
    held, few = held_out(test, len(pictures), pictures.labels, source)
    if few:
        told.notes.append(few)
        test = 0
    write_both(
        net, told.solver, "pictures", template_values(told, p, test, held) | checked(settings or {}, VALUES)
    )
    return told


def smaller(height: int, width: int) -> tuple[int, int]:
    """The size of the same proportions whose longer side is at most MOST_SIDE."""
    factor = min(MOST_SIDE / max(height, width), 1.0)
    return max(round(height * factor), 1), max(round(width * factor), 1)


def template_values(told: Begun, p: Any, test: float, held: int) -> dict[str, Any]:
    """The values for the templates; held: number of pictures held out."""
    train = max(told.count - held, 1)
    batch = min(BATCH, train)
    least, most = ITERATIONS
    tested, batches = whole_batches(held)
    return {
        "name": told.net.stem,
        "net": told.net.name,
        "data": print_text(p).strip(),
        "test": test,
        "batch": batch,
        "size": list(told.shape[1:]),
        "classes": len(told.classes),
        "iterations": min(max(EPOCHS * train // batch, least), most),
        "tested": tested,
        "batches": batches,
    }
