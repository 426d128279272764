"""ONNX's operators in torch's, those that Caffe has layers for, and those that only shapes and constants need.

Importing this package fills `graph.OPERATORS`.
"""

from __future__ import annotations

from netspec.interchange.onnx_nets.operators import (
    products,
    reductions,
    repeating,
    resizing,
    shapes,
    values,
    windows,
)

__all__ = ["products", "reductions", "repeating", "resizing", "shapes", "values", "windows"]
