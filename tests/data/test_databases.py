"""LMDB and LevelDB: order, rounds, Datums, damage; and what the converters write."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from netspec import schema
from netspec.data import feeder
from netspec.data.files import leveldb
from netspec.data.files.protos import datum, read_blob, read_datum, write_blob
from netspec.data.sources.database import LevelDb, Lmdb, open_database
from netspec.data.writing import convert, databases
from netspec.data.writing.features import write_features
from netspec.errors import DataError, SpecError
from netspec.net.make import make_net
from netspec.net.net import Net

plyvel = pytest.importorskip("plyvel")
RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (10, 3, 5, 4), dtype=np.uint8)


def examples(n: int = 10) -> Iterator[convert.Example]:
    for i in range(n):
        yield convert.Example(f"{i:08}", IMAGES[i], i)


def net(text: str, phase: str = "TRAIN") -> Net:
    return make_net(text, phase)


def layer(source: Path, batch: int = 4, more: str = "", backend: str = "LMDB") -> str:
    return f"""layer {{ name: "d" type: "Data" top: "data" top: "label" {more}
        data_param {{ source: "{source}" batch_size: {batch} backend: {backend} }} }}"""


@pytest.mark.parametrize("backend", ["LMDB", "LEVELDB"])
def test_records_come_in_key_order_round_and_round(tmp_path: Path, backend: str) -> None:
    assert databases.write_database(examples(), tmp_path / "db", backend) == 10
    with feeder(net(layer(tmp_path / "db", backend=backend))) as data:
        assert data.shapes == [(4, 3, 5, 4), (4,)]
        labels = []
        for i in range(6):
            images, label = data.next()
            assert (images == torch.from_numpy(IMAGES[label.long()]).float()).all()
            labels += label.tolist()
            if i == 2:
                state = data.state()
        assert labels == [i % 10 for i in range(24)]
        data.load_state(state)
        assert data.next()[1].tolist() == [2, 3, 4, 5]
    with feeder(net(layer(tmp_path / "db", backend=backend)), rank=1, world=3, ahead=False) as data:
        assert data.next()[1].tolist() == [1, 4, 7, 0]


def test_two_nets_read_one_file(tmp_path: Path) -> None:
    databases.write_database(examples(), tmp_path / "db")
    first, second = Lmdb(tmp_path / "db"), Lmdb(tmp_path / "db" / "data.mdb")
    first.close()
    assert second.at(13)[0] == b"00000003"
    second.close()


@pytest.mark.parametrize("compression", [None, "snappy"])
@pytest.mark.parametrize("library", [True, False])
def test_leveldb_reader_agrees_with_the_library(
    tmp_path: Path, compression: str | None, library: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many tables, overwritten and deleted keys, writes that are only in the log."""
    if not library:
        monkeypatch.setattr(leveldb, "snappy_library", lambda: None)
    path = tmp_path / "db"
    db = plyvel.DB(str(path), create_if_missing=True, compression=compression, write_buffer_size=60_000)
    for i in range(3000):
        key = b"%06d" % RANDOM.integers(2000)
        if i % 7 == 0:
            db.delete(key)
        else:
            db.put(key, bytes(RANDOM.integers(0, 4, RANDOM.integers(0, 300), dtype=np.uint8)) * 2)
    db.put(b"long", bytes(RANDOM.integers(0, 256, 100_000, dtype=np.uint8)))
    expected = list(db.iterator())
    db.close()
    assert len(list(path.glob("*.ldb"))) > 1
    before = sorted((file.name, file.stat().st_mtime_ns) for file in path.iterdir())
    assert list(leveldb.Reader(path)) == expected
    assert sorted((file.name, file.stat().st_mtime_ns) for file in path.iterdir()) == before


