"""A flat picture of rectangles, lines and text, written as SVG text by us or as PNG and PDF by matplotlib."""

from __future__ import annotations

import base64
import io
import re
import warnings
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netspec.draw.text import FONT, FONTS

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Point = tuple[float, float]
MOST_PIXELS = 30_000
"""Longest side of a bitmap; a larger picture gets fewer dots per inch."""


@dataclass(frozen=True)
class Rect:
    """A filled rectangle; x and y are its upper left corner."""

    x: float
    y: float
    w: float
    h: float
    fill: str
    stroke: str = "none"
    radius: float = 0.0
    thick: float = 1.0


@dataclass(frozen=True)
class Text:
    """One line of text; x is its middle, start or end (see `anchor`), y its middle height."""

    x: float
    y: float
    text: str
    size: float = 11.0
    bold: bool = False
    colour: str = "#1b1b1b"
    anchor: str = "middle"
    """middle, start or end."""


@dataclass(frozen=True)
class Curve:
    """A start point and cubic Bezier pieces (two controls and an end each); with an arrow head or not."""

    start: Point
    pieces: tuple[tuple[Point, Point, Point], ...]
    colour: str = "#555555"
    thick: float = 1.1
    dashed: bool = False
    arrow: bool = True


@dataclass(frozen=True)
class Image:
    """A bitmap (height, width, 3) in the parallelogram spanned from corner (x, y) by `across` and `down`.

    Its pixels stay sharp squares at any size.
    """

    x: float
    y: float
    across: Point
    down: Point
    pixels: npt.NDArray[np.uint8]


Item = Rect | Text | Curve | Image


@dataclass
class Scene:
    """Drawn in the order of `items`, on white; y grows downwards, one unit is one point (1/72 inch)."""

    width: float
    height: float
    items: list[Item] = field(default_factory=list)
    title: str = ""


def svg(scene: Scene, page: tuple[float, float] | None = None) -> str:
    """The scene as a complete SVG document; `page` (inches) scales it down to fit, never up."""
    scale = page_scale(scene, page)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{scene.width * scale:.1f}pt" '
        f'height="{scene.height * scale:.1f}pt" viewBox="0 0 {scene.width:.1f} {scene.height:.1f}" '
        f'font-family="{FONTS}">',
        f"<title>{escape(scene.title)}</title>",
        f'<rect width="{scene.width:.1f}" height="{scene.height:.1f}" fill="white"/>',
    ]
    for item in scene.items:
        match item:
            case Rect():
                lines.append(
                    f'<rect x="{item.x:.1f}" y="{item.y:.1f}" width="{item.w:.1f}" height="{item.h:.1f}" '
                    f'rx="{item.radius:.1f}" fill="{item.fill}" stroke="{item.stroke}" '
                    f'stroke-width="{item.thick}"/>'
                )
            case Text():
                weight = ' font-weight="bold"' if item.bold else ""
                lines.append(
                    f'<text x="{item.x:.1f}" y="{item.y + 0.36 * item.size:.1f}" font-size="{item.size}" '
                    f'fill="{item.colour}" text-anchor="{item.anchor}"'
                    f"{weight}>{escape(item.text)}</text>"
                )
            case Curve():
                lines += _curve(item)
            case Image():
                lines.append(_image(item))
    return "\n".join([*lines, "</svg>", ""])


def _image(item: Image) -> str:
    rows, columns, _ = item.pixels.shape
    numbers = [item.across[0] / columns, item.across[1] / columns, item.down[0] / rows, item.down[1] / rows]
    matrix = " ".join(f"{number:.5g}" for number in (*numbers, item.x, item.y))
    data = base64.b64encode(png(item.pixels)).decode()
    return (
        f'<image width="{columns}" height="{rows}" transform="matrix({matrix})" preserveAspectRatio="none" '
        f'style="image-rendering:pixelated" href="data:image/png;base64,{data}"/>'
    )


def png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """An RGB bitmap as the bytes of a PNG file."""
    from PIL import Image as Pillow

    stream = io.BytesIO()
    Pillow.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def _curve(item: Curve) -> list[str]:
    path = f"M{_pair(item.start)}" + "".join(f" C{_pair(a)} {_pair(b)} {_pair(c)}" for a, b, c in item.pieces)
    dash = ' stroke-dasharray="5 4"' if item.dashed else ""
    lines = [f'<path d="{path}" fill="none" stroke="{item.colour}" stroke-width="{item.thick}"{dash}/>']
    if item.arrow:
        corners = " ".join(_pair(p) for p in arrow_head(item))
        lines.append(f'<polygon points="{corners}" fill="{item.colour}"/>')
    return lines


