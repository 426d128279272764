"""Shipped nets of latent variables and imputation: each trains a few steps, is tested, drawn, sampled, completed."""

from __future__ import annotations

import gzip
import re
import struct
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from netspec import draw
from netspec.cli import app
from netspec.data.sets import datasets
from netspec.data.sets.catalogue import Known
from netspec.model import completing, latents
from netspec.model.completing import OfDiffusion, OfFlow, OfLatent, OfNamed
from netspec.model.model import load
from netspec.net import reading
from netspec.net.make import make_net
from netspec.run.fit import fit
from netspec.schema.spec import TRAIN
from tests.places import NETS

COMPLETING = {
    "vae_mnist_solver": "expected",
    "iwae_mnist_solver": "expected",
    "dvae_mnist_solver": "expected",
    "miwae_mnist_solver": "expected",
    "mvae_mnist_solver": "expected",
    "nade_mnist_solver": "completed",
    "nice_mnist_solver": "sampled",
    "gsn_mnist_solver": "completed",
    "dpm_mnist_solver": "sampled",
    "dmfa_mnist_solver": "completed",
    "dmfa_incomplete_mnist_solver": "completed",
    "dmfa_cifar10_solver": "completed",
    "wae_mnist_solver": "completed",
    "wae_zero_mnist_solver": "completed",
    "wae_partial_mnist_solver": "completed",
}
"""Solvers of nets that complete images, and the usual way of each."""
CLASSIFYING = (
    "misconv_mnist_solver",
    "misconv_zero_mnist_solver",
    "misconv_mask_mnist_solver",
    "misconv_partial_mnist_solver",
    "misconv_knn_mnist_solver",
    "dvae_mlp_mnist_solver",
)


