"""Data sets made by commands, under netspec's names and under Caffe's; what HDF5Output layers write."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from netspec.data import feeder
from netspec.data.files import idx
from netspec.data.files.protos import read_blob, read_datum
from netspec.data.sets import cifar
from netspec.data.writing import convert
from netspec.data.writing.features import FeatureWriter
from netspec.errors import DataError, NetspecError, SpecError
from netspec.interchange import save_weights
from netspec.net.make import make_net
from netspec.net.net import Net
from netspec.pycaffe.command import main
from netspec.run.evaluate import evaluate
from netspec.run.fit import fit
from tests.command import call

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 3, 5, 4), dtype=np.uint8)
LABELS = np.arange(12, dtype=np.uint8) % 3


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A list of pictures, colours in the order B, G, R as IMAGES has them."""
    for i, image in enumerate(IMAGES):
        Image.fromarray(image.transpose(1, 2, 0)[:, :, ::-1]).save(tmp_path / f"{i}.png")
    listed = tmp_path / "list.txt"
    listed.write_text("".join(f"{i}.png {label}\n" for i, label in enumerate(LABELS)))
    return listed


def held(path: Path) -> tuple[np.ndarray, list[int]]:
    """Images and labels of a database."""
    records = list(convert.from_any(str(path)))
    return np.stack([one.image for one in records]), [one.label for one in records]


@pytest.mark.parametrize("target", ["set", "set.leveldb", "set.h5"])
def test_list_to_each_kind_and_its_mean(pictures: Path, target: str, tmp_path: Path) -> None:
    if target.endswith("leveldb"):
        pytest.importorskip("plyvel")
    printed = call("dataset", pictures, tmp_path / target, "--root", tmp_path)
    if target.endswith(".h5"):
        assert str(tmp_path / "set.txt") in printed
        with h5py.File(tmp_path / "set_0.h5") as file:
            assert (file["data"][()] == IMAGES).all()
            assert (file["label"][()] == LABELS).all()
        return
    assert "12 records" in printed
    images, labels = held(tmp_path / target)
    assert (images == IMAGES).all()
    assert labels == LABELS.tolist()
    printed = call("mean", tmp_path / target, tmp_path / "mean.binaryproto")
    values = [float(line.split()[1]) for line in printed.splitlines()[:3]]
    assert values == pytest.approx(IMAGES.mean((0, 2, 3)), rel=1e-5)
    assert read_blob(tmp_path / "mean.binaryproto")[0] == pytest.approx(IMAGES.mean(0), rel=1e-6)


def test_sizes_order_and_scale(pictures: Path, tmp_path: Path) -> None:
    made = call("dataset", pictures, tmp_path / "a.h5", "--root", tmp_path, "--size", "6x7", "--gray",
                "--shuffle", "--seed", "3", "--rows", "5", "--scale", "0.5")  # fmt: skip
    assert len(made.splitlines()) == 4
    with h5py.File(tmp_path / "a_0.h5") as file:
        assert file["data"].shape == (5, 1, 6, 7)
        assert file["data"][()].max() < 128
    order = [one.label for one in convert.from_any(str(pictures), root=f"{tmp_path}/", shuffle=3)]
    assert order != LABELS.tolist()
    assert sorted(order) == sorted(LABELS.tolist())
    call("dataset", pictures, tmp_path / "e", "--root", tmp_path, "--encoded")
    assert (held(tmp_path / "e")[0] == IMAGES).all()
    call("dataset", tmp_path / "e", tmp_path / "small", "--size", "2x3")
    assert held(tmp_path / "small")[0].shape == (12, 3, 2, 3)


def test_idx_and_named_sets(tmp_path: Path) -> None:
    images, labels = tmp_path / "train-images-idx3-ubyte", tmp_path / "train-labels-idx1-ubyte"
    idx.write(images, IMAGES[:, 0])
    idx.write(labels, LABELS)
    call("dataset", images, tmp_path / "a")
    assert (held(tmp_path / "a")[0] == IMAGES[:, :1]).all()
    assert main(["convert_mnist_data", "--backend=lmdb", str(images), str(labels), str(tmp_path / "b")]) == 0
    assert held(tmp_path / "b")[1] == LABELS.tolist()
    idx.write(labels, LABELS[:5])
    with pytest.raises(DataError, match="holds 12 images"):
        call("dataset", images, tmp_path / "c")
    call("dataset", "digits", tmp_path / "d", "--split", "test")
    assert len(held(tmp_path / "d")[1]) == 290


