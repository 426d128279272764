"""The evolutionary DRMM: greedy against exhaustive inference, growth, forests beside scikit-learn's."""

from __future__ import annotations

import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.tree import DecisionTreeClassifier
from torch import Tensor

from netspec.rendering.trees import ClassTrees, EvolutionaryTree, Forest, grow

DOUBLE = torch.float64


def evolved(depth: int, branching: int, shrink: float, generator: torch.Generator) -> EvolutionaryTree:
    """A tree whose mutations are `shrink` times smaller from level to level."""
    templates, views = [torch.randn(1, 40, generator=generator, dtype=DOUBLE)], []
    for level in range(depth):
        parents = templates[-1].repeat_interleave(branching, 0)
        mutation = torch.randn(parents.shape, generator=generator, dtype=DOUBLE) * 10 * shrink**level
        views.append(torch.ones(len(templates[-1]), 40, dtype=DOUBLE))
        templates.append(parents + mutation)
    return EvolutionaryTree(templates, views)


@pytest.mark.parametrize("branching", [2, 3])
def test_greedy_is_exhaustive_when_subtrees_are_apart(branching: int) -> None:
    generator = torch.Generator().manual_seed(branching)
    tree = evolved(4, branching, 0.1, generator)
    x = tree.sample(500, 0.001, generator)
    assert torch.equal(tree.route(x), tree.nearest(x))
    assert len(tree.nearest(x).unique()) > branching**3


def test_greedy_may_err_when_they_are_not() -> None:
    generator = torch.Generator().manual_seed(0)
    tree = evolved(4, 2, 1.5, generator)
    x = tree.sample(500, 0.001, generator)
    assert not torch.equal(tree.route(x), tree.nearest(x))


def test_templates_are_sums_of_mutations() -> None:
    tree = evolved(3, 2, 0.5, torch.Generator().manual_seed(0))
    total = tree.templates[0][0]
    for level, node in ((1, 1), (2, 2), (3, 5)):
        total = total + tree.mutations(level)[node]
    torch.testing.assert_close(total, tree.templates[3][5])


def test_growing_finds_the_templates_that_made_the_data() -> None:
    generator = torch.Generator().manual_seed(5)
    tree = evolved(3, 2, 0.2, generator)
    x = tree.sample(2000, 0.05, generator)
    grown = grow(x, depth=3, generator=generator)
    gaps = torch.cdist(tree.templates[3], grown.templates[3]).amin(1)
    assert float(gaps.max()) < 0.1


def test_a_tree_for_fewer_examples_than_leaves() -> None:
    x = torch.randn(3, 5, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    labels = torch.tensor([0, 1, 1])
    tree = grow(x, labels, 2, depth=4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(tree.posterior(x).argmax(1), labels)


def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    data = load_digits()
    x, y = torch.from_numpy(data.data / 16).float(), torch.from_numpy(data.target)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    x, y = x[order], y[order]
    return x[:1200], y[:1200], x[1200:], y[1200:]


def accuracy(scores: Tensor, labels: Tensor) -> float:
    return float((scores.argmax(1) == labels).float().mean())


def test_forests_beat_their_trees_and_a_plain_decision_tree() -> None:
    x, y, x_test, y_test = digits()
    generator = torch.Generator().manual_seed(1)
    forest = Forest.grow(x, y, 10, trees=20, depth=7, generator=generator)
    single = accuracy(forest.trees[0].posterior(x_test), y_test)
    whole = accuracy(forest.posterior(x_test), y_test)
    plain = DecisionTreeClassifier(random_state=0).fit(x.numpy(), y.numpy())
    assert whole > single
    assert whole > float(plain.score(x_test.numpy(), y_test.numpy()))


def test_class_trees_classify() -> None:
    x, y, x_test, y_test = digits()
    trees = ClassTrees.grow(x, y, 10, depth=4, generator=torch.Generator().manual_seed(1))
    assert accuracy(trees.scores(x_test), y_test) > 0.93


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_grows_the_tree_that_a_cpu_grows() -> None:
    x = evolved(3, 2, 0.2, torch.Generator().manual_seed(5)).sample(
        400, 0.05, torch.Generator().manual_seed(6)
    )
    labels = (x[:, 0] > 0).long()
    trees = [
        grow(x.to(device), labels.to(device), 2, 3, share=0.8, generator=torch.Generator().manual_seed(7))
        for device in ("cpu", "cuda")
    ]
    ours, theirs = (tree.posterior(x.to(tree.templates[0].device)).cpu() for tree in trees)
    torch.testing.assert_close(theirs, ours)
    assert trees[1].sample(3, 0.1, torch.Generator().manual_seed(0)).is_cuda
    forest = Forest.grow(x.cuda(), labels.cuda(), 2, trees=2, depth=2, generator=torch.Generator())
    assert forest.posterior(x.cuda()).is_cuda
