"""Small NORB: the original's file format, and exact marginals behind the whitening convolution."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from netspec import lab
from netspec.data.sets import norb
from netspec.errors import DataError, SpecError
from netspec.model import model
from netspec.net.make import make_net
from netspec.net.net import Net
from netspec.queries import whitened

NET = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 3 dim: 2 dim: 4 dim: 4 } } }
layer { name: "white" type: "Convolution" bottom: "data" top: "white"
  convolution_param { num_output: 8 kernel_size: 2 stride: 2 weight_filler { type: "gaussian" std: 1 }
    bias_filler { type: "gaussian" std: 1 } } }
layer { name: "gaussians" type: "Similarity" bottom: "white" top: "gaussians"
  similarity_param { num_instances: 5 block_param { block_size: 1 } normalization_term: true normalization_term_fudge: 0
  ignore_nan_input: true
    template_filler { type: "gaussian" std: 1 } weight_filler { type: "uniform" min: 0.5 max: 2 } } }
layer { name: "mex" type: "MEX" bottom: "gaussians" top: "mex" param { lr_mult: 0 }
  mex_param { num_instances: 3 softmax_mode: true normalize_offsets: true block_param { block_size: 1 }
    shared_offsets_region_size: 1 epsilon_filler { type: "constant" value: 1 }
    offsets_filler { type: "dirichlet" primal_dim: 5 to_log: true } } }
layer { name: "scores" type: "Pooling" bottom: "mex" top: "scores" pooling_param { pool: SUM global_pooling:
true } }
"""


@pytest.fixture
def net() -> Net:
    return make_net(NET, seed=3).double().requires_grad_(False)


@pytest.fixture
def tree(net: Net) -> whitened.Whitened:
    made = whitened.find(net)
    assert made is not None
    return made


