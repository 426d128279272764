"""A latent-variable net and an invertible one behind the ordinary questions: load, sample, complete, likelihood."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from netspec.errors import SpecError
from netspec.model import completing, latents, pages
from netspec.model.model import Model, load
from netspec.queries import latent
from netspec.queries.latent import Latent

DATA = """
layer {{ name: "data" type: "Dataset" {tops}
  transform_param {{ scale: {scale} }}
  dataset_param {{ name: "digits" split: "test" batch_size: 4 {more} }} }}
"""


def dense(name: str, below: str, width: int) -> str:
    filled = f'num_output: {width} weight_filler {{ type: "xavier" }}'
    blobs = f'bottom: "{below}" top: "{name}"'
    return f'layer {{ name: "{name}" type: "InnerProduct" {blobs} inner_product_param {{ {filled} }} }}\n'


def middle(below: str) -> str:
    """An encoder and a decoder of one layer each."""
    draw = 'layer { name: "z" type: "GaussianSample" bottom: "m" bottom: "v" top: "z" top: "q" }\n'
    return dense("m", below, 3) + dense("v", below, 3) + draw + dense("x", "z", 64)


VAE = (
    DATA.format(tops='top: "data" top: "label"', scale=0.0625, more='binarize: "threshold"')
    + 'layer { name: "fill" type: "LearnableFill" bottom: "data" top: "filled" }\n'
    + middle("filled")
    + """
layer { name: "p" type: "PriorLogProb" bottom: "z" bottom: "q" top: "p" }
layer { name: "ll" type: "ObservationLogProb" bottom: "x" bottom: "data" top: "ll" }
layer { name: "bound" type: "ImportanceBound" bottom: "ll" bottom: "p" bottom: "q" top: "loss" }
"""
)
DENOISING = (
    DATA.format(
        tops='top: "data" top: "label" top: "seen" top: "clean"',
        scale=0.0625,
        more='missing { kind: "iid" probability: 0.5 value: 1 }',
    )
    + middle("data")
    + """
layer { name: "kl" type: "KLGaussian" bottom: "m" bottom: "v" top: "kl" }
layer { name: "ll" type: "ObservationLogProb" bottom: "x" bottom: "clean" top: "ll" }
layer { name: "rec" type: "ImportanceBound" bottom: "ll" top: "rec" }
"""
)
NICE = (
    DATA.format(tops='top: "data" top: "label"', scale=0.0625, more="")
    + """
layer { name: "noise" type: "Dequantize" bottom: "data" top: "noisy" dequantize_param { levels: 17 } }
layer { name: "scale" type: "DiagonalScale" bottom: "noisy" top: "z" top: "d" }
layer { name: "prior" type: "LogisticPriorLoss" bottom: "z" bottom: "d" top: "loss" }
"""
)


def model(folder: Path, text: str) -> Model:
    (folder / "net.prototxt").write_text(text)
    return load(folder / "net.prototxt")


def test_a_vae_is_completed_sampled_and_drawn(tmp_path: Path) -> None:
    trained = model(tmp_path, VAE)
    kind = latents.find(trained)
    assert isinstance(kind, Latent)
    pixels, _ = trained.images(end=3)
    observed = np.random.default_rng(0).random((3, 1, 8, 8)) < 0.5
    x = trained.from_pixels(pixels, observed)
    assert set(x[~x.isnan()].unique().tolist()) == {
        0.0,
        255 * 0.0625,
    }  # binary, in the units of the transform
    ways = [completing.completed(trained, x, way, effort=20, seed=3) for way in ("expected", "sampled")]
    for filled in ways:
        assert torch.equal(filled[~x.isnan()], x[~x.isnan()])
        assert not filled.isnan().any()
    assert torch.equal(ways[1], completing.completed(trained, x, "sampled", effort=20, seed=3))
    assert not torch.equal(ways[1], completing.completed(trained, x, "sampled", effort=20, seed=4))
    assert latents.samples(trained, kind, 5, seed=1).shape == (5, 1, 8, 8)
    for path in (
        pages.sample_grid(trained, tmp_path / "samples.png", columns=3),
        pages.completion_page(trained, pixels, observed, tmp_path / "completions.png"),
    ):
        assert path.stat().st_size > 1000
    with pytest.raises(SpecError, match="has no classes"):
        pages.sample_grid(trained, tmp_path / "samples.png", classes=[1])


def test_the_answers_are_bounds_of_what_is_observed(tmp_path: Path) -> None:
    trained = model(tmp_path, VAE.replace("scale: 0.0625", "scale: 0.00392156862745098"))
    pixels, _ = trained.images(end=2)
    x = trained.from_pixels(pixels)
    whole, nothing = (
        latents.answers(trained, x)[0],
        latents.answers(trained, torch.full_like(x, torch.nan))[0],
    )
    assert whole["observed"] == 64
    assert whole["log_likelihood_bound"] == pytest.approx(-64 * np.log(2), abs=25)  # an untrained net guesses
    assert nothing["bits_per_dimension"] is None
    assert nothing["log_likelihood_bound"] == pytest.approx(0, abs=0.2)
    assert "log p, at least" in latents.table([whole, nothing])


def test_a_denoising_net_completes_from_what_it_is_shown(tmp_path: Path) -> None:
    """Its encoder sees the value of the corruption in the holes, as in training."""
    trained = model(tmp_path, DENOISING)
    kind = latents.find(trained)
    assert isinstance(kind, Latent)
    x = trained.from_pixels(trained.images(end=2)[0], np.arange(64).reshape(8, 8) % 2)
    shown, compared = kind.inputs(x)
    assert torch.equal(compared.nan_to_num(-1), x.nan_to_num(-1))
    assert torch.equal(shown, torch.where(x.isnan(), 1.0, x))
    filled = latent.expected_completion(kind, x, 20)
    assert not filled.isnan().any()


def test_an_invertible_net_is_sampled_and_gives_its_likelihood(tmp_path: Path) -> None:
    trained = model(tmp_path, NICE)
    pixels, _ = trained.images(end=2)
    x = trained.from_pixels(pixels)
    rows = latents.answers(trained, x)
    assert len(rows) == 2
    assert np.isfinite(rows[0]["log_likelihood"])
    path = pages.sample_grid(trained, tmp_path / "samples.png", columns=2)
    assert path.stat().st_size > 500
    with pytest.raises(SpecError, match="no likelihood of a part"):
        latents.answers(trained, torch.where(x > 0.5, torch.nan, x))
    path = pages.completion_page(
        trained, pixels, np.arange(64).reshape(8, 8) % 2, tmp_path / "c.png", samples=2
    )
    assert path.stat().st_size > 500
