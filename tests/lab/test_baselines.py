"""Baselines against scikit-learn, scipy's linear programs, and their own definitions."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from netspec.data.sets.datasets import load
from netspec.errors import DataError
from netspec.lab.baselines import (
    ByModel,
    Examples,
    Mean,
    Neighbours,
    RobustLinear,
    Zero,
    fit_robust,
    robust_objective,
    solve_robust,
)
from netspec.model import model


def random_images(n: int, seed: int, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, channels, 4, 5)).astype(np.uint8)


@pytest.mark.parametrize(("channels", "k"), [(1, 1), (1, 5), (2, 3)])
def test_neighbours_are_scikit_learns_on_the_observed_pixels(channels: int, k: int) -> None:
    """One classifier a test image, fitted on training images masked as it is: the released script's way."""
    training, tests = random_images(300, 1, channels), random_images(40, 2, channels)
    labels = np.random.default_rng(3).integers(0, 4, 300)
    observed = np.random.default_rng(4).random((40, channels, 4, 5)) < 0.6
    ours = Neighbours(training, labels, k, dtype=torch.float64)
    votes = ours.votes(tests, observed).numpy()
    for image, mask, vote in zip(tests, observed, votes, strict=True):
        seen = mask.ravel()
        theirs = KNeighborsClassifier(k, algorithm="brute").fit(
            training.reshape(300, -1)[:, seen] / 255, labels
        )
        wanted = theirs.predict_proba(image.reshape(1, -1)[:, seen] / 255)[0] * k
        np.testing.assert_allclose(vote, wanted)
    assert np.array_equal(ours.predict(tests, observed), votes.argmax(1))


def test_distances_are_sums_of_squares() -> None:
    training, tests = random_images(20, 1), random_images(7, 2)
    observed = np.random.default_rng(4).random((7, 1, 4, 5)) < 0.6
    distances = Neighbours(training, np.arange(20), dtype=torch.float64).distances(tests, observed).numpy()
    squares = ((tests[:, None] / 255 - training[None] / 255) ** 2 * observed[:, None]).sum((2, 3, 4))
    known = ((tests / 255) ** 2 * observed).sum((1, 2, 3))
    np.testing.assert_allclose(distances + known[:, None], squares, atol=1e-12)


def test_neighbours_on_digits() -> None:
    """In float32, as the table is made: scikit-learn's accuracy on whole images."""
    train, test = load("digits", "train"), load("digits", "test")
    ours = Neighbours(train.images, train.labels).predict(test.images, np.ones((len(test), 1, 8, 8), bool))
    theirs = KNeighborsClassifier(5).fit(train.images.reshape(len(train), -1), train.labels)
    wanted = theirs.predict(test.images.reshape(len(test), -1))
    assert (ours != wanted).mean() < 0.01  # equal distances may be broken in another way


def test_zero_and_mean_keep_what_is_observed() -> None:
    pixels = random_images(6, 5)
    observed = np.random.default_rng(6).random((6, 1, 4, 5)) < 0.5
    for imputer, value in (
        (Zero(), np.zeros(pixels.shape)),
        (Mean(pixels), np.full(pixels.shape, pixels.mean())),
        (Mean(pixels, per_pixel=True), np.broadcast_to(pixels.mean(0), pixels.shape)),
    ):
        filled = imputer.fill(pixels, observed)
        assert np.array_equal(filled[observed], pixels[observed])
        np.testing.assert_allclose(filled[~observed], value[~observed], rtol=1e-6)


@pytest.mark.parametrize("kind", ByModel.KINDS)
def test_a_model_fills_in(kind: str) -> None:
    net = model.load("nets/ht_cac_digits.prototxt")
    pixels = load("digits", "test").images[:5]
    observed = np.random.default_rng(6).random((5, 1, 8, 8)) < 0.5
    filled = ByModel(net, kind, seed=1).fill(pixels, observed)
    assert np.array_equal(filled[observed], pixels[observed])
    assert np.isfinite(filled).all()
    assert filled.min() >= 0
    assert filled.max() <= 255
    if kind == "expected":
        wanted = net.expected_completion(net.from_pixels(pixels, observed))[0]
        np.testing.assert_allclose(filled[~observed], net.to_pixels(wanted)[~observed], rtol=1e-5)


