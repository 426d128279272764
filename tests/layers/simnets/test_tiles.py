"""Mixtures and sums over windows in tiles: against the formula written out, at the ends of the range, and in nets."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from torch import Tensor

from netspec.layers.simnets import tiles
from netspec.layers.simnets.tiles import Windows, mixtures
from netspec.net.make import make_net
from tests.places import VECTORS
from tools import check_golden

GRIDS = [((4, 6), (1, 1)), ((4, 6), (2, 2)), ((4, 6), (4, 6)), ((8, 8), (4, 2)), ((3, 6), (3, 3))]
CASES = [
    (grid, window, corners, normalise)
    for (grid, window), corners, normalise in itertools.product(GRIDS, (False, True), (False, True))
]
LOG_K = 0.3
KINDS = ("mex", "similarity")
"""Golden vectors that go through tiles."""


def written_out(x_BKHW: Tensor, b_RMK: Tensor, windows: Windows, normalise: bool) -> Tensor:
    """y (B, M, h, w), cell by cell."""
    (height, width), (p, q), (h, w) = windows.cells, windows.window, windows.count
    y = x_BKHW.new_zeros(len(x_BKHW), b_RMK.shape[1], h, w)
    for r, c in itertools.product(range(height), range(width)):
        b_MK = b_RMK[(r % p) * q + c % q if windows.corners else r * width + c]
        b_MK = b_MK.log_softmax(1) if normalise else b_MK - LOG_K
        cell = torch.logsumexp(x_BKHW[:, None, :, r, c] + b_MK, 2)
        y = torch.index_put(y, (torch.arange(len(y))[:, None], torch.arange(y.shape[1]), torch.tensor(r // p),
                                torch.tensor(c // q)), cell, accumulate=True)  # fmt: skip
    return y


def drawn(windows: Windows, spread: float, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Inputs (B, K, H, W) and offsets (R, M, K)."""
    generator = torch.Generator().manual_seed(1)
    (height, width), (p, q) = windows.cells, windows.window
    x = 3 * torch.randn(17, 5, height, width, generator=generator, dtype=dtype)
    b = spread * torch.randn(
        p * q if windows.corners else height * width, 4, 5, generator=generator, dtype=dtype
    )
    return x.requires_grad_(), b.requires_grad_()


@pytest.mark.parametrize("spread", [1.0, 40.0], ids=["one shift", "many shifts"])
@pytest.mark.parametrize("tile", [1 << 19, 1 << 8], ids=["large tiles", "small tiles"])
@pytest.mark.parametrize(("grid", "window", "corners", "normalise"), CASES)
def test_as_written_out(
    monkeypatch: pytest.MonkeyPatch, grid: tuple[int, int], window: tuple[int, int], corners: bool, normalise: bool,
    tile: int, spread: float,
) -> None:  # fmt: skip
    monkeypatch.setattr(tiles, "TILE", tile)
    windows = Windows(grid, window, corners)
    x, b = drawn(windows, spread)
    y, wanted = mixtures(x, b, windows, normalise, LOG_K), written_out(x, b, windows, normalise)
    upstream = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    torch.testing.assert_close(y, wanted, rtol=1e-9, atol=1e-9)
    for one, other in zip(torch.autograd.grad(y, (x, b), upstream), torch.autograd.grad(wanted, (x, b), upstream),
                          strict=True):  # fmt: skip
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-9)
    (alone,) = torch.autograd.grad(mixtures(x.detach(), b, windows, normalise, LOG_K), b, upstream)
    torch.testing.assert_close(
        alone, torch.autograd.grad(wanted_again(x, b, windows, normalise), b, upstream)[0]
    )
    with torch.no_grad():
        torch.testing.assert_close(mixtures(x, b, windows, normalise, LOG_K), wanted, rtol=1e-9, atol=1e-9)


def wanted_again(x: Tensor, b: Tensor, windows: Windows, normalise: bool) -> Tensor:
    return written_out(x.detach(), b, windows, normalise)


@pytest.mark.parametrize(
    "kind", ["far inputs", "far offsets", "unlikely cells", "no offset", "no input", "all gone"]
)
@pytest.mark.parametrize("corners", [False, True])
def test_ends_of_the_range(kind: str, corners: bool) -> None:
    """In float32 as exact as the formula in float64: log probabilities of -1e4, and what is left out of sums."""
    windows = Windows((4, 4), (2, 2), corners)
    x, b = (one.detach().float() for one in drawn(windows, 1.0))
    if kind == "far inputs":
        x[:, 1] = -1e4
        x[:5] -= 1e4
    elif kind == "far offsets":
        b[:, 0] = -1e4
        b[:, 1, 2] = -1e4
    elif kind == "unlikely cells":  # a product of four leaves the range, and where all are so, a pair does
        x[:, 0] += 50
        b[:, :, 0] -= 50
    elif kind == "no offset":
        b[:, 2, 1] = -torch.inf
    else:
        x[3, 0 if kind == "no input" else slice(None), 1, 1] = -torch.inf
    x.requires_grad_()
    b.requires_grad_()
    y = mixtures(x, b, windows, True, 0.0)
    wide_x, wide_b = x.detach().double().requires_grad_(), b.detach().double().requires_grad_()
    wanted = written_out(wide_x, wide_b, windows, True)
    sizes = [float(one.detach()[one.detach().isfinite()].abs().max()) for one in (x, b)]
    rounding = 2 * torch.finfo(torch.float32).eps * 4 * sum(sizes)  # a window adds four terms of that size
    torch.testing.assert_close(y.double(), wanted, rtol=2e-6, atol=rounding)
    if kind == "all gone":
        assert y[3, :, 0, 0].eq(-torch.inf).all()
        return
    results = torch.autograd.grad(y, (x, b), torch.ones_like(y))
    for one, other in zip(
        results, torch.autograd.grad(wanted, (wide_x, wide_b), torch.ones_like(wanted)), strict=True
    ):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=2e-4)


