"""The documentation site: its pictures of pages, and its command blocks, run."""
