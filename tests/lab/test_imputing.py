"""Imputers as rows of the laboratory: any net that completes, a class of one's own, and the published baselines."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.impute import KNNImputer
from typer.testing import CliRunner

from netspec import lab
from netspec.cli import app
from netspec.data.sets.datasets import load as load_data
from netspec.errors import DataError, SpecError
from netspec.lab import imputing
from netspec.lab.baselines import MissForest, NearestMean, PrincipalComponents, matrices
from netspec.layers import consent
from netspec.model import model
from netspec.run.fit import fit
from tests.model.test_completing import EFFORT, KINDS
from tests.places import ROOT

PLAIN = (
    'layer { name: "data" type: "Dataset" top: "data" top: "label" transform_param { scale: 0.01 }'
    ' dataset_param { name: "digits" batch_size: 50 } }'
    'layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"'
    ' inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }'
    'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }'
)
OWN = """
import numpy as np

class Grey:
    def __init__(self, training):
        self.level = training.max() / 2

    def fill(self, pixels, observed):
        return np.where(observed, pixels, self.level).astype(np.float32)

class Useless:
    def __init__(self, training):
        pass
"""


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of whole images."""
    folder = tmp_path_factory.mktemp("plain")
    (folder / "plain.prototxt").write_text(PLAIN)
    (folder / "plain_solver.prototxt").write_text('base_lr: 0.1 lr_policy: "fixed" max_iter: 100')
    fit(folder / "plain.prototxt", out=folder / "run", progress=False, seed=1)
    return folder / "run"


@pytest.mark.parametrize("kind", KINDS)
def test_a_net_that_completes_is_a_row_and_leaves_observed_pixels(
    kind: str, plain: Path, tmp_path: Path
) -> None:
    net = tmp_path / "own.prototxt"
    net.write_text(KINDS[kind][0])
    effort = f":{EFFORT[kind]}" if kind in EFFORT else ""
    made = lab.missing([plain], lab.Columns(iid=["0.5"]), lab.Rows(impute=[f"{net}{effort}", "zero"]), end=20)
    row = f"run, own {effort[1:]}".strip()
    assert list(made.cells) == [row, "run, zero"]
    assert made.cells[row]["clean"] == made.cells["run, zero"]["clean"]  # nothing to fill in
    pixels = load_data("digits", "test").images[:6]
    observed = np.random.default_rng(1).random((6, 1, 8, 8)) < 0.4
    filled = imputing.Imputations(None, 1).make(f"{net}{effort}", model.load(plain)).fill(pixels, observed)
    assert np.array_equal(filled[observed], pixels[observed])
    assert np.isfinite(filled).all()
    assert 0 <= filled.min() <= filled.max() <= 255


def test_names_of_runs_with_a_way_and_a_number(plain: Path, tmp_path: Path) -> None:
    net = tmp_path / "vae.prototxt"
    net.write_text(KINDS["latent"][0])
    assert imputing.run_of(f"{net}:sampled:7") == (str(net), "sampled", 7)
    assert imputing.run_of(f"{net}:7") == (str(net), "", 7)
    assert imputing.title(f"{net}:sampled:7") == "vae sampled 7"
    with pytest.raises(DataError, match="did you mean 'sampled'"):
        lab.missing([plain], rows=lab.Rows(impute=[f"{net}:sampld"]), end=2)
    with pytest.raises(DataError, match="expected RUN, RUN:WAY"):
        lab.missing([plain], rows=lab.Rows(impute=[f"{net}:7:sampled"]), end=2)
    with pytest.raises(DataError, match="completes images and tells no classes; give it as --impute"):
        lab.missing([net], end=2)


