"""Two methods on the same images (facts I, B3), against statsmodels' definition by hand and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from netspec.lab.paired import Paired, paired

DRAWS = np.random.default_rng(0)
LABELS = DRAWS.integers(0, 3, 500)
ONE = np.where(DRAWS.random(500) < 0.8, LABELS, DRAWS.integers(0, 3, 500))
TWO = np.where(DRAWS.random(500) < 0.6, LABELS, DRAWS.integers(0, 3, 500))


def test_counts_are_those_of_the_table_of_both() -> None:
    pairs = paired(ONE, TWO, LABELS)
    assert pairs.first == sum(a == y != b for a, b, y in zip(ONE, TWO, LABELS, strict=True))
    assert pairs.second == sum(b == y != a for a, b, y in zip(ONE, TWO, LABELS, strict=True))
    assert pairs.neither == sum(len({a, b, y}) == 3 for a, b, y in zip(ONE, TWO, LABELS, strict=True))


def test_z_is_mcnemars_and_turns_round_with_the_methods() -> None:
    here, there = paired(ONE, TWO, LABELS), paired(TWO, ONE, LABELS)
    n10, n01 = here.first, here.second
    assert here.z == pytest.approx((n10 - n01) / (n10 + n01) ** 0.5)
    assert here.z == -there.z
    chance = stats.binomtest(n10, n10 + n01).pvalue  # the exact test of the same hypothesis
    assert here.p == pytest.approx(chance, rel=0.5)
    assert here.p == pytest.approx(2 * stats.norm.sf(abs(here.z)))


def test_z_is_0_for_equal_counts_and_where_nothing_differs() -> None:
    assert Paired(7, 7, 3).z == 0
    assert paired(ONE, ONE, LABELS) == Paired(0, 0, 0)
    assert Paired(0, 0, 0).z == Paired(0, 0, 0).z_of_all == 0
    assert Paired(0, 0, 0).p == 1


def test_the_literal_reading_counts_images_that_both_have_wrong() -> None:
    assert Paired(12, 4, 0).z_of_all == pytest.approx(Paired(12, 4, 0).z)
    assert Paired(12, 4, 9).z_of_all == pytest.approx(5 * (2 * 12 / 25 - 1))
