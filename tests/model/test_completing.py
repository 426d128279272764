"""Every kind of net that completes rows, behind one interface; the observed pixels stay as they are (facts I, E7)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from netspec.errors import DataError, SpecError
from netspec.model import completing, pages
from netspec.model.model import Model, load
from netspec.queries.diffusion import Diffusion
from tests.model.test_latents import DATA, DENOISING, NICE, VAE, dense

MASKED = DATA.format(
    tops='top: "data" top: "label" top: "mask"',
    scale=0.0625,
    more='binarize: "threshold" missing { kind: "iid" probability: 0.5 value: 0 }',
)
NAMED = (
    MASKED
    + 'layer { name: "join" type: "Concat" bottom: "data" bottom: "mask" top: "both" }\n'
    + dense("hidden", "both", 8)
    + dense("logits", "hidden", 64)
    + 'layer { name: "p" type: "Sigmoid" bottom: "logits" top: "p" }\n'
    + 'layer { name: "units" type: "Power" bottom: "p" top: "completed" power_param { scale: 15.9375 } }\n'
)
DIFFUSION = (
    DATA.format(tops='top: "data" top: "label"', scale=0.0625, more="")
    + """
layer { name: "line" type: "Power" bottom: "data" top: "standard" power_param { scale: 2 shift: -1 } }
layer { name: "noise" type: "DiffusionForward" bottom: "standard" top: "x_t" top: "mean" top: "variance" top: "t"
  diffusion_forward_param { steps: 6 } }
"""
    + dense("m", "x_t", 64)
    + dense("b", "x_t", 64)
    + """
layer { name: "m4" type: "Reshape" bottom: "m" top: "m4" reshape_param { shape { dim: 0 dim: 1 dim: 8 dim: 8 } } }
layer { name: "b4" type: "Reshape" bottom: "b" top: "b4" reshape_param { shape { dim: 0 dim: 1 dim: 8 dim: 8 } } }
layer { name: "back" type: "DiffusionReverse" bottom: "x_t" bottom: "m4" bottom: "b4" bottom: "t"
  top: "mean_model" top: "variance_model" diffusion_forward_param { steps: 6 } }
layer { name: "loss" type: "GaussianKLLoss" bottom: "mean" bottom: "variance" bottom: "mean_model"
  bottom: "variance_model" top: "loss" gaussian_kl_param { spread: VARIANCE } }
"""
)
TREE = Path("nets/ht_cac_digits.prototxt").read_text()
KINDS = {
    "tree": (TREE, ("expected", "most_probable", "sampled")),
    "latent": (VAE, ("expected", "sampled")),
    "denoising": (DENOISING, ("expected", "sampled")),
    "flow": (NICE, ("sampled",)),
    "diffusion": (DIFFUSION, ("sampled", "renoised")),
    "named": (NAMED, ("completed", "sampled")),
    "named, grey": (NAMED.replace('binarize: "threshold"', ""), ("completed",)),
}
EFFORT = {"latent": 20, "denoising": 20, "flow": 20, "named": 3, "named, grey": 3}


def model(folder: Path, text: str) -> Model:
    (folder / "net.prototxt").write_text(text)
    return load(folder / "net.prototxt")


def holed(trained: Model, rows: int = 3) -> tuple[np.ndarray, np.ndarray, torch.Tensor]:
    pixels, _ = trained.images("test", 0, rows)
    observed = np.random.default_rng(0).random((rows, 1, 8, 8)) < 0.5
    return pixels, observed, trained.from_pixels(pixels, observed)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_observed_stays_and_what_is_missing_is_filled(kind: str, tmp_path: Path) -> None:
    text, ways = KINDS[kind]
    trained = model(tmp_path, text)
    assert completing.completer(trained).ways == ways
    _, _, x = holed(trained)
    for way in ("", *ways):
        whole = completing.completed(trained, x, way, EFFORT.get(kind, 0), seed=2)
        assert torch.equal(whole[~x.isnan()], x[~x.isnan()])
        assert whole.isfinite().all()
        assert torch.equal(whole, completing.completed(trained, x, way, EFFORT.get(kind, 0), seed=2))


@pytest.mark.parametrize("kind", KINDS)
def test_pages_and_samples_of_every_kind(kind: str, tmp_path: Path) -> None:
    trained = model(tmp_path, KINDS[kind][0])
    pixels, observed, _ = holed(trained)
    page = pages.completion_page(trained, pixels, observed, tmp_path / "completions.png", samples=1)
    assert page.stat().st_size > 500
    if kind != "tree":
        assert pages.sample_grid(trained, tmp_path / "samples.png", columns=2).stat().st_size > 300
    written = pages.completed_pictures(trained, pixels, observed, ["a", "b", "c"], tmp_path / "whole")
    assert [path.name for path in written] == ["a.png", "b.png", "c.png"]


def test_a_second_pass_sees_the_first_ones_completion(tmp_path: Path) -> None:
    trained = model(tmp_path, NAMED)
    _, _, x = holed(trained)
    mask = (~x.isnan()).float()
    once = torch.where(x.isnan(), trained.net(x.nan_to_num(0), mask)[0].reshape(x.shape), x)
    twice = torch.where(x.isnan(), trained.net(once, mask)[0].reshape(x.shape), x)
    torch.testing.assert_close(completing.completed(trained, x), once)
    torch.testing.assert_close(completing.completed(trained, x, effort=2), twice)


def test_values_drawn_one_by_one_have_the_probability_of_a_chain(tmp_path: Path) -> None:
    """A net of two pixels' probabilities: p(second | first) is what the net says once the first is drawn."""
    text = NAMED.replace(
        dense("hidden", "both", 8) + dense("logits", "hidden", 64), dense("logits", "both", 64)
    )
    trained = model(tmp_path, text)
    with torch.no_grad():
        for one in trained.net.params:
            one.value.zero_()
        weight = trained.net.params[0].value
        weight[1, 0], weight[0, 1] = (
            0.25,
            0.25,
        )  # a white neighbour (15.9375) makes white likely; a black one says 1/2
    x = trained.from_pixels(np.zeros((4000, 1, 8, 8)))
    x[:, 0, 0, :2] = torch.nan
    whole = completing.completed(trained, x, "sampled", seed=5)[:, 0, 0, :2] > 8
    first_white = torch.sigmoid(torch.tensor(0.25 * 15.9375)).item()
    # In either order: 1/2 for the first, then 0.98 or 1/2 for the other.
    both, one = 0.5 * first_white, (0.5 * (1 - first_white) + 0.25) / 2
    counts = [int((whole == torch.tensor(pair)).all(1).sum()) for pair in ((1, 1), (1, 0), (0, 1), (0, 0))]
    for count, p in zip(counts, (both, one, one, 0.25), strict=True):
        assert abs(count - 4000 * p) < 4.5 * (4000 * p * (1 - p)) ** 0.5


