"""Data sets out of folders, arrays and tables, into every kind; a conversion that fails leaves nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import h5py
import lmdb
import numpy as np
import pytest

from netspec.data.files.images import encode
from netspec.data.files.whole import staged
from netspec.data.pictures import open_pictures
from netspec.data.writing.convert import Example, from_any
from netspec.data.writing.databases import write_database, write_hdf5, write_npz
from netspec.errors import DataError
from tests.command import call
from tests.places import ROOT

IMAGES = np.random.default_rng(0).integers(0, 256, (9, 3, 5, 4), dtype=np.uint8)
LABELS = np.arange(9) % 3
TABLE = "size,sex,legs\n" + "".join(
    f"{1000 + i},{'' if i % 7 == 0 else 'fm'[i % 2]},{'' if i % 5 == 0 else i % 6}\n" for i in range(30)
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures in a sub-folder a class; file i holds IMAGES[i], colours in the order B, G, R."""
    for i, image in enumerate(IMAGES):
        path = tmp_path / "mine" / "abc"[LABELS[i]] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(image, "png", ""))
    return tmp_path / "mine"


ORDER = np.argsort(LABELS, kind="stable")
"""Classes one after the other, as a folder lists them."""


@pytest.mark.parametrize("kind", ["folder", "names", "npz"])
def test_pictures_into_each_kind(folder: Path, kind: str, tmp_path: Path) -> None:
    source, order = folder, ORDER
    if kind == "names":
        source, order = tmp_path / "list.txt", np.arange(9)
        lines = [f"mine/{'abc'[label]}/{i}.png {'abc'[label]}\n" for i, label in enumerate(LABELS)]
        source.write_text("".join(lines))
    if kind == "npz":
        source, order = tmp_path / "some.npz", np.arange(9)
        np.savez(source, images=IMAGES[:, ::-1].transpose(0, 2, 3, 1), labels=np.array(list("abc"))[LABELS])
    call("dataset", source, tmp_path / "out.lmdb")
    call("dataset", source, tmp_path / "out.npz")
    call("dataset", source, tmp_path / "out.h5", "--rows", 5)
    records = list(from_any(str(tmp_path / "out.lmdb")))
    assert (np.stack([one.image for one in records]) == IMAGES[order]).all()
    assert [one.label for one in records] == LABELS[order].tolist()
    with np.load(tmp_path / "out.npz") as made:
        assert made["images"].dtype == np.uint8
        assert (made["images"][:, ::-1] == IMAGES[order]).all()
        assert (made["labels"] == LABELS[order]).all()
    with h5py.File(tmp_path / "out_0.h5") as first, h5py.File(tmp_path / "out_1.h5") as second:
        assert (np.concatenate([first["data"], second["data"]]) == IMAGES[order]).all()
        assert (np.concatenate([first["label"], second["label"]]) == LABELS[order]).all()
    # What was written is read as pictures again, in the same colours.
    for name in ("out.npz", "out.lmdb"):
        again = open_pictures(tmp_path / name)
        assert (again.block(range(9)) == IMAGES[order]).all()
        assert (again.labels == LABELS[order]).all()


