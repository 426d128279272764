"""Lists of pictures, HDF5, windows, memory; the feeder, and that a resume goes on with the same samples."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from netspec.data import Feeder, Stream, feeder
from netspec.data.files.idx import Array
from netspec.data.source import Order
from netspec.data.sources.hdf5 import Hdf5Writer
from netspec.data.sources.memory import MemorySource
from netspec.data.writing.sinks import Sinks
from netspec.errors import DataError, SpecError
from netspec.net.make import make_net
from netspec.net.net import Net

RANDOM = np.random.default_rng(3)
PIXELS = RANDOM.integers(0, 256, (7, 6, 8, 3), dtype=np.uint8)
"""R, G, B as in files."""
BGR = torch.from_numpy(np.ascontiguousarray(PIXELS[..., ::-1].transpose(0, 3, 1, 2))).float()


def net(text: str, phase: str = "TRAIN") -> Net:
    return make_net(text, phase)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for i, pixels in enumerate(PIXELS):
        Image.fromarray(pixels).save(tmp_path / f"a {i}.png")
    (tmp_path / "list.txt").write_text("".join(f"a {i}.png {10 * i}\n" for i in range(7)))
    return tmp_path


def image_data(folder: Path, more: str = "", transform: str = "") -> str:
    return f"""layer {{ name: "d" type: "ImageData" top: "data" top: "label" transform_param {{ {transform} }}
        image_data_param {{ source: "{folder}/list.txt" root_folder: "{folder}/" batch_size: 3 {more} }} }}"""


def labels_of(data: Feeder, batches: int) -> list[float]:
    return [value for _ in range(batches) for value in data.next()[1].tolist()]


def test_image_list_in_order(pictures: Path) -> None:
    with feeder(net(image_data(pictures))) as data:
        assert data.shapes == [(3, 3, 6, 8), (3,)]
        images, labels = data.next()
        assert torch.equal(images, BGR[:3])
        assert labels.tolist() == [0, 10, 20]
        assert labels_of(data, 4) == [30, 40, 50, 60, 0, 10, 20, 30, 40, 50, 60, 0]
    with feeder(
        net(image_data(pictures, "new_height: 3 new_width: 4 is_color: false cache_images: true"))
    ) as data:
        assert data.next()[0].shape == (3, 1, 3, 4)
        first = data.state()
        rest = [data.next()[0] for _ in range(6)]
        data.load_state(first)
        assert all(torch.equal(data.next()[0], batch) for batch in rest)


def test_image_list_shuffled(pictures: Path) -> None:
    with feeder(net(image_data(pictures, "shuffle: true")), seed=4) as data:
        order = labels_of(data, 14)
    epochs = [order[i : i + 7] for i in range(0, 42, 7)]
    assert all(sorted(epoch) == [10 * i for i in range(7)] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 4
    with feeder(net(image_data(pictures, "shuffle: true")), seed=4) as data:
        assert labels_of(data, 14) == order
    with feeder(net(image_data(pictures, "rand_skip: 5")), seed=1) as data:
        skipped = labels_of(data, 3)
    assert skipped == [(skipped[0] + 10 * i) % 70 for i in range(9)]


def test_image_list_mistakes(pictures: Path) -> None:
    for more, reason in (("new_height: 3", "must both be set"), ("batch_size: 0", "batch_size")):
        text = image_data(pictures, more).replace("batch_size: 3 batch", "batch")
        with pytest.raises(SpecError, match=reason):
            net(text)
    (pictures / "a 4.png").unlink()
    Image.fromarray(PIXELS[0][:5]).save(pictures / "a 1.png")
    with feeder(net(image_data(pictures, "", "crop_size: 4")), ahead=False) as data:
        data.next()
        with pytest.raises(DataError, match=r"layer 'd' \(ImageData\): .*a 4\.png: no such file"):
            data.next()
    with (
        feeder(net(image_data(pictures))) as data,
        pytest.raises(DataError, match="images of one batch differ in size"),
    ):
        data.next()
    for content, reason in (
        ("", "is empty"),
        ("a.png\n", r"list\.txt:1: expected"),
        ("a 0.png x\n", "'x' is not"),
        (f"a 0.png {'9' * 400}\n", "9' is not"),
    ):
        (pictures / "list.txt").write_text(content)
        with pytest.raises(DataError, match=reason):
            net(image_data(pictures))
    (pictures / "list.txt").unlink()
    with pytest.raises(DataError, match="No such file"):
        net(image_data(pictures))


def test_dense_image_data(pictures: Path) -> None:
    labels = RANDOM.integers(0, 12, (7, 6, 8), dtype=np.uint8)
    for i, values in enumerate(labels):
        Image.fromarray(values).save(pictures / f"l{i}.png")
        Image.fromarray(PIXELS[i]).save(pictures / f"p{i}.png")
    (pictures / "dense.txt").write_text("".join(f"p{i}.png l{i}.png\n" for i in range(7)))

    def text(more: str) -> str:
        return f"""layer {{ name: "d" type: "DenseImageData" top: "data" top: "label"
          transform_param {{ mean_value: 10 }} dense_image_data_param {{ source: "{pictures}/dense.txt"
          root_folder: "{pictures}/" batch_size: 7 {more} }} }}"""

    with feeder(net(text(""))) as data:
        images, targets = data.next()
    assert torch.equal(images, BGR - 10)
    assert torch.equal(targets, torch.from_numpy(labels[:, None]).float())
    with feeder(net(text("mirror: true crop_height: 4 crop_width: 5"))) as data:
        assert data.shapes == [(7, 3, 4, 5), (7, 1, 4, 5)]
        for _ in range(10):
            images, targets = data.next()
            for i in range(7):  # the label is cut where the picture is
                places = [
                    (y, x, flip)
                    for y in range(3)
                    for x in range(4)
                    for flip in (False, True)
                    if torch.equal(
                        (BGR[i].flip(2) if flip else BGR[i])[:, y : y + 4, x : x + 5] - 10, images[i]
                    )
                ]
                ((y, x, flip),) = places
                whole = labels[i][:, ::-1] if flip else labels[i]
                assert (targets[i, 0].numpy() == whole[y : y + 4, x : x + 5]).all()
    with feeder(net(text("new_height: 12 new_width: 16 label_divide_factor: 2"))) as data:
        assert [tuple(top.shape) for top in data.next()] == [(7, 3, 12, 16), (7, 1, 6, 8)]


def pairs_of(pictures: Path, kind: str, more: str, transform: str = "", tops: str = 'top: "label"') -> str:
    return f"""layer {{ name: "d" type: "{kind}" top: "data" {tops} transform_param {{ mean_value: 10 {transform} }}
      image_data_param {{ source: "{pictures}/pairs.txt" root_folder: "{pictures}/" batch_size: 7 {more} }} }}"""


def test_image_seg_data(pictures: Path) -> None:
    labels = RANDOM.integers(0, 12, (7, 6, 8), dtype=np.uint8)
    for i, values in enumerate(labels):
        Image.fromarray(values).save(pictures / f"l{i}.png")
        Image.fromarray(PIXELS[i]).save(pictures / f"p{i}.png")
    (pictures / "pairs.txt").write_text("".join(f"p{i}.png l{i}.png\n" for i in range(7)))
    for more in ("", "label_type: PIXEL"):
        with feeder(net(pairs_of(pictures, "ImageSegData", more))) as data:
            images, targets = data.next()
        assert torch.equal(images, BGR - 10)
        assert torch.equal(targets, torch.from_numpy(labels[:, None]).float())
    three = 'top: "label" top: "dim"'
    with feeder(net(pairs_of(pictures, "ImageSegData", "ignore_label: 99", "crop_size: 7", three))) as data:
        images, targets, dim = data.next()
    assert dim.tolist() == [[[[6, 7]]]] * 7
    assert (images[:, :, 6] == 0).all()
    assert (targets[:, :, 6] == 99).all()
    for i in range(7):  # a random column of the two that the crop leaves, the same in both
        (x,) = [x for x in (0, 1) if torch.equal(images[i, :, :6], BGR[i, :, :, x : x + 7] - 10)]
        assert (targets[i, 0, :6].numpy() == labels[i, :, x : x + 7]).all()
    (pictures / "pairs.txt").write_text("".join(f"p{i}.png {i}\n" for i in range(7)))
    with feeder(net(pairs_of(pictures, "ImageSegData", ""))) as data:
        assert (data.next()[1] == torch.arange(7).view(7, 1, 1, 1)).all()
    with pytest.raises(DataError, match=r"/0: no such file"):
        net(pairs_of(pictures, "ImageSegData", "label_type: PIXEL"))
    (pictures / "pairs.txt").write_text("".join(f"p{i}.png\n" for i in range(7)))
    with feeder(net(pairs_of(pictures, "ImageSegData", "label_type: NONE", tops=""))) as data:
        assert [tuple(top.shape) for top in data.next()] == [(7, 3, 6, 8)]
    with feeder(net(pairs_of(pictures, "ImageSegData", "label_type: NONE"))) as data:
        assert (data.next()[1] == 255).all()
    for more, transform, reason in (
        ("label_type: IMAGE", "", "expected a picture and an integer"),
        ("label_type: PIXEL", "", "expected a picture and a label picture"),
    ):
        with pytest.raises(DataError, match=reason):
            net(pairs_of(pictures, "ImageSegData", more, transform))
    for second in ("9" * 400, "²", "--3", str(2**31)):
        (pictures / "pairs.txt").write_text(f"\n\np0.png {second}\n", encoding="utf-8")
        with pytest.raises(DataError, match=r"pairs\.txt:3: expected a picture and an integer"):
            net(pairs_of(pictures, "ImageSegData", "label_type: IMAGE"))
    for color, values in (("true", 2), ("false", 3)):
        text = pairs_of(pictures, "ImageSegData", f"label_type: NONE is_color: {color}", "crop_size: 20")
        text = text.replace("mean_value: 10", "mean_value: 10 " * values)
        with pytest.raises(SpecError, match=f"{values} mean_values for . channels"):
            net(text)
    for size in (10**6, 2**32 - 1):
        with pytest.raises(SpecError, match=f"no room for a crop of {size}x{size}"):
            net(pairs_of(pictures, "ImageSegData", "label_type: NONE", f"crop_size: {size}"))
    text = pairs_of(pictures, "ImageSegData", "").replace("mean_value: 10", 'mean_file: "m"')
    with pytest.raises(SpecError, match="no mean_file"):
        net(text)


def test_image_labelmap_data(pictures: Path) -> None:
    edges = RANDOM.choice(np.array([0, 127, 128, 255], np.uint8), (7, 6, 8))
    for i, values in enumerate(edges):
        Image.fromarray(values).save(pictures / f"e{i}.png")
        Image.fromarray(PIXELS[i]).save(pictures / f"p{i}.png")
    (pictures / "pairs.txt").write_text("".join(f"p{i}.png e{i}.png\n" for i in range(7)))
    with feeder(net(pairs_of(pictures, "ImageLabelmapData", "", "mirror: true"))) as data:
        images, targets = data.next()
    flips = [torch.equal(image, whole.flip(2) - 10) for image, whole in zip(images, BGR, strict=True)]
    assert any(flips)
    assert not all(flips)
    for i, flip in enumerate(flips):
        whole = (edges[i] >= 128).astype(np.float32)
        assert (targets[i, 0].numpy() == (whole[:, ::-1] if flip else whole)).all()
    Image.fromarray(edges[0][:5]).save(pictures / "e0.png")
    with pytest.raises(DataError, match=r"e0\.png: \(5, 8\) labels for a picture of \(6, 8\)"):
        net(pairs_of(pictures, "ImageLabelmapData", ""))
    (pictures / "pairs.txt").write_text("p0.png\n")
    with pytest.raises(DataError, match="expected two pictures"):
        net(pairs_of(pictures, "ImageLabelmapData", ""))


# HDF5


@pytest.fixture
def hdf5(tmp_path: Path) -> Path:
    start = 0
    for name, rows in (("a.h5", 5), ("b.h5", 3)):
        with h5py.File(tmp_path / name, "w") as file:
            numbers = np.arange(start, start + rows)
            file["data"] = numbers[:, None].astype(np.float64) * [1, 100]
            file["label"] = numbers
        start += rows
    (tmp_path / "list.txt").write_text(f"{tmp_path}/a.h5\n{tmp_path}/b.h5\n")
    return tmp_path


def hdf5_data(folder: Path, more: str = "", tops: str = 'top: "data" top: "label"') -> str:
    return f"""layer {{ name: "d" type: "HDF5Data" {tops}
        hdf5_data_param {{ source: "{folder}/list.txt" batch_size: 3 {more} }} }}"""


@pytest.mark.parametrize("keep", [1 << 29, 0])
def test_hdf5_files_one_after_the_other(hdf5: Path, keep: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netspec.data.sources.hdf5.KEEP", keep)
    with feeder(net(hdf5_data(hdf5))) as data:
        assert data.shapes == [(3, 2), (3,)]
        for i in range(9):
            rows, labels = data.next()
            assert labels.tolist() == [(3 * i + j) % 8 for j in range(3)]
            assert torch.equal(rows, labels[:, None] * torch.tensor([1.0, 100.0]))
    with feeder(net(hdf5_data(hdf5, "shuffle: true")), seed=2) as data:
        order = labels_of(data, 32)
        saved = data.state()
        more = labels_of(data, 5)
        data.load_state(saved)
        assert labels_of(data, 5) == more
    epochs = [order[i : i + 8] for i in range(0, 96, 8)]
    assert all(sorted(epoch) == list(range(8)) for epoch in epochs)
    files = [[int(value >= 5) for value in epoch] for epoch in epochs]
    assert {tuple(epoch) for epoch in files} == {(0,) * 5 + (1,) * 3, (1,) * 3 + (0,) * 5}
    assert len({tuple(epoch) for epoch in epochs}) > 9


def test_hdf5_mistakes(hdf5: Path) -> None:
    for tops, reason in (('top: "x"', "no numeric data set 'x'; it holds data, label"),):
        with pytest.raises(DataError, match=reason):
            net(hdf5_data(hdf5, tops=tops))
    with h5py.File(hdf5 / "b.h5", "w") as file:
        file["data"], file["label"] = np.zeros((3, 9)), np.zeros(3)
    with pytest.raises(DataError, match=r"b\.h5: rows of"):
        net(hdf5_data(hdf5))
    with h5py.File(hdf5 / "b.h5", "w") as file:
        file["data"], file["label"] = np.zeros((3, 2)), np.zeros(4)
    with pytest.raises(DataError, match="not equally many"):
        net(hdf5_data(hdf5))
    with h5py.File(hdf5 / "b.h5", "w") as file:  # declares much, holds nothing
        file.create_dataset("data", (1 << 40, 2), "f4", chunks=(1024, 2))
        file.create_dataset("label", (1 << 40,), "f4", chunks=(1024,))
    with pytest.raises(DataError, match="are not read"):
        net(hdf5_data(hdf5))
    (hdf5 / "b.h5").write_bytes((hdf5 / "a.h5").read_bytes()[:700])
    with pytest.raises(DataError, match=r"layer 'd' \(HDF5Data\): .*b\.h5: not a readable HDF5 file"):
        net(hdf5_data(hdf5))
    (hdf5 / "list.txt").write_text("")
    with pytest.raises(DataError, match="is empty"):
        net(hdf5_data(hdf5))
    with pytest.raises(SpecError, match="not transformed"):
        net(hdf5_data(hdf5).replace("hdf5_data_param", "transform_param { scale: 2 } hdf5_data_param", 1))


def test_hdf5_lists_by_lines_and_beside_the_list(
    hdf5: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (hdf5 / "a.h5").rename(hdf5 / "the first.h5")
    for text in ("the first.h5\nout/b.h5\n", f"{hdf5}/the first.h5\r\n\n{hdf5}/b.h5 b.h5\n"):
        (hdf5 / "list.txt").write_text(text, newline="")
        with feeder(net(hdf5_data(hdf5))) as data:
            assert labels_of(data, 2)[:6] == [0, 1, 2, 3, 4, 5]


def test_hdf5_output(hdf5: Path, tmp_path: Path) -> None:
    made = net(
        hdf5_data(hdf5)
        + """layer { name: "twice" type: "Power" bottom: "data" top: "twice" power_param { scale: 2 } }
             layer { name: "out" type: "HDF5Output" bottom: "twice" bottom: "label"
                     hdf5_output_param { file_name: "out.h5" } }"""
    )
    with feeder(made) as data, Sinks(made, tmp_path) as sinks:
        assert sinks
        for _ in range(3):
            made.run(sinks, *data.next())
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["label"][()].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 0]
        assert (file["data"][()] == file["label"][()][:, None] * [2, 200]).all()
    assert not Sinks(net(hdf5_data(hdf5)))


# Windows


def test_a_full_disk_is_said_at_once(tmp_path: Path) -> None:
    """HDF5 itself overlooks it while data sets are let go, and ends the process later."""
    script = """
