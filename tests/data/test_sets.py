"""Named data sets: files, search path, downloads, stand-ins, splits."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import os
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from netspec.check import check as check_file
from netspec.data.files import idx
from netspec.data.sets import catalogue, cifar, datasets
from netspec.data.sets.fetch import Remote, fetch
from netspec.errors import DataError


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No data set is at hand, and no mirror answers."""
    monkeypatch.setenv("NETSPEC_DATA", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("NETSPEC_MIRROR", raising=False)
    for known in catalogue.KNOWN.values():
        for role, remote in known.files.items():
            monkeypatch.setitem(known.files, role, Remote(remote.name, 0, mirrors=("http://127.0.0.1:9",)))


def write_set(folder: Path, n: int = 60, ending: str = ".gz", seed: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    for half in ("train", "test"):
        images = random.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        labels = random.integers(0, 10, n, dtype=np.uint8)
        idx.write(folder / f"{catalogue.ROLES[f'{half} images']}{ending}", images)
        idx.write(folder / f"{catalogue.ROLES[f'{half} labels']}{ending}", labels)


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "i4", "f4", "f8"])
@pytest.mark.parametrize("ending", ["", ".gz"])
def test_idx_round_trip(tmp_path: Path, dtype: str, ending: str) -> None:
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    idx.write(tmp_path / f"a{ending}", array)
    back = idx.read(tmp_path / f"a{ending}")
    assert back.dtype == array.dtype
    assert (back == array).all()
    assert idx.shape(tmp_path / f"a{ending}") == (2, 3, 4)


def test_damaged_idx_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "images.idx"
    whole = b"\0\0\x08\x03" + np.array([2, 3, 4], ">u4").tobytes() + bytes(24)
    zipped = gzip.compress(whole)
    cases = {
        "not an idx file": b"\x89PNG\r\n",
        "nothing": b"",
        "truncated within its header": whole[:9],
        "found only 23": whole[:-1],
        "found more": whole + b"\0",
        "gzip stream is truncated": zipped[:-12],
        "CRC check failed": zipped[:-8] + bytes(4) + zipped[-4:],
        "are not read": b"\0\0\x08\x03" + b"\xff" * 12,
        "found only 0": b"\0\0\x08\x02" + np.array([1 << 14, 1 << 14], ">u4").tobytes(),
    }
    for reason, data in cases.items():
        path.write_bytes(data)
        with pytest.raises(DataError, match=reason) as caught:
            idx.read(path)
        assert str(path) in str(caught.value)
    with pytest.raises(DataError, match="no such file"):
        idx.read(tmp_path / "none")