def test_pictures_without_labels(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", IMAGES[:, 0].astype(np.float32) / 255)
    call("dataset", tmp_path / "a.npy", tmp_path / "a.lmdb")
    pictures = open_pictures(tmp_path / "a.lmdb")
    assert np.isnan(pictures.labels).all()
    np.testing.assert_allclose(pictures.block(range(9)), IMAGES[:, :1], atol=1e-3)
    call("dataset", tmp_path / "a.npy", tmp_path / "b.npz", "--scale", 0.5)
    with np.load(tmp_path / "b.npz") as made:
        assert np.isnan(made["labels"]).all()
        np.testing.assert_allclose(made["images"], IMAGES[:, :1] / 2, atol=1e-3)


def test_a_table_into_each_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("t.csv").write_text(TABLE)
    told = call("dataset", "t.csv", "t.npz", "--target", "sex")
    assert "data (1, 1, 2): size, legs; label: sex (f, m)" in told
    size = 1000 + np.arange(30.0)
    legs = np.where(np.arange(30) % 5 == 0, np.nan, np.arange(30) % 6)
    sex = np.where(np.arange(30) % 7 == 0, np.nan, np.arange(30) % 2)
    expected = np.stack([(column - np.nanmean(column)) / np.nanstd(column) for column in (size, legs)], 1)
    with np.load("t.npz") as made:
        np.testing.assert_allclose(made["images"][:, 0, 0], expected, atol=1e-5)
        np.testing.assert_array_equal(made["labels"], sex)
    call("dataset", "t.csv", "t.h5", "--target", "legs", "--leave-out", "sex", "--no-standardise")
    with h5py.File("t_0.h5") as made:
        np.testing.assert_array_equal(made["data"][:, 0, 0, 0], size)
    call("dataset", "t.csv", "t.lmdb", "--target", "sex")
    records = list(from_any("t.lmdb"))
    np.testing.assert_allclose(np.stack([one.image[0, 0] for one in records]), expected, atol=1e-5)
    assert [one.label for one in records] == np.nan_to_num(sex, nan=-1).tolist()
    assert 'name: "size"' in Path("t_columns.prototxt").read_text()
    assert "label: species (setosa, versicolor, virginica)" in call("dataset", "sklearn_iris", "i.npz")


def test_a_table_is_read_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "long.csv"
    path.write_text("a,b,c\n" + "".join(f"{i / 3:.6f},{i % 5},{'xyz'[i % 3]}\n" for i in range(45_000)))
    code = (
        "import sys, tracemalloc; from pathlib import Path\n"
        "from netspec.data.writing.rows import table_records\n"
        "from netspec.data.writing.databases import write_hdf5\n"
        "import netspec.data.tables.reading as reading\n"
        "Text, old = reading.Text, reading.Text.pieces\n"
        "Text.pieces = lambda self, size=1000: old(self, 1000)\n"
        "records = table_records(sys.argv[1]).records\n"
        "tracemalloc.start()\n"
        "write_hdf5(records, Path(sys.argv[2]), 1000)\n"
        "print(tracemalloc.get_traced_memory()[1])\n"
    )
    finished = child("-c", code, path, tmp_path / "long.txt")
    assert finished.returncode == 0, finished.stderr
    assert int(finished.stdout) < 4_000_000  # its cells as text are above 8 MB
    assert len((tmp_path / "long.txt").read_text().splitlines()) == 45


def child(*arguments: object) -> subprocess.CompletedProcess[str]:
    own = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *map(str, arguments)], env=own, check=False, capture_output=True, text=True
    )


WRITE = {"db.lmdb": write_database, "x.txt": write_hdf5, "x.npz": write_npz}


@pytest.mark.parametrize("target", WRITE)
def test_a_record_that_cannot_be_read_leaves_nothing(tmp_path: Path, target: str) -> None:
    def records() -> Iterator[Example]:
        for i in range(25):
            if i == 20:
                raise DataError("line 20: no")
            yield Example(f"{i:08}", IMAGES[i % 9], i)

    options = {"rows": 5} if target == "x.txt" else {}
    with pytest.raises(DataError, match="line 20"):
        WRITE[target](records(), tmp_path / target, **options)
    assert not list(tmp_path.iterdir())
    others = [Example("a", IMAGES[0], 0), Example("b", IMAGES[0, :, :2], 0)]
    if target != "db.lmdb":
        with pytest.raises(DataError, match="differ in shape"):
            WRITE[target](iter(others), tmp_path / target)
        assert not list(tmp_path.iterdir())


def test_a_name_of_other_bytes_is_a_key(tmp_path: Path) -> None:
    write_database(iter([Example(os.fsdecode(b"\xff.png"), IMAGES[0], 0)]), tmp_path / "db")
    with lmdb.open(str(tmp_path / "db"), readonly=True) as base, base.begin() as read:
        assert [key for key, _ in read.cursor()] == [b"\xff.png"]


