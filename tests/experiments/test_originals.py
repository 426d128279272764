"""Templates and plans of the forms that the SimNets fork's experiments have, small: rendered and listed unchanged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from netspec import schema
from netspec.cli import app
from netspec.experiments.plan_reading import read_plan
from netspec.experiments.points import runs_of, text_of

ORIGINALS = Path(__file__).parent / "originals"
RUNS = {"init": 2, "train": 3, "test": 9, "percent": 5, "booleans": 3}
"""Runs of each plan: initialisation, training, tests on missing data, a template of Python's %, Python's booleans."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for path in ORIGINALS.iterdir():
        shutil.copy(path, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def messages(folder: Path, name: str) -> list[Any]:
    """The SolverParameter of each run of a plan."""
    plan = read_plan(folder / f"{name}.json", folder / f"{name}.prototmp")
    texts = [text_of(run, plan) for run in runs_of(plan)]
    return [text.parse().message for text in texts if text is not None]


@pytest.mark.parametrize("name", RUNS)
def test_every_point_is_rendered_and_read(name: str, folder: Path) -> None:
    for point in (1, RUNS[name]):
        words = [f"{name}.prototmp", "--plan", f"{name}.json", "--point", str(point), "-o", "made.prototxt"]
        app(["render", *words], standalone_mode=False)
        assert schema.read_solver("made.prototxt").message.net_param.layer


@pytest.mark.parametrize("name", RUNS)
def test_every_run_is_listed(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [f"{name}.prototmp", f"{name}.json", "--dry-run", "--json", "--no-timing"]
    app(["sweep", *words], standalone_mode=False)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == RUNS[name]
    assert not any(line["error"] for line in lines)
    assert not (folder / "deep").exists()


def test_initialisation(folder: Path) -> None:
    small, large = messages(folder, "init")
    data, similarity = small.net_param.layer[:2]
    assert data.image_data_param.source == "data/train#1/index.txt"  # the sign in a string begins no comment
    assert not data.image_data_param.is_color
    assert similarity.similarity_param.unsupervised_init.num_batches == 400
    assert [one.net_param.layer[1].similarity_param.num_instances for one in (small, large)] == [32, 800]
    assert small.random_seed == 314159
    assert small.snapshot_prefix == str(folder / "init" / "init_1")


def test_training(folder: Path) -> None:
    first, second, third = messages(folder, "train")
    assert [round(one.base_lr, 4) for one in (first, second, third)] == [
        0.01,
        0.1,
        0.01,
    ]  # the last changes fastest
    assert (list(first.stepvalue), list(first.step_policy)) == ([20000, 25000], ["fixed", "linear"])
    assert [list(state.stage) for state in first.test_state] == [["valid"], ["train"]]
    layers = {layer.name: layer for layer in first.net_param.layer if layer.name != "data"}
    assert sum(layer.name == "data" for layer in first.net_param.layer) == 3
    assert first.net_param.layer[0].image_data_param.batch_size == 32  # 128 over four GPUs
    assert layers["mex1"].mex_param.use_unshared_regions
    assert not layers["mex2"].mex_param.use_unshared_regions
    assert layers["mex4"].mex_param.offsets_filler.primal_dim == 16
    assert "likelihood" in layers
    assert "likelihood" not in {layer.name for layer in third.net_param.layer}  # beta 0
    filler = layers["rm0"].dummy_data_param.data_filler[0]
    assert (filler.type, filler.non_zero_probability) == ("bernoulli", 0.5)
    block = layers["sim"].similarity_param.block_param
    assert block.out_of_bounds_value != block.out_of_bounds_value  # NaN


def test_tests_with_missing_data(folder: Path) -> None:
    solvers = messages(folder, "test")
    names = [layer.name for layer in solvers[0].net_param.layer]
    assert sum(name.startswith("shift_") for name in names) == 9  # sums over translations
    assert len(next(layer for layer in solvers[0].net_param.layer if layer.name == "scores").bottom) == 9
    prefixes = [Path(one.snapshot_prefix).name for one in solvers]
    assert prefixes[0] == "test_1_1"
    assert prefixes[-1] == "test_3_3"


def test_pythons_percent_and_booleans(folder: Path) -> None:
    drawn = messages(folder, "percent")
    assert len({one.base_lr for one in drawn}) == 5
    assert [one.max_iter for one in drawn] == [
        10000,
        20000,
        10000,
        20000,
        10000,
    ]  # presets of a random search in turn
    assert all(0.001 <= one.base_lr <= 0.1 for one in drawn)
    network = messages(folder, "booleans")[0].net_param
    assert network.layer[0].image_data_param.shuffle  # True, as Python writes it
    assert [layer.name for layer in network.layer if layer.type == "Convolution"] == [
        "conv1",
        "conv2",
        "conv3",
    ]
