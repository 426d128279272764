"""STOCHASTIC pooling in TEST: windows whose sum is not positive."""

from __future__ import annotations

import pytest
import torch

from netspec.layers.basic.pools import Frame, stochastic_pool


def test_a_window_without_a_positive_sum_gives_0() -> None:
    """As Caffe's StoPoolForwardTest: (cumsum > 0) ? cumvalues / cumsum : 0."""
    x = (
        torch.tensor([[0.0, 0.0, -1.0, -2.0, 1.0, 3.0, 2.0, -2.0, 1.0, -2.0]])
        .view(1, 1, 1, 10)
        .requires_grad_()
    )
    y = stochastic_pool(x, Frame((1, 2), (1, 2), (0, 0)), random=False)
    assert y.flatten().tolist() == [0, 0, 2.5, 0, 0]
    y.sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert bool(x.grad.isfinite().all())


@pytest.mark.parametrize("random", [False, True])
def test_nan_in_a_window_gives_nan(random: bool) -> None:
    x = torch.tensor([[torch.nan, 1.0, 2.0, 2.0]]).view(1, 1, 1, 4)
    y = stochastic_pool(x, Frame((1, 2), (1, 2), (0, 0)), random=random).flatten()
    assert bool(y[0].isnan())
    assert y[1] == 2
