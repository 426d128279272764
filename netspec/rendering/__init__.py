"""Rendering mixture models: inference, rendering, training without gradients, and their relatives, the trees.

`RenderingModel(net)` reads a net as levels that render; the other modules use it.
"""

from netspec.rendering.levels import Level, RenderingModel, Switches, best_scale, relative_error

__all__ = ["Level", "RenderingModel", "Switches", "best_scale", "relative_error"]
