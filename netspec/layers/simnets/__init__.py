"""Layers of SimNets: similarities, MEX, regions, and the likelihood of a generative net."""
