"""Damaged and random inputs for every reader."""
