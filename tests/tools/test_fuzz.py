"""The fuzzer: its inputs are those of the seed, what they start from is read, and it sees what must not happen."""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from netspec.errors import DataError, NetspecError, SnapshotError
from netspec.interchange import caffemodel, read_weights, solverstate
from netspec.interchange.blobs import field as field_of
from netspec.interchange.blobs import number_field
from tests.mutations import BYTE_CHANGES, MESSAGE_CHANGES, TEXT_CHANGES, mutated
from tests.places import ROOT
from tools.fuzz import inputs as fuzz_inputs
from tools.fuzz import run as fuzz
from tools.fuzz.inputs import Kind, kinds


@pytest.fixture(scope="module")
def all_kinds(tmp_path_factory: pytest.TempPathFactory) -> list[Kind]:
    return kinds(tmp_path_factory.mktemp("fuzz"))


def test_what_is_mutated_is_read(all_kinds: list[Kind]) -> None:
    for (
        kind
    ) in all_kinds:  # some seeds are damaged on purpose; torch's programs are refused whatever they hold
        refused = []
        for data in kind.seeds:
            try:
                kind.read(data)
            except NetspecError as error:
                refused.append(str(error))
        assert len(refused) < len(kind.seeds) or kind.name == "program or pickle", refused
    assert sum(kind.share for kind in all_kinds) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("changes", [BYTE_CHANGES, MESSAGE_CHANGES, TEXT_CHANGES])
def test_the_seed_decides_the_inputs(all_kinds: list[Kind], changes: tuple[fuzz_inputs.Change, ...]) -> None:
    seeds = all_kinds[0].seeds
    inputs = [[mutated(seeds[0], random.Random(i), changes, seeds) for i in range(40)] for _ in range(2)]
    assert inputs[0] == inputs[1]
    assert len(set(inputs[0])) > 35
    for nothing in (b"", b"x"):
        mutated(nothing, random.Random(1), changes, [nothing])


