"""A PyTorch module as prototxt and caffemodel."""