def test_an_unknown_completion() -> None:
    with pytest.raises(DataError, match="did you mean 'expected'"):
        ByModel(model.load("nets/ht_cac_digits.prototxt"), "expect")


def problem(m: int, d: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two classes that differ in the mean of some features; many zeros, as in digits."""
    random = np.random.default_rng(seed)
    y = np.where(np.arange(m) % 2 == 0, 1.0, -1.0)
    x = random.random((m, d)) * (random.random((m, d)) < 0.5 + 0.2 * y[:, None] * random.choice([-1, 1], d))
    return x, y


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("deleted", [0, 1, 2])
def test_the_worst_case_is_the_worst_of_all_deletions(deleted: int, scaled: bool) -> None:
    x, y = problem(5, 6, 1)
    random = np.random.default_rng(2)
    w, b = random.normal(size=6), float(random.normal())
    losses = []
    for xi, yi in zip(x, y, strict=True):
        worst = 0.0
        for size in range(deleted + 1):
            for gone in combinations(range(6), size):
                kept = np.ones(6)
                kept[list(gone)] = 0
                wanted = kept.sum() / 6 if scaled else 1.0
                worst = max(worst, wanted - yi * (w @ (kept * xi) + b))
        losses.append(worst)
    examples = Examples.of(torch.from_numpy(x), torch.from_numpy(y))
    bias, n = torch.tensor([b], dtype=torch.float64), torch.tensor([deleted])
    objective = robust_objective(examples, torch.from_numpy(w)[None], bias, n, scaled)
    assert float(objective) == pytest.approx(np.mean(losses), abs=1e-12)


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize(("deleted", "bound"), [(0, 0.5), (2, 0.5), (4, 0.2)])
def test_the_linear_program_is_the_problem(deleted: int, bound: float, scaled: bool) -> None:
    """Its optimum is the objective at its solution, and no random step improves it."""
    x, y = problem(30, 12, deleted)
    w, b, value = solve_robust(x, y, deleted, bound, scaled)
    examples = Examples.of(torch.from_numpy(x), torch.from_numpy(y))
    n = torch.tensor([deleted])

    def objective(w: np.ndarray, b: float) -> float:
        bias = torch.tensor([b], dtype=torch.float64)
        return float(robust_objective(examples, torch.from_numpy(w)[None], bias, n, scaled))

    assert np.abs(w).max() <= bound + 1e-9
    assert objective(w, b) == pytest.approx(value, abs=1e-9)
    random = np.random.default_rng(0)
    for size in (1e-1, 1e-2, 1e-3):
        step = random.normal(size=(50, 13)) * size
        assert min(objective(np.clip(w + s[:12], -bound, bound), b + s[12]) for s in step) >= value - 1e-9


@pytest.mark.parametrize("scaled", [True, False])
def test_subgradients_come_near_the_optimum(scaled: bool) -> None:
    """A grid of problems at once, each within 3 % of its linear program's optimum."""
    x, y = problem(80, 30, 7)
    grid = [(n, c) for n in (0, 2, 5) for c in (0.1, 0.5)]
    numbers = torch.tensor([n for n, _ in grid])
    bounds = torch.tensor([c for _, c in grid], dtype=torch.float64)
    solution = fit_robust(torch.from_numpy(x), torch.from_numpy(y), numbers, bounds, scaled, 1000)
    for (n, c), value, w in zip(grid, solution.objective.tolist(), solution.w, strict=True):
        optimum = solve_robust(x, y, n, c, scaled)[2]
        assert optimum - 1e-9 <= value <= 1.03 * optimum + 2e-3
        assert float(w.abs().max()) <= c + 1e-12


def test_robust_pairs_vote() -> None:
    train, test = load("digits", "train"), load("digits", "test")
    method = RobustLinear(train.images, train.labels, deleted=2, bound=1.0, steps=100)
    right = method.predict(test.images, np.ones((len(test), 1, 8, 8), bool)) == test.labels
    assert right.mean() > 0.9
