"""Files that are made to harm: devices and pipes, bombs, HDF5 that leads elsewhere, damage of every kind."""

from __future__ import annotations

import gzip
import io
import os
import random
import re
import resource
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

import netspec
from netspec import interchange, schema
from netspec.check import check
from netspec.data.files import idx, images, lmdb, protos
from netspec.data.pictures.arrays import from_hdf5
from netspec.data.pictures.opening import open_pictures
from netspec.data.sources import hdf5
from netspec.data.sources.hdf5 import Hdf5File
from netspec.errors import LabelError, NetspecError
from netspec.interchange import safetensors
from netspec.net.graph import compile
from netspec.net.make import make_net
from netspec.net.net import build
from netspec.schema import regular, spec
from netspec.schema.regular import LARGE, SPECIAL
from tests.cases import all_cases
from tools.fuzz.bounds import LONG_TEXTS, measured

READERS: dict[str, Callable[[Path], object]] = {
    "prototxt": schema.read,
    "check": lambda path: raise_problems(path),
    "weights": interchange.read_weights,
    "solverstate": interchange.read_solverstate,
    "safetensors": safetensors.load,
    "idx": idx.read,
    "npz": lambda path: idx.Npz(path).read("x"),
    "npy": idx.npy,
    "hdf5": lambda path: Hdf5File(path, ("x",)),
    "images in hdf5": from_hdf5,
    "picture": lambda path: images.decode(path, True, str(path)),
    "lmdb": lmdb.Reader,
    "blob": protos.read_blob,
}


def raise_problems(path: Path) -> None:
    report = check(path)
    if report.problems:
        raise NetspecError(str(report.problems[0]))


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", ["zero", "fifo"])
def test_no_reader_opens_a_device_or_a_pipe(
    reader: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(SPECIAL, raising=False)
    path = tmp_path / "x"
    if kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    word = "FIFO" if kind == "fifo" else "device"
    with pytest.raises(NetspecError, match=rf"x: is a {word}, no regular file; --allow-special"):
        READERS[reader](path)


SOURCES = {
    "HDF5Data": "hdf5_data_param { source: %r batch_size: 1 }",
    "ImageData": "image_data_param { source: %r batch_size: 1 }",
    "WindowData": "window_data_param { source: %r batch_size: 1 } transform_param { crop_size: 2 }",
    "Data": "data_param { source: %r batch_size: 1 }",
    "InfogainLoss": "infogain_loss_param { source: %r }",
}  # fmt: skip


@pytest.mark.parametrize("type", SOURCES)
def test_sources_of_layers_are_regular_files(type: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "ff")
    shapes = "input_param { shape { dim: 2 dim: 2 } shape { dim: 2 } }"
    inputs = f'layer {{ name: "i" type: "Input" top: "a" top: "b" {shapes} }}\n'
    own = 'bottom: "a" bottom: "b" top: "loss"' if type == "InfogainLoss" else 'top: "x" top: "y"'
    param = (SOURCES[type] % str(tmp_path / "ff")).replace("'", '"')
    text = f'{inputs}layer {{ name: "d" type: "{type}" {own} {param} }}'
    (tmp_path / "net.prototxt").write_text(text)
    net = compile(spec.net(schema.read_net(tmp_path / "net.prototxt"), "TRAIN"))
    with pytest.raises(NetspecError, match=r"net.prototxt:2:\d+: layer 'd' .*ff.* FIFO") as caught:
        build(net, device="meta")
    assert str(caught.value).count("layer 'd'") == 1


def test_special_files_are_read_where_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SPECIAL, "1")
    (tmp_path / "zero").symlink_to("/dev/null")
    with pytest.raises(NetspecError, match="is empty"):
        schema.read(tmp_path / "zero")


# Bombs


def bomb_gzip(path: Path) -> None:
    head = bytes([0, 0, 8, 1]) + struct.pack(">I", (1 << 31) - 1)
    with gzip.open(path, "wb", 9) as file:
        file.write(head)
        for _ in range(64):
            file.write(bytes(1 << 20))


