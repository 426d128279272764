"""What a new user meets: where a run's net is looked for, states of nets and layers, settings that do not fit."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from netspec import schema
from netspec.check import check
from netspec.errors import NetspecError, SpecError
from netspec.interchange import safetensors
from netspec.model.model import load
from netspec.model.pages import activation_pages
from netspec.net.compiling import compile_net
from netspec.net.make import make_net
from netspec.run import experiment
from netspec.run.evaluate import evaluate
from netspec.run.evaluate import tests_of as wanted
from netspec.run.fit import choose_device, fit
from netspec.schema import spec
from netspec.solver.policies import LearningRate

DATA = """
layer { name: "data" type: "Dataset" top: "data" top: "label"
  dataset_param { name: "digits" split: "train" batch_size: 8 } transform_param { scale: 0.0039 } }
"""
IP = """
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "y"
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
"""
LOSS = 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "y" bottom: "label" top: "loss" }'
SOLVER = """
base_lr: 0.1 lr_policy: "fixed" max_iter: 4 random_seed: 1 solver_mode: CPU
test_iter: 1 test_interval: 2 snapshot: 2
"""


@pytest.fixture
def solver(tmp_path: Path) -> Path:
    (tmp_path / "small.prototxt").write_text(DATA + IP + LOSS)
    path = tmp_path / "small_solver.prototxt"
    path.write_text('net: "small.prototxt"' + SOLVER)
    return path


# Folders


def test_a_run_folder_keeps_to_its_own_net(
    solver: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = fit(solver, out=tmp_path / "run", progress=False)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "net.prototxt").write_text(DATA + IP.replace("10", "12") + LOSS)
    monkeypatch.chdir(elsewhere)
    assert evaluate(run.folder) == [pytest.approx(run.results[0])]


def test_a_resumed_run_does_not_go_into_another_runs_folder(solver: Path, tmp_path: Path) -> None:
    for name in ("one", "other"):
        fit(solver, out=tmp_path / name, progress=False)
    before = (tmp_path / "other" / "metrics.jsonl").read_text()
    with pytest.raises(NetspecError, match="already holds a run"):
        fit(solver, resume=tmp_path / "one", out=tmp_path / "other", iterations=6, progress=False)
    assert (tmp_path / "other" / "metrics.jsonl").read_text() == before
    again = fit(solver, resume=tmp_path / "one", out=tmp_path / "one", iterations=6, progress=False)
    assert again.iteration == 6


def test_a_resumed_run_says_which_settings_changed(
    solver: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(solver, out=tmp_path / "run", progress=False, overrides=["base_lr=0.01"])
    fit(solver, resume=tmp_path / "run", iterations=6)
    assert "base_lr was 0.01, now 0.1" in capsys.readouterr().out
    fit(solver, resume=tmp_path / "run", iterations=8)
    assert " was " not in capsys.readouterr().out


# States


def test_a_net_names_its_own_state() -> None:
    net = """
    state { stage: "deep" level: 2 }
    layer { name: "a" type: "DummyData" top: "a" dummy_data_param { shape { dim: 1 } } include { stage: "deep" } }
    layer { name: "b" type: "DummyData" top: "b" dummy_data_param { shape { dim: 1 } } include { min_level: 2 } }
    layer { name: "c" type: "DummyData" top: "c" dummy_data_param { shape { dim: 1 } } include { stage: "x" } }
    """
    document = schema.parse_net(net)
    assert [layer.name for layer in spec.net(document).layers] == ["a", "b"]
    assert [layer.name for layer in spec.net(document, stages=["x"], level=1).layers] == ["a", "c"]


def test_the_solvers_state_is_added_to_the_nets(tmp_path: Path) -> None:
    layer = 'layer { name: "r" type: "ReLU" bottom: "y" top: "y" include { stage: "deep" stage: "more" } }'
    path = tmp_path / "solver.prototxt"
    path.write_text(
        f'net_param {{ state {{ stage: "deep" }} {DATA + IP + layer + LOSS} }} '
        + SOLVER
        + 'train_state { stage: "more" }'
    )
    plan = experiment.load(path)
    assert [layer.name for layer in plan.train.layers] == ["data", "ip", "r", "loss"]
    assert [layer.name for layer in plan.tests[0].spec.layers] == ["data", "ip", "loss"]


def test_a_layer_may_have_a_phase_of_its_own() -> None:
    net = """
    layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 4 dim: 8 } } }
    layer { name: "drop" type: "Dropout" bottom: "x" top: "y" phase: TEST }
    """
    made = make_net(net, phase="TRAIN")
    x = torch.ones(4, 8)
    assert torch.equal(made(x)[0], x)


# Settings


@pytest.mark.parametrize("name", ["net", "train_net", "test_net", "net_param", "train_net_param.name"])
def test_a_setting_cannot_name_another_net(solver: Path, name: str) -> None:
    with pytest.raises(SpecError, match="is read before settings; give the file in its place"):
        experiment.load(solver, [f"{name}=other.prototxt"])


def test_a_setting_of_test_iter_counts_as_if_written(solver: Path) -> None:
    assert [test.iterations for test in experiment.load(solver, ["test_iter=5,6"]).tests] == [5, 6]
    with pytest.raises(SpecError, match="test_iter must be at least 0, found -1"):
        experiment.load(solver, ["test_iter=-1"])
    both = ["test_iter=5,6", 'test_state=stage: "x"']
    with pytest.raises(SpecError, match="1 test_state entries for 2 test nets"):
        experiment.load(solver, both)


def test_more_fields_than_one_in_a_setting(solver: Path) -> None:
    with pytest.raises(SpecError, match=r"base_lr=0\.1 max_iter: 7: holds other fields: max_iter"):
        experiment.load(solver, ["base_lr=0.1 max_iter: 7"])


@pytest.mark.parametrize("name", ["banana", "meta", "cuda:x"])
def test_devices_that_are_none(name: str) -> None:
    with pytest.raises(NetspecError, match=f"device {name}"):
        choose_device(schema.SolverParameter(), name)


def test_a_rate_that_is_no_number() -> None:
    message = schema.parse_solver('base_lr: 1 lr_policy: "inv" gamma: -0.5 power: 0.75 max_iter: 9').message
    schedule = LearningRate(message)
    assert schedule.next(2) == math.inf
    assert math.isnan(schedule.next(3))
    message.gamma, message.power = 1e30, -4
    assert schedule.next(3) == math.inf


# Sizes


@pytest.mark.parametrize(
    "layer",
    [
        'layer { name: "x" type: "Input" top: "data" input_param {'
        " shape { dim: 8 dim: 4294967296 dim: 4294967296 } } }" + IP,
        'layer { name: "x" type: "DummyData" top: "data" dummy_data_param { shape { dim: 8 dim: -3 } } }',
        'layer { name: "x" type: "Input" top: "data" input_param { shape { dim: 8 dim: -3 } } }' + IP,
    ],
)
def test_sizes_beyond_reason_are_problems_of_their_layer(tmp_path: Path, layer: str) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(layer)
    report = check(path)
    assert not report.ok
    assert all(problem.position is not None for problem in report.problems)


def test_a_net_alone_is_tested_where_a_solvers_is(solver: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By default the GPU where there is one, as `--device` says."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    net = solver.with_name("small.prototxt")
    assert wanted(net, None, (), None).device == torch.device("cuda", 0)
    assert wanted(net, None, (), "cpu").device == torch.device("cpu")
    assert wanted(solver, None, (), None).device == torch.device("cpu")  # solver_mode: CPU


def test_a_trial_of_the_compiler_keeps_the_random_numbers_of_its_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, torch.device]] = []
    second, state = torch.device("cuda", 1), torch.zeros(1, dtype=torch.uint8)
    monkeypatch.setattr(
        torch.cuda, "get_rng_state", lambda device="cuda": (asked.append(("get", device)), state)[1]
    )
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda new, device="cuda": asked.append(("set", device)))
    net = make_net(twins("TRAIN"))
    monkeypatch.setattr(torch, "compile", lambda *method, **options: 1 / 0)
    batch: Any = [SimpleNamespace(is_cuda=True, device=second)]
    assert "ZeroDivisionError" in str(compile_net(net, batch))
    assert asked == [("get", second), ("set", second)]


def test_every_input_of_the_activations_lies_where_the_net_does(tmp_path: Path) -> None:
    masked = DATA.replace('top: "label"', 'top: "label" top: "mask"').replace(
        '"digits"', '"digits" missing { }'
    )
    product = 'bottom: "data" bottom: "mask" top: "seen" eltwise_param { operation: PROD }'
    both = f'layer {{ name: "seen" type: "Eltwise" {product} }}'
    (tmp_path / "net.prototxt").write_text(masked + both + IP.replace('bottom: "data"', 'bottom: "seen"'))
    trained = load(tmp_path / "net.prototxt", device="meta")
    assert len(trained.net.graph.inputs) == 2
    with pytest.raises(NetspecError, match="no blob is called 'none'"):
        activation_pages(trained, tmp_path / "pages", blobs=["none"])


def test_weights_that_lack_a_layer_are_told(
    solver: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net = solver.with_name("small.prototxt")
    weights = make_net(net, seed=1).weights()
    safetensors.save(tmp_path / "whole.safetensors", weights, {})
    safetensors.save(tmp_path / "half.safetensors", {"ip/0": weights["ip/0"]}, {})
    evaluate(net, tmp_path / "whole.safetensors", iterations=1, device="cpu")
    assert capsys.readouterr().err == ""
    evaluate(net, tmp_path / "half.safetensors", iterations=1, device="cpu")
    assert "half.safetensors: has no blob 'ip/1'" in capsys.readouterr().err


# Layers of equal name


def twins(phase: str) -> spec.NetSpec:
    layer = """
    layer { name: "ip" type: "InnerProduct" bottom: "%s" top: "%s"
      inner_product_param { num_output: 3 bias_term: false weight_filler { type: "xavier" } } }
    """
    source = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 4 dim: 3 } } }'
    return spec.net(schema.parse_net(source + layer % ("x", "y") + layer % ("y", "z")), phase)


def test_layers_of_equal_name_share_in_their_order() -> None:
    train = make_net(twins("TRAIN"))
    test = make_net(twins("TEST"), seed=1, share=train)
    assert [param.name for param in test.params] == ["ip/0", "ip#2/0"]
    assert all(ours.value is theirs.value for ours, theirs in zip(test.params, train.params, strict=True))


def test_weights_of_a_name_go_to_its_first_layer() -> None:
    net = make_net(twins("TRAIN"))
    second = net.weights()["ip#2/0"].clone()
    assert net.load_weights({"ip/0": torch.ones(3, 3)}) == (["ip#2/0"], [])
    assert torch.equal(net.weights()["ip/0"], torch.ones(3, 3))
    assert torch.equal(net.weights()["ip#2/0"], second)
