"""matplotlib without pyplot: figures that belong to nobody, written as PNG, SVG or PDF."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netspec.data.files.whole import write_whole
from netspec.errors import NetspecError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg", ".pdf")
_REPRODUCIBLE: dict[str, dict[str, Any]] = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}


class DrawError(NetspecError):
    """A picture cannot be made: a format we do not write, data of the wrong shape, an empty file."""


def check_path(path: str | Path, suffixes: tuple[str, ...] = SUFFIXES) -> Path:
    """`path` as a Path whose suffix is one of `suffixes`, with its folder made; DrawError otherwise."""
    path = Path(path)
    if path.suffix.lower() not in suffixes:
        raise DrawError(
            f"{path}: pictures are written as {', '.join(suffixes)}; found {path.suffix or 'no suffix'!r}"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def figure(width: float, height: float, constrained: bool = False) -> Figure:
    """A white figure of so many inches; `constrained` keeps labels from being cut or overlapping."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), facecolor="white", layout="constrained" if constrained else None)


def write(fig: Figure, path: Path, dpi: float = 150.0) -> Path:
    """Save by suffix, whole or not at all; text in SVG stays text, and two runs give the same bytes."""
    from matplotlib import rc_context

    suffix, buffer = path.suffix.lower(), io.BytesIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "netspec", "pdf.fonttype": 42}):
        fig.savefig(buffer, format=suffix[1:], dpi=dpi, metadata=_REPRODUCIBLE.get(suffix))
    write_whole(path, buffer.getvalue())
    return path
