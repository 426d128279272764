"""Losses and poolings of single forks against loops written from their formulas, or worked by hand."""

from __future__ import annotations

from itertools import islice
from math import exp

import numpy as np
import pytest
import torch
from torch import Tensor

from netspec import schema
from netspec.layers.basic.bilinear import c_rand
from netspec.net.make import make_net
from netspec.net.net import Net
from tests.cases import all_cases
from tests.cases.rare import WEIGHTS

CASES = {case.name: case for case in all_cases()}


def made(name: str) -> Net:
    case = CASES[name]
    return make_net(schema.parse_net(case.text, name), case.phase, seed=1)


def value(name: str, *inputs: Tensor) -> float:
    return float(made(name)(*inputs)[-1].detach())


def test_weighted_euclidean() -> None:
    a, b = torch.randn(2, 2, 3)
    wanted = sum(
        float(WEIGHTS[i, j] * 3 / WEIGHTS[i].sum() * (a[i, j] - b[i, j]) ** 2)
        for i in range(2)
        for j in range(3)
    )
    assert value("weighted_euclidean", a, b, WEIGHTS) == pytest.approx(wanted / 4)


def test_weight_euclidean() -> None:
    a, b = torch.randn(2, 2, 136)
    coarse = {18, 22, 23, 27, 37, 40, 43, 46, 28, 32, 36, 49, 55}
    wanted = 0.0
    for n in range(2):
        size = float(torch.hypot(b[n, 36] - b[n, 42], b[n, 68 + 39] - b[n, 68 + 45]))
        for i in range(136):
            point = i % 68
            weight = 3 if point + 1 in coarse else 0.5 if point < 17 else 2
            wanted += weight * float(a[n, i] - b[n, i]) ** 2 / size / 4
    assert value("weight_euclidean", a, b) == pytest.approx(wanted, rel=1e-4)


def test_weight_euclidean_of_the_box() -> None:
    """Points in [0, 1]: the diagonal of their box; the factor counts once in the gradient's square and once not."""
    a, b, m = torch.rand(3, 2, 136)
    wanted = 0.0
    for n in range(2):
        x, y = b[n, :68], b[n, 68:]
        size = float(torch.hypot(x.max() - x.min(), y.max() - y.min()))
        wanted += float((m[n] * (a[n] - b[n]) ** 2).sum()) / size / 4
    assert value("weight_euclidean_box", a, b, m) == pytest.approx(wanted, rel=1e-4)


def test_codes() -> None:
    a = torch.tensor([[0.0, 1, 0.5, 0.25]] * 3)
    assert value("binary_codes", a, a) == pytest.approx(-3 * (0.25 + 0.25 + 0.0625) / (2 * 12 * 3))
    assert value("even_codes", a, a) == pytest.approx((0.4375 - 0.5) ** 2 / 6)


def test_kernel_loss() -> None:
    a, b = torch.randn(2, 3, 4)
    c, d = CASES["kernel_loss"].inputs.values()
    wanted = 0.0
    for i in range(3):
        near = exp(-float((a[i] - b[i]).square().sum()) / 4)
        wanted += (-1 if c[i] == d[i] else 1) * (1 - near) / 3
    assert value("kernel_loss", a, b, c, d) == pytest.approx(wanted, rel=1e-5)


def test_dice() -> None:
    a, b = torch.rand(2, 3, 4)
    a.requires_grad_(True)
    share = [
        (2 * float((x * y).sum()) + 1) / float((x * x).sum() + (y * y).sum() + 1)
        for x, y in zip(a.detach(), b, strict=True)
    ]
    loss = made("dice_loss_rows")(a, b)[-1]
    assert float(loss.detach()) == pytest.approx(1 - sum(share) / 3)
    loss.backward()
    for i in range(3):
        total = float((a[i] * a[i]).sum().detach() + (b[i] * b[i]).sum() + 1)
        wanted = (-2 * b[i] + 2 * share[i] * a[i].detach()) / total
        torch.testing.assert_close(a.grad[i], wanted)


