"""Pictures: nets as graphs, tensors as grids and plots, the latent tree, the report of a run."""

from netspec.draw.canvas import DrawError
from netspec.draw.network import Drawing, graph

__all__ = ["DrawError", "Drawing", "graph"]
