"""Interchange: weights, solver states and nets of other programs, in and out."""

from __future__ import annotations

from netspec.interchange.weights import load_weights, read_weights, save_weights

__all__ = ["load_weights", "read_weights", "save_weights"]
