"""What a model answers, as values that a notebook shows: the pictures of `pages`, without a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from netspec.data.files.idx import Array
from netspec.draw.notebook import Picture, shown
from netspec.model import latent_pages, pages
from netspec.model.model import Model


def samples(
    trained: Model, columns: int = pages.COLUMNS, classes: Sequence[int] = (), **options: Any
) -> Picture:
    """Ancestral samples, a row per class; options as of `pages.sample_grid`. Of a model of a table each column of
    `count` samples (1000) beside the table's own.
    """
    if trained.is_table:
        from netspec.model.columns import draw_sampled
        from netspec.model.rows import TableModel

        return shown(lambda path: draw_sampled(TableModel(trained), path, **options))
    return shown(lambda path: pages.sample_grid(trained, path, columns, classes, **options))


def completions(trained: Model, pixels: Array, observed: Array, **options: Any) -> Picture:
    """Images, what is seen of them, their completions; options as of `pages.completion_page`."""
    return shown(lambda path: pages.completion_page(trained, pixels, observed, path, **options))


def explanation(trained: Model, pixels: Array, labels: Sequence[int], **options: Any) -> Picture:
    """What each patch says for a class; options as of `pages.explanation_page`."""
    return shown(lambda path: pages.explanation_page(trained, pixels, labels, path, **options))


def tree(trained: Model, pixels: Array | None = None, y: int | None = None, **options: Any) -> Picture:
    """A sample, or an image (C, H, W), as its latent tree; options as of `latent_pages.tree_page`."""
    return shown(lambda path: latent_pages.tree_page(trained, path, pixels, y, **options))


def neurons(trained: Model, level: str | None = None, **options: Any) -> Picture:
    """What the states of a level stand for; options as of `latent_pages.neurons_page`."""
    return shown(lambda path: latent_pages.neurons_page(trained, path, level, **options))