def test_nan_spreads_over_its_window_alone() -> None:
    windows = Windows((4, 4), (2, 2), False)
    x, b = (one.detach() for one in drawn(windows, 1.0))
    x[2, 1, 0, 3] = torch.nan
    y = mixtures(x, b, windows, True, 0.0)
    gone = y.isnan()
    assert gone[2, :, 0, 1].all()
    assert gone.sum() == y.shape[1]


@pytest.mark.parametrize(
    "path",
    [
        one
        for kind in KINDS
        for one in sorted(VECTORS.glob(f"simnets__{kind}_*.npz"))
        if "hazard" not in one.stem
    ],
    ids=lambda path: path.stem,
)
def test_golden_vectors_through_tiles(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    monkeypatch.setattr(tiles, "LEAST_BATCH", 1)
    _, check = check_golden.run(path)
    assert check is not None
    assert check.failures == []


NET = """layer { name: "x" type: "Input" top: "x" top: "label"
    input_param { shape { dim: 20 dim: 1 dim: 8 dim: 8 } shape { dim: 20 } } }
  layer { name: "leaf" type: "Similarity" bottom: "x" top: "leaf" similarity_param { num_instances: 4
    block_param { block_size: 2 stride: 2 } normalization_term: true normalization_term_fudge: 1e-4
    ignore_nan_input: true template_filler { type: "gaussian" } weight_filler { type: "constant" value: 2 } } }
  layer { name: "mex1" type: "MEX" bottom: "leaf" top: "mex1" param { lr_mult: 0 } param { } mex_param {
    num_instances: 5 block_param { block_size: 1 } use_unshared_regions: true unshared_offsets_region_size: 2
    softmax_mode: true normalize_offsets: true epsilon_filler { type: "constant" value: 1 }
    offsets_filler { type: "gaussian" } } }
  layer { name: "sum1" type: "Pooling" bottom: "mex1" top: "sum1" pooling_param { pool: SUM kernel_size: 2 stride: 2 } }
  layer { name: "drop" type: "Marginalize" bottom: "sum1" top: "drop"
    marginalize_param { keep_probability: 0.5 value: ZERO } }
  layer { name: "mex2" type: "MEX" bottom: "drop" top: "mex2" param { lr_mult: 0 } param { } mex_param {
    num_instances: 3 block_param { block_size: 1 } shared_offsets_region_size: 1 softmax_mode: true
    normalize_offsets: true epsilon_filler { type: "constant" value: 1 } offsets_filler { type: "gaussian" } } }
  layer { name: "scores" type: "Pooling" bottom: "mex2" top: "scores" pooling_param { pool: SUM global_pooling: true } }
  layer { name: "loss" type: "SoftmaxWithLoss" bottom: "scores" bottom: "label" top: "loss" }"""


def losses_and_gradients(net: object, x: Tensor, label: Tensor) -> list[Tensor]:
    torch.manual_seed(3)
    objective = net.objective(net(x, label))  # type: ignore[operator, attr-defined]
    values = [param.value for param in net.params if param.value.requires_grad]  # type: ignore[attr-defined]
    return [objective, *torch.autograd.grad(objective, values)]


def test_a_net_is_the_same_in_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    net = make_net(NET, "TRAIN", seed=1)
    x = torch.randn(20, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    x[x > 1] = torch.nan
    label = torch.arange(20.0) % 3
    joined: list[str] = []
    plain = tiles.sums
    monkeypatch.setattr(tiles, "sums", lambda *a, **b: (joined.append("tile"), plain(*a, **b))[1])
    results = losses_and_gradients(net, x, label)
    assert len(joined) == 2
    assert not {"mex1", "mex2"} & {net.graph.name(slot) for slot in net.graph.outputs}
    monkeypatch.setattr(tiles, "LEAST_BATCH", 1000)
    for one, other in zip(results, losses_and_gradients(net, x, label), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_hook_on_a_layer_sees_its_top() -> None:
    net = make_net(NET, "TRAIN", seed=1)
    seen: list[tuple[int, ...]] = []
    handle = net.layer("mex1").register_forward_hook(
        lambda layer, bottoms, tops: seen.append(tuple(tops[0].shape))
    )
    net(torch.randn(20, 1, 8, 8), torch.zeros(20))
    handle.remove()
    net(torch.randn(20, 1, 8, 8), torch.zeros(20))
    assert seen == [(20, 5, 4, 4)]
