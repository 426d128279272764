"""A run is written for Caffe, and one of Caffe's is gone on with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from netspec.errors import SnapshotError
from netspec.interchange import caffemodel, solverstate
from tests.run.test_train import DATA, IP, LOSS, SOLVER, run

ADAM = SOLVER + 'type: "Adam" momentum: 0.9 snapshot: 3 snapshot_prefix: "a" '


@pytest.mark.parametrize(("kind", "ending"), [("BINARYPROTO", ""), ("HDF5", ".h5")])
def test_a_run_goes_on_from_caffes_files(kind: str, ending: str, tmp_path: Path) -> None:
    solver = ADAM + f"snapshot_format: {kind}"
    first = run(tmp_path, DATA + IP + LOSS, solver)
    state = first.folder / "snapshots" / f"a_iter_3.solverstate{ending}"
    read = solverstate.read_solverstate(state)
    assert read.iteration == 3
    assert len(read.history) == 4
    assert Path(read.learned_net).name == f"a_iter_3.caffemodel{ending}"
    other = run(tmp_path, DATA + IP + LOSS, solver, resume=state, out=tmp_path / "again")
    assert other.iteration == 8
    for name, value in first.net.weights().items():
        assert torch.equal(value, other.net.weights()[name])


def test_weights_are_looked_for_beside_the_state(tmp_path: Path) -> None:
    first = run(tmp_path, DATA + IP + LOSS, ADAM + "snapshot_format: BINARYPROTO")
    snapshots = first.folder / "snapshots"
    moved = tmp_path / "moved"
    snapshots.rename(moved)
    state = moved / "a_iter_6.solverstate"
    other = run(tmp_path, DATA + IP + LOSS, ADAM, resume=state, out=tmp_path / "again")
    assert torch.equal(other.net.weights()["ip/0"], first.net.weights()["ip/0"])
    (moved / "a_iter_6.caffemodel").unlink()
    with pytest.raises(SnapshotError, match="neither there nor beside it"):
        run(tmp_path, DATA + IP + LOSS, ADAM, resume=state, out=tmp_path / "third")


@pytest.mark.parametrize("gone", [False, True])
def test_the_weights_of_the_state_win_over_the_solvers_own(gone: bool, tmp_path: Path) -> None:
    """As in Caffe, which loads the solver's `weights` first and restores the state after."""
    first = run(tmp_path, DATA + IP + LOSS, ADAM + "snapshot_format: BINARYPROTO")
    start = tmp_path / "start.safetensors"
    start.write_bytes((first.folder / "snapshots" / "a_iter_3.safetensors").read_bytes())
    if gone:
        start.unlink()
    solver = ADAM + f'weights: "{start}"'
    for resume in ("a_iter_6.solverstate", "a_iter_6.state.safetensors"):
        state = first.folder / "snapshots" / resume
        other = run(tmp_path, DATA + IP + LOSS, solver, resume=state, out=tmp_path / resume)
        assert torch.equal(other.net.weights()["ip/0"], first.net.weights()["ip/0"])


def test_without_snapshot_format_only_our_files_are_written(tmp_path: Path) -> None:
    first = run(tmp_path, DATA + IP + LOSS, ADAM)
    assert not list((first.folder / "snapshots").glob("*.caffemodel"))


def test_a_trained_net_is_a_caffemodel(tmp_path: Path) -> None:
    first = run(tmp_path, DATA + IP + LOSS, ADAM + "snapshot_format: BINARYPROTO")
    model = caffemodel.read_caffemodel(first.folder / "snapshots" / "a_iter_8.caffemodel")
    assert [(layer.name, layer.type, len(layer.blobs)) for layer in model.layers] == [
        ("data", "Input", 0),
        ("ip", "InnerProduct", 2),
        ("loss", "SoftmaxWithLoss", 0),
    ]
