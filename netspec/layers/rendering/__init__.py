"""Layers of rendering mixture models."""
