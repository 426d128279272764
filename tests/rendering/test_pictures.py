"""Sampling from rendering models, and the probe of nuisances."""

from __future__ import annotations

import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import Ridge

from netspec.rendering import RenderingModel, sampling
from netspec.rendering.probe import NUISANCES, Transformed, probe, regress, transform
from tests.rendering.test_rendering import DOUBLE, MAX2, SHAPES, from_classes, images, net_of, small

ODD = SHAPES["two levels, padded and odd"]


def test_frequencies_are_those_of_the_images() -> None:
    model, x = RenderingModel(ODD), images(ODD, 6)
    shares = sampling.frequencies(model, [x[:4], x[4:]])
    _, switches = model.up(x)
    for level, (a, t) in enumerate(switches):
        torch.testing.assert_close(shares.on[level], a.mean(0))
        won = shares.won[level]
        assert t is not None
        assert won is not None
        assert float(won.sum()) == pytest.approx(t[0].numel())
    assert shares.classes is not None
    assert float(shares.classes.sum()) == pytest.approx(1)


def test_render_stats_keeps_the_same_frequencies() -> None:
    text = (
        'layer { name: "a" type: "Input" top: "a" input_param { shape { dim: 5 dim: 2 dim: 4 dim: 4 } } }\n'
        'layer { name: "t" type: "Input" top: "t" input_param { shape { dim: 5 dim: 2 dim: 2 dim: 2 } } }\n'
        'layer { name: "s" type: "RenderStats" bottom: "a" bottom: "t" top: "pa" top: "pt" top: "pat" }'
    )
    u = torch.randn((5, 2, 4, 4), generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    _, t = torch.nn.functional.max_pool2d(u, 2, return_indices=True)
    a = (u > 0).double()
    net = net_of(text, "TRAIN")
    for _ in range(3):
        on, both, won = net(a, t.double())  # outputs come by name: pa, pat, pt
    torch.testing.assert_close(on, a.mean(0))
    assert float(won.sum()) == pytest.approx(8)
    torch.testing.assert_close(both, (a * won_mask(t, a)).mean(0))


def won_mask(t: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(a).flatten(2).scatter(2, t.flatten(2), 1.0).view_as(a)


def test_drawn_switches_keep_to_their_windows_and_frequencies() -> None:
    model, x = RenderingModel(ODD), images(ODD, 6)
    shares = sampling.frequencies(model, [x])
    drawn = sampling.draw_switches(model, shares, 4000, torch.Generator().manual_seed(0))
    a, t = drawn[0]
    torch.testing.assert_close(a.mean(0), shares.on[0], atol=0.04, rtol=0)
    assert t is not None
    rows, columns = t // 7, t % 7
    assert bool((rows // 2 == torch.arange(4)[:, None]).all())
    assert bool((columns // 2 == torch.arange(4)).all())
    assert shares.won[0] is not None
    torch.testing.assert_close(won_mask(t, a).mean(0), shares.won[0], atol=0.04, rtol=0)


def test_samples_of_a_bank_are_reconstructions_of_its_images() -> None:
    model, x = from_classes(ODD), images(ODD, 3)
    bank = sampling.Bank(model, x, torch.tensor([0, 1, 2]))
    c = torch.tensor([2, 0])
    torch.testing.assert_close(bank.sample(c), model.reconstruct(x[c], c))
    with pytest.raises(ValueError, match="no image of class 7"):
        bank.sample(torch.tensor([7]))


def test_noise_and_shapes_of_samples() -> None:
    model = from_classes(small([(3, 3, 0, ""), (4, 2, 0, "pool: AVE global_pooling: true")], side=6))
    x = images(model.net, 4)
    drawn = sampling.draw_switches(model, sampling.frequencies(model, [x]), 5)
    c = torch.arange(5) % 3
    plain = sampling.sample(model, c, drawn)
    noisy = sampling.sample(model, c, drawn, sigma=0.5, generator=torch.Generator().manual_seed(0))
    assert plain.shape == (5, 1, 6, 6)
    assert 0.3 < float((noisy - plain).std()) < 0.7


def test_probe_regression_is_scikit_learns() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = (
        torch.randn(60, 7, generator=generator, dtype=DOUBLE),
        torch.randn(60, 2, generator=generator, dtype=DOUBLE),
    )
    ours = regress(x, y, 40, 0.05)
    scaled = (x - x[:40].mean(0)) / x[:40].std(0)
    theirs = Ridge(alpha=0.05 * 40).fit(scaled[:40].numpy(), y[:40].numpy()).predict(scaled[40:].numpy())
    torch.testing.assert_close(ours, torch.from_numpy(theirs))


def test_images_are_moved_where_they_lie() -> None:
    """The draws are made in main memory; the meta device, as a GPU, takes no part in arithmetic with those."""
    moved = transform(torch.zeros(2, 1, 8, 8, device="meta"), torch.Generator().manual_seed(0))
    assert (moved.x.device.type, moved.nuisances.device.type) == ("meta", "meta")


def test_known_nuisances_are_decoded_from_pixels() -> None:
    data = load_digits()
    x = torch.from_numpy(data.images[:1000, None] / 16)
    x = torch.nn.functional.interpolate(x, scale_factor=2)
    moved = transform(x, torch.Generator().manual_seed(0))
    assert moved.nuisances.shape == (1000, len(NUISANCES))
    model = RenderingModel(small([(6, 3, 0, MAX2)], side=16, bias=True))
    measures = probe(
        model, Transformed(moved.x, moved.nuisances), torch.from_numpy(data.target[:1000]), cells=8
    )
    assert len(measures["class"]) == 2
    assert min(measures["shift_x"] + measures["shift_y"]) > 0.5
    assert min(measures["class"]) > 0.15


def test_transform_moves_by_what_it_says() -> None:
    steps = torch.arange(28.0, dtype=DOUBLE) - 13.5
    blob = (-(steps[:, None].square() + steps.square()) / 8).exp()
    x = blob.expand(200, 1, 28, 28)
    moved = transform(x, torch.Generator().manual_seed(0))
    mass = moved.x.sum((1, 2, 3))
    place = torch.arange(28.0, dtype=DOUBLE) + 0.5
    across = (moved.x.sum((1, 2)) * place).sum(1) / mass - 14
    down = (moved.x.sum((1, 3)) * place).sum(1) / mass - 14
    torch.testing.assert_close(torch.stack((across, down), 1), moved.nuisances[:, :2], atol=0.1, rtol=0)
