"""Layers of ordinary networks: convolution, pooling, pointwise functions, shapes, recurrence."""
