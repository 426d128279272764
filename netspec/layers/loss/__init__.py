"""Losses and measures: what compares scores with labels."""