import os, pathlib, resource, signal, torch
from netspec.data.sources.hdf5 import Hdf5Writer
from netspec.errors import DataError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200000, 200000))
writer = Hdf5Writer(pathlib.Path("full.h5"))
try:
    for i in range(40):
        writer.append({"data": torch.ones(20, 100), "label": torch.ones(20)})
except DataError as error:
    os.write(1, f"append {i}: {error}".encode())
os._exit(0)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert re.match(r"append 2\d: full.h5: cannot be written", done.stdout), done.stderr


def test_a_file_that_hdf5_cannot_resize_is_begun_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resize(*values: object, **named: object) -> None:
        raise RuntimeError("bad coordinate offset")

    writer = Hdf5Writer(tmp_path / "out.h5")
    writer.append({"data": torch.ones(4, 2)})
    writer.close()
    with monkeypatch.context() as patched:
        patched.setattr(h5py.Dataset, "resize", resize)
        with pytest.raises(DataError, match=r"out\.h5: cannot be gone on with \(bad coordinate offset\)"):
            writer.go_on(2)
    writer.append({"data": torch.ones(3, 2)})
    writer.close()
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["data"].shape == (3, 2)


def window_file(folder: Path) -> None:
    (folder / "windows.txt").write_text(
        "# 0\na 0.png\n3\n6\n8\n3\n1 0.9 1 1 4 4\n0 0.1 0 0 7 5\n2 0.4 2 2 3 3\n"
        "# 1\na 1.png\n3\n6\n8\n1\n3 1.0 0 0 7 5\n"
    )


