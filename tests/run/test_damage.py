"""A run among damage: bad bytes in its files, two processes at one folder, names with dots, NaN in its tests."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from netspec.errors import NetspecError, SnapshotError
from netspec.interchange import safetensors, snapshot_files
from netspec.run.evaluate import evaluate
from netspec.run.fit import Diverged, fit
from netspec.run.folder import Metrics, parse_lines
from netspec.run.lock import Lock
from tests.run.test_resume import comparable, equal, solver, train

__all__ = ["solver"]


@pytest.fixture
def run(solver: Path) -> Path:
    """The folder of a run with snapshots at 4 and 8."""
    return train(solver, "run", overrides=["max_iter=8"]).folder


def go_on(solver: Path, run: Path, iterations: int = 10, **settings: Any) -> Any:
    return fit(solver, resume=run, overrides=[f"max_iter={iterations}"], **settings)


def test_damaged_lines_are_left_out_counted_and_said(
    solver: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run / "metrics.jsonl"
    good = path.read_bytes()
    bad = [
        b"\xff\xfe\x00", b"[1, 2]", b"null", b'{"kind": "train"}', b'{"kind": "train", "iteration": "3"}', b"[" * 5000,
        b'{"kind": "train", "iteration": 1, "loss": "low"}', b'{"kind": "test", "iteration": 1}',
        b'{"kind": "test", "iteration": 1, "net": 0, "outputs": {"loss": {}}}', b'{"kind": "train", "iteration": -1}',
    ]  # fmt: skip
    path.write_bytes(b"\n".join([*bad, good]))
    assert parse_lines(path.read_bytes()) == (parse_lines(good)[0], len(bad))
    go_on(solver, run)
    assert f"{path}: {len(bad)} damaged lines are left out" in capsys.readouterr().out
    whole = train(solver, "whole", overrides=["max_iter=10"]).folder
    assert comparable(run) == comparable(whole)


def test_bit_flips_in_metrics_never_stop_the_reader(run: Path) -> None:
    path, chance = run / "metrics.jsonl", random.Random(1)
    good = bytearray(path.read_bytes())
    for _ in range(3000):
        data = bytearray(good)
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        lines, damaged = parse_lines(bytes(data))
        assert len(lines) + damaged >= good.count(b"\n") - 1
        assert damaged <= 2
    path.write_bytes(data)
    Metrics(path).rewind(6)
    assert all(line["iteration"] < 6 for line in Metrics(path).read())


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[1]", b"\xff", b'{"resumed": 3}', b'{"resumed": {}, "seed": []}', b"[" * 5000]
)
def test_a_damaged_run_json_is_kept_aside(solver: Path, run: Path, text: bytes) -> None:
    (run / "run.json").write_bytes(text)
    go_on(solver, run)
    data = json.loads((run / "run.json").read_text())
    if text.startswith(b'{"'):
        assert len(data["resumed"]) == 1
    else:
        assert (run / "run.damaged.json").read_bytes() == text
        assert any("could not be read" in note for note in data["notes"])


Change = Callable[[dict[str, Any], dict[str, torch.Tensor]], None]
CHANGES: dict[str, Change] = {
    "no seed": lambda info, tensors: info.pop("seed"),
    "seed of text": lambda info, tensors: info.update(seed="three"),
    "no numbers": lambda info, tensors: info.pop("numbers"),
    "numbers of text": lambda info, tensors: info["numbers"].update(dict.fromkeys(info["numbers"], "x")),
    "losses": lambda info, tensors: info.update(losses={"a": 1}),
    "seconds": lambda info, tensors: info.update(seconds="long"),
    "compiled": lambda info, tensors: info.update(compiled="yes"),
    "iteration": lambda info, tensors: info.update(iteration=-8),
    "iteration of true": lambda info, tensors: info.update(iteration=True),
    "weights": lambda info, tensors: info.update(weights=3),
    "weights elsewhere": lambda info, tensors: info.update(weights="../../../../etc/passwd"),
    "noted": lambda info, tensors: info.update(noted=[1]),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_a_snapshot_with_a_wrong_info_is_passed_over(
    solver: Path, run: Path, change: str, capsys: pytest.CaptureFixture[str]
) -> None:
    state = run / "snapshots" / "iter_8.state.safetensors"
    tensors, info, _ = safetensors.load(state)
    CHANGES[change](info, tensors)
    safetensors.save(state, tensors, info)
    assert go_on(solver, run).iteration == 10
    out = capsys.readouterr().out
    assert f"passed over: {state.parent}" in out
    assert "iter_4.state.safetensors" in out


@pytest.mark.parametrize("entry", ["random/cpu", "solver", "data"])
def test_a_state_that_lacks_a_part_is_an_error_in_words(solver: Path, run: Path, entry: str) -> None:
    state = run / "snapshots" / "iter_8.state.safetensors"
    tensors, info, _ = safetensors.load(state)
    less = {name: value for name, value in tensors.items() if not name.startswith(entry)}
    info["numbers"] = {name: value for name, value in info["numbers"].items() if not name.startswith(entry)}
    safetensors.save(state, less, info)
    with pytest.raises(NetspecError) as caught:
        go_on(solver, state, progress=False)
    assert len(str(caught.value).splitlines()) == 1
    if entry == "random/cpu":
        wrong = {**tensors, "random/cpu": torch.zeros(3)}
        safetensors.save(state, wrong, info)
        with pytest.raises(SnapshotError, match=r"iter_8\.state\.safetensors: its state cannot be taken up"):
            go_on(solver, state, progress=False)


def test_bit_flips_are_named_by_file_and_tensor(run: Path) -> None:
    """Every flip is found; those in values name the tensor."""
    chance = random.Random(2)
    for kind in (".state.safetensors", ".safetensors"):
        path = run / "snapshots" / f"iter_8{kind}"
        good = path.read_bytes()
        start = 8 + int.from_bytes(good[:8], "little")
        header = json.loads(good[8:start])
        spans = {n: e["data_offsets"] for n, e in header.items() if n != "__metadata__"}
        for _ in range(150):
            place = chance.randrange(len(good))
            data = bytearray(good)
            data[place] ^= 1 << chance.randrange(8)
            path.write_bytes(data)
            with pytest.raises(SnapshotError) as caught:
                safetensors.load(path)
            assert str(path) in str(caught.value)
            name = next((n for n, (a, b) in spans.items() if a <= place - start < b), None)
            assert name is None or f"tensor {name!r}" in str(caught.value), str(caught.value)
        path.write_bytes(good)


@pytest.mark.parametrize("name", ["sha256", "sums", "info", "format"])
def test_a_flip_in_the_name_of_a_note_is_found(run: Path, name: str) -> None:
    path = run / "snapshots" / "iter_8.safetensors"
    data = path.read_bytes()
    path.write_bytes(data.replace(f'"{name}"'.encode(), f'"{name[:-1]}~"'.encode(), 1))
    with pytest.raises(SnapshotError, match="is damaged"):
        safetensors.load(path)


def test_snapshots_without_sums_are_read(run: Path) -> None:
    """As they were written before there was a checksum a tensor."""
    path = run / "snapshots" / "iter_8.safetensors"
    tensors, info, _ = safetensors.load(path)
    text = json.dumps(info, sort_keys=True)
    notes = {"format": "pt", "info": text, "sha256": safetensors.digest(tensors, text)}
    path.write_bytes(safetensors.safetensors.torch.save(tensors, notes))
    assert equal(safetensors.load(path)[0], tensors)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(SnapshotError, match="its content does not match"):
        safetensors.load(path)


def test_a_folder_is_locked(solver: Path, run: Path) -> None:
    lock = Lock(run)
    with pytest.raises(NetspecError, match=rf"{run}: this run is going on: process \d+ on "):
        go_on(solver, run, progress=False)
    assert list((run / "snapshots").iterdir())
    lock.release()
    assert go_on(solver, run, progress=False).iteration == 10
    assert not (run / ".lock").exists()
    (run / ".lock").write_text("process 1, long gone\n")  # as a kill leaves it
    assert go_on(solver, run, 11, progress=False).iteration == 11


@pytest.mark.parametrize(
    "prefix", [".hidden", "a/.b", "..", "v1.2", "iter_3.x", "n.state", ".state.safetensors"]
)
def test_prefixes_with_dots_hide_no_snapshot(solver: Path, prefix: str) -> None:
    made = train(solver, "run", overrides=["max_iter=8", f'snapshot_prefix="{prefix}"'])
    names = [path.name for path in (made.folder / "snapshots").iterdir()]
    assert len(names) == 4
    assert not [name for name in names if name.startswith(".")]
    assert snapshot_files.newest(made.folder)[0].iteration == 8
    weights = [
        path
        for path in (made.folder / "snapshots").iterdir()
        if ".state.s" not in path.name.split("iter_")[-1]
    ]
    assert sorted(map(snapshot_files.iteration_of, weights)) == [4, 8]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["BINARYPROTO", "HDF5"])
def test_files_for_caffe_that_a_kill_kept_from_being_written(solver: Path, kind: str) -> None:
    asked = [f"snapshot_format={kind}", "max_iter=8"]
    whole = train(solver, "whole", overrides=asked)
    ending = ".h5" if kind == "HDF5" else ""
    names = [f"iter_8.caffemodel{ending}", f"iter_8.solverstate{ending}"]
    for gone in (names, names[1:]):
        before = {name: (whole.folder / "snapshots" / name).read_bytes() for name in names}
        for name in gone:
            (whole.folder / "snapshots" / name).unlink()
        fit(solver, resume=whole.folder, overrides=asked, progress=False)
        assert all((whole.folder / "snapshots" / name).is_file() for name in names)
        if kind == "BINARYPROTO":
            for name, data in before.items():
                assert (whole.folder / "snapshots" / name).read_bytes() == data


NET = """
layer {{ name: "data" type: "HDF5Data" top: "x" top: "y" include {{ phase: {phase} }}
  hdf5_data_param {{ source: "{list}" batch_size: 4 }} }}