def test_rank_hard() -> None:
    x = torch.randn(6, 4)
    label = CASES["rank_hard"].inputs["label"]
    wanted = 0.0
    for i in (0, 2, 4):
        own = float(x[i] @ x[i + 1])
        for j in range(6):
            if label[j] == label[i]:
                continue
            first = 3 - own + float(x[i] @ x[j])
            if first > 0:
                wanted += first + max(0.0, 3 - own + float(x[i + 1] @ x[j]))
    assert value("rank_hard", x, label) == pytest.approx(wanted / 36, rel=1e-5)


def test_rank_hard_draws_one_near_and_one_of_the_rest() -> None:
    """Every other costs; of four, 1 of the 2 nearest and 1 of the rest count for each pair."""
    label = CASES["rank_hard"].inputs["label"]
    seen = set()
    for seed in range(20):
        torch.manual_seed(seed)
        x = torch.eye(6)[:, :4] * 0.1
        x.requires_grad_(True)
        made("rank_hard_drawn")(x, label)[-1].backward()
        seen.add(tuple(np.round(x.grad.flatten().tolist(), 6)))
    assert len(seen) > 3


def test_c_rand_is_that_of_glibc() -> None:
    """The first numbers of rand() after srand(1) and srand(42), as C programs on Linux print them."""
    assert list(islice(c_rand(1), 5)) == [1804289383, 846930886, 1681692777, 1714636915, 1957747793]
    assert list(islice(c_rand(42), 3)) == [71876166, 708592740, 1483128881]


@pytest.mark.parametrize("name", ["compact_bilinear", "compact_bilinear_places"])
def test_compact_bilinear(name: str) -> None:
    pools = name == "compact_bilinear"
    shapes, number = (((2, 3, 2, 2), (2, 5, 2, 2)), 8) if pools else (((1, 4, 2, 3),) * 2, 6)
    a, b = (torch.randn(shape) for shape in shapes)
    numbers = c_rand(1)
    tables = []
    for shape in shapes:
        place = [next(numbers) % number for _ in range(shape[1])]
        tables.append((place, [2 * (next(numbers) % 2) - 1 for _ in range(shape[1])]))
    (place_a, sign_a), (place_b, sign_b) = tables
    wanted = torch.zeros(shapes[0][0], number, *shapes[0][2:])
    for i in range(shapes[0][1]):
        for j in range(shapes[1][1]):
            wanted[:, (place_a[i] + place_b[j]) % number] += (
                number * sign_a[i] * sign_b[j] * a[:, i] * b[:, j]
            )
    if pools:
        wanted = wanted.sum((2, 3), keepdim=True)
    torch.testing.assert_close(made(name)(a, b)[0], wanted, atol=1e-4, rtol=1e-4)


def test_signed_sqrt_and_norm() -> None:
    x = torch.tensor([[4.0, -9, 0], [0, 0, 0]])
    shape = "dim: 2 dim: 3 dim: 4"
    for name, wanted in (
        ("signed_sqrt", [[2.0, -3, 0], [0, 0, 0]]),
        ("l2_normalize", [[4 / 97**0.5, -9 / 97**0.5, 0], [0, 0, 0]]),
    ):
        text = CASES[name].text.replace(shape, "dim: 2 dim: 3")
        (y,) = make_net(schema.parse_net(text, name), "TRAIN", seed=1)(x)
        torch.testing.assert_close(y, torch.tensor(wanted))


def test_mergecrop() -> None:
    a, b = torch.randn(1, 2, 3, 2), torch.randn(1, 3, 5, 5)
    (y,) = made("mergecrop")(a, b)
    torch.testing.assert_close(y, torch.cat((a, b[:, :, 1:4, 1:3]), 1))
    text = CASES["mergecrop"].text.replace(
        'type: "MergeCrop"', 'type: "MergeCrop" mergecrop_param { forward: 0 }'
    )
    (y,) = make_net(schema.parse_net(text, "merge"), "TRAIN", seed=1)(a, b)
    assert float(y[:, :2].abs().sum()) == 0
