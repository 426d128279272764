"""A net, made: the graph of its layers, their shapes and parameters, and the walk over them."""
