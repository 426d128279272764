"""Model: nets cut down to their class scores, units, data, and queries in batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from netspec import schema
from netspec.errors import DataError, SnapshotError, SpecError
from netspec.interchange import snapshot_files
from netspec.model import model
from netspec.model.deploy import deploy
from netspec.queries import likelihood, marginals
from netspec.run.fit import fit
from netspec.schema import spec

DIGITS = "nets/ht_cac_digits.prototxt"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a few iterations: the numbers do not matter here."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    fit(DIGITS, iterations=6, out=folder, progress=False, overrides=["test_interval=0"])
    return folder


@pytest.fixture(scope="module")
def digits(run: Path) -> model.Model:
    return model.load(run)


def net(text: str) -> spec.NetSpec:
    return spec.net(schema.parse_net(text), spec.TEST)


DATA = (
    'layer { name: "data" type: "Dataset" top: "data" top: "label" top: "mask" dataset_param {'
    ' name: "digits" split: "test" batch_size: 4 missing { kind: "iid" probability: 0.5 value: 7 } } }\n'
)
DENSE = (
    'layer { name: "%s" type: "InnerProduct" bottom: "%s" top: "%s"'
    ' inner_product_param { num_output: %d weight_filler { type: "xavier" } } }\n'
)
LOSS = 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "%s" bottom: "label" top: "loss" }\n'
RELU = 'layer { name: "relu" type: "ReLU" bottom: "%s" top: "%s" }\n'


def test_scores_are_those_of_the_test_net(run: Path, digits: model.Model) -> None:
    """Same weights, same images: the accuracy that training itself reports at the end."""
    result = fit(DIGITS, resume=run, iterations=6, progress=False).results[0]
    pixels, labels = digits.images()
    right = digits.predict(digits.from_pixels(pixels)).numpy() == labels
    assert len(labels) == 290
    assert right.mean() == pytest.approx(result["accuracy"], abs=1e-6)


def test_weights_come_from_the_newest_good_snapshot(run: Path, digits: model.Model) -> None:
    weights = snapshot_files.newest(run)[0].weights
    assert set(digits.net.weights()) == set(weights)
    for name, value in digits.net.weights().items():
        assert torch.equal(value, weights[name])
    other = model.load(DIGITS, weights)
    assert torch.equal(other.net.weights()["mex1/0"], weights["mex1/0"])
    with pytest.raises(SnapshotError, match="has no blob scores/0"):
        model.load(DIGITS, {name: value for name, value in weights.items() if name != "scores/0"})


def test_units_go_there_and_back(digits: model.Model) -> None:
    pixels, _ = digits.images("test", 0, 5)
    observed = np.random.default_rng(0).random((5, 1, 8, 8)) < 0.5
    x = digits.from_pixels(pixels, observed)
    np.testing.assert_allclose(x.numpy()[observed], (pixels[observed] - 127.5) / 255, atol=1e-6)
    assert np.array_equal(~x.isnan().numpy(), observed)
    np.testing.assert_allclose(digits.to_pixels(x)[observed], pixels[observed], atol=1e-4)
    assert digits.unit == pytest.approx(1 / 255)


def test_masks_may_be_numbers(digits: model.Model) -> None:
    pixels, _ = digits.images("test", 0, 5)
    observed = np.random.default_rng(0).random((5, 1, 8, 8)) < 0.5
    for kind in (np.uint8, np.int64, np.float32):
        assert np.array_equal(~digits.from_pixels(pixels, observed.astype(kind)).isnan().numpy(), observed)


def test_images_of_a_split(digits: model.Model) -> None:
    assert digits.dataset == "digits"
    train, labels = digits.images("train", 3, 10)
    assert train.shape == (7, 1, 8, 8)
    assert labels.dtype == np.int64
    with pytest.raises(DataError, match="no split 'tset'"):
        digits.images("tset")


@pytest.mark.parametrize("n", [1, 3, 7, 8])
def test_queries_do_not_depend_on_the_batch(digits: model.Model, n: int) -> None:
    pixels, _ = digits.images("test", 0, 8)
    x = digits.from_pixels(pixels, np.random.default_rng(1).random((8, 1, 8, 8)) < 0.5)
    y = torch.arange(8) % 10
    whole = model.Model(digits.net, digits.deployed, batch=100)
    parts = model.Model(digits.net, digits.deployed, batch=n)
    torch.testing.assert_close(parts.scores(x), whole.scores(x))
    torch.testing.assert_close(parts.log_likelihood(x), likelihood.log_likelihood(digits.tree, x))
    torch.testing.assert_close(parts.posterior(x).sum(1), torch.ones(8))
    torch.testing.assert_close(parts.most_probable_completion(x), whole.most_probable_completion(x))
    torch.testing.assert_close(parts.contributions(x, y, 4), whole.contributions(x, y, 4))
    for ours, theirs in zip(
        parts.expected_completion(x, y), marginals.expected_completion(digits.tree, x, y), strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    assert [blob.shape[0] for blob in parts.marginals(x)] == [8] * len(digits.tree.names)


def test_draws_are_repeatable_and_keep_what_is_observed(digits: model.Model) -> None:
    pixels, _ = digits.images("test", 0, 4)
    observed = np.random.default_rng(1).random((4, 1, 8, 8)) < 0.5
    x = digits.from_pixels(pixels, observed)
    drawn = digits.complete(x, seed=3)
    assert torch.equal(drawn, digits.complete(x, seed=3))
    assert not torch.equal(drawn, digits.complete(x, seed=4))
    assert torch.equal(drawn[torch.from_numpy(observed)], x[torch.from_numpy(observed)])
    assert digits.sample(torch.arange(10), seed=1).shape == (10, 1, 8, 8)
    assert digits.information_gain(x, 2, 4, seed=1).shape == (4, 2, 2)


def test_samples_with_a_given_state_are_others(digits: model.Model) -> None:
    y = torch.arange(10)
    free, held = digits.sample(y, seed=1), digits.sample(y, seed=1, given=[("sum1", 0, 0, 5)])
    assert not torch.equal(free[:, :, :4, :4], held[:, :, :4, :4])


def test_bits_count_grey_levels(digits: model.Model) -> None:
    x = digits.from_pixels(digits.images("test", 0, 3)[0])
    nats = digits.log_likelihood(x) + 64 * np.log(1 / 255)
    torch.testing.assert_close(digits.bits_per_dimension(x), (-nats / 64 / np.log(2)).float())


def test_no_images(digits: model.Model) -> None:
    assert digits.scores(torch.empty(0, 1, 8, 8)).shape == (0, 10)


def test_what_the_scores_do_not_need_is_left_out() -> None:
    text = DATA + DENSE % ("ip", "data", "ip", 5) + RELU % ("ip", "ip") + DENSE % ("ip2", "ip", "ip2", 10)
    cut = deploy(net(text + DENSE % ("side", "ip", "side", 3) + LOSS % "ip2"))
    assert [layer.name for layer in cut.spec.layers] == ["data", "ip", "relu", "ip2"]
    assert cut.scores == "ip2"
    assert cut.spec.layers[0].type == "Input"
    assert cut.spec.layers[0].tops == ("data",)
    assert not cut.mask


def test_scores_before_a_softmax() -> None:
    soft = 'layer { name: "prob" type: "Softmax" bottom: "ip" top: "prob" }\n'
    given = 'layer { name: "in" type: "Input" top: "data" input_param { shape { dim: 2 dim: 6 } } }\n'
    assert deploy(net(given + DENSE % ("ip", "data", "ip", 5) + soft)).scores == "ip"


def test_the_accuracy_says_which_blob_is_compared() -> None:
    both = LOSS % "aux" + 'layer { name: "acc" type: "Accuracy" bottom: "ip" bottom: "label" top: "acc" }\n'
    text = DATA + DENSE % ("ip", "data", "ip", 10) + DENSE % ("aux", "data", "aux", 10)
    assert deploy(net(text + both)).scores == "ip"


def test_a_net_that_reads_the_mask(tmp_path: Path) -> None:
    """It sees `missing.value` and a mask of 0 at missing pixels."""
    join = 'layer { name: "both" type: "Concat" bottom: "data" bottom: "mask" top: "both" }\n'
    path = tmp_path / "net.prototxt"
    path.write_text(DATA + join + DENSE % ("ip", "both", "ip", 10) + LOSS % "ip")
    trained = model.load(path)
    assert trained.deployed.mask
    assert trained.takes_missing
    assert not trained.generative
    x = torch.rand(3, 1, 8, 8)
    hidden = torch.rand(3, 1, 8, 8) < 0.3
    told = torch.cat([x.masked_fill(hidden, 7.0), (~hidden).float()], 1).flatten(1)
    weight, bias = (param.value for param in trained.net.params)
    torch.testing.assert_close(trained.scores(x.masked_fill(hidden, torch.nan)), told @ weight.T + bias)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (DENSE % ("ip", "data", "ip", 5), "no layer that brings data in"),
        (DATA, "no layer that could give class scores"),
        (DATA + DENSE % ("ip", "mask", "ip", 5) + LOSS % "ip", "do not depend on 'data'"),
        (
            DATA
            + 'layer { name: "both" type: "Concat" bottom: "data" bottom: "label" top: "both" }'
            + DENSE % ("ip", "both", "ip", 5)
            + LOSS % "ip",
            r"layer 'both' \(Concat\): through it the class scores 'ip' depend on the label",
        ),
    ],
)
def test_nets_without_class_scores(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        deploy(net(text))


def test_a_net_that_is_no_tree_says_so(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(DATA + DENSE % ("ip", "data", "ip", 10) + LOSS % "ip")
    trained = model.load(path)
    assert not trained.generative
    assert not trained.takes_missing
    with pytest.raises(SpecError, match=r"layer 'ip' .*begin with Similarity"):
        trained.log_likelihood(torch.zeros(1, 1, 8, 8))


def test_everything_missing_has_probability_one(digits: model.Model) -> None:
    empty = torch.full((2, 1, 8, 8), torch.nan)
    torch.testing.assert_close(digits.log_likelihood(empty), torch.zeros(2), rtol=0, atol=1e-4)
    torch.testing.assert_close(digits.posterior(empty), torch.full((2, 10), 0.1), rtol=0, atol=1e-5)


def test_samples_average_to_the_expected_completion(digits: model.Model) -> None:
    """2,000 completions of one image: each pixel's mean within 5 standard errors."""
    pixels, _ = digits.images("test", 7, 8)
    x = digits.from_pixels(pixels, np.random.default_rng(3).random((1, 1, 8, 8)) < 0.5)
    mean, deviation = digits.expected_completion(x)
    drawn = digits.complete(x.expand(2000, -1, -1, -1), seed=5)
    error = (drawn.mean(0) - mean[0]).abs()
    assert bool((error <= 5 * deviation[0] / 2000**0.5 + 1e-6).all())
    spread = drawn.std(0) / deviation[0].clamp_min(1e-9)
    assert bool((spread[x[0].isnan()] - 1).abs().max() < 0.2)


