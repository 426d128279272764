"""The tables and pictures of docs/results."""
