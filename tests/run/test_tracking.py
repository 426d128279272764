"""Metrics and pictures for TensorBoard, and for a module that speaks wandb's API."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from netspec.errors import NetspecError
from netspec.run.fit import fit
from netspec.run.folder import Metrics
from netspec.run.tracking import numbers_of, tiled

NET = """name: "n" layer { name: "d" type: "DummyData" top: "x" top: "y" dummy_data_param {
  data_filler { type: "gaussian" } data_filler { type: "constant" } shape { dim: 4 dim: 1 dim: 8 dim: 8 }
  shape { dim: 4 } } }
layer { name: "conv" type: "Convolution" bottom: "x" top: "c"
  convolution_param { num_output: 5 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "ip" type: "InnerProduct" bottom: "c" top: "ip"
  inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "y" top: "loss" }
"""
CIRCUIT = """name: "c" layer { name: "d" type: "DummyData" top: "x" top: "y" dummy_data_param {
  data_filler { type: "gaussian" } data_filler { type: "constant" } shape { dim: 4 dim: 1 dim: 4 dim: 4 }
  shape { dim: 4 } } }
layer { name: "g" type: "Similarity" bottom: "x" top: "g" similarity_param { num_instances: 3
  block_param { block_size: 2 stride: 2 } normalization_term: true ignore_nan_input: true
  template_filler { type: "gaussian" } weight_filler { type: "constant" value: 1 } } }
layer { name: "m" type: "MEX" bottom: "g" top: "m" param { lr_mult: 0 } param { is_logspace: true } mex_param {
  num_instances: 2 block_param { block_size: 1 } shared_offsets_region_size: 1 softmax_mode: true
  normalize_offsets: true
  epsilon_filler { type: "constant" value: 1 } offsets_filler { type: "dirichlet" primal_dim: 3 to_log: true } } }
layer { name: "s" type: "Pooling" bottom: "m" top: "s" pooling_param { pool: SUM kernel_size: 2 stride: 2 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "s" bottom: "y" top: "loss" }
"""
SOLVER = """net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 6 display: 2 random_seed: 1 test_iter: 1
test_interval: 3 compile: false gradient_norms: true"""


def train(folder: Path, track: str, net: str = NET) -> Any:
    (folder / "net.prototxt").write_text(net)
    (folder / "s_solver.prototxt").write_text(SOLVER)
    return fit(folder / "s_solver.prototxt", out=folder / "run", progress=False, track=[track])


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module with wandb's functions, which notes what it is told."""
    made: Any = ModuleType("fake_tracker")
    made.told = []
    made.init = lambda **settings: made.told.append(("init", settings))
    made.log = lambda values, step: made.told.append(("log", values, step))
    made.finish = lambda: made.told.append(("finish",))
    made.Image = lambda pixels: ("image", pixels)
    monkeypatch.setitem(sys.modules, "fake_tracker", made)
    return made


def test_a_module_with_wandbs_functions(module: Any, tmp_path: Path) -> None:
    done = train(tmp_path, "fake_tracker")
    first, *logs, last = module.told
    assert first[0] == "init"
    assert (first[1]["project"], first[1]["name"]) == ("netspec", "run")
    assert first[1]["config"]["base_lr"] == pytest.approx(0.1)
    assert last == ("finish",)
    numbers = {
        (name, step): value for _, values, step in logs for name, value in values.items() if name != "filters"
    }
    for line in Metrics(done.folder / "metrics.jsonl").read():
        for name, value in numbers_of(line).items():
            assert numbers[name, line["iteration"]] == value
    assert ("gradient/norm", 0) in numbers
    pictures = [(values["filters"], step) for _, values, step in logs if "filters" in values]
    assert [step for _, step in pictures] == [0, 3, 6]
    assert pictures[0][0][1].shape == (9, 13, 3)
    assert pictures[0][0][1].dtype == np.uint8


def test_samples_of_a_circuit(module: Any, tmp_path: Path) -> None:
    train(tmp_path, "fake_tracker", CIRCUIT)
    samples = [
        values["samples"][1]
        for kind, *rest in module.told
        if kind == "log"
        for values in rest[:1]
        if "samples" in values
    ]
    assert [picture.shape for picture in samples] == [(16, 16, 3)]


def test_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    done = train(tmp_path, "tensorboard")
    events = EventAccumulator(str(done.folder / "tensorboard"))
    events.Reload()
    tests = [line for line in Metrics(done.folder / "metrics.jsonl").read() if line["kind"] == "test"]
    shown = [(event.step, event.value) for event in events.Scalars("test/loss")]
    assert shown == [(line["iteration"], pytest.approx(line["outputs"]["loss"])) for line in tests]
    assert [event.step for event in events.Images("filters")] == [0, 3, 6]


def test_tiles() -> None:
    page = tiled(torch.stack([torch.arange(4.0).view(1, 2, 2), torch.full((1, 2, 2), 7.0)]))
    assert page.shape == (1, 4, 7)
    assert page[0, 1:3, 1:3].flatten().tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert page[0, 0].tolist() == [1] * 7


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("no_such_module", "cannot be imported"),
        ("json", r"has no init\(\)"),
        ("os; x", "no name of a module"),
    ],
)
def test_mistakes(name: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(NetspecError, match=complaint):
        train(tmp_path, name)
