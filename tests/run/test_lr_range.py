"""The learning-rate range test: on a quadratic whose stable rates are known, and at its edges."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from netspec.errors import NetspecError
from netspec.run.lr_range import Range, draw_range, lr_range

NET = """net_param {
layer { name: "d" type: "DummyData" top: "x" top: "y" dummy_data_param {
  data_filler { type: "constant" value: 2 } data_filler { type: "constant" value: 1 } shape { dim: 1 dim: 1 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" inner_product_param {
  num_output: 1 bias_term: false weight_filler { type: "constant" value: 3 } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "y" top: "loss" } }
base_lr: 0.1 lr_policy: "step" stepsize: 1 gamma: 0.1 max_iter: 10 random_seed: 1 solver_mode: CPU
"""


def solver(folder: Path, text: str = NET) -> Path:
    path = folder / "s_solver.prototxt"
    path.write_text(text)
    return path


def test_a_quadratic(tmp_path: Path) -> None:
    """Loss (2w - 1)^2 / 2 has curvature 4: gradient descent is stable below a rate of 0.5."""
    curve = lr_range(solver(tmp_path), low=1e-4, high=100, iterations=60, progress=False)
    w, losses = 3.0, []
    for rate in curve.rates:
        losses.append((2 * w - 1) ** 2 / 2)
        w -= float(np.float32(rate)) * 2 * (2 * w - 1)
    assert curve.losses == pytest.approx(losses, rel=1e-3)
    assert curve.rates[-1] < 100  # it ended where the loss had risen
    assert 1e-3 < curve.proposal < 0.5
    assert curve.proposal <= curve.lowest / 3 + 1e-12
    assert draw_range(curve, tmp_path / "range.svg").stat().st_size > 1000


def test_the_proposal_is_where_the_loss_falls_fastest() -> None:
    rates = np.geomspace(1e-5, 10, 61)
    loss = 2 - 1.5 / (1 + np.exp(-4 * (np.log10(rates) + 2))) + (np.log10(rates) > 0) * 5
    curve = Range(rates.tolist(), loss.tolist(), loss.tolist())
    assert curve.steepest == pytest.approx(1e-2, rel=0.3)
    assert curve.proposal == curve.steepest


@pytest.mark.parametrize(
    ("change", "options", "complaint"),
    [
        (("", ""), {"low": 2.0, "high": 1.0}, "0 < 2 < 1"),
        (("", ""), {"low": 1e30, "high": 1e38}, "begin lower"),
        (('type: "EuclideanLoss"', 'type: "EuclideanLoss" loss_weight: 0'), {}, "has no loss"),
    ],
)
def test_mistakes(change: tuple[str, str], options: dict[str, float], complaint: str, tmp_path: Path) -> None:
    with pytest.raises(NetspecError, match=complaint):
        lr_range(solver(tmp_path, NET.replace(*change)), progress=False, **options)  # type: ignore[arg-type]
