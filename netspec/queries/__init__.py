"""Questions to a generative net: pure functions of a tree and its inputs."""
