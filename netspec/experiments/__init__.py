"""Experiments in text files: plans, the sweeps that run them, and what came of them."""