def bomb_npz(path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (1 << 30,)}
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x.npy", "w") as member:
        member.write(header.getvalue())
        for _ in range(64):
            member.write(bytes(1 << 20))


def bomb_hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("x", (1 << 20, 1 << 10), "f4", chunks=(1, 1 << 10), compression="gzip")


BOMBS = {"idx": bomb_gzip, "npz": bomb_npz, "hdf5": bomb_hdf5}


@pytest.mark.parametrize("kind", BOMBS)
def test_what_a_file_cannot_honestly_hold_is_read_by_a_flag_alone(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(LARGE, raising=False)
    path = tmp_path / "bomb"
    BOMBS[kind](path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(NetspecError, match=r"bomb.* not read; --allow-large"):
        READERS[kind](path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024


@pytest.mark.slow
@pytest.mark.parametrize("kind", LONG_TEXTS)
def test_a_prototxt_of_a_million_lines_stays_below_its_bound(kind: str, tmp_path: Path) -> None:
    """4 to 12 MB: at most a gigabyte above the start of the process."""
    assert measured(LONG_TEXTS[kind], tmp_path / "net.prototxt")["megabytes"] < 1000


def test_packed_data_of_any_size_are_read_by_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels and masks pack well: what is honest is no bomb, however large it is."""
    monkeypatch.delenv(LARGE, raising=False)
    monkeypatch.setattr(regular, "MOST_SMALL", 1 << 16)
    monkeypatch.setattr(hdf5, "KEEP", 1 << 16)
    path = tmp_path / "packed.h5"
    values = np.arange(4096, dtype="f4").repeat(256).reshape(4096, 256)
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=values, chunks=(64, 256), compression="gzip")
    assert values.nbytes > 20 * path.stat().st_size
    read = Hdf5File(path, ("x",))
    assert (read.read(np.array([4095, 7]))[0] == values[[4095, 7]]).all()
    read.close()
    bomb_hdf5(path)
    with pytest.raises(NetspecError, match=r"more than \d+ are not read"):
        Hdf5File(path, ("x",))


# HDF5 that leads elsewhere


def elsewhere(kind: str, folder: Path) -> Path:
    path, other = folder / "b.h5", folder / "other.h5"
    with h5py.File(other, "w") as file:
        file["x"] = np.arange(4.0)
    with h5py.File(path, "w") as file:
        if kind == "external":
            file.create_dataset("x", (16,), "u1", external=[("/etc/passwd", 0, 16)])
        elif kind == "link":
            file["x"] = h5py.ExternalLink("other.h5", "x")
        elif kind == "link in a group":
            file["g"] = h5py.ExternalLink("other.h5", "/")
            file["x"] = h5py.SoftLink("/g/x")
        else:
            layout = h5py.VirtualLayout((4,), "f8")
            layout[:] = h5py.VirtualSource(str(other), "x", (4,))
            file.create_virtual_dataset("x", layout)
    return path


@pytest.mark.parametrize("kind", ["external", "link", "link in a group", "virtual"])
def test_hdf5_leads_to_no_other_file(kind: str, tmp_path: Path) -> None:
    with pytest.raises(NetspecError, match=r"b\.h5: .*another file; such .* not"):
        Hdf5File(elsewhere(kind, tmp_path), ("x",))
    with pytest.raises(NetspecError, match=r"b\.h5: .*(another file; such .* not|no numeric data set)"):
        open_pictures(tmp_path / "b.h5")


# Damage


def test_deep_headers_of_safetensors(tmp_path: Path) -> None:
    for header in (
        b"[" * 100_000, b'{"a":' * 100_000, b'{"__metadata__": null}', b'{"__metadata__": {"sha256": 3}}', b"[]", b"3",
        b'{"__metadata__": {"sha256": "x", "sums": "["}}', b'{"__metadata__": []}', b'{"x": null}',
        b'{"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, "4"]}}',
        b'{"x": {"dtype": "F32", "shape": [99999999999999999999], "data_offsets": [0, 0]}}',
        b'{"x": {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}}\x00',
    ):  # fmt: skip
        path = tmp_path / "deep.safetensors"
        path.write_bytes(struct.pack("<Q", len(header)) + header)
        with pytest.raises(NetspecError, match=r"deep\.safetensors: ") as caught:
            safetensors.load(path)
        assert len(str(caught.value).splitlines()) == 1


def flips(data: bytes, count: int, seed: int) -> list[bytes]:
    chance, made = random.Random(seed), []
    for _ in range(count):
        copy = bytearray(data)
        for _ in range(chance.choice((1, 1, 2, 8))):
            place = chance.randrange(len(copy))
            copy[place] = chance.choice((0, 255, copy[place] ^ 1 << chance.randrange(8)))
        made.append(bytes(copy[: chance.choice((len(copy), len(copy), chance.randrange(len(copy))))]))
    return made


def test_damaged_arrays_raise_nothing_foreign(tmp_path: Path) -> None:
    values = np.arange(24, dtype=np.float32).reshape(4, 6)
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file.create_dataset("x", data=values, compression="gzip", chunks=(2, 3))
    np.savez_compressed(tmp_path / "a.npz", x=values)
    np.save(tmp_path / "a.npy", values)
    safetensors.save(tmp_path / "a.safetensors", {"x": torch.from_numpy(values)}, {"a": 1})
    for kind in ("hdf5", "npz", "npy", "safetensors"):
        path = tmp_path / f"damaged.{kind}"
        for data in flips((tmp_path / f"a.{kind}").read_bytes(), 200, 1):
            path.write_bytes(data)
            try:
                opened = READERS[kind](path)
                if isinstance(opened, Hdf5File):
                    opened.read(np.arange(opened.rows))
                    opened.close()
            except NetspecError as error:
                assert f"damaged.{kind}" in str(error)  # noqa: PT017 - others are allowed to be read


@pytest.mark.parametrize("kind", ["lzma", "encrypted", "header", "objects", "huge"])
def test_members_of_npz_that_numpy_and_zipfile_stumble_over(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    member = io.BytesIO()
    np.save(member, np.ones(3))
    data = member.getvalue()
    if kind == "header":
        data = data[:10] + b"{'descr': ((((" + data[24:]
    if kind == "huge":
        data = data.replace(b"(3,)", b"(9" + b"9" * 30 + b",)")
    if kind == "objects":
        np.savez(path, x=np.array([{}], object))
    else:
        method = zipfile.ZIP_LZMA if kind == "lzma" else zipfile.ZIP_STORED
        with zipfile.ZipFile(path, "w", method) as archive:
            archive.writestr("x.npy", data)
    raw = bytearray(path.read_bytes())
    if kind == "encrypted":
        for mark, flag in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            raw[raw.find(mark) + flag] |= 1
    if kind == "lzma":
        raw[50:60] = b"\xff" * 10
    path.write_bytes(raw)
    with pytest.raises(NetspecError, match=r"x\.npz: "):
        idx.Npz(path).read("x")


# Labels


NAMED = {"Accuracy", "SoftmaxWithLoss", "HingeLoss", "MultinomialLogisticLoss", "InfogainLoss", "CenterLoss"}


def test_labels_outside_the_classes_are_named(tmp_path: Path) -> None:
    """For each loss and accuracy that reads labels."""
    seen = set()
    for case in all_cases():
        graph = compile(spec.net(schema.parse_net(case.text, "c.prototxt"), case.phase))
        for step in graph.steps:
            roles = [step.kind.role(i, len(step.reads)) for i in range(len(step.reads))]
            at = next((i for i, role in enumerate(roles) if role in ("label", "row label")), None)
            type = step.layer.type
            if at is None or type not in NAMED or type in seen:
                continue
            if case.name in ("margin_single", "focal_loss_targets") or step.reads[at] not in graph.inputs:
                continue  # without a margin the label has no effect; targets are any numbers
            net = build(graph, seed=0)
            for bad in (10**6, -1, float("inf")):
                values = {graph.name(slot): torch.randn(net.shapes[slot]) for slot in graph.inputs}
                values |= {name: value.float().clone() for name, value in case.inputs.items()}
                values[graph.name(step.reads[at])].view(-1)[0] = bad
                with pytest.raises(
                    LabelError, match=rf"layer {step.layer.name!r} \({type}\): bottom "
                ) as caught:
                    net(*(values[graph.name(slot)] for slot in graph.inputs))
                assert isinstance(caught.value, IndexError)
                assert f"{bad:g} is outside" in str(caught.value)
            seen.add(type)
    assert seen == NAMED


CHOSEN = {
    "ctc_rows": ("label", (10**6, float("inf")), "label rows"),
    "ctc_lengths": ("steps", (-1, 10**6, float("nan")), "lengths"),
    "roi_pooling": ("r", (-1, 10**6), "regions"),
    "psroi": ("r", (-100, 10**6), "regions"),
    "roi_align_ends": ("r", (-1, 10**6), "regions"),
    "embed_basic": ("x", (-1, 10**6, float("nan")), "index"),
    "margin_double": ("label", (-1, float("nan")), "row label"),
    "batch_reindex": ("b", (-1, 10**6), "row index"),
    "upsample_mask": ("b", (-1, 24, float("nan")), "switches"),
    "unpooling_mask": ("m", (-1, 24, float("nan")), "switches"),
}  # fmt: skip
"""By case: the input that chooses, what it must not hold, and its role."""


@pytest.mark.parametrize("name", CHOSEN)
def test_what_chooses_nothing_is_named(name: str) -> None:
    """Labels of sequences, their lengths, images of regions, indices: layer, bottom, value and bounds."""
    case = next(case for case in all_cases() if case.name == name)
    blob, wrong, role = CHOSEN[name]
    net = make_net(case.text, case.phase)
    for bad in wrong:
        values = {one: torch.randn(net.shape(one)) for one in net.input_names}
        values |= {one: value.float().clone() for one, value in case.inputs.items()}
        values[blob].view(-1)[0] = bad
        text = re.escape(f"bottom {blob!r}: {role} {bad:g} is outside: ")
        with pytest.raises(LabelError, match=text) as caught:
            net(*(values[one] for one in net.input_names))
        assert len(str(caught.value).splitlines()) == 1


def test_a_device_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text('layer { name: "x" type: "DummyData" top: "x" '
                                           "dummy_data_param { shape { dim: 1 } } }")  # fmt: skip
    (tmp_path / "s.prototxt").write_text(
        f'net: "{tmp_path}/net.prototxt" base_lr: 1 lr_policy: "fixed" max_iter: 1'
    )
    for device in ("mps", "tpu", "", "cuda:99", "cpu:x"):
        with pytest.raises(NetspecError, match="device"):
            netspec.fit(tmp_path / "s.prototxt", device=device, out=tmp_path / "run", progress=False)


def test_reports_of_attacks_are_small_and_harmless(tmp_path: Path) -> None:
    """The five of the report, as they were given: a pickle, a deep header, a file of the system, a pipe, a full disk
    (that one is in test_full_disk.py).
    """
    header = b"[" * 5000
    (tmp_path / "deep.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(NetspecError):
        interchange.read_weights(tmp_path / "deep.safetensors")
    path = elsewhere("external", tmp_path)
    (tmp_path / "l.txt").write_text(str(path))
    param = f'hdf5_data_param {{ source: "{tmp_path}/l.txt" batch_size: 2 }}'
    text = f'layer {{ name: "d" type: "HDF5Data" top: "x" {param} }}'
    (tmp_path / "h.prototxt").write_text(text)
    with pytest.raises(NetspecError, match=r"h\.prototxt:1:\d+: layer 'd' \(HDF5Data\): .*another file"):
        build(compile(spec.net(schema.read_net(tmp_path / "h.prototxt"), "TRAIN")), device="meta")
    os.mkfifo(tmp_path / "ff")
    text = text.replace("l.txt", "ff")
    (tmp_path / "ff.prototxt").write_text(text)
    report = check(tmp_path / "ff.prototxt")
    assert any("FIFO" in one.message for one in (*report.warnings, *report.problems))