def test_mistakes(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for arguments, words in (
        (("dataset", "digist", tmp_path / "a"), "did you mean 'digits'"),
        (("dataset", "digits", tmp_path / "a", "--gray"), "no list of pictures"),
        (("dataset", pictures, tmp_path / "a", "--size", "28"), "32x48"),
        (("dataset", pictures, tmp_path / "a"), "no such file"),
        (("mean", tmp_path / "empty"), "holds no pictures"),
    ):
        with pytest.raises(NetspecError, match=words):
            call(*arguments)


NET = """layer { name: "d" type: "Dataset" top: "data" top: "label"
  dataset_param { name: "digits" split: "test" batch_size: 5 } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
"""


@pytest.fixture
def trained(tmp_path: Path) -> tuple[Path, Path, np.ndarray]:
    """A net's file, its weights, and its blob "ip" over two batches."""
    file, weights = tmp_path / "net.prototxt", tmp_path / "net.caffemodel"
    file.write_text(NET)
    made = make_net(file, seed=7)
    save_weights(made, weights)
    with feeder(made) as data, torch.no_grad():
        return file, weights, torch.cat([made.blobs(*data.next())["ip"] for _ in range(2)]).numpy()


def test_features(trained: tuple[Path, Path, np.ndarray], tmp_path: Path) -> None:
    file, weights, expected = trained
    given = ("-w", weights, "-n", 2, "--blob", "ip")
    assert "10 rows of ip" in call("features", file, tmp_path / "f.h5", *given)
    with h5py.File(tmp_path / "f.h5") as out:
        assert (out["ip"][()] == expected).all()
    call("features", file, tmp_path / "f", *given)
    images, _ = held(tmp_path / "f")
    assert (images[:, :, 0, 0] == expected).all()
    with pytest.raises(NetspecError, match="no blob 'pi'"):
        call("features", file, tmp_path / "g", "-w", weights, "--blob", "pi")
    with pytest.raises(NetspecError, match="--weights"):
        call("features", file, tmp_path / "g", "--blob", "ip")
    assert not (tmp_path / "g").exists()


def test_blobs_of_any_name_go_into_npz(tmp_path: Path) -> None:
    rows = {name: torch.rand(3, 2) for name in ("file", "allow_pickle", "a/b")}
    with FeatureWriter(tmp_path / "f.npz", list(rows)) as out:
        out.append(rows)
    with np.load(tmp_path / "f.npz") as archive:
        assert {name: archive[name].tolist() for name in archive} == {k: v.tolist() for k, v in rows.items()}


def test_what_there_is_stands_in_a_sentence_of_its_own(
    trained: tuple[Path, Path, np.ndarray], tmp_path: Path
) -> None:
    for name, words in (("ipp", r"'ipp'; did you mean 'ip'\? It has data"), ("x", r"'x'; it has data")):
        with pytest.raises(NetspecError, match=words):
            call("features", trained[0], tmp_path / "f", "-w", trained[1], "--blob", name)


def test_every_seed_of_features_is_one_of_its_own(tmp_path: Path) -> None:
    noise = 'dummy_data_param { shape { dim: 2 dim: 3 } data_filler { type: "gaussian" } }'
    (tmp_path / "net.prototxt").write_text(f'layer {{ name: "x" type: "DummyData" top: "x" {noise} }}')
    for seed in (0, 1):
        call("features", tmp_path / "net.prototxt", tmp_path / f"{seed}.npz", "--blob", "x", "--seed", seed)
    zero, one = (np.load(tmp_path / f"{seed}.npz")["x"] for seed in (0, 1))
    assert not (zero == one).any()


def test_caffes_own_names(
    pictures: Path, trained: tuple[Path, Path, np.ndarray], capfd: pytest.CaptureFixture[str]
) -> None:
    folder = pictures.parent
    assert main(["convert_imageset", "-resize_height", "6", "--resize_width=7", "-gray", f"{folder}/",
                 str(pictures), str(folder / "small")]) == 0  # fmt: skip
    assert held(folder / "small")[0].shape == (12, 1, 6, 7)
    assert (
        main(["convert_imageset", "-encoded", "-nogray", f"{folder}/", str(pictures), str(folder / "e")]) == 0
    )
    assert (held(folder / "e")[0] == IMAGES).all()
    assert (
        main(["convert_imageset", "-encode_type", "bmp", f"{folder}/", str(pictures), str(folder / "b")]) == 0
    )
    assert (held(folder / "b")[0] == IMAGES).all()
    assert main(["compute_image_mean", str(folder / "e"), str(folder / "mean.binaryproto")]) == 0
    assert read_blob(folder / "mean.binaryproto")[0] == pytest.approx(IMAGES.mean(0), rel=1e-6)
    assert "mean_value channel [2]: " in capfd.readouterr().err
    file, weights, expected = trained
    assert (
        main(
            ["extract_features", str(weights), str(file), "ip,data", f"{folder}/f1,{folder}/f2", "2", "lmdb"]
        )
        == 0
    )
    assert (held(folder / "f1")[0][:, :, 0, 0] == expected).all()
    assert held(folder / "f2")[0].shape == (10, 1, 8, 8)
    assert "Successfully extracted" in capfd.readouterr().err
    for arguments, code, words in (
        (["convert_imageset", "a"], 1, "usage: convert_imageset"),
        (["convert_imageset", "-grey", "a", "b", "c"], 1, "did you mean 'gray'"),
        (["compute_image_mean", "nothing"], 2, "no such file"),
    ):
        assert main(arguments) == code
        assert words in capfd.readouterr().err


def test_pictures_that_cannot_be_read_are_left_out(
    pictures: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """As convert_imageset does: the others keep the keys of their lines."""
    (tmp_path / "3.png").unlink()
    (tmp_path / "5.png").write_bytes(b"no picture")
    kept = [i for i in range(12) if i not in (3, 5)]
    root = f"{tmp_path}/"
    assert main(["convert_imageset", root, str(pictures), str(tmp_path / "db")]) == 0
    said = capfd.readouterr().err
    assert "3.png: no such file" in said
    assert "5.png: not a picture" in said
    assert "Processed 10 files." in said
    assert "2 pictures could not be read and are left out." in said
    assert [one.key for one in convert.from_any(str(tmp_path / "db"))] == [f"{i:08}_{i}.png" for i in kept]
    printed = call("dataset", pictures, tmp_path / "set", "--root", tmp_path)
    assert "10 records; 2 pictures that cannot be read are left out" in printed
    assert (held(tmp_path / "set")[0] == IMAGES[kept]).all()
    assert len(call("mean", pictures, "--root", tmp_path).splitlines()) >= 3
    with pytest.raises(DataError, match=r"3\.png: no such file"):
        list(convert.from_list(pictures, root))
    for label in ("--3", "²", "9" * 5000):
        (tmp_path / "wrong.txt").write_text(f"0.png {label}\n", encoding="utf-8")
        with pytest.raises(DataError, match=r"wrong\.txt:1: expected a path and an integer"):
            list(convert.from_list(tmp_path / "wrong.txt", root))
    with pytest.raises(DataError, match="none of its 12 pictures can be read; the first: "):
        list(convert.from_list(pictures, "elsewhere/", skip=lambda text: None))


def test_encoded_records_keep_the_file(pictures: Path, tmp_path: Path) -> None:
    one = next(convert.from_list(pictures, f"{tmp_path}/", encoded=True))
    assert one.encoded == (tmp_path / "0.png").read_bytes()
    again = next(convert.from_list(pictures, f"{tmp_path}/", encoded=True, size=(10, 8)))
    assert read_datum(again.datum(), "x").image.shape == (3, 10, 8)
    for suffix in ("jpg", "jpeg", "JPG"):  # one kind of file, which is kept as it is
        Image.fromarray(IMAGES[0].transpose(1, 2, 0)[..., ::-1].copy()).save(
            tmp_path / f"p.{suffix}", "JPEG", quality=50
        )
        (tmp_path / "jpegs.txt").write_text(f"p.{suffix} 0\n")
        one = next(convert.from_list(tmp_path / "jpegs.txt", f"{tmp_path}/", encoded="jpg"))
        assert one.encoded == (tmp_path / f"p.{suffix}").read_bytes()
    with pytest.raises(DataError, match="'mov'"):
        next(convert.from_list(pictures, f"{tmp_path}/", encoded="mov"))


OUTPUT = """layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
layer { name: "train" type: "HDF5Output" bottom: "ip" bottom: "label" include { phase: TRAIN }
  hdf5_output_param { file_name: "train.h5" } }
layer { name: "test" type: "HDF5Output" bottom: "ip" bottom: "label" include { phase: TEST }
  hdf5_output_param { file_name: "test.h5" } }
"""
SOLVER = 'base_lr: 0.01 lr_policy: "fixed" max_iter: 4 test_iter: 3 test_interval: 2 random_seed: 1 '


def shapes(file: str) -> list[tuple[int, ...]]:
    with h5py.File(file) as out:
        return [out["data"].shape, out["label"].shape]


@pytest.mark.parametrize("settings", ["", "debug_info: true", "compile: true"])
def test_hdf5_output_writes_in_training_and_test(
    settings: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text(NET + OUTPUT)
    Path("net_solver.prototxt").write_text(f'net: "net.prototxt" {SOLVER}{settings}')
    run = fit("net.prototxt", compiled=True if "compile" in settings else None)
    assert shapes("train.h5") == [(20, 10), (20,)]
    assert shapes("test.h5") == [(15, 10), (15,)]  # of the last test
    assert ("not compiled" in capsys.readouterr().out) == ("compile" in settings)
    Path("test.h5").unlink()
    evaluate(run.folder, iterations=2)
    assert shapes("test.h5") == [(10, 10), (10,)]
    with h5py.File("test.h5") as out:
        assert (out["data"][()] == first_rows(run.tests[0], 2)).all()


def test_hdf5_output_into_one_file_from_two_nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Caffe ends at the start ("Failed to open HDF5 file"): the library truncates no file that is open."""
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text(NET + OUTPUT.replace("include { phase: TRAIN }", ""))
    Path("net_solver.prototxt").write_text(f'net: "net.prototxt" {SOLVER}')
    with pytest.raises(SpecError, match=r"net.prototxt:\d+:\d+: layer 'train' .*: writes 'train.h5', as in the "
                       "training net and in a test net"):  # fmt: skip
        fit("net.prototxt", out="run")
    assert not Path("run").exists()
    assert not Path("train.h5").exists()
    Path("net.prototxt").write_text(NET + OUTPUT.replace("TEST", "TRAIN").replace("test.h5", "./train.h5"))
    with pytest.raises(SpecError, match=r"layer 'test' .*: writes './train.h5', as layer 'train' does"):
        fit("net.prototxt")


def test_hdf5_output_of_a_resumed_run_is_that_of_one_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text(NET + OUTPUT)
    Path("net_solver.prototxt").write_text(f'net: "net.prototxt" {SOLVER} snapshot: 2')
    fit("net.prototxt", out="whole", iterations=6)
    with h5py.File("train.h5") as out:
        expected = out["data"][()], out["label"][()]
    assert len(expected[0]) == 30
    run = fit("net.prototxt", out="parts", iterations=4)
    fit(
        "net.prototxt",
        resume=run.folder / "snapshots" / "iter_2.state.safetensors",
        out="parts",
        iterations=6,
    )
    with h5py.File("train.h5") as out:
        assert (out["data"][()] == expected[0]).all()
        assert (out["label"][()] == expected[1]).all()
    Path("train.h5").unlink()
    capsys.readouterr()
    fit("net.prototxt", resume=run.folder, iterations=7)
    assert "train.h5: cannot be gone on with" in capsys.readouterr().out
    assert shapes("train.h5") == [(5, 10), (5,)]
    with h5py.File("train.h5", "r+") as out:
        out["label"].resize(3, axis=0)
    fit("net.prototxt", resume=run.folder, iterations=8)
    assert "'label' has 3 rows, 5 were written before: begun anew" in capsys.readouterr().out


def first_rows(net: Net, batches: int) -> np.ndarray:
    with feeder(net, 1) as data, torch.no_grad():
        return torch.cat([net.blobs(*data.next())["ip"] for _ in range(batches)]).numpy()


def cifar_batches(folder: Path, number: int) -> None:
    """The binary version with random images of `number` in each batch."""
    random = np.random.default_rng(1)
    for names in cifar.BATCHES.values():
        for name in names:
            rows = random.integers(0, 256, (number, cifar.RECORD), dtype=np.uint8)
            rows[:, 0] %= 10
            (folder / name).write_bytes(rows.tobytes())


def test_cifar_as_caffes_example_makes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planes in the order R, G, B, as they lie in the binary version, whoever makes the database."""
    monkeypatch.setattr(cifar, "PER_BATCH", 4)
    cifar_batches(tmp_path, 4)
    assert main(["convert_cifar_data", str(tmp_path), str(tmp_path), "lmdb"]) == 0
    stored = {
        split: list(convert.from_database(tmp_path / f"cifar10_{split}_lmdb", "LMDB"))
        for split in cifar.BATCHES
    }
    assert [len(stored["train"]), len(stored["test"])] == [20, 4]
    raw = np.frombuffer((tmp_path / "test_batch.bin").read_bytes(), np.uint8).reshape(4, -1)
    for i, example in enumerate(stored["test"]):
        assert example.label == raw[i, 0]
        assert (example.image == raw[i, 1:].reshape(3, 32, 32)).all()
    images = np.stack([example.image for example in stored["train"]])
    named = type(
        "Images", (), {"images": images, "labels": np.zeros(20, np.uint8), "__len__": lambda self: 20}
    )()
    monkeypatch.setattr(convert.datasets, "load", lambda name, split: named)
    assert (next(convert.from_named("cifar10")).image == images[0]).all()
    assert main(["convert_cifar_data", str(tmp_path), str(tmp_path), "hdf5"]) == 1
    assert main(["convert_cifar_data", str(tmp_path / "cifar10_test_lmdb"), str(tmp_path), "lmdb"]) == 2