def window_data(folder: Path, more: str = "", transform: str = "crop_size: 4") -> str:
    return f"""layer {{ name: "d" type: "WindowData" top: "data" top: "label"
        transform_param {{ {transform} }}
        window_data_param {{ source: "{folder}/windows.txt" root_folder: "{folder}/" batch_size: 8
        fg_fraction: 0.3 {more} }} }}"""


def test_windows(pictures: Path) -> None:
    window_file(pictures)
    seen = set()
    with feeder(net(window_data(pictures, transform="crop_size: 4 scale: 2 mean_value: 5"))) as data:
        for _ in range(20):
            images, labels = data.next()
            assert (labels[:6] == 0).all()
            assert set(labels[6:].tolist()) <= {1.0, 3.0}
            seen |= set(labels[6:].tolist())
            for image, label in zip(images, labels, strict=True):
                if label == 1:
                    assert torch.equal(image, (BGR[0][:, 1:5, 1:5] - 5) * 2)
        state = data.state()
        after = data.next()
        data.load_state(state)
        again = data.next()
    assert seen == {1.0, 3.0}
    assert all(torch.equal(a, b) for a, b in zip(after, again, strict=True))


@pytest.mark.parametrize("mode", ["warp", "square"])
def test_window_context_is_zero_outside(pictures: Path, mode: str) -> None:
    """A box that is the whole picture, with context: the picture shrinks, what surrounds it is 0."""
    window_file(pictures)
    Image.fromarray(np.full((6, 8, 3), 200, np.uint8)).save(pictures / "a 1.png")
    more = f'fg_threshold: 1.0 context_pad: 2 crop_mode: "{mode}"'
    with feeder(net(window_data(pictures, more, "crop_size: 12 mirror: true"))) as data:
        images, labels = data.next()
    assert labels[7] == 3
    inside = images[7] == 200
    assert ((images[7] == 0) | inside).all()
    rows, columns = inside[0].any(1).sum(), inside[0].any(0).sum()
    if mode == "warp":
        assert rows in (7, 8, 9)
        assert columns in (7, 8, 9)
    else:
        assert rows < columns