def _pair(point: Point) -> str:
    return f"{point[0]:.1f},{point[1]:.1f}"


def arrow_head(curve: Curve, length: float = 7.0, half: float = 3.2) -> tuple[Point, Point, Point]:
    """Corners of the arrow head at the end of a curve, along its last tangent."""
    (_, control, tip) = curve.pieces[-1]
    dx, dy = tip[0] - control[0], tip[1] - control[1]
    norm = (dx * dx + dy * dy) ** 0.5 or 1.0
    dx, dy = dx / norm, dy / norm
    back = (tip[0] - length * dx, tip[1] - length * dy)
    return tip, (back[0] - half * dy, back[1] + half * dx), (back[0] + half * dy, back[1] - half * dx)


def page_scale(scene: Scene, page: tuple[float, float] | None) -> float:
    """The factor that fits the scene into a page of so many inches, at most 1."""
    if page is None:
        return 1.0
    return min(1.0, page[0] * 72 / scene.width, page[1] * 72 / scene.height)


def save(scene: Scene, path: Path, page: tuple[float, float] | None = None, dpi: float = 144.0) -> None:
    """Write the scene to `path`, in the format of its suffix (.svg, .png, .pdf)."""
    if path.suffix.lower() == ".svg":
        path.write_text(svg(scene, page), encoding="utf-8")
        return
    from netspec.draw.canvas import figure, write

    scale = page_scale(scene, page)
    fig = figure(scene.width * scale / 72, scene.height * scale / 72)
    axes = fig.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, scene.width)
    axes.set_ylim(scene.height, 0)
    for order, item in enumerate(scene.items):
        _paint(axes, item, scale, order)
    dpi = min(dpi, MOST_PIXELS / (max(scene.width, scene.height) * scale / 72))
    with (
        warnings.catch_warnings()
    ):  # a sign that the font lacks is drawn as a box, which is no reason to stop
        warnings.filterwarnings("ignore", message=re.escape("Glyph "))
        write(fig, path, dpi=dpi)


def _paint(axes: Any, item: Item, scale: float, order: int) -> None:
    """Draw one item; `order` keeps later items above earlier ones, whatever their kinds."""
    from matplotlib.patches import FancyBboxPatch, PathPatch, Polygon

    match item:
        case Rect():
            style = f"round,pad=0,rounding_size={item.radius}" if item.radius else "square,pad=0"
            face: dict[str, Any] = {
                "facecolor": item.fill,
                "edgecolor": item.stroke,
                "linewidth": item.thick * scale,
            }
            axes.add_patch(
                FancyBboxPatch((item.x, item.y), item.w, item.h, boxstyle=style, zorder=order, **face)
            )
        case Text():
            axes.text(
                item.x,
                item.y,
                item.text,
                fontsize=item.size * scale,
                color=item.colour,
                family=FONT,
                fontweight="bold" if item.bold else "normal",
                va="center_baseline",
                parse_math=False,
                ha={"start": "left", "end": "right"}.get(item.anchor, "center"),
                zorder=order,
            )
        case Curve():
            dash = (0, (5, 4)) if item.dashed else "solid"
            pen: dict[str, Any] = {
                "edgecolor": item.colour,
                "linewidth": item.thick * scale,
                "linestyle": dash,
            }
            axes.add_patch(PathPatch(_outline(item), fill=False, zorder=order, **pen))
            if item.arrow:
                head = arrow_head(item)
                axes.add_patch(
                    Polygon(head, closed=True, facecolor=item.colour, edgecolor="none", zorder=order)
                )
        case Image():
            _paint_image(axes, item, order)


def _outline(item: Curve) -> Any:
    from matplotlib.path import Path as Outline

    points = [item.start, *(p for piece in item.pieces for p in piece)]
    return Outline(points, [Outline.MOVETO] + [Outline.CURVE4] * (len(points) - 1))


def _paint_image(axes: Any, item: Image, order: int) -> None:
    from matplotlib.transforms import Affine2D

    limits = axes.get_xlim(), axes.get_ylim()  # imshow changes them
    matrix = Affine2D.from_values(*item.across, *item.down, item.x, item.y)
    axes.imshow(
        item.pixels,
        extent=(0, 1, 1, 0),
        transform=matrix + axes.transData,
        interpolation="nearest",
        aspect="auto",
        clip_on=False,
        zorder=order,
    )
    axes.set_xlim(*limits[0])
    axes.set_ylim(*limits[1])
