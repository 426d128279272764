"""Layers of rendering models: values worked out one by one."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from torch import Tensor

from netspec.errors import SpecError
from tests.rendering.test_rendering import DOUBLE, net_of


def layer(kind: str, bottoms: list[Tensor], param: str = "", tops: int = 1) -> list[Tensor]:
    """The tops of one layer, given its bottoms."""
    lines = []
    for i, bottom in enumerate(bottoms):
        dims = " ".join(f"dim: {n}" for n in bottom.shape)
        lines.append(
            f'layer {{ name: "b{i}" type: "Input" top: "b{i}" input_param {{ shape {{ {dims} }} }} }}'
        )
    names = " ".join(f'bottom: "b{i}"' for i in range(len(bottoms)))
    made = " ".join(f'top: "t{i}"' for i in range(tops))
    lines.append(f'layer {{ name: "it" type: "{kind}" {names} {made} {param} }}')
    return list(net_of("\n".join(lines))(*bottoms))[:tops]  # a loss comes once more behind them


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


@pytest.mark.parametrize("mode", ["REPEAT", "MEAN"])
@pytest.mark.parametrize("size", [(5, 6), (6, 6), (6, 4), (7, 8)])
def test_unpooling_without_switches(mode: str, size: tuple[int, int]) -> None:
    """Windows of 2 x 2 on sides that fit, are cut short, or leave a rest."""
    z = noise(2, 3, 3, 3)[..., : math.ceil(min(size[1], 6) / 2)]
    (up,) = layer("Unpooling", [z, noise(2, 1, *size)], f"unpool_param {{ mode: {mode} kernel_size: 2 }}")
    assert up.shape == (2, 3, *size)
    rows, columns = z.shape[2:]
    for y, x in product(*map(range, size)):
        cell = z[:, :, min(y // 2, rows - 1), min(x // 2, columns - 1)]
        if mode == "MEAN":
            inside = y < 2 * rows and x < 2 * columns
            shares = min(2, size[0] - y // 2 * 2) * min(2, size[1] - x // 2 * 2)
            cell = cell / shares if inside else cell * 0
        torch.testing.assert_close(up[:, :, y, x], cell)


def test_unpooling_puts_each_value_at_its_switch() -> None:
    u = noise(2, 3, 5, 7)
    z, places = torch.nn.functional.max_pool2d(u, 2, ceil_mode=True, return_indices=True)
    (up,) = layer("Unpooling", [z, places.to(DOUBLE), u], "unpool_param { kernel_size: 2 }")
    wanted = torch.zeros_like(u)
    for n, c, y, x in product(*map(range, z.shape)):
        place = int(places[n, c, y, x])
        wanted[n, c, place // 7, place % 7] = z[n, c, y, x]
    assert torch.equal(up, wanted)


def test_a_mask_is_one_above_its_threshold() -> None:
    u = torch.tensor([[-1.0, 0.0, 0.2, 0.3, torch.nan]], dtype=DOUBLE)
    assert layer("RenderingMask", [u])[0].tolist() == [[0, 0, 1, 1, 0]]
    (leaky,) = layer("RenderingMask", [u], "rendering_mask_param { threshold: 0.2 leak: 0.1 }")
    torch.testing.assert_close(
        leaky, torch.tensor([[0.1, 0.1, 0.1, 1, 0.1]], dtype=DOUBLE), rtol=0, atol=1e-8
    )


def test_a_label_goes_before_the_scores() -> None:
    scores = torch.tensor([[1.0, 3, 2], [5, 5, 0], [0, 1, 2], [0, 1, 2]], dtype=DOUBLE)
    assert layer("ArgMaxOneHot", [scores])[0].argmax(1).tolist() == [1, 0, 2, 2]
    labels = torch.tensor([0.0, 2, torch.nan, -1], dtype=DOUBLE)
    (top,) = layer("ArgMaxOneHot", [scores, labels], "loss_param { ignore_label: -1 }")
    assert top.tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 1], [0, 0, 1]]
    (down,) = layer("ArgMaxOneHot", [scores], "argmax_one_hot_param { axis: 0 }")
    assert down.argmax(0).tolist() == [1, 1, 0]
    assert float(down.sum()) == 3


@pytest.mark.parametrize("power", [1.0, 2.0, 3.0])
def test_negative_values_cost(power: float) -> None:
    z = torch.tensor([[1.0, -2, 0, -0.5]], dtype=DOUBLE)
    (loss,) = layer("NonNegativityLoss", [z], f"non_negativity_param {{ power: {power:g} }}")
    assert float(loss) == pytest.approx((2**power + 0.5**power) / 4)
    assert float(layer("NonNegativityLoss", [z.abs()])[0]) == 0


@pytest.mark.parametrize("sign", [1, -1])
def test_kl_against_a_prior_with_either_sign(sign: int) -> None:
    x = noise(4, 3)
    param = f"prior_kl_param {{ sign: {sign} prior: 1 prior: 2 prior: 5 }}"
    q = torch.distributions.Categorical(logits=x)
    prior = torch.distributions.Categorical(probs=torch.tensor([1.0, 2, 5], dtype=DOUBLE))
    wanted = sign * torch.distributions.kl_divergence(q, prior).mean()
    torch.testing.assert_close(layer("PriorKLLoss", [x], param)[0], wanted, rtol=1e-6, atol=1e-7)
    with pytest.raises(SpecError, match=r"sign 0 leaves no loss"):
        layer("PriorKLLoss", [x], "prior_kl_param { sign: 0 }")