def test_npz_never_unpickles(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(
        path, plain=np.eye(3), columns=np.asfortranarray(np.arange(6).reshape(2, 3)), objects=np.array([{}])
    )
    npz = idx.Npz(path)
    assert npz.names() == ["plain", "columns", "objects"]
    assert npz.shape("plain") == (3, 3)
    assert (npz.read("plain") == np.eye(3)).all()
    assert (npz.read("columns") == np.arange(6).reshape(2, 3)).all()
    with pytest.raises(DataError, match="Python objects"):
        npz.read("objects")
    with pytest.raises(DataError, match="no array 'other'; it holds columns, objects, plain"):
        npz.read("other")
    with pytest.raises(DataError, match="are not read"):
        npz.read("plain", most=10)
    data = path.read_bytes()
    path.write_bytes(data[:200])
    with pytest.raises(DataError, match="zip file"):
        npz.read("plain")


def test_search_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_set(tmp_path / "b" / "mnist")
    write_set(tmp_path / "c" / "mnist", ending="", seed=1)
    monkeypatch.setenv(
        "NETSPEC_DATA", os.pathsep.join([str(tmp_path / "a"), str(tmp_path / "b"), str(tmp_path / "c")])
    )
    first = datasets.load("mnist", "whole_train")
    assert first.images.shape == (60, 1, 28, 28)
    assert first.images.dtype == np.uint8
    monkeypatch.setenv("NETSPEC_DATA", str(tmp_path / "c"))
    assert not np.array_equal(datasets.load("mnist", "whole_train").images, first.images)
    assert len(datasets.load("mnist", "train")) == 50
    assert len(datasets.load("mnist", "validation")) == 10
    # Files in a folder without the set's name count only when their labels are the set's.
    monkeypatch.setenv("NETSPEC_DATA", str(tmp_path / "c" / "mnist"))
    assert len(datasets.load("mnist", "test")) == 60
    os.rename(tmp_path / "c" / "mnist", tmp_path / "c" / "else")
    monkeypatch.setenv("NETSPEC_DATA", str(tmp_path / "c" / "else"))
    with pytest.raises(datasets.Absent):
        datasets.load("fashion-mnist", "test")
    labels = (tmp_path / "c" / "else" / "train-labels-idx1-ubyte").read_bytes()
    monkeypatch.setattr(
        datasets,
        "KNOWN",
        {
            **catalogue.KNOWN,
            "mnist": catalogue.Known(
                "mnist",
                (1, 28, 28),
                10_000,
                dict(catalogue.MNIST.files),
                (hashlib.sha256(labels).hexdigest(),),
                catalogue.MNIST.classes,
            ),
        },
    )
    assert len(datasets.load("mnist", "test")) == 60


def test_absent_set_says_what_to_put_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETSPEC_DATA", str(tmp_path / "a"))
    with pytest.raises(DataError) as caught:
        datasets.load("mnist")
    for part in (
        "'mnist'",
        "train-images-idx3-ubyte.gz",
        str(tmp_path / "cache" / "netspec" / "data" / "mnist"),
        "$NETSPEC_DATA/mnist/",
    ):
        assert part in str(caught.value)
    with pytest.raises(DataError, match="did you mean 'mnist'"):
        datasets.load("mnits")
    with pytest.raises(DataError, match="no split 'tset'"):
        datasets.load("digits", "tset")


def test_damaged_set_is_no_absent_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_set(tmp_path / "mnist", ending="")
    monkeypatch.setenv("NETSPEC_DATA", str(tmp_path))
    labels = tmp_path / "mnist" / catalogue.ROLES["test labels"]
    idx.write(labels, np.zeros(59, np.uint8))
    with pytest.raises(DataError, match=r"\(59,\) for 60 images"):
        datasets.load("mnist", "test", stand_in="digits")
    idx.write(labels, np.full(60, 10, np.uint8))
    with pytest.raises(DataError, match="labels above 9"):
        datasets.load("mnist", "test", stand_in="digits")


def test_stand_in_is_announced(capsys: pytest.CaptureFixture[str]) -> None:
    data = datasets.load("mnist", "test", stand_in="digits")
    assert data.images.shape == (290, 1, 28, 28)
    assert "stands in" in data.notes[0]
    assert "not results on mnist" in data.notes[0]
    shown = capsys.readouterr()
    assert "stands in" in shown.err
    assert not shown.out
    assert datasets.load("cifar10", "test", stand_in="digits").images.shape == (290, 3, 32, 32)
    with pytest.raises(DataError, match="no data set"):
        datasets.load("mnist", "test", stand_in="digit")


def test_digits_splits() -> None:
    splits = {name: datasets.load("digits", name) for name in datasets.SPLITS}
    assert {name: len(split) for name, split in splits.items()} == {
        "train": 1217,
        "validation": 290,
        "whole_train": 1507,
        "test": 290,
    }
    for name in ("validation", "test"):
        assert (np.bincount(splits[name].labels) == 29).all()
    images, _ = datasets.digits()
    assert images.min() == 0
    assert images.max() == 255
    rows = np.concatenate([splits["whole_train"].images, splits["test"].images]).reshape(1797, -1)
    assert (np.sort(rows.view("V64"), 0) == np.sort(images.reshape(1797, -1).copy().view("V64"), 0)).all()


# Downloads


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    folder = tmp_path / "served"
    folder.mkdir()
    handler = lambda *args: Quiet(*args, directory=str(folder))  # noqa: E731
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_address[1]}", folder
        listening.shutdown()
        thread.join()


