"""The results of latent models and imputers: their arithmetic, and the short form of each page."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.impute import KNNImputer

from netspec.lab import Cell, Table
from netspec.model.model import load
from netspec.run import experiment
from tests.places import ROOT
from tools.results import imputers, latent_models, misconv, thesis
from tools.results.reproduction import Results


def test_filling_from_incomplete_neighbours_is_scikit_learns() -> None:
    draws = np.random.default_rng(0)
    donors, rows = draws.normal(size=(60, 8)), draws.normal(size=(12, 8))
    for table in (donors, rows):
        table[draws.random(table.shape) < 0.4] = np.nan
    wanted = KNNImputer(n_neighbors=5).fit(donors).transform(rows)
    filled = misconv.from_neighbours(rows, donors, near=60)
    np.testing.assert_allclose(filled, wanted, atol=1e-5)
    seen = ~np.isnan(rows)
    np.testing.assert_allclose(filled[seen], rows[seen], rtol=1e-6)


def test_overhead_times_both_layers_as_often() -> None:
    times = misconv.overhead(8, 4, 2, 3)
    assert {name: len(taken) for name, taken in times.items()} == {"convolution": 3, "MisConv": 3}
    assert min(min(taken) for taken in times.values()) > 0


def test_goals_that_are_missed_are_said_first(tmp_path: Path) -> None:
    results = Results(tmp_path / "r.json", {"steps": 1, "density_steps": 1, "donors": 1, "quick": True})
    results.values = {
        "MisConv | square | 1": 0.9, "zero | square | 1": 0.8, "zero | noise | 1": 0.9, "MisConv | noise | 1": 0.8,
    }  # fmt: skip
    said = misconv.missed(results)
    assert "square: reached; not measured: mask, k-NN, PC." in said
    assert "noise: missed against zero" in said
    assert "trapezoid: not measured." in said


def test_the_best_are_told_with_what_their_intervals_leave_open() -> None:
    table = Table()
    for name, right in (("a", 90), ("b", 85), ("c", 20)):
        table.put(name, "iid:0.5", Cell(right, 100))
    assert imputers.best(table) == "- iid:0.5: a; not told apart: b"


def test_many_samples_of_an_autoencoder_without_spread_are_its_mean(tmp_path: Path) -> None:
    """M samples with sigma = 0 equal the single imputation (facts I, B5), and their mean settles (B4)."""
    net = ROOT / "nets" / "dvae_mnist.prototxt"
    model = load(net, stages=["mlp"])
    x = torch.rand(4, 1, 28, 28)
    weights = model.net.weights()
    with torch.no_grad():
        weights["enc_logvar/0"].zero_()
        weights["enc_logvar/1"].fill_(-80.0)
    single, curve = thesis.over_samples(model, x, 3)
    assert [m for m, _ in curve] == [1, 2, 3]
    for _, p in curve:
        torch.testing.assert_close(p, single, atol=1e-5, rtol=0)
    assert thesis.restored(model, x).shape == (4, 1, 28, 28)


def test_the_family_without_a_bound_rises_by_the_dimension_and_the_others_stay() -> None:
    """Against the exact values of the test of the net itself (tests/queries/test_unbounded.py)."""
    by_alpha = {alpha: latent_models.unbounded(alpha) for alpha in (8.0, 32.0)}
    assert by_alpha[8.0]["first"] == pytest.approx(34.48, abs=0.02)
    assert by_alpha[32.0]["first"] == pytest.approx(154.64, abs=0.02)
    for alpha, one in by_alpha.items():
        assert one["all"] - one["first"] >= one["below"] - 49 * 3 / alpha


def test_f1_counts_missing_pixels_alone() -> None:
    predicted, true = torch.tensor([1.0, 1, 0, 1]), torch.tensor([1.0, 0, 1, 0])
    missing = torch.tensor([True, True, True, False])
    assert latent_models.f1(predicted, true, missing) == pytest.approx(2 / 4)


SHORT = {
    "thesis": ["--kinds", "lines"],
    "misconv": ["--ways", "zero,PC,MisConv"],
    "imputers": [],
    "latent_models": [],
}


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("name", SHORT)
def test_the_short_form_writes_a_page_that_says_it_is_reduced(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", f"tools.results.{name}", "--quick", *SHORT[name]]
    command += ["--out", str(tmp_path / name), "--runs", str(tmp_path / "runs")]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert json.loads((tmp_path / f"{name}.json").read_text())["results"]
    text = " ".join((tmp_path / f"{name}.md").read_text().split())
    assert "no reproduction" in text or "briefly trained" in text


def test_the_density_behind_misconv_has_met_the_masks_that_it_is_asked_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, Path]] = []
    monkeypatch.setattr(misconv, "trained", lambda net, folder, steps: asked.append((net, folder)) or folder)
    monkeypatch.chdir(ROOT)
    for mask in ("square", "noise"):
        misconv.density_of(tmp_path, mask, 7)
    assert asked[0] == ("nets/dmfa_mnist_solver.prototxt", tmp_path / "dmfa_7")
    spec = experiment.load(asked[1][0])
    (data,) = [layer for layer in spec.train.layers if layer.message.type == "Dataset"]
    assert data.message.dataset_param.missing.kind == "noise"
    assert data.message.dataset_param.missing.fixed
    assert "square" in {layer.name for layer in spec.train.layers}
    assert asked[1][1] == tmp_path / "dmfa_noise_7"


def test_the_page_says_what_the_masks_of_the_density_change(tmp_path: Path) -> None:
    results = Results(tmp_path / "r.json", {})
    results.values = {"MisConv | noise | 1": 0.9}
    assert misconv.why(results) == ""
    results.values = {f"{misconv.SQUARES} | noise | 1": 0.8}
    assert "has not been run" in misconv.why(results)
    results.values["MisConv | noise | 1"] = 0.9
    assert "0.8000 on noise, behind one that had met noise 0.9000" in misconv.why(results)


def test_a_longer_training_is_told_as_a_reason(tmp_path: Path) -> None:
    results = Results(tmp_path / "r.json", {"classifier_steps": 1500})
    results.values = {"lines 0.7": {"accuracy": {"direct": 0.5682}}}
    said = thesis.reason(results, "lines 0.7", 6000, 0.6682)
    assert "0.5682 after 1,500 steps, 0.6682 after 6,000 and 0.7682 as published" in said
    assert "more steps bring 50% of what it lacks" in said
    assert "more steps bring all of" in thesis.reason(results, "lines 0.7", 6000, 0.8)