def images(hidden: float) -> torch.Tensor:
    x = torch.randn(3, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return x.masked_fill(torch.rand(x.shape, generator=torch.Generator().manual_seed(2)) < hidden, torch.nan)


@pytest.mark.parametrize("hidden", [0.0, 0.3, 0.7, 1.0])
def test_leaf_densities_are_scipys_marginals(net: Net, tree: whitened.Whitened, hidden: float) -> None:
    """Each patch and component: the Gaussian A^-1 (t - b), A^-1 diag(1/w) A^-T, restricted to what
    is observed.
    """
    a, b, t, w = (param.value.numpy() for param in net.params[:4])
    inverse = np.linalg.inv(a.reshape(8, 8))
    x = images(hidden)
    densities = tree.leaf_log_density(x).numpy()
    assert densities.shape == (3, 5, 2, 2)
    for n, i, j in np.ndindex(3, 2, 2):
        patch = x[n, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].numpy().ravel()
        seen = ~np.isnan(patch)
        for m in range(5):
            mean = inverse @ (t[m].ravel() - b)
            covariance = inverse @ np.diag(1 / w[m].ravel()) @ inverse.T
            wanted = 0.0
            if seen.any():
                wanted = stats.multivariate_normal(mean[seen], covariance[np.ix_(seen, seen)]).logpdf(
                    patch[seen]
                )
            assert densities[n, m, i, j] == pytest.approx(wanted, rel=1e-8, abs=1e-8)


def test_whole_images_score_as_in_the_net(net: Net, tree: whitened.Whitened) -> None:
    """In pixels a density is that of the whitened patch times |det A|, the same for all classes."""
    x = images(0.0)
    jacobian = 4 * torch.linalg.slogdet(net.params[0].value.view(8, 8)).logabsdet
    torch.testing.assert_close(tree.scores(x), net(x)[0].flatten(1) + jacobian, rtol=0, atol=1e-6)


def test_missing_pixels_are_integrated_out(tree: whitened.Whitened) -> None:
    """The density with one pixel missing is the integral over its values."""
    x = images(0.4)[:1]
    at = tuple(int(k) for k in (~x.isnan()).nonzero()[0])
    values = torch.linspace(-60, 60, 40001, dtype=torch.float64)
    shown = x.repeat(len(values), 1, 1, 1)
    shown[:, at[1], at[2], at[3]] = values
    whole = torch.logsumexp(torch.cat([tree.scores(part) for part in shown.split(4000)]), 0)
    without = x.clone()
    without[at] = torch.nan
    step = float(values[1] - values[0])
    torch.testing.assert_close(whole + np.log(step), tree.scores(without)[0], rtol=0, atol=1e-6)


def test_a_pixel_comes_from_the_other_camera() -> None:
    x = images(0.5)
    both = whitened.from_other_camera(x)
    gone = x.isnan()
    assert torch.equal(both.isnan(), (gone & gone.flip(1)))
    only = gone & ~gone.flip(1)
    assert torch.equal(both[only], x.flip(1)[only])
    assert torch.equal(both[~gone], x[~gone])


def test_nets_that_are_not_whitened() -> None:
    for old, new in (
        ("stride: 2", "stride: 1"),
        ("num_output: 8", "num_output: 7"),
        ("stride: 2", "stride: 2 pad: 1"),
    ):
        text = NET.replace(old, new, 1)
        assert whitened.find(make_net(text, seed=1)) is None


@pytest.mark.parametrize("dtype", ["u1", "<i4", "<f4", "<f8", "<i2"])
@pytest.mark.parametrize("shape", [(5,), (2, 3), (2, 3, 4), (2, 2, 3, 4)])
def test_matrices_come_back(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    values = (np.random.default_rng(1).random(shape) * 200).astype(dtype)
    norb.write(tmp_path / "a.mat", values)
    matrix = norb.read(tmp_path / "a.mat")
    assert matrix.dtype == values.dtype
    assert np.array_equal(matrix, values)
    (tmp_path / "a.mat.gz").write_bytes(gzip.compress((tmp_path / "a.mat").read_bytes()))
    assert np.array_equal(norb.read(tmp_path / "a.mat.gz"), values)


def test_the_header_is_the_originals(tmp_path: Path) -> None:
    """As the authors' page describes it: cat files have one axis, but three lengths."""
    norb.write(tmp_path / "cat.mat", np.array([3, 1], np.int32))
    words = np.frombuffer((tmp_path / "cat.mat").read_bytes(), "<u4")
    assert words.tolist() == [0x1E3D4C54, 1, 2, 1, 1, 3, 1]


@pytest.mark.parametrize("cut", [0, 3, 7, 12, 19, 21])
def test_damaged_files(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "a.mat"
    norb.write(path, np.ones((2, 1), np.uint8))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match=r"a\.mat"):
        norb.read(path)


def test_huge_and_foreign_files(tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    path.write_bytes(np.array([0x1E3D4C55, 3, 2**31, 2**31, 4], "<u4").tobytes())
    with pytest.raises(DataError, match="too large"):
        norb.read(path)
    path.write_bytes(b"MATLAB 5.0 MAT-file, Platform")
    with pytest.raises(DataError, match="no matrix file"):
        norb.read(path)
    with pytest.raises(DataError, match="cannot be read"):
        norb.read(tmp_path / "none.mat")


def test_a_generated_set(tmp_path: Path) -> None:
    norb.generate(tmp_path, 40)
    images, classes, info = norb.load(tmp_path, "train")
    assert images.shape == (40, 2, 96, 96)
    assert norb.small(images[:2]).shape == (2, 2, 32, 32)
    held = norb.held_out(classes, info)
    for label in range(5):
        assert len(np.unique(info[held & (classes == label), 0])) == 1
    (tmp_path / f"{norb.STEMS['test']}-cat.mat").unlink()
    with pytest.raises(DataError, match=r"testing-cat\.mat"):
        norb.load(tmp_path, "test")


def test_in_the_laboratory(tmp_path: Path) -> None:
    """Such a net takes missing pixels; what needs pixels at its leaf says that it has none."""
    path = tmp_path / "net.prototxt"
    path.write_text(NET)
    trained = model.load(path)
    assert trained.takes_missing
    pixels = np.random.default_rng(0).random((6, 2, 4, 4)).astype(np.float32)
    setting = lab.parse("iid:0.5", per_channel=True)
    observed = setting.observed(pixels, np.arange(6), 1)
    assert observed.shape == pixels.shape
    plain = lab.Direct(trained, "plain").predict(pixels, observed)
    whole = lab.Direct(trained, "stereo", stereo=True).predict(pixels, observed | True)
    assert plain.shape == whole.shape == (6,)
    with pytest.raises(SpecError, match="reads no pixels"):
        trained.log_likelihood(torch.zeros(1, 2, 4, 4))
