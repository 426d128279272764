"""Pictures as values: a notebook shows them, `save` writes them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from netspec.draw.network import graph


@dataclass(frozen=True)
class Picture:
    """A drawn picture: the bytes of a PNG or SVG file."""

    raw: bytes
    suffix: str
    """.png or .svg"""

    def _repr_png_(self) -> bytes | None:
        return self.raw if self.suffix == ".png" else None

    def _repr_svg_(self) -> str | None:
        return self.raw.decode("utf-8") if self.suffix == ".svg" else None

    def save(self, path: str | Path) -> Path:
        """Write the file; gives its path. ValueError for a name that ends otherwise than with `suffix`."""
        path = Path(path)
        if path.suffix.lower() != self.suffix:
            raise ValueError(f"{path}: this picture is a {self.suffix} file")
        path.write_bytes(self.raw)
        return path

    def __repr__(self) -> str:
        return f"<picture, {len(self.raw):,} bytes of {self.suffix[1:]}>"


def shown(draw: Callable[[Path], Any], suffix: str = ".png") -> Picture:
    """What `draw`, given a path that ends with `suffix`, writes there."""
    with tempfile.TemporaryDirectory(prefix="netspec-") as folder:
        path = Path(folder) / f"picture{suffix}"
        draw(path)
        return Picture(path.read_bytes(), suffix)


def graph_picture(what: Any, rankdir: str = "TB") -> Picture:
    """A net, graph or spec as a picture of its layers, shapes on the edges (an SVG)."""
    return shown(lambda path: graph(what, path, rankdir=rankdir), ".svg")