def test_three_hundred_inputs(all_kinds: list[Kind]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of decoders, about damaged pictures
        for index in range(300):
            number, chance = fuzz.kind_of(all_kinds, 7, index)
            kind = all_kinds[number]
            end, why = fuzz.attempt(kind, fuzz.make(kind, chance), 60)
            assert end in (fuzz.ACCEPTED, fuzz.REFUSED), f"{index} ({kind.name}): {why}"


def raises(error: BaseException) -> Callable[[bytes], None]:
    def read(data: bytes) -> None:
        raise error

    return read


def spin(data: bytes) -> None:
    while True:
        pass


def crash(data: bytes) -> None:
    signal.raise_signal(signal.SIGKILL)


def fill(data: bytes) -> None:
    bytearray(2**30)


@pytest.mark.parametrize(
    ("read", "end"),
    [
        (len, "accepted"),
        (raises(DataError("no")), "refused"),
        (raises(IndexError("no")), "other exception"),
        (fill, "other exception"),
        (spin, "too slow"),
        (crash, "crash"),
    ],
)
def test_every_end_is_seen(
    read: Callable[[bytes], None], end: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    one = Kind("one", 1.0, [b"seed"], BYTE_CHANGES, read)
    monkeypatch.setattr(fuzz, "kinds", lambda folder: [one])
    options = argparse.Namespace(count=2, seed=0, seconds=0.2, megabytes=300, progress=0)
    counts, most = fuzz.fuzz(options, tmp_path)
    assert counts["one"] == {end: 2}
    assert most > 10


LONG, NUL, NOBODY = "a" * 5000, "a\\000b", "~nobody-of-this-name/a"
NAMING = (
    'layer {{ name: "d" type: "Data" top: "x" data_param {{ source: "{}" batch_size: 1 backend: LMDB }} }}',
    'layer {{ name: "d" type: "HDF5Data" top: "x" hdf5_data_param {{ source: "{}" batch_size: 1 }} }}',
    'layer {{ name: "d" type: "ImageData" top: "x" top: "y" image_data_param {{ source: "{}" batch_size: 1 }} }}',
    'layer {{ name: "d" type: "WindowData" top: "x" top: "y" window_data_param {{ source: "{}" batch_size: 1 }} }}',
    'layer {{ name: "d" type: "Dataset" top: "x" dataset_param {{ name: "digits" batch_size: 1 }} '
    'transform_param {{ mean_file: "{}" }} }}',
    'layer {{ name: "p" type: "Input" top: "p" top: "y" input_param {{ shape {{ dim: 2 dim: 3 }} shape '
    "{{ dim: 2 }} }} }} "
    'layer {{ name: "l" type: "InfogainLoss" bottom: "p" bottom: "y" infogain_loss_param {{ source: "{}" }} }}',
)


@pytest.mark.parametrize("name", [LONG, NUL, NOBODY], ids=["long", "nul", "nobody"])
def test_names_that_no_file_can_have(name: str, tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    for text in NAMING:
        with pytest.raises(NetspecError, match=r"net\.prototxt:1:"):
            fuzz_inputs.net_reader(path)(text.format(name).encode())
    for field in ("net", "train_net", "weights"):
        text = f'{field}: "{name}" base_lr: 1 lr_policy: "fixed" max_iter: 1 '
        with pytest.raises(NetspecError):
            fuzz_inputs.solver_reader(path)(text.encode())
    state = solverstate.parse_solverstate(
        number_field(1, 5) + field_of(2, name.replace("\\000", "\0").encode())
    )
    with pytest.raises(SnapshotError, match="neither there nor beside"):
        state.weights()
    with pytest.raises(SnapshotError):
        caffemodel.read_caffemodel(name.replace("\\000", "\0"))
    with pytest.raises(SnapshotError):
        read_weights(name.replace("\\000", "\0"))


def test_bn_of_a_batch_without_values(tmp_path: Path) -> None:
    """Found by the fuzzer: a width of 0 divided by zero."""
    text = """input: "x" input_dim: 2 input_dim: 3 input_dim: 4 input_dim: 0
layer { name: "b" type: "BN" bottom: "x" top: "y" bn_param { momentum: 0.9 } }"""
    with pytest.raises(NetspecError, match=r"layer 'b' \(BN\): top 'y' would have shape \(2, 3, 4, 0\)"):
        fuzz_inputs.net_reader(tmp_path / "net.prototxt")(text.encode())


@pytest.mark.slow
def test_a_training_that_is_killed_at_its_file_operations(tmp_path: Path) -> None:
    """Every 13th operation, in a process of its own: what is resumed ends as if nothing had been."""
    record = tmp_path / "record.json"
    command = [
        sys.executable,
        "-m",
        "tools.fuzz.snapshots",
        "--every",
        "13",
        "--flips",
        "200",
        "--record",
        str(record),
    ]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(record.read_text())
    assert set(figures["flips"]) == {"values: named by file and tensor", "header: named by file"}
    assert sum(ends["identical"] for ends in figures["kills"].values()) > 8


def test_sums_of_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, refused in ((1, 3), (2, 4)):
        figures = {"count": 5, "seed": seed, "peak_megabytes": 100 * seed, "seconds": 1,
                   "kinds": {"a": {"accepted": 5 - refused, "refused": refused}}}  # fmt: skip
        (tmp_path / f"{seed}.json").write_text(json.dumps(figures))
    files = [str(tmp_path / f"{seed}.json") for seed in (1, 2)]
    assert fuzz.main(["--sum", *files, "--out", str(tmp_path / "all.json")]) == 0
    data = json.loads((tmp_path / "all.json").read_text())
    assert (data["count"], data["peak_megabytes"]) == (10, 200)
    assert data["kinds"]["a"] == {"accepted": 3, "refused": 7}
    with pytest.raises(SystemExit, match="one seed"):
        fuzz.main(["--sum", files[0], files[0]])
