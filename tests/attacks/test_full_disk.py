"""Disks that are full: HDF5Output says so on one line, the process goes on, and the rows before stay readable."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from netspec.data.files.pending import PAGE, PendingFile
from netspec.data.sources.hdf5 import Hdf5Writer
from netspec.errors import DataError
from tests.places import ROOT

ROWS = 37
"""Rows of an append: chunks and pages end within them."""

FILL = """
import resource, signal, sys
from pathlib import Path
import torch
from netspec.data.sources.hdf5 import Hdf5Writer
from netspec.errors import DataError
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
writer, count = Hdf5Writer(Path(sys.argv[1])), 0
try:
    for i in range(200):
        values = torch.arange(370.0).view(37, 10) + 1000 * i
        writer.append({"data": values, "label": values[:, 0]})
        count += 37
except DataError as error:
    print(error)
try:
    writer.append({"data": values, "label": values[:, 0]})
except DataError as error:
    print("again")
if sys.argv[3] == "close":
    writer.close()
print(count)
"""


def child(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    own = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, env=own, check=False, capture_output=True, text=True, cwd=cwd)


def whole(path: Path, count: int) -> None:
    """The file has exactly `count` rows, each as it was written."""
    if count == 0 and path.stat().st_size == 0:
        return
    with h5py.File(path) as file:
        data, label = file["data"][()], file["label"][()]
    expected = np.arange(370.0).reshape(1, 37, 10) + 1000.0 * np.arange(200).reshape(200, 1, 1)
    assert np.array_equal(data, expected.reshape(-1, 10)[:count])
    assert np.array_equal(label, expected.reshape(-1, 10)[:count, 0])


@pytest.mark.slow
@pytest.mark.parametrize("close", ["close", "leave"])
@pytest.mark.parametrize("size", [0, 100, 2000, 5000, 12_345, 40_000, 65_536, 100_000, 150_001, 250_000])
def test_a_limit_of_any_size_loses_no_row(size: int, close: str, tmp_path: Path) -> None:
    finished = child("-c", FILL, tmp_path / "o.h5", size, close)
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr == ""
    message, again, count = finished.stdout.splitlines()
    assert again == "again"
    assert message == f"{tmp_path}/o.h5: cannot be written ([Errno 27] File too large)"
    assert int(count) > 0 or size < 20_000
    whole(tmp_path / "o.h5", int(count))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 100 KB; skipped where none may be mounted."""
    place = tmp_path / "mm"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(place)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no disk may be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


NET = """layer { name: "x" type: "DummyData" top: "x" top: "label" dummy_data_param {
  shape { dim: 20 dim: 10 } shape { dim: 20 } data_filler { type: "gaussian" } data_filler { value: 1 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 10 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "y" bottom: "label" top: "loss" }
layer { name: "o" type: "HDF5Output" bottom: "y" bottom: "label" hdf5_output_param { file_name: "mm/o.h5" } }
"""


@pytest.mark.slow
def test_training_onto_a_full_disk_ends_in_one_line(small_disk: Path, tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "net_solver.prototxt").write_text(
        'net: "net.prototxt" base_lr: 0.01 lr_policy: "fixed" max_iter: 400 snapshot: 20 random_seed: 1'
    )
    command = ["-m", "netspec", "train", "net_solver.prototxt"]
    finished = child(*command, "--out", "run", cwd=tmp_path)
    assert finished.returncode == 2, finished.stderr
    lines = finished.stderr.strip().splitlines()
    assert "mm/o.h5: cannot be written ([Errno 28] No space left on device)" in lines[-1]
    with h5py.File(small_disk / "o.h5") as file:
        rows = len(file["data"])
        assert len(file["label"]) == rows
        assert rows % 20 == 0
        assert rows > 1000
        before = file["data"][()]
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    finished = child(*command, "--resume", "run", cwd=tmp_path)  # with room again, nothing is lost
    assert finished.returncode == 0, finished.stderr
    with h5py.File(small_disk / "o.h5") as file:
        assert file["data"].shape == (8000, 10)
        assert np.array_equal(file["data"][:rows], before)


def test_a_device_is_no_place_for_rows(tmp_path: Path) -> None:
    (tmp_path / "o.h5").symlink_to("/dev/full")
    os.mkfifo(tmp_path / "ff")
    for name in ("o.h5", "ff"):
        with pytest.raises(DataError, match="no regular file"):
            Hdf5Writer(tmp_path / name).append({"data": torch.ones(2, 3)})


@pytest.mark.parametrize("kind", ["external", "link"])
def test_rows_go_into_no_other_file(kind: str, tmp_path: Path) -> None:
    """A file that is gone on with may be somebody else's: its data sets must not lead elsewhere."""
    victim = tmp_path / "victim"
    victim.write_bytes(bytes(64))
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file.create_dataset("data", (4, 2), "f4", maxshape=(None, 2))
    with h5py.File(tmp_path / "o.h5", "w") as file:
        if kind == "external":
            file.create_dataset("data", (4, 2), "f4", external=[(str(victim), 0, 64)])
        else:
            file["data"] = h5py.ExternalLink("other.h5", "data")
    other = (tmp_path / "other.h5").read_bytes()
    writer = Hdf5Writer(tmp_path / "o.h5")
    with pytest.raises(DataError, match=r"o\.h5: 'data' .*another file"):
        writer.go_on(2)
    writer.append({"data": torch.ones(2, 2)})
    writer.close()
    assert victim.read_bytes() == bytes(64)
    assert (tmp_path / "other.h5").read_bytes() == other
    with h5py.File(tmp_path / "o.h5") as file:
        assert file["data"].shape == (2, 2)


def test_two_writers_of_one_file(tmp_path: Path) -> None:
    first, second = Hdf5Writer(tmp_path / "o.h5"), Hdf5Writer(tmp_path / "o.h5")
    first.append({"data": torch.ones(2, 2)})
    with pytest.raises(DataError, match="another writer holds it"):
        second.append({"data": torch.zeros(3, 2)})
    first.close()
    with h5py.File(tmp_path / "o.h5") as file:
        assert file["data"].shape == (2, 2)


def test_a_pending_file_is_a_file(tmp_path: Path) -> None:
    """Random reads, writes, truncations and commits, beside a bytearray."""
    chance = np.random.default_rng(1)
    file, expected, on_disk = PendingFile(tmp_path / "p"), bytearray(), b""
    for _ in range(400):
        at, count = int(chance.integers(0, 3 * PAGE)), int(chance.integers(0, PAGE))
        what = chance.integers(0, 8)
        file.seek(at)
        if what < 4:
            data = chance.bytes(count)
            assert file.write(memoryview(data)) == count
            if count:
                expected.extend(bytes(max(0, at + count - len(expected))))
                expected[at : at + count] = data
        elif what < 6:
            buffer = bytearray(count)
            file.readinto(memoryview(buffer))
            assert buffer == expected[at : at + count].ljust(count, b"\0")
        elif what < 7:
            file.truncate(at)
            expected = expected[:at].ljust(at, b"\0")
        else:
            file.commit()
            on_disk = bytes(expected)
        assert file.seek(0, os.SEEK_END) == len(expected)
        assert (tmp_path / "p").read_bytes() == on_disk
    file.close()
    assert (tmp_path / "p").read_bytes() == on_disk