def written(path: Path, values: np.ndarray) -> None:
    head = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    path.write_bytes(gzip.compress(head + values.tobytes()))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of data sets: 220 images in the form of MNIST's, white bars on black, and 300 in HDF5 files."""
    folder, draws = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    (folder / "mnist").mkdir()
    for part, count in (("train", 120), ("t10k", 100)):
        labels = draws.integers(0, 10, count).astype(np.uint8)
        images = np.zeros((count, 28, 28), np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[2 * label + 2 : 2 * label + 8, 6:22] = 230
        written(folder / "mnist" / f"{part}-images-idx3-ubyte.gz", images)
        written(folder / "mnist" / f"{part}-labels-idx1-ubyte.gz", labels)
    for split, count in (("train", 200), ("test", 100)):
        with h5py.File(folder / f"knn_{split}.h5", "w") as file:
            file["data"] = draws.random((count, 1, 28, 28)).astype(np.float32)
            file["label"] = draws.integers(0, 10, count).astype(np.float32)
            file["mask"] = (draws.random((count, 1, 28, 28)) < 0.7).astype(np.float32)
        (folder / f"knn_{split}.txt").write_text(f"{folder / f'knn_{split}.h5'}\n")
    return folder


@pytest.fixture
def nets(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The shipped nets beside small data; scikit-learn's digits stand in for CIFAR."""

    def nowhere(known: Known) -> Path:
        raise datasets.absent(known, "no download in tests")

    monkeypatch.setattr(datasets, "download", nowhere)
    monkeypatch.setenv("NETSPEC_DATA", str(small))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for path in NETS.glob("*.prototxt"):
        text = path.read_text().replace("runs/misconv/", f"{small}/").replace('"nets/', f'"{tmp_path}/')
        text = text.replace('name: "cifar10"', 'name: "cifar10" stand_in: "digits"')
        (tmp_path / path.name).write_text(text.replace("test_iter: 100", "test_iter: 1"))
    return tmp_path


def trained(nets: Path, solver: str) -> Path:
    """The run of three steps, tested at its end; what it is pretrained with is trained as long."""
    file = nets / f"{solver}.prototxt"
    before = re.search(r'pretraining: "(\w+)\.prototxt"', file.read_text())
    weights = None if before is None else trained(nets, before[1])
    run = fit(
        file,
        out=nets / "runs" / solver,
        iterations=3,
        overrides=["test_interval=3"],
        weights=weights,
        progress=False,
    )
    assert run.results
    assert all(np.isfinite(value).all() for result in run.results for value in result.values())
    return run.folder


@pytest.mark.parametrize("solver", COMPLETING)
def test_a_net_trains_and_completes_and_is_drawn(solver: str, nets: Path) -> None:
    folder = trained(nets, solver)
    model = load(folder)
    assert completing.completer(model).ways[0] == COMPLETING[solver]
    effort = {OfLatent: 5, OfFlow: 3}.get(type(completing.completer(model)), 0)
    draws = np.random.default_rng(1)
    pixels = draws.integers(0, 256, (2, *model.image_shape)).astype(np.uint8)
    observed = draws.random((2, 1, *model.image_shape[1:])) < 0.5
    x = model.from_pixels(pixels, observed)
    whole = completing.completed(model, x, effort=effort)
    assert torch.equal(whole[~x.isnan()], x[~x.isnan()])
    assert whole.isfinite().all()
    assert draw.graph(model.net, folder / "net.svg").paths[0].stat().st_size > 1000
    if isinstance(completing.completer(model), OfNamed | OfDiffusion):
        drawn = completing.completed(model, torch.full_like(x, torch.nan))
    else:
        kind = latents.find(model)
        assert kind is not None
        drawn = latents.samples(model, kind, 2)
    assert drawn.shape == x.shape
    assert drawn.isfinite().all()


@pytest.mark.parametrize("solver", CLASSIFYING)
def test_a_classifier_trains_and_answers_for_missing_pixels(solver: str, nets: Path) -> None:
    model = load(trained(nets, solver))
    pixels = np.random.default_rng(1).integers(0, 256, (3, 1, 28, 28)).astype(np.uint8)
    if model.data.type == "HDF5Data":
        return  # its images come filled in
    x = model.from_pixels(pixels, pixels > 100)
    assert model.scores(x if model.takes_missing else x.nan_to_num(model.fill)).shape == (3, 10)


def test_an_autoencoder_of_images_that_come_filled_in_trains(nets: Path) -> None:
    """Its k-NN stage sees no missing values, so it has none to complete."""
    net = load(trained(nets, "wae_knn_mnist_solver")).net
    assert not any(name.startswith("dmfa_") for name in net.weights())


def test_frozen_densities_stay_as_they_were(nets: Path) -> None:
    after = load(trained(nets, "misconv_mnist_solver")).net.weights()
    before = load(nets / "runs" / "dmfa_mnist_solver").net.weights()
    shared = [name for name in after if name.startswith("dmfa_")]
    assert len(shared) == 12
    assert all(torch.equal(before[name], after[name]) for name in ("dmfa_conv1/0", "dmfa_mu/0"))


def test_the_second_square_is_drawn_evenly_and_hides_what_is_there(nets: Path) -> None:
    """Of the stage "incomplete": 14 x 14 pixels at any corner; scored are those of them that the first square left."""
    spec = reading.read(nets / "dmfa_mnist.prototxt", "net")
    net = make_net(spec, TRAIN, stages=["incomplete"])
    mask = torch.ones(48, 1, 28, 28)
    mask[:, :, 3:17, 5:19] = 0
    data = 0.5 * mask
    seen = {name: [] for name in ("square", "hidden", "seen", "input")}
    torch.manual_seed(0)
    for _ in range(20):
        blobs = net.blobs(data, torch.zeros(48), mask, torch.full_like(mask, torch.nan))
        for name, batches in seen.items():
            batches.append(blobs[name])
    square, hidden, visible, shown = (torch.cat(batches) for batches in seen.values())
    every = mask.repeat(20, 1, 1, 1)
    assert (square.flatten(1).sum(1) == 196).all()
    rows, columns = square.amax((1, 3)).argmax(1), square.amax((1, 2)).argmax(1)
    assert rows.min() == columns.min() == 0
    assert rows.max() == columns.max() == 14
    assert abs(float(rows.float().mean()) - 7) < 4.5 * 4.32 / 960**0.5
    assert torch.equal(hidden, every * square)
    assert torch.equal(visible, every * (1 - square))
    assert torch.equal(shown, 0.5 * visible)


def test_the_command_takes_each_kind_of_net(nets: Path) -> None:
    run = trained(nets, "nade_mnist_solver")
    for command in (
        ["test", run],
        ["complete", run, "--images", "0:2", "--samples", "0", "-o", nets / "c.png"],
        ["summary", run],
        ["draw", run, nets / "net.svg"],
    ):
        result = CliRunner().invoke(app, list(map(str, command)), catch_exceptions=False)
        assert result.exit_code == 0, (command, result.output)
    assert (nets / "c.png").stat().st_size > 500
