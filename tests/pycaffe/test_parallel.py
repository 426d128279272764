"""Several solvers as Caffe's `-gpu 0,1`: each the file's batch, gradients averaged, files and lines of the first."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from netspec.interchange.weights import read_weights
from netspec.layers.ranks import Ranks
from netspec.pycaffe import parallel
from netspec.pycaffe.command import main
from tests.several import started

NET = """
layer { name: "data" type: "Dataset" top: "x" top: "t"
  dataset_param { name: "digits" split: "train" batch_size: %d shuffle: true } }
%s
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 10
  weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "y" bottom: "t" top: "loss" }
"""
NORM = 'layer { name: "norm" type: "BatchNorm" bottom: "x" top: "x" }'


def solver(folder: Path, name: str, batch: int, layers: str = "") -> Path:
    (folder / f"{name}.prototxt").write_text(NET % (batch, layers))
    path = folder / f"{name}_solver.prototxt"
    path.write_text(
        f'net: "{folder / name}.prototxt" base_lr: 0.001 lr_policy: "fixed" max_iter: 4 display: 1 random_seed: 2 '
        f'solver_mode: CPU snapshot_prefix: "{folder / name}"'
    )
    return path


def trained(_: Ranks, file: Path) -> int:
    return main(["train", f"-solver={file}"])


def weights(folder: Path, name: str) -> dict[str, torch.Tensor]:
    return read_weights(folder / f"{name}_iter_4.caffemodel")


def test_two_solvers_of_four_images_are_one_of_eight(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    assert main(["train", f"-solver={solver(tmp_path, 'one', 8)}"]) == 0
    assert started(2, trained, solver(tmp_path, "two", 4)) == [0, 0]
    one, two = weights(tmp_path, "one"), weights(tmp_path, "two")
    assert all(torch.allclose(value, two[name], atol=1e-6) for name, value in one.items())


def test_batch_statistics_are_each_solver_s_own(tmp_path: Path) -> None:
    """As in Caffe: the snapshot has those of the first solver, which are not those of the batch of both."""
    pytest.importorskip("sklearn")
    assert main(["train", f"-solver={solver(tmp_path, 'one', 8, NORM)}"]) == 0
    assert started(2, trained, solver(tmp_path, "two", 4, NORM)) == [0, 0]
    one, two = weights(tmp_path, "one"), weights(tmp_path, "two")
    assert not torch.allclose(one["norm/0"], two["norm/0"], rtol=1e-3)


def test_a_process_for_each_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[list[str]] = []
    monkeypatch.setattr(parallel, "launch", lambda commands: begun.extend(commands) or 0)
    assert parallel.start_on([0, 2], ["train", "-gpu", "0,2", "-solver=a", "--gpu=0,2"]) == 0
    assert [command[3:] for command in begun] == [
        ["caffe", "train", "-solver=a", f"-gpu={gpu}"] for gpu in (0, 2)
    ]


def test_gpus_that_are_not_there_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.device_count() > 7:
        pytest.skip("needs a machine with fewer GPUs")
    assert main(["train", "-solver=a", "-gpu", "0,7"]) == 2
    assert "there is no GPU" in capsys.readouterr().err
