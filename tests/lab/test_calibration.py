"""The calibration error against a count by hand and a slow definition."""

from __future__ import annotations

import numpy as np
import pytest

from netspec.errors import DataError
from netspec.lab.calibration import calibration_error


def test_by_hand() -> None:
    """Four images at certainty 0.75, half right; two at 0.95, both right: (4 |0.5 - 0.75| + 2 |1 - 0.95|) / 6."""
    probabilities = np.array([[0.75, 0.25]] * 4 + [[0.05, 0.95]] * 2)
    labels = np.array([0, 0, 1, 1, 1, 1])
    assert calibration_error(probabilities, labels, bins=10) == pytest.approx((4 * 0.25 + 2 * 0.05) / 6)


def test_against_the_definition() -> None:
    generator = np.random.default_rng(0)
    probabilities = generator.dirichlet(np.full(5, 0.3), 400)
    labels = generator.integers(5, size=400)
    wanted = 0.0
    for b in range(15):
        inside = [p for p in range(400) if b / 15 < probabilities[p].max() <= (b + 1) / 15]
        if inside:
            accuracy = np.mean([probabilities[p].argmax() == labels[p] for p in inside])
            certainty = np.mean([probabilities[p].max() for p in inside])
            wanted += len(inside) / 400 * abs(accuracy - certainty)
    assert calibration_error(probabilities, labels) == pytest.approx(wanted, abs=1e-12)


def test_a_certain_and_right_method_has_none() -> None:
    assert calibration_error(np.eye(3), np.arange(3)) == 0
    assert calibration_error(np.eye(3), (np.arange(3) + 1) % 3) == 1


@pytest.mark.parametrize("probabilities", [np.zeros((0, 3)), np.full((1, 3), np.nan)])
def test_what_has_no_error(probabilities: np.ndarray) -> None:
    with pytest.raises(DataError, match="calibration"):
        calibration_error(probabilities, np.zeros(len(probabilities), int))
