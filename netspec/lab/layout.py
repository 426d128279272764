"""What a table of the laboratory is asked to hold: its columns (settings) and its rows (methods)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SEED = 2018
"""Of the masks, unless another is given."""


@dataclass(frozen=True)
class Columns:
    """The settings: shares of missing pixels ("0.5"), rectangles ("1x7") and others by name ("nonzero:50").

    repeats: masks drawn for each image. seed: of the masks.
    """

    iid: Sequence[str] = ()
    rects: Sequence[str] = ()
    others: Sequence[str] = ()
    repeats: int = 1
    seed: int = SEED


@dataclass(frozen=True)
class Rows:
    """The methods beside the runs themselves.

    impute: imputations for runs that take no missing pixels, see `netspec.lab.imputing`; default zero and mean;
    expected, most_probable and sampled come from the first generative run. shifts: sum scores over the nine
    translations by at most a pixel. mixture: a row more, all generative runs as one (`netspec.model.mixture`).
    neighbours: k of a nearest-neighbour row, which learns from all training images (0: none). robust: (N, C) of
    rows of robust linear classifiers, which learn from the first 6,000.
    """

    impute: Sequence[str] = ()
    shifts: bool = False
    mixture: bool = False
    neighbours: int = 0
    robust: Sequence[tuple[int, float]] = ()


COMPLETE = Columns()
"""Nothing missing: the one setting clean."""
ALONE = Rows()
"""The runs and nothing beside them."""