def test_window_mistakes(pictures: Path) -> None:
    window_file(pictures)
    with pytest.raises(SpecError, match="crop_mode 'wrap'"):
        net(window_data(pictures, 'crop_mode: "wrap"'))
    with pytest.raises(SpecError, match="crop_size"):
        net(window_data(pictures, transform=""))
    with pytest.raises(DataError, match="no foreground window"):
        feeder(net(window_data(pictures, "fg_threshold: 1.5")))
    for content, reason in (
        ("x\n", "expected '# <index>'"),
        ("# 0\na 0.png\n3\n6\n8\n2\n1 0.9 1 1 4 4\n", "the file ends"),
        ("# 0\na 0.png\n3\n6\n8\n1\n1 0.9 4 4 1 1\n", r":7: .*is empty"),
        ("# 0\na 0.png\n3\n6\n8\n1\n1 0.9 4 4 1\n", ":7: not a window file"),
    ):
        (pictures / "windows.txt").write_text(content)
        with pytest.raises(DataError, match=reason):
            net(window_data(pictures))


# Memory


def test_memory_data() -> None:
    made = net("""layer { name: "d" type: "MemoryData" top: "data" top: "label" transform_param { scale: 0.5 }
        memory_data_param { batch_size: 2 channels: 1 height: 3 width: 3 } }""")
    with feeder(made) as data:
        (source,) = data.sources
        assert isinstance(source, MemorySource)
        with pytest.raises(DataError, match=r"has no data yet; call reset"):
            data.next()
        values = np.arange(36, dtype=np.float32).reshape(4, 1, 3, 3)
        source.reset(values, np.arange(4))
        assert [data.next()[1].tolist() for _ in range(3)] == [[0, 1], [2, 3], [0, 1]]
        source.reset(values + 1, np.arange(4))
        assert (data.next()[0].numpy() == values[:2] + 1).all()
        source.add([np.full((1, 3, 3), 8, np.uint8)] * 2, [7, 9])
        images, labels = data.next()
        assert (images == 4).all()
        assert labels.tolist() == [7, 9]
        with pytest.raises(DataError, match="no multiple of batch_size 2"):
            source.reset(values[:3], np.arange(3))
        with pytest.raises(DataError, match=r"takes images \(1, 3, 3\)"):
            source.reset(values[:2, :, :2], np.arange(2))


