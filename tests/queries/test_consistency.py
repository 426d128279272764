"""The checks of tools/results/consistency.py, on small nets: probabilities of a net agree with each other."""

from __future__ import annotations

import pytest
import torch

from netspec.net.net import Net
from netspec.queries.likelihood import log_likelihood
from netspec.queries.tree import Tree
from tests.oracle import Level, Model
from tools.results.consistency import completions, inked, limit, nothing_observed, sampled_means

MODEL = Model(4, 2, 3, (Level(2, region=1, pool=2),))


def tree(seed: int, fudge: float = 0.0) -> Tree:
    net: Net = MODEL.net(seed).requires_grad_(False)
    made = Tree(net)
    made.leaf.param.normalization_term_fudge = fudge
    return made


def half(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn((1, 1, 4, 4), generator=generator, dtype=torch.float64)
    x[0, 0, 0] = torch.nan
    return x


@pytest.mark.parametrize("places", [[(2, 2)], [(2, 2), (3, 2)], [(1, 1), (2, 2)]])
def test_log_p_is_the_log_sum_exp_over_completions(places: list[tuple[int, int]]) -> None:
    model, x = tree(1), half(1)
    without = x.clone()
    for row, column in places:
        without[0, 0, row, column] = torch.nan
    wanted = float(log_likelihood(model, without))
    assert limit(model, x, places) == pytest.approx(wanted, abs=1e-12)
    errors = [abs(completions(model, x, places, spacing)[0] - wanted) for spacing in (2.0, 1.0, 0.25)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-7


def test_the_limit_counts_what_the_fudge_adds() -> None:
    model, x = tree(2, fudge=0.1), half(2)
    value = completions(model, x, [(2, 2)], 0.2)[0]
    without = x.clone()
    without[0, 0, 2, 2] = torch.nan
    assert value == pytest.approx(limit(model, x, [(2, 2)]), abs=1e-7)
    assert value > float(log_likelihood(model, without)) + 0.01


def test_the_mean_of_completions_tends_to_the_expected_one() -> None:
    """4 missing pixels in each of 1600 images: the error's own deviation is at most 1 in 100."""
    means = sampled_means(tree(3), half(3).expand(1600, -1, -1, -1), [4, 16, 64], seed=1)
    for _, error, wanted in means:
        assert error == pytest.approx(wanted, rel=0.04)
    assert means[0][2] == pytest.approx(4 * means[2][2])


def test_nothing_observed() -> None:
    assert nothing_observed(tree(4)) < 1e-12


def test_pixels_of_one_patch_and_of_two() -> None:
    x = torch.zeros(1, 1, 12, 12)
    x[0, 0, 6, 6] = torch.nan
    assert inked(x, apart=False) == [(6, 8), (7, 8)]
    assert inked(x, apart=True) == [(6, 8), (6, 10)]