"""
REST = """
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "s" inner_product_param { num_output: 3 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "s" bottom: "y" top: "loss" }
layer { name: "accuracy" type: "Accuracy" bottom: "s" bottom: "y" top: "accuracy" include { phase: TEST } }
"""


def given(folder: Path, x: dict[str, float | None], y: dict[str, float | None]) -> Path:
    """A solver whose TRAIN and TEST data have a value of x, or all of y, replaced."""
    text = ""
    for phase in ("TRAIN", "TEST"):
        values, labels = np.ones((12, 2), np.float32), np.arange(12, dtype=np.float32) % 3
        if (one := x.get(phase)) is not None:
            values[5, 1] = one
        if (one := y.get(phase)) is not None:
            labels[:] = one
        with h5py.File(folder / f"{phase}.h5", "w") as file:
            file["x"], file["y"] = values, labels
        (folder / f"{phase}.txt").write_text(str(folder / f"{phase}.h5"))
        text += NET.format(phase=phase, list=folder / f"{phase}.txt")
    (folder / "net.prototxt").write_text(text + REST)
    path = folder / "solver.prototxt"
    path.write_text(
        f'net: "{folder}/net.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 4 test_iter: 3 test_interval: 2 '
        "test_initialization: false snapshot_after_train: false solver_mode: CPU random_seed: 1"
    )
    return path


NAN = float("nan")


def test_nan_in_test_data_stops_the_run_and_loses_nothing(tmp_path: Path) -> None:
    path = given(tmp_path, {"TEST": NAN}, {})
    with pytest.raises(Diverged) as caught:
        fit(path, out=tmp_path / "run", progress=False)
    text = str(caught.value)
    assert "output 'loss' is not finite in batch 1 of the test: " in text
    assert "input 'x' is not (1 NaN of 8 values)" in text or "'data' (HDF5Data)" in text
    assert snapshot_files.newest(tmp_path / "run")[0].iteration == 2
    with pytest.raises(Diverged, match="output 'loss' is not finite in batch 1"):
        evaluate(path, tmp_path / "run", iterations=3)


def test_test_nets_that_are_not_finite(tmp_path: Path) -> None:
    path = given(tmp_path, {}, {})
    text = (tmp_path / "net.prototxt").read_text()
    log = 'layer { name: "log" type: "Log" bottom: "x" top: "x" log_param { shift: -1.5 } include { phase: TEST } }\n'
    (tmp_path / "net.prototxt").write_text(text.replace('layer { name: "ip"', f'{log}layer {{ name: "ip"'))
    with pytest.raises(
        Diverged, match=r"layer 'log' \(Log\): is the first whose output 'x' is not finite \(8 NaN"
    ):
        fit(path, out=tmp_path / "run", progress=False)


def test_labels_that_are_all_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = given(tmp_path, {}, {"TEST": NAN})
    with pytest.raises(Diverged, match=r"layer 'loss' .*labels are all NaN \(12 of 12 values\)"):
        fit(path, out=tmp_path / "run", progress=False)
    path = given(tmp_path, {}, {"TRAIN": NAN})
    fit(path, out=tmp_path / "other")
    seen = "".join(capsys.readouterr())
    assert "labels are all NaN (16 of 16 values)" in " ".join(seen.split())


@pytest.mark.parametrize(
    "kind", ["HingeLoss", "MultinomialLogisticLoss", "SigmoidCrossEntropyLoss", "FocalLoss"]
)
@pytest.mark.parametrize("through", ["", "Reshape"])
def test_labels_that_are_all_missing_in_every_loss(
    kind: str, through: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where a layer stands between the data and the loss."""
    path = given(tmp_path, {}, {"TRAIN": NAN})
    text = (tmp_path / "net.prototxt").read_text().replace("SoftmaxWithLoss", kind)
    text = text.replace("num_output: 3", f"num_output: {1 if kind.startswith('Sigmoid') else 3}")
    if kind.startswith("Sigmoid"):
        text = text[: text.index('layer { name: "accuracy"')]
    if through or kind.startswith("Sigmoid"):
        shape = "dim: 0 dim: 1" if kind.startswith("Sigmoid") else "dim: 0"
        between = 'layer { name: "r" type: "Reshape" bottom: "y" top: "z" '
        between += f"reshape_param {{ shape {{ {shape} }} }} }}\n"
        start = text.index('layer { name: "loss"')
        text = text[:start] + between + text[start:].replace('bottom: "y"', 'bottom: "z"')
    (tmp_path / "net.prototxt").write_text(text)
    seen = ""
    try:
        fit(path, out=tmp_path / "run")
    except Diverged as error:
        seen = str(error)
    seen += "".join(capsys.readouterr())
    assert "layer 'loss'" in seen or "output 'y' is not finite" in seen
    assert "NaN" in seen


def test_nan_scores_of_a_test_without_a_loss_are_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given(tmp_path, {"TEST": NAN}, {})
    text = (tmp_path / "net.prototxt").read_text().partition('layer { name: "loss"')[0]
    (tmp_path / "net.prototxt").write_text(text)
    weights = {"ip/0": torch.ones(3, 2), "ip/1": torch.ones(3)}
    safetensors.save(tmp_path / "w.safetensors", weights, {})
    evaluate(tmp_path / "net.prototxt", tmp_path / "w.safetensors", iterations=3)
    seen = " ".join("".join(capsys.readouterr()).split())
    assert "output 's' is not finite in batch 1 of the test" in seen
