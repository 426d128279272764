"""Makers of generated files."""