def test_two_writers_of_one_target_leave_each_other_alone(tmp_path: Path) -> None:
    with staged(tmp_path / "x") as one:
        (one / "x").write_text("one")
        with staged(tmp_path / "x") as other:
            (other / "x").write_text("other")
        assert (one / "x").read_text() == "one"
    assert (tmp_path / "x").read_text() == "one"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("target", ["x.lmdb", "x.npz", "x.h5"])
def test_a_bad_row_of_a_table_leaves_nothing(
    tmp_path: Path, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("t.csv").write_text(TABLE + "1,f\n")
    with pytest.raises(DataError, match=r"t\.csv:32: 2 cells, the table has 3 columns"):
        call("dataset", "t.csv", target)
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


STOPPED = """
import os, signal, sys, numpy as np
from pathlib import Path
from netspec.data.writing.convert import Example
signal.signal(signal.SIGINT, signal.default_int_handler)  # where the tests themselves ignore it
from netspec.data.writing.databases import write_database, write_hdf5, write_npz
def records():
    for i in range(3000):
        if i == 2500:
            os.kill(os.getpid(), int(sys.argv[3]))
        yield Example(f"{i:08}", np.zeros((1, 8, 8), np.uint8), 0)
write = {"x.lmdb": write_database, "x.txt": lambda *a: write_hdf5(*a, rows=1000), "x.npz": write_npz}
write[sys.argv[1]](records(), Path(sys.argv[2]) / sys.argv[1])
"""


@pytest.mark.parametrize("target", ["x.lmdb", "x.txt", "x.npz"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_process_that_is_stopped_leaves_nothing(tmp_path: Path, target: str, number: int) -> None:
    assert child("-c", STOPPED, target, tmp_path, int(number)).returncode != 0
    left = [path.name for path in tmp_path.iterdir()]
    if (
        number == signal.SIGKILL
    ):  # nobody could clear up: nothing has the target's name, and the next one clears up
        assert len(left) == 1
        assert left[0].startswith(f".{target}.")
        assert left[0].endswith(".tmp")
        WRITE.get(target, write_database)(iter([Example("0", IMAGES[0], 0)]), tmp_path / target)
        left = [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]
    assert left == []


@pytest.mark.parametrize("target", ["x.lmdb", "x.h5", "x.npz"])
def test_a_full_disk_leaves_nothing(tmp_path: Path, target: str) -> None:
    np.save(tmp_path / "a.npy", np.random.default_rng(0).integers(0, 256, (400, 40, 40), dtype=np.uint8))
    code = (
        "import resource, sys; from netspec.cli import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY)); main()"
    )
    finished = child("-c", code, "dataset", tmp_path / "a.npy", tmp_path / target)
    assert finished.returncode == 2, finished.stderr
    assert len(finished.stderr.splitlines()) == 1
    assert ".tmp" not in finished.stderr
    assert "cannot be written" in finished.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]


def test_what_is_there_stays(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", IMAGES[:, 0])
    call("dataset", tmp_path / "a.npy", tmp_path / "a.lmdb")
    before = (tmp_path / "a.lmdb" / "data.mdb").read_bytes()
    with pytest.raises(DataError, match="exists"):
        call("dataset", tmp_path / "a.npy", tmp_path / "a.lmdb")
    assert (tmp_path / "a.lmdb" / "data.mdb").read_bytes() == before


def test_options_that_do_not_apply(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "t.csv").write_text(TABLE)
    for words, told in (
        ((tmp_path / "t.csv", tmp_path / "o.npz", "--gray"), "--gray is for pictures"),
        ((tmp_path / "t.csv", tmp_path / "o.npz", "--target", "sx"), "did you mean 'sex'"),
        ((tmp_path / "t.csv", tmp_path / "o.lmdb", "--target", "size"), "no whole number"),
        ((folder, tmp_path / "o.npz", "--target", "x"), "is no table"),
        ((folder, tmp_path / "o.npz", "--split", "test"), "no named data set"),
        ((folder, tmp_path / "o.npz", "--encoded"), "lists of pictures with numbers"),
        ((tmp_path / "t.csv", tmp_path / "o", "--backend", "sql"), "no backend 'SQL'"),
    ):
        with pytest.raises(DataError, match=told):
            call("dataset", *words)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "t.csv"]