def test_layers_of_training_alone_stand_below_the_leaf(tmp_path: Path) -> None:
    """Random shifts, dropout and marginalisation change nothing in TEST; a fixed shift does."""
    text = Path(DIGITS).read_text()
    shift = (
        'layer { name: "shift" type: "Translation" bottom: "data" top: "shifted"'
        " translation_param { shift_x: 1 random: %s out_of_bounds_value: nan } }\n"
        'layer { name: "whole" type: "Dropout" bottom: "shifted" top: "shifted" }\n'
        'layer { name: "drop0" type: "Marginalize" bottom: "shifted"'
    )
    old = 'layer {\n  name: "drop0" type: "Marginalize" bottom: "data"'
    assert old in text
    for random, generative in (("true", True), ("false", False)):
        file = tmp_path / f"{random}.prototxt"
        file.write_text(text.replace(old, shift % random))
        assert model.load(file).generative is generative


def test_a_net_of_similarities_that_is_no_tree_classifies(tmp_path: Path) -> None:
    """A whitening convolution in front of Similarity does not make it one."""
    path = tmp_path / "net.prototxt"
    path.write_text("""
        layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 3 dim: 1 dim: 4 dim: 4 } } }
        layer { name: "conv" type: "Convolution" bottom: "x" top: "conv"
          convolution_param { num_output: 4 kernel_size: 2 stride: 2 weight_filler { type: "gaussian" } } }
        layer { name: "sim" type: "Similarity" bottom: "conv" top: "sim" similarity_param {
          num_instances: 5 block_param { block_size: 1 } template_filler { type: "gaussian" } } }
        layer { name: "pool" type: "Pooling" bottom: "sim" top: "pool"
          pooling_param { pool: AVE global_pooling: true } }""")
    trained = model.load(path)
    assert not trained.takes_missing
    assert trained.scores(torch.zeros(2, 1, 4, 4)).shape == (2, 5)