def test_download_goes_to_the_cache(
    server: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, folder = server
    write_set(folder / "mnist")
    monkeypatch.setenv("NETSPEC_MIRROR", address)
    assert len(datasets.load("mnist", "test")) == 60
    cached = sorted(path.name for path in (tmp_path / "cache" / "netspec" / "data" / "mnist").iterdir())
    assert cached == sorted(f"{stem}.gz" for stem in catalogue.ROLES.values())
    monkeypatch.delenv("NETSPEC_MIRROR")
    assert len(datasets.load("mnist", "whole_train")) == 60


def test_download_checks_before_it_keeps(server: tuple[str, Path], tmp_path: Path) -> None:
    address, folder = server
    (folder / "f.bin").write_bytes(b"abc")
    good = hashlib.sha256(b"abc").hexdigest()
    out = tmp_path / "out"
    assert (
        fetch(Remote("f.bin", 3, sha256=good, mirrors=("http://127.0.0.1:9", address)), out).read_bytes()
        == b"abc"
    )
    (out / "f.bin").unlink()
    for remote, reason in (
        (Remote("f.bin", 3, md5="0" * 32, mirrors=(address,)), "md5"),
        (Remote("f.bin", 2, mirrors=(address,)), "more than the published 2 bytes"),
        (Remote("f.bin", 4, mirrors=(address,)), "3 bytes, 4 are published"),
        (Remote("g.bin", 4, mirrors=(address,)), "File not found"),
        (Remote("g.bin", 4), "no mirror"),
    ):
        with pytest.raises(DataError, match=reason):
            fetch(remote, out)
        assert list(out.iterdir()) == []


@pytest.mark.parametrize("damage", ["other bytes", "shorter"])
def test_cached_files_are_the_published_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    folder = tmp_path / "cache" / "netspec" / "data" / "mnist"
    write_set(folder)
    for role, stem in catalogue.ROLES.items():
        data = (folder / f"{stem}.gz").read_bytes()
        published = Remote(f"{stem}.gz", len(data), sha256=hashlib.sha256(data).hexdigest())
        monkeypatch.setitem(catalogue.MNIST.files, role, published)
    assert len(datasets.load("mnist", "test")) == 60
    path = folder / f"{catalogue.ROLES['test labels']}.gz"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] if damage == "shorter" else whole[:-9] + b"x" + whole[-8:])
    with pytest.raises(
        DataError, match=r"is not the published file .*; remove it, and it is downloaded again"
    ) as e:
        datasets.load("mnist", "test", stand_in="digits")
    assert str(path) in str(e.value)
    # Files of a user's own are what they are.
    (tmp_path / "own").mkdir()
    path.write_bytes(whole)
    os.rename(folder, tmp_path / "own" / "mnist")
    monkeypatch.setitem(catalogue.MNIST.files, "test labels", Remote(path.name, 1))
    monkeypatch.setenv("NETSPEC_DATA", str(tmp_path / "own"))
    assert len(datasets.load("mnist", "test")) == 60


def test_check_says_that_a_set_is_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = tmp_path / "net.prototxt"
    net.write_text(
        'layer { name: "d" type: "Dataset" top: "x" top: "l"\n'
        '  dataset_param { name: "mnist" split: "train" batch_size: 2 } }\n'
    )
    report = check_file(net)
    assert report.ok
    assert report.needs == ["mnist"]
    (warning,) = report.warnings
    assert str(warning).startswith(
        f"{net}:2:19: layer 'd' (Dataset): data set 'mnist' is not on $NETSPEC_DATA"
    )
    assert "Put train-images-idx3-ubyte.gz" in str(warning)
    assert "or name a `stand_in`" in str(warning)
    assert "is not here" not in str(report)
    net.write_text(net.read_text().replace("batch_size: 2", 'batch_size: 2 stand_in: "digits"'))
    assert "if that fails 'digits' stands in for it. Put train-images" in str(check_file(net).warnings[0])
    assert "or name a" not in str(check_file(net).warnings[0])
    monkeypatch.setenv("NETSPEC_DATA", str(tmp_path))
    write_set(tmp_path / "mnist")
    assert not check_file(net).warnings


