"""Nets as pictures: pycaffe's draw module on netspec's drawing, which needs neither pydot nor dot."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from netspec import draw as pictures
from netspec import schema
from netspec.draw import dot
from netspec.draw.picture import picture
from netspec.schema.spec import LayerSpec, NetSpec, keeps, phase_name

SOURCES = ("raw", "dot", "gv")
RANKDIRS = ("TB", "BT", "LR", "RL")


class Drawing:
    """A net to be drawn, with the methods of a pydot graph that scripts use."""

    def __init__(self, spec: NetSpec, rankdir: str):
        self.spec, self.rankdir = spec, rankdir

    def to_string(self) -> str:
        """The graphviz source."""
        return dot.source(picture(self.spec), self.rankdir)

    def create(self, prog: Any = None, format: str = "png") -> bytes:
        """The picture in a format: png, svg, pdf; raw, dot or gv for the graphviz source."""
        if format in SOURCES:
            return self.to_string().encode()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"net.{format}"
            pictures.graph(self.spec, path, rankdir=self.rankdir)
            return path.read_bytes()

    def write(self, path: str | Path, prog: Any = None, format: str = "raw") -> bool:
        """Write the picture to a file."""
        Path(path).write_bytes(self.create(prog, format))
        return True

    def create_png(self) -> bytes:
        """The picture as PNG."""
        return self.create(format="png")

    def write_png(self, path: str | Path) -> bool:
        """Write the picture as PNG."""
        return self.write(path, format="png")


def spec_of(net: Any, phase: int | None) -> NetSpec:
    """The layers of a NetParameter of any syntax, of one phase or all; nothing has to fit together."""
    document = schema.parse_net(schema.print_text(net) or "name: ''", "<message>", unknown="keep")
    message = document.message
    layers = tuple(
        LayerSpec(layer.name, layer.type, tuple(layer.bottom), tuple(layer.top), layer, document)
        for layer in message.layer
        if phase is None or keeps(layer, phase_name(phase), (), 0)
    )
    return NetSpec(message.name, phase_name(phase or 0), layers, bool(message.force_backward))


def get_pydot_graph(
    caffe_net: Any,
    rankdir: str,
    label_edges: bool = True,
    phase: int | None = None,
    display_lrm: bool = False,
) -> Drawing:
    """The drawing of a NetParameter.

    rankdir: direction of the data, TB, BT, LR or RL; another word is taken as TB. phase: TRAIN or TEST
    leaves out layers of the other. Edges are always labelled with the blob where its name is not its layer's.
    """
    return Drawing(spec_of(caffe_net, phase), rankdir if rankdir in RANKDIRS else "TB")


def draw_net(
    caffe_net: Any, rankdir: str, ext: str = "png", phase: int | None = None, display_lrm: bool = False
) -> bytes:
    """The picture of a NetParameter as bytes of a file with the ending `ext`."""
    return get_pydot_graph(caffe_net, rankdir, phase=phase).create(format=ext)


def draw_net_to_file(
    caffe_net: Any,
    filename: str | Path,
    rankdir: str = "LR",
    phase: int | None = None,
    display_lrm: bool = False,
) -> None:
    """Draw a NetParameter into a file; its ending gives the format (`.raw` is the graphviz source)."""
    ext = Path(filename).suffix[1:]
    Path(filename).write_bytes(draw_net(caffe_net, rankdir, ext, phase))