def test_a_diffusion_net_that_knows_the_density_completes_from_the_conditional(tmp_path: Path) -> None:
    """With m = 0 and b = 0 the reverse of independent standard normal values is exact, so draws are standard normal."""
    trained = model(tmp_path, DIFFUSION.replace("steps: 6", "steps: 40"))
    with torch.no_grad():
        for one in trained.net.params:
            one.value.zero_()
    x = torch.full((400, 1, 8, 8), torch.nan)
    x[:, :, :4] = 0.25
    for way in ("sampled", "renoised"):
        drawn = 2 * completing.completed(trained, x, way, seed=1)[:, :, 4:] - 1
        assert float(drawn.mean()) == pytest.approx(0, abs=0.03)
        assert float(drawn.var()) == pytest.approx(1, abs=0.05)


def test_rows_without_holes_cost_a_diffusion_net_no_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = model(tmp_path, DIFFUSION)
    x = trained.from_pixels(np.zeros((3, 1, 8, 8)))
    rows = list[int]()
    back = Diffusion.back

    def counted(self: Diffusion, noisy: torch.Tensor, t: int) -> tuple[torch.Tensor, torch.Tensor]:
        rows.append(len(noisy))
        return back(self, noisy, t)

    monkeypatch.setattr(Diffusion, "back", counted)
    assert torch.equal(completing.completed(trained, x, seed=1), x)
    assert not rows
    x[1, 0, :4] = torch.nan
    drawn = completing.completed(trained, x, seed=1)
    assert set(rows) == {1}
    assert torch.equal(drawn[[0, 2]], x[[0, 2]])
    assert drawn.isfinite().all()


def test_langevin_steps_climb_the_likelihood(tmp_path: Path) -> None:
    """Missing values of a logistic density end nearer its mode than they began, and more so with more steps."""
    trained = model(tmp_path, NICE)
    with torch.no_grad():
        trained.net.params[0].value.fill_(4.0)  # steep: z = e^4 x
    x = torch.full((50, 1, 8, 8), torch.nan)
    x[:, :, 0] = 0.5
    few, many = (
        completing.completed(trained, x, effort=steps, seed=1)[:, :, 1:].abs().mean() for steps in (1, 300)
    )
    assert many < few / 2


def test_ways_that_are_none(tmp_path: Path) -> None:
    trained = model(tmp_path, VAE)
    with pytest.raises(DataError, match="did you mean 'sampled'"):
        completing.completed(trained, torch.zeros(1, 1, 8, 8), "sample")
    with pytest.raises(SpecError, match=r"Convolution|InnerProduct"):
        completing.completer(load("nets/lenet_mnist.prototxt"))


def test_an_encoder_that_spreads_missing_values_is_said(tmp_path: Path) -> None:
    trained = model(tmp_path, VAE.replace('bottom: "filled"', 'bottom: "data"'))
    with pytest.raises(DataError, match="spreads NaN; put a LearnableFill before it"):
        completing.completed(trained, holed(trained)[2], effort=2)