# CIFAR-10


@pytest.fixture
def small_cifar(monkeypatch: pytest.MonkeyPatch) -> tuple[np.ndarray, np.ndarray]:
    monkeypatch.setattr(cifar, "PER_BATCH", 4)
    monkeypatch.setattr(cifar, "SPLITS", {"train": 20, "test": 4})
    random = np.random.default_rng(0)
    return random.integers(0, 256, (24, 3, 32, 32), dtype=np.uint8), random.integers(
        0, 10, 24, dtype=np.uint8
    )


def batches(images: np.ndarray, labels: np.ndarray) -> dict[str, bytes]:
    records = np.concatenate([labels[:, None], images.reshape(len(labels), -1)], 1)
    names = [*cifar.BATCHES["train"], *cifar.BATCHES["test"]]
    return {name: records[4 * i : 4 * i + 4].tobytes() for i, name in enumerate(names)}


@pytest.mark.parametrize("form", ["flat", "folder", "archive"])
def test_cifar_binary(
    form: str, tmp_path: Path, small_cifar: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    images, labels = small_cifar
    place = tmp_path / "cifar10"
    inner = place / "cifar-10-batches-bin" if form == "folder" else place
    inner.mkdir(parents=True)
    if form == "archive":
        with tarfile.open(place / "cifar-10-binary.tar.gz", "w:gz") as archive:
            for name, data in batches(images, labels).items():
                member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    else:
        for name, data in batches(images, labels).items():
            (inner / name).write_bytes(data)
    monkeypatch.setenv("NETSPEC_DATA", str(tmp_path))
    test = datasets.load("cifar10", "test")
    assert (test.images == images[20:]).all()
    assert (test.labels == labels[20:]).all()
    assert len(datasets.load("cifar10", "whole_train")) == 20
    if form == "flat":
        (inner / "data_batch_1.bin").write_bytes(b"123")
        with pytest.raises(DataError, match="3 bytes"):
            cifar.from_batches(inner, "train")


def test_cifar_residuals(tmp_path: Path, small_cifar: tuple[np.ndarray, np.ndarray]) -> None:
    images, labels = small_cifar
    r, g, b = (images[:, c] for c in range(3))
    planes = np.stack([g, r - g, b - g], 1)
    up = np.diff(planes, axis=2, prepend=np.uint8(0))
    residual = np.diff(up, axis=3, prepend=np.uint8(0))
    path = tmp_path / "cifar10_from_jpeg.npz"
    np.savez(path, test_residual=residual[20:], test_label=labels[20:])
    back, back_labels = cifar.from_residuals(path, "test")
    assert (back == images[20:]).all()
    assert (back_labels == labels[20:]).all()


DATA = os.environ.get("NETSPEC_DATA", "")
"""Where the real sets are, when the tests started."""


def has(name: str) -> bool:
    return any((Path(part) / name).is_dir() for part in DATA.split(os.pathsep) if part)


@pytest.mark.skipif(not has("mnist"), reason="mnist is not on $NETSPEC_DATA")
def test_real_mnist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETSPEC_DATA", DATA)
    train = datasets.load("mnist", "whole_train")
    assert train.images.shape == (60_000, 1, 28, 28)
    assert train.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert train.images.mean() / 255 == pytest.approx(0.13066, abs=1e-5)
    assert len(datasets.load("mnist")) == 50_000
    assert (datasets.load("mnist", "validation").labels == train.labels[50_000:]).all()


@pytest.mark.skipif(not has("cifar10"), reason="cifar10 is not on $NETSPEC_DATA")
def test_real_cifar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETSPEC_DATA", DATA)
    test = datasets.load("cifar10", "test")
    # Published for the decoded bytes of this rebuilt set; the lossless one is known by its class counts only.
    assert test.images.shape == (10_000, 3, 32, 32)
    assert (np.bincount(test.labels) == 1000).all()
    assert test.images.mean((0, 2, 3)) / 255 == pytest.approx([0.494, 0.485, 0.450], abs=2e-3)
