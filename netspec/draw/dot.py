"""A Picture as graphviz source, and that source rendered by the `dot` program."""

from __future__ import annotations

import subprocess
from html import escape
from typing import Any

from netspec.draw.families import COLOURS
from netspec.draw.picture import Box, Line, Link, Picture, lines
from netspec.draw.text import FONT


class DotError(Exception):
    """`dot` is missing or refused the source; the text says which."""


def source(picture: Picture, rankdir: str = "TB", page: tuple[float, float] | None = None) -> str:
    """The graphviz source of a picture. Needs the `graphviz` package, but no program."""
    import graphviz

    graph = graphviz.Digraph(
        comment=picture.title,
        graph_attr={
            "rankdir": rankdir,
            "label": _legend(picture),
            "labelloc": "t",
            "fontname": FONT,
            "nodesep": "0.25",
            "ranksep": "0.3",
            "pad": "0.15",
            **({"size": f"{page[0]},{page[1]}"} if page else {}),
        },
        node_attr={"shape": "plain", "fontname": FONT, "fontsize": "10"},
        edge_attr={"fontname": FONT, "fontsize": "9", "color": "#555555", "arrowsize": "0.7"},
    )
    for i, box in enumerate(picture.boxes):
        graph.node(f"n{i}", label=_output(box) if box.output else _label(box))
    for link in picture.links:
        _edge(graph, link)
    for a, b, names in picture.shared:
        graph.edge(
            f"n{a}",
            f"n{b}",
            style="dashed",
            dir="none",
            constraint="false",
            color="#8c1515",
            tooltip=graphviz.escape(names),
        )
    return str(graph.source)


def _edge(graph: Any, link: Link) -> None:
    label = (
        _html([Line(f"\u00a0{text}\u00a0", 9.0, False, "#333333") for text in link.label], "LEFT")
        if link.label
        else ""
    )
    graph.edge(f"n{link.tail}", f"n{link.head}", label=f"<{label}>" if label else None)


def _legend(picture: Picture) -> str:
    cells = "".join(
        f'<TD BGCOLOR="{COLOURS[name]}" BORDER="1" COLOR="#777777" STYLE="ROUNDED">'
        f'<FONT POINT-SIZE="9">{_text(name)}</FONT></TD>'
        for name in picture.families
    )
    row = f'<TR><TD><TABLE BORDER="0" CELLSPACING="6" CELLPADDING="3"><TR>{cells}</TR></TABLE></TD></TR>'
    title = f'<TR><TD><FONT POINT-SIZE="14"><B>{_text(picture.title)}</B></FONT></TD></TR>'
    return f'<<TABLE BORDER="0" CELLBORDER="0">{title}{row if cells else ""}</TABLE>>'


def _output(box: Box) -> str:
    return f'<<TABLE BORDER="0"><TR><TD><I>{_text(box.output)}</I></TD></TR></TABLE>>'


def _label(box: Box) -> str:
    """Rounded table: the layer's lines, then a coloured cell for each in-place layer."""
    first, *rest = box.parts
    border = "2" if first.family == "loss" else "1"
    rows = [f"<TR><TD>{_html(lines(first))}</TD></TR>"]
    for part in rest:
        rows.append(
            f'<TR><TD BORDER="1" COLOR="#777777" STYLE="ROUNDED" BGCOLOR="{COLOURS[part.family]}">'
            f"{_html(lines(part))}</TD></TR>"
        )
    return (
        f'<<TABLE BORDER="{border}" COLOR="#444444" STYLE="ROUNDED" BGCOLOR="{COLOURS[first.family]}" '
        f'CELLBORDER="0" '
        f'CELLPADDING="4" CELLSPACING="3">{"".join(rows)}</TABLE>>'
    )


def _html(written: list[Line], align: str = "CENTER") -> str:
    texts = []
    for line in written:
        text = f"<B>{_text(line.text)}</B>" if line.bold else _text(line.text)
        texts.append(f'<FONT POINT-SIZE="{line.size:g}" COLOR="{line.colour}">{text}</FONT>')
    return f'<BR ALIGN="{align}"/>'.join(texts) + ('<BR ALIGN="LEFT"/>' if align == "LEFT" else "")


def _text(text: str) -> str:
    """Text for an HTML-like label; dot reads escapes such as \\N even there, so backslashes are doubled."""
    return escape(text).replace("\\", "&#92;&#92;")


def render(text: str, form: str, dpi: int = 144, timeout: float = 120.0) -> bytes:
    """A picture in the format `form` (svg, png, pdf) by the `dot` program; DotError when it cannot."""
    command = ["dot", f"-T{form}", *([f"-Gdpi={dpi}"] if form == "png" else [])]
    try:
        done = subprocess.run(command, input=text.encode(), capture_output=True, timeout=timeout, check=True)
    except FileNotFoundError:
        raise DotError("the `dot` program was not found") from None
    except subprocess.TimeoutExpired:
        raise DotError(f"the `dot` program took more than {timeout:g} s") from None
    except subprocess.CalledProcessError as error:
        words = error.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise DotError(f"the `dot` program failed: {words[-1]}") from error
    return done.stdout