def test_a_run_is_loaded_once(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = tmp_path / "vae.prototxt"
    net.write_text(KINDS["latent"][0])
    imputations, classifier = imputing.Imputations(None, 1), model.load(plain)
    imputations.make(str(net), classifier)
    monkeypatch.setattr(model, "load", None)
    imputations.make(f"{net}:7", classifier)


def test_images_of_another_size_are_refused(plain: Path, tmp_path: Path) -> None:
    net = tmp_path / "wide.prototxt"
    net.write_text(
        'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 1 dim: 8 dim: 9 } } }'
        'layer { name: "half" type: "Power" bottom: "data" top: "completed" power_param { scale: 0.5 } }'
    )
    with pytest.raises(DataError, match=r"completes images \(1, 8, 9\), .* reads \(1, 8, 8\)"):
        lab.missing([plain], rows=lab.Rows(impute=[str(net)]), end=2)


def test_a_class_of_ones_own_needs_consent(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "greys.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    names = [f"{tmp_path / 'greys.py'}:Grey", "greys:Grey"]
    for name in names:
        with (
            consent.command(),  # another test may have given the program's consent
            pytest.raises(SpecError, match="runs Python of yours; if you trust it, say --allow-python"),
        ):
            lab.missing([plain], rows=lab.Rows(impute=[name]), end=2)
    assert "greys" not in sys.modules
    with consent.command():
        consent.allow_python()
        made = lab.missing([plain], lab.Columns(iid=["0.5"]), lab.Rows(impute=names), end=20)
        assert list(made.cells) == [f"run, {name}" for name in names]
        assert made.cells[f"run, {names[0]}"] == made.cells[f"run, {names[1]}"]
        with pytest.raises(DataError, match="Useless has no method fill"):
            lab.missing([plain], rows=lab.Rows(impute=["greys:Useless"]), end=2)
        with pytest.raises(DataError, match=r"no_such_module:Grey.*No module named"):
            lab.missing([plain], rows=lab.Rows(impute=["no_such_module:Grey"]), end=2)


def test_the_command_takes_consent(plain: Path, tmp_path: Path) -> None:
    (tmp_path / "greys.py").write_text(OWN)
    own = f"{tmp_path / 'greys.py'}:Grey"
    command = ["missing", str(plain), "--images", "5", "--impute", own]
    with pytest.raises(SpecError, match="--allow-python"):
        CliRunner().invoke(app, command, catch_exceptions=False)
    taken = CliRunner().invoke(app, [*command, "--allow-python"], catch_exceptions=False)
    assert "greys.py:Grey" in taken.stdout


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("zeros", "did you mean 'zero'"),
        ("knn:0", "a number of at least 1"),
        ("pca:many", "a number of at least 1"),
        ("knn:5000000", "nearest neighbours: there are"),
        ("pca:65", r"65 components: \d+ training images have at most 64"),
        ("zero:3", "no imputation is called 'zero:3'"),
        ("runs/none:sampled:3", "no imputation is called"),
    ],
)
def test_what_is_no_imputation(plain: Path, name: str, said: str) -> None:
    with pytest.raises((DataError, SpecError), match=said):
        lab.missing([plain], rows=lab.Rows(impute=[name]), end=2)


def test_the_nearest_images_means_are_scikit_learns() -> None:
    """KNNImputer scales distances by the share of observed pixels, which leaves the order of whole images alone."""
    data = load_data("digits", "train").images[:200], load_data("digits", "test").images[:20]
    training, pixels = data
    observed = np.random.default_rng(2).random((20, 1, 8, 8)) < 0.4
    ours = NearestMean(training, 5).fill(pixels, observed)
    theirs = KNNImputer(n_neighbors=5).fit(training.reshape(200, -1).astype(float))
    wanted = theirs.transform(np.where(observed, pixels, np.nan).reshape(20, -1)).reshape(pixels.shape)
    agree = np.abs(ours - wanted) < 1e-3
    assert agree.mean() > 0.99  # equal distances may be broken in another way
    blank = NearestMean(training, 5).fill(pixels[:1], np.zeros((1, 1, 8, 8), bool))
    np.testing.assert_allclose(blank[0], training.mean(0), rtol=1e-5)


def test_principal_components_are_where_iterative_pca_ends() -> None:
    training = load_data("digits", "train").images[:300].astype(np.float64)
    pixels = load_data("digits", "test").images[:4]
    observed = np.random.default_rng(3).random((4, 1, 8, 8)) < 0.7
    ours = PrincipalComponents(training, 6).fill(pixels, observed)
    flat = training.reshape(300, -1)
    axes = np.linalg.svd(flat - flat.mean(0), full_matrices=False)[2][:6]
    seen, x = observed.reshape(4, -1), np.where(observed, pixels, 0).reshape(4, -1).astype(float)
    for _ in range(4000):
        projected = flat.mean(0) + (x - flat.mean(0)) @ axes.T @ axes
        x = np.where(seen, x, projected)
    np.testing.assert_allclose(ours.reshape(4, -1), x.clip(0, 255), atol=0.05)