# The feeder


TWO = """
layer { name: "a" type: "Dataset" top: "data" top: "label" transform_param { mirror: true crop_size: 6 }
  dataset_param { name: "digits" batch_size: 50 shuffle: true
    missing { kind: "iid" probability: 0.2 probability: 0.7 } } }
layer { name: "b" type: "Dataset" top: "more"
  dataset_param { name: "digits" split: "test" batch_size: 7 } }
"""


def same(a: tuple[torch.Tensor, ...], b: tuple[torch.Tensor, ...]) -> bool:
    return all(torch.equal(x.nan_to_num(-1), y.nan_to_num(-1)) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("ahead", [True, False])
def test_resume_is_bit_identical(ahead: bool) -> None:
    made = net(TWO)
    with feeder(made, seed=9, ahead=ahead) as data:
        assert data.shapes == [(50, 1, 6, 6), (50,), (7, 1, 8, 8)]
        states, batches = [], []
        for _ in range(40):  # over the end of both sets
            states.append(data.state())
            batches.append(data.next())
    for i in (0, 1, 17, 25, 39):
        with feeder(made, seed=9, ahead=not ahead) as data:
            data.next()
            data.load_state(states[i])
            assert data.state() == states[i]
            for batch in batches[i : i + 3]:
                assert same(data.next(), batch)
    with feeder(made, seed=10) as data:
        assert not same(data.next(), batches[0])


def test_ranks_share_the_samples() -> None:
    made = net(TWO.replace("mirror: true crop_size: 6", ""))
    with feeder(made, seed=9) as data:
        whole = [data.next() for _ in range(2)]
    parts = []
    for rank in range(2):
        with feeder(made, seed=9, rank=rank, world=2) as data:
            parts.append(data.next())
    labels = torch.stack([parts[0][1], parts[1][1]], 1).reshape(-1)
    assert torch.equal(labels, torch.cat([whole[0][1], whole[1][1]]))


def test_order() -> None:
    order = Order(5, True, 3)
    places = order(np.arange(50))
    assert all(sorted(places[i : i + 5]) == list(range(5)) for i in range(0, 50, 5))
    assert [int(order(np.array([i]))[0]) for i in range(50)] == places.tolist()
    assert Order(5, False, 3)(np.arange(12)).tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]


