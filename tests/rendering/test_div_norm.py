"""DivNorm against its definition, position by position."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from netspec.errors import SpecError
from netspec.net.make import make_net

NET = """layer {{ name: "in" type: "Input" top: "x" input_param {{ shape {{ dim: 2 dim: 3 dim: 5 dim: 4 }} }} }}
layer {{ name: "norm" type: "DivNorm" bottom: "x" top: "y" div_norm_param {{ kernel_size: {0} }} }}
"""


def slowly(x: np.ndarray, side: int, alpha: float, sigma: float, bias: float) -> np.ndarray:
    """The definition with loops; what lies outside counts as 0 in both means."""
    n, channels, height, width = x.shape
    reach, count = side // 2, channels * side * side

    def around(values: np.ndarray) -> np.ndarray:
        means = np.zeros((n, 1, height, width))
        for row in range(height):
            for column in range(width):
                rows = slice(max(row - reach, 0), row + reach + 1)
                columns = slice(max(column - reach, 0), column + reach + 1)
                means[:, 0, row, column] = values[:, :, rows, columns].sum((1, 2, 3)) / count
        return means

    centred = x - around(x)
    return centred / np.sqrt((alpha + around(centred**2) / sigma**2) / 2) + bias


@pytest.mark.parametrize("side", [1, 3, 5])
def test_definition(side: int) -> None:
    net = make_net(NET.format(side)).double()
    assert [one.value.item() for one in net.params] == [1, 0.5, 0]
    values = (0.7, 0.3, -0.2)
    with torch.no_grad():
        for one, value in zip(net.params, values, strict=True):
            one.value.fill_(value)
        x = torch.randn(2, 3, 5, 4, dtype=torch.float64)
        (y,) = net(x)
    np.testing.assert_allclose(y.numpy(), slowly(x.numpy(), side, *values), rtol=1e-10)


def test_an_image_without_contrast_is_the_bias() -> None:
    net = make_net(NET.format(1))
    with torch.no_grad():
        net.params[0].value.zero_()
        net.params[2].value.fill_(0.25)
        (y,) = net(torch.full((2, 3, 5, 4), 3.0))
    assert torch.equal(y, torch.full_like(y, 0.25))


@pytest.mark.parametrize("side", [0, 2, 13])
def test_windows_that_are_none(side: int) -> None:
    with pytest.raises(SpecError, match="needs an odd kernel_size of at most 11"):
        make_net(NET.format(side))
