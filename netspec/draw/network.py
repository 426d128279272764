"""Draw a net: through `dot` where it is installed, else with a layout of our own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from netspec.draw import dot, plain, scene
from netspec.draw.canvas import SUFFIXES, DrawError, check_path
from netspec.draw.picture import Shape, picture
from netspec.net.graph import Graph
from netspec.net.net import Net
from netspec.schema.spec import NetSpec

RANKDIRS = ("TB", "BT", "LR", "RL")
SOURCES = (".gv", ".dot")
GET_DOT = (
    "`dot` comes with graphviz: `apt-get install graphviz`, `brew install graphviz`, "
    "`conda install graphviz`, or https://graphviz.org/download"
)


@dataclass(frozen=True)
class Drawing:
    """The files written, and notes for the user."""

    paths: tuple[Path, ...]
    notes: tuple[str, ...] = ()

    def _repr_svg_(self) -> str | None:
        path = self.paths[0]
        return path.read_text(encoding="utf-8") if path.suffix.lower() == ".svg" else None

    def _repr_png_(self) -> bytes | None:
        path = self.paths[0]
        return path.read_bytes() if path.suffix.lower() == ".png" else None


def graph(
    what: Net | Graph | NetSpec,
    path: str | Path,
    *,
    rankdir: str = "TB",
    shapes: Mapping[int, Shape] | None = None,
    page: tuple[float, float] | None = None,
    use_dot: bool | None = None,
) -> Drawing:
    """Draw a net to `path` (.svg, .png, .pdf; .gv or .dot for the graphviz source).

    rankdir: direction of the data: TB, BT, LR or RL.
    shapes: blob shapes by slot, for a Graph; a Net brings its own; a NetSpec has none.
    page: width and height in inches that the picture must fit into (it is never enlarged).
    use_dot: True insists on `dot`, False does without, None takes it where it is installed. Without it the
    source is written beside the picture, and a note says how to get it.
    Raises DrawError for another suffix or rankdir, or when `dot` is insisted on and missing.
    """
    path = check_path(path, (*SOURCES, *SUFFIXES))
    if rankdir not in RANKDIRS:
        raise DrawError(f"rankdir is one of {', '.join(RANKDIRS)}; found {rankdir!r}")
    drawn = picture(what, shapes)
    text = dot.source(drawn, rankdir, page)
    if path.suffix.lower() in SOURCES:
        path.write_text(text, encoding="utf-8")
        return Drawing((path,))
    note = ""
    if use_dot is not False:
        try:
            path.write_bytes(dot.render(text, path.suffix[1:].lower()))
            return Drawing((path,))
        except dot.DotError as error:
            if use_dot:
                raise DrawError(f"{path}: {error}; {GET_DOT}") from error
            note = f"{error}, so the picture uses netspec's own layout; {GET_DOT}"
    scene.save(plain.scene_of(drawn, rankdir), path, page)
    beside = path.with_suffix(".gv")
    beside.write_text(text, encoding="utf-8")
    return Drawing((path, beside), (note,) if use_dot is None else ())