class Counting(Stream):
    """Numbers its batches; fails at the one that is asked to."""

    def __init__(self, fails: int = -1):
        super().__init__(1)
        self.shapes, self.fails = [(1,)], fails
        self.threads: set[str] = set()

    def make(self, positions: Array) -> tuple[torch.Tensor, ...]:
        self.threads.add(threading.current_thread().name)
        if positions[0] == self.fails:
            raise DataError("damaged")
        return (torch.tensor([float(positions[0])]),)


def test_batches_are_made_ahead_on_one_thread() -> None:
    source = Counting()
    with Feeder([source]) as data:
        assert [data.next()[0].item() for _ in range(5)] == [0, 1, 2, 3, 4]
        assert data.state() == {"0.position": 5}
        assert len(source.threads) == 1
        assert threading.current_thread().name not in source.threads
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("netspec-data")]


def test_an_error_comes_with_its_own_batch() -> None:
    with Feeder([Counting(fails=2)]) as data:
        assert [data.next()[0].item() for _ in range(2)] == [0, 1]
        with pytest.raises(DataError, match="damaged"):
            data.next()
        assert data.state() == {"0.position": 2}
    with pytest.raises(DataError, match="the data layers of this net"), Feeder([Counting()]) as data:
        data.load_state({"0.position": 1, "1.position": 1})


def test_inputs_need_a_source() -> None:
    made = net('layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 1 } } }')
    with pytest.raises(DataError, match=r"layer 'in' \(Input\): has no data of its own"):
        feeder(made)
    with feeder(made, given={"in": Counting()}) as data:
        assert data.next()[0].item() == 0


@pytest.fixture(autouse=True)
def _no_leaks() -> Iterator[None]:
    yield
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("netspec-data")]