def test_snappy_refuses_what_is_damaged() -> None:
    cramjam = pytest.importorskip("cramjam")
    plain = bytes(RANDOM.integers(0, 3, 5000, dtype=np.uint8)) + bytes(200)
    packed = bytes(cramjam.snappy.compress_raw(plain))
    assert leveldb.snappy(packed) == plain
    for cut in (1, 2, 10, len(packed) // 2, len(packed) - 1):
        with pytest.raises(leveldb.Damage):
            leveldb.snappy(packed[:cut])
    for hostile in (
        b"\xff\xff\xff\xff\x7f\x00",
        b"\x04\x01\x05",
        b"\x02\xfe\xff\xff\xff\xff",
        b"",
        b"\xff" * 12,
    ):
        with pytest.raises(leveldb.Damage):
            leveldb.snappy(hostile)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_mutated_leveldb_files_give_data_errors(tmp_path: Path, data: st.DataObject) -> None:
    source = tmp_path / "source"
    if not source.exists():
        databases.write_database(examples(), source, "LEVELDB")
        db = plyvel.DB(str(source))
        db.compact_range()
        db.put(b"z", b"1")
        db.close()
    target = tmp_path / "mutated"
    target.mkdir(exist_ok=True)
    for file in target.iterdir():
        file.unlink()
    names = sorted(file.name for file in source.iterdir() if file.stat().st_size and file.name != "LOG")
    for name in names:
        (target / name).write_bytes((source / name).read_bytes())
    chosen = target / data.draw(st.sampled_from(names))
    content = bytearray(chosen.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    chosen.write_bytes(content[: data.draw(st.sampled_from([len(content), len(content) // 2]))])
    try:
        database = LevelDb(target)
        for i in range(12):
            read_datum(database.at(i)[1], "record")
    except DataError:
        pass


def test_wrong_databases_are_named(tmp_path: Path) -> None:
    databases.write_database(examples(), tmp_path / "lmdb")
    databases.write_database(examples(), tmp_path / "leveldb", "LEVELDB")
    (tmp_path / "empty").mkdir()
    for source, backend, reason in (
        ("none", "LMDB", "no such database"),
        ("empty", "LMDB", "no LMDB here"),
        ("empty", "LEVELDB", "no LevelDB here"),
        ("lmdb", "LEVELDB", "write `backend: LMDB`"),
        ("leveldb", "LMDB", "write `backend: LEVELDB`"),
    ):
        with pytest.raises(DataError, match=reason) as caught:
            net(layer(tmp_path / source, backend=backend))
        assert "layer 'd' (Data)" in str(caught.value)
        assert "<text>:2:" in str(caught.value)
    data = (tmp_path / "lmdb" / "data.mdb").read_bytes()
    (tmp_path / "lmdb" / "data.mdb").write_bytes(data[: len(data) - 4096])
    with pytest.raises(DataError, match="truncated"):
        open_database(tmp_path / "lmdb", "LMDB")
    (tmp_path / "lmdb" / "data.mdb").write_bytes(b"not a database" * 1000)
    with pytest.raises(DataError, match="not a readable LMDB"):
        open_database(tmp_path / "lmdb", "LMDB")
    with pytest.raises(SpecError, match="batch_size"):
        net(layer(tmp_path / "leveldb", batch=0, backend="LEVELDB"))
    with pytest.raises(DataError, match="exists"):
        databases.write_database(examples(), tmp_path / "lmdb")


def test_datums_raw_float_and_encoded(tmp_path: Path) -> None:
    assert (read_datum(datum(IMAGES[0], 3), "r").image == IMAGES[0]).all()
    values = RANDOM.normal(size=(2, 3, 4)).astype(np.float32)
    assert (read_datum(datum(values), "r").image == values).all()
    file = io.BytesIO()
    Image.fromarray(IMAGES[0].transpose(1, 2, 0)[:, :, ::-1]).save(file, "png")
    encoded = schema.Datum(encoded=True, data=file.getvalue(), label=5).SerializeToString()
    record = read_datum(encoded, "r")
    assert record.picture
    assert record.label == 5
    assert (record.image == IMAGES[0]).all()
    assert read_datum(encoded, "r", color=False).image.shape == (1, 5, 4)
    for hostile in (
        b"\x08",
        schema.Datum(channels=1 << 20, height=1 << 20, width=1 << 20, data=b"1").SerializeToString(),
        schema.Datum(channels=-1, height=1, width=1, data=b"1").SerializeToString(),
        schema.Datum().SerializeToString(),
        schema.Datum(encoded=True, data=b"no picture").SerializeToString(),
        schema.Datum(encoded=True, data=file.getvalue()[:60]).SerializeToString(),
    ):
        with pytest.raises(DataError, match="record 7"):
            read_datum(hostile, "record 7")


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 400), st.integers(0, 255))
def test_mutated_records_give_data_errors(tail: bytes, place: int, value: int) -> None:
    file = io.BytesIO()
    Image.fromarray(IMAGES[0].transpose(1, 2, 0)).save(file, "png")
    whole = bytearray(schema.Datum(encoded=True, data=file.getvalue(), label=5).SerializeToString())
    whole[place % len(whole)] = value
    for record in (bytes(whole), bytes(whole) + tail, tail):
        with contextlib.suppress(DataError):
            read_datum(record, "record")


def test_records_of_other_size_are_named(tmp_path: Path) -> None:
    out = databases.LmdbWriter(tmp_path / "db")
    out.put(b"a", datum(IMAGES[0]))
    out.put(b"b", datum(IMAGES[0][:, :4]))
    out.close()
    with (
        feeder(net(layer(tmp_path / "db", batch=2))) as data,
        pytest.raises(DataError, match="images of one batch differ in size"),
    ):
        data.next()
    crop = "transform_param { crop_size: 3 }"
    with feeder(net(layer(tmp_path / "db", batch=2, more=crop), "TEST")) as data:
        images, _ = data.next()
    assert (images[1].numpy() == IMAGES[0][:, 0:3, 0:3]).all()
    with feeder(net(layer(tmp_path / "db", batch=1))) as data:
        data.next()
        with pytest.raises(DataError, match="the first gave"):
            data.next()


def test_lmdb_grows(tmp_path: Path) -> None:
    big = np.zeros((1, 1024, 1024), np.uint8)
    many = (convert.Example(f"{i:03}", big + i, i) for i in range(40))
    assert databases.write_database(many, tmp_path / "db") == 40
    back = list(convert.from_database(tmp_path / "db"))
    assert [example.label for example in back] == list(range(40))


@pytest.mark.parametrize("backend", ["LMDB", "LEVELDB"])
def test_database_round_trip_and_mean(tmp_path: Path, backend: str) -> None:
    databases.write_database(examples(), tmp_path / "db", backend)
    back = list(convert.from_database(tmp_path / "db", backend))
    assert len(back) == 10
    assert (np.stack([example.image for example in back]) == IMAGES).all()
    mean = convert.mean_image(iter(back))
    assert mean == pytest.approx(IMAGES.mean(0), rel=1e-6)
    write_blob(tmp_path / "mean.binaryproto", mean)
    assert (read_blob(tmp_path / "mean.binaryproto") == mean[None]).all()
    text = layer(
        tmp_path / "db", 10, f'transform_param {{ mean_file: "{tmp_path}/mean.binaryproto" }}', backend
    )
    with feeder(net(text)) as data:
        assert data.next()[0].mean(0).abs().max() < 1e-4


def test_list_to_database(tmp_path: Path) -> None:
    for i in range(3):
        Image.fromarray(IMAGES[i].transpose(1, 2, 0)[:, :, ::-1]).save(tmp_path / f"{i}.png")
    (tmp_path / "list.txt").write_text("".join(f"{i}.png {i}\n" for i in range(3)))
    databases.write_database(convert.from_list(tmp_path / "list.txt", f"{tmp_path}/"), tmp_path / "raw")
    databases.write_database(
        convert.from_list(tmp_path / "list.txt", f"{tmp_path}/", encoded=True), tmp_path / "encoded"
    )
    for name in ("raw", "encoded"):
        back = list(convert.from_database(tmp_path / name))
        assert [example.key for example in back] == [f"{i:08}_{i}.png" for i in range(3)]
        assert (np.stack([example.image for example in back]) == IMAGES[:3]).all()
    resized = list(convert.from_list(tmp_path / "list.txt", f"{tmp_path}/", size=(6, 7), color=False))
    assert resized[0].image.shape == (1, 6, 7)
    shuffled = [
        example.label for example in convert.from_list(tmp_path / "list.txt", f"{tmp_path}/", shuffle=1)
    ]
    assert sorted(shuffled) == [0, 1, 2]
    (tmp_path / "list.txt").write_text("a.png one\n")
    with pytest.raises(DataError, match=r"list\.txt:1"):
        list(convert.from_list(tmp_path / "list.txt"))


def test_named_set_to_hdf5_and_back(tmp_path: Path) -> None:
    files = databases.write_hdf5(convert.from_named("digits", "test"), tmp_path / "digits.txt", rows=200)
    assert [os.path.basename(file) for file in files] == ["digits_0.h5", "digits_1.h5"]
    text = f"""layer {{ name: "d" type: "HDF5Data" top: "data" top: "label"
        hdf5_data_param {{ source: "{tmp_path}/digits.txt" batch_size: 290 }} }}"""
    with feeder(net(text)) as data:
        images, labels = data.next()
    assert images.shape == (290, 1, 8, 8)
    assert (labels.bincount() if labels.dtype == torch.int64 else labels.long().bincount()).tolist() == [
        29
    ] * 10


@pytest.mark.parametrize("ending", ["", ".npz", ".h5"])
def test_features(tmp_path: Path, ending: str) -> None:
    text = """layer { name: "d" type: "Dataset" top: "data" top: "label"
          dataset_param { name: "digits" split: "test" batch_size: 5 } }
        layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
          inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }"""
    made = net(text)
    with feeder(made) as data:
        rows = write_features(made, data, ["ip", "data"], 2, tmp_path / f"out{ending}")
    assert rows == 10
    with feeder(made) as data, torch.no_grad():
        expected = torch.cat([made.blobs(*data.next())["ip"] for _ in range(2)]).numpy()
    if ending == ".npz":
        with np.load(tmp_path / "out.npz") as arrays:
            assert (arrays["ip"] == expected).all()
            assert arrays["data"].shape == (10, 1, 8, 8)
    elif ending == ".h5":
        import h5py

        with h5py.File(tmp_path / "out.h5") as file:
            assert (file["ip"][()] == expected).all()
    else:
        back = list(convert.from_database(tmp_path / "out" / "ip"))
        assert back[0].key == "0000000000"
        assert (np.stack([example.image.ravel() for example in back]) == expected).all()
        assert next(convert.from_database(tmp_path / "out" / "data")).image.shape == (1, 8, 8)
    with feeder(made) as data, pytest.raises(DataError, match="no blob 'pi'"):
        write_features(made, data, ["pi"], 1, tmp_path / "x.npz")