def test_iterative_pca_does_not_fit_what_it_has_filled_in() -> None:
    """Half of a table of four related columns is missing, as in UCI's banknotes: better than the columns' means, and
    a rank above 0 is chosen."""
    draws = np.random.default_rng(5)
    factors, loadings = draws.normal(size=(800, 2)), draws.normal(size=(2, 4))
    whole = factors @ loadings + 0.5 * draws.normal(size=(800, 4))
    whole = (whole - whole.mean(0)) / whole.std(0)
    holes = draws.random(whole.shape) < 0.5
    holed = np.where(holes, np.nan, whole)

    def error(filled: np.ndarray) -> float:
        return float(np.square(filled - whole)[holes].mean())

    means = error(matrices.column_means(holed))
    assert error(matrices.iterative_pca(holed, 2, 200, 1e-4)) < 0.9 * means
    assert matrices.chosen_rank(holed) > 0


def test_noise_is_taken_from_the_components_that_stay() -> None:
    """Pure noise has no component: shrinking leaves almost nothing of a table's first one."""
    noise = np.random.default_rng(1).normal(size=(4000, 6))
    values = np.linalg.svd(noise - noise.mean(0), compute_uv=False)
    assert matrices.shrunk(values, 2, noise.shape).max() < 0.4 * values[0]
    assert matrices.shrunk(values, 6, noise.shape).tolist() == values.tolist()


def test_iterative_pca_finds_cells_of_a_table_of_low_rank() -> None:
    draws = np.random.default_rng(4)
    whole = draws.normal(size=(60, 2)) @ draws.normal(size=(2, 6)) + 1
    holed = np.where(draws.random(whole.shape) < 0.15, np.nan, whole)
    np.testing.assert_allclose(matrices.iterative_pca(holed, 2, 5000, 1e-9), whole, atol=1e-4)
    assert matrices.chosen_rank(holed) in (2, 3)
    np.testing.assert_allclose(matrices.iterative_pca(holed, 0, 5), matrices.column_means(holed))
    np.testing.assert_array_equal(matrices.iterative_pca(whole, 2), whole)
    with pytest.raises(DataError, match="at most 6 components"):
        matrices.iterative_pca(holed, 7)


def test_neighbours_of_a_table_are_chosen_by_hidden_cells() -> None:
    """Rows in pairs of equals: one neighbour is right, all others are far."""
    half = np.random.default_rng(5).normal(size=(40, 4)) * 10
    holed = np.repeat(half, 2, 0)
    holed[::8, 1] = np.nan
    assert matrices.chosen_neighbours(holed, (1, 10)) == 1
    np.testing.assert_allclose(matrices.nearest_rows(holed, 1)[::8, 1], half[::4, 1])


def test_random_trees_regress_missing_pixels_on_the_others() -> None:
    """The last pixel repeats the first: trees find it, a mean does not."""
    draws = np.random.default_rng(6)
    images = draws.integers(0, 256, (60, 1, 1, 3)).astype(np.float32)
    images[..., 2] = images[..., 0]
    observed = np.ones((10, 1, 1, 3), bool)
    observed[..., 2] = False
    filled = MissForest(images[:50], trees=10, rounds=2).fill(images[50:], observed)
    assert np.array_equal(filled[observed], images[50:][observed])
    assert np.abs(filled - images[50:])[~observed].mean() < 20


def test_the_learned_baselines_are_rows(plain: Path) -> None:
    made = lab.missing([plain], lab.Columns(iid=["0.3"]), lab.Rows(impute=["mean", "knn", "pca:8"]), end=60)
    accuracy = {name: row["iid:0.3"].accuracy for name, row in made.cells.items()}
    assert list(accuracy) == ["run, mean", "run, knn", "run, pca:8"]
    assert min(accuracy["run, knn"], accuracy["run, pca:8"]) > accuracy["run, mean"]


def test_the_manual_names_every_imputation() -> None:
    text = (ROOT / "docs" / "missing-data.md").read_text()
    assert all(f"`{name}" in text for name in imputing.NAMES)
