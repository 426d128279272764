"""Pictures: nets as graphs, tensors as grids and plots, the latent tree."""

from netspec.draw.answers import completion, explain
from netspec.draw.canvas import DrawError
from netspec.draw.columns import Panel, columns
from netspec.draw.features import feature_maps, filters
from netspec.draw.grids import grid
from netspec.draw.latent import Level, neurons, tree
from netspec.draw.network import Drawing, graph
from netspec.draw.plots import curves

__all__ = [
    "DrawError",
    "Drawing",
    "Level",
    "Panel",
    "columns",
    "completion",
    "curves",
    "explain",
    "feature_maps",
    "filters",
    "graph",
    "grid",
    "neurons",
    "tree",
]
