"""A newcomer's way: a file of one's own, a net made for it, trained, and asked, each step a command."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from netspec.cli import app
from netspec.data.files.images import decode, encode
from netspec.errors import DataError
from tests.command import call
from tests.model.own_data import pictures, table_text


def refused(*words: object) -> str:
    """The error of a command that must fail."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exception is not None, words
    return str(result.exception)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_table_with_holes_to_one_without(folder: Path) -> None:
    (folder / "zoo.csv").write_text(table_text())
    told = call("arrange", "zoo.csv", "--target", "kind", "--set", "iterations=20")
    assert "next: netspec train zoo.prototxt" in told
    assert "then: netspec predict runs/zoo --table zoo.csv" in told
    call("train", "zoo")  # the name of the net, as of those that are shipped
    call("complete", "runs/zoo", "--table", "zoo.csv")
    before, after = (
        list(csv.DictReader((folder / name).read_text().splitlines()))
        for name in ("zoo.csv", "zoo_completed.csv")
    )
    filled = 0
    for old, new in zip(before, after, strict=True):
        for name, cell in old.items():
            assert not cell or new[name] == cell
            filled += not cell
        assert new["legs"].isdecimal()
        assert new["colour"] in ("red", "green", "blue")
        assert new["born"].endswith("-11") or new["born"][:4].isdecimal()
        assert 2000 < float(new["weight"]) < 25_000
    assert filled > 100
    # An animal of 4 legs and more is a cat in this table.
    rows = [new for old, new in zip(before, after, strict=True) if not old["kind"] and old["legs"]]
    right = [(int(row["legs"]) > 4) == (row["kind"] == "cat") for row in rows]
    assert np.mean(right) > 0.9


def test_a_folder_of_pictures_to_classes_and_completions(folder: Path) -> None:
    pictures(folder / "mine")
    told = call("arrange", "mine", "--set", "iterations=60")
    assert "40 pictures of 8x8, grey; classes above, below" in told
    call("train", "mine.prototxt")
    lines = call("predict", "runs/mine", "--images", "mine").splitlines()
    assert len(lines) == 41
    assert all(line.split()[0].split("/")[1] == line.split()[1] for line in lines[1:])
    # The upper half of a picture is taken away: NaN in an array of one's own.
    whole = np.stack([decode(path, False, "")[0] for path in sorted((folder / "mine" / "above").iterdir())])
    holed = whole.astype(np.float32)
    holed[:, :4] = np.nan
    np.save(folder / "holed.npy", holed)
    call("complete", "runs/mine", "--images", "holed.npy", "-o", "filled")
    filled = np.stack([decode(folder / "filled" / f"{i}.png", False, "")[0] for i in range(len(whole))])
    assert np.abs(filled[:, 4:].astype(float) - whole[:, 4:]).max() <= 1
    assert np.abs(filled[:, :4].astype(float).mean() - whole[:, :4].mean()) < 30


def test_pictures_of_odd_size_in_colour_without_classes(folder: Path) -> None:
    rng = np.random.default_rng(0)
    (folder / "flat").mkdir()
    for i in range(12):
        image = rng.integers(0, 255, (3, 45, 7), dtype=np.uint8)
        (folder / "flat" / f"{i}.png").write_bytes(encode(image, "png", ""))
    told = call("arrange", "flat", "--set", "iterations=2", "--set", "gaussians=4", "--set", "states=4")
    assert "12 pictures of 32x5, colour; no labels" in told
    call("train", "flat.prototxt")
    assert "log p" in call("likelihood", "runs/flat", "--images", "flat")
    assert "without classes" in refused("predict", "runs/flat", "--images", "flat")


def test_arrays_and_lists_are_pictures(folder: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (10, 6, 4), dtype=np.uint8)
    np.savez(folder / "some.npz", images=images, labels=np.arange(10) % 2)
    assert "10 pictures of 6x4, grey; classes 0, 1" in call("arrange", "some.npz")
    names = [folder / f"{i}.png" for i in range(10)]
    for name, image in zip(names, images, strict=True):
        name.write_bytes(encode(image[None], "png", ""))
    (folder / "list.txt").write_text("".join(f"{name} {'ab'[i % 2]}\n" for i, name in enumerate(names)))
    assert "10 pictures of 8x8, grey; classes a, b" in call("arrange", "list.txt", "--size", "8x8")


def test_wrong_starts_say_what_to_do(folder: Path) -> None:
    (folder / "people.csv").write_text("size,sex\n1,f\n2,m\n3,f\n")
    (folder / "photos").mkdir()
    assert "did you mean 'people.csv'?" in refused("arrange", "peple.csv")
    assert "did you mean 'sex'?" in refused("arrange", "people.csv", "--target", "sx")
    assert "netspec arrange people.csv" in refused("train", "people.csv")
    assert "netspec arrange photos" in refused("train", "photos")
    assert "holds no pictures" in refused("arrange", "photos")
    assert "--target is for tables" in refused("arrange", "photos", "--target", "x")
    assert "--size is for pictures" in refused("arrange", "people.csv", "--size", "8x8")
    np.savez(folder / "rows.npz", x=np.zeros((4, 3)))
    assert "holds no images" in refused("arrange", "rows.npz")
    assert "no such value; did you mean 'states'?" in refused("arrange", "people.csv", "--set", "state=3")
    assert sorted(path.name for path in folder.iterdir()) == ["people.csv", "photos", "rows.npz"]
    call("arrange", "people.csv")
    text = (folder / "people.prototxt").read_text()
    assert "exists" in refused("arrange", "people.csv")
    assert (folder / "people.prototxt").read_text() == text


def test_a_tables_model_draws_no_pictures(folder: Path) -> None:
    (folder / "t.csv").write_text("a,b\n" + "".join(f"{i},{i * i}\n" for i in range(20)))
    call("arrange", "t.csv", "--set", "iterations=2", "--test", "0")
    call("train", "t.prototxt")
    assert "--table FILE.csv" in refused("complete", "runs/t")
    (folder / "code.py").write_text("import os, sys, re\n")
    assert "has no column 'a'" in refused("complete", "runs/t", "--table", "code.py")


def test_parquet_keeps_its_types(folder: Path) -> None:
    pandas = pytest.importorskip("pandas")
    parquet = pytest.importorskip("pyarrow.parquet")
    rng = np.random.default_rng(0)
    count = pandas.array(rng.integers(3, 9, 60), dtype="Int64")
    frame = pandas.DataFrame(
        {
            "born": pandas.Timestamp("2000-01-01") + pandas.to_timedelta(rng.integers(0, 999, 60), unit="D"),
            "count": count, "share": rng.normal(0, 1, 60).astype(np.float32), "word": rng.choice(["x", "y"], 60),
            "flag": rng.random(60) < 0.5, "empty": np.full(60, np.nan),
        }
    )  # fmt: skip
    frame.loc[::5, "born"] = None
    frame.loc[1::5, "count"] = None
    frame.to_parquet("t.parquet")
    call("arrange", "t.parquet", "--set", "iterations=2")
    call("train", "t.prototxt")
    call("complete", "runs/t", "--table", "t.parquet")
    completed = pandas.read_parquet("t_completed.parquet")
    types = [parquet.read_schema(name).types for name in ("t.parquet", "t_completed.parquet")]
    assert types[0] == types[1]
    assert not completed[["born", "count", "share", "word", "flag"]].isna().any().any()
    assert completed["count"].between(3, 8).all()
    seen = frame["born"].notna()
    assert (completed["born"][seen] == frame["born"][seen]).all()
    # A date without a time of day is the same date.
    (folder / "t.csv").write_text("born,count,share,word,flag\n2001-02-03,,0.5,x,True\n")
    told = call("likelihood", "runs/t", "--table", "t.csv")
    assert told.splitlines()[1].split()[1] == "4"


@pytest.fixture
def far(folder: Path) -> Path:
    """A model of columns far from 0 beside their spread, 1e9 +- 2 and 1e6 +- 3, and the class that they depend on."""
    rng = np.random.default_rng(1)
    kind = rng.integers(0, 2, 200)
    a, b = 1e9 + 4 * kind - 2 + rng.normal(0, 0.3, 200), 1e6 + 6 * kind - 3 + rng.normal(0, 0.3, 200)
    lines = [
        f"{'' if rng.random() < 0.2 else float(x)},{'' if rng.random() < 0.2 else float(y)},{'xy'[k]}"
        for x, y, k in zip(a, b, kind, strict=True)
    ]
    (folder / "far.csv").write_text("a,b,kind\n" + "\n".join(lines) + "\n")
    call("arrange", "far.csv", "--target", "kind", "--set", "iterations=20")
    call("train", "far.prototxt")
    return folder


def test_values_far_from_0_beside_their_spread(far: Path) -> None:
    (far / "ask.csv").write_text(f"a,b\n{1e9 + 2},\n,{1e6 - 3}\n,\n")
    call("complete", "runs/far", "--table", "ask.csv")
    rows = [line.split(",") for line in (far / "ask_completed.csv").read_text().splitlines()[1:]]
    assert float(rows[0][0]) == 1e9 + 2  # as it was written
    assert float(rows[0][1]) == pytest.approx(1e6 + 3, abs=0.5)
    assert float(rows[1][0]) == pytest.approx(1e9 - 2, abs=0.5)
    kinds = [line.split()[0] for line in call("predict", "runs/far", "--table", "ask.csv").splitlines()[1:3]]
    assert kinds == ["y", "x"]
    # A density in the columns' own units: about that of normal distributions of deviation 0.3.
    told = call("likelihood", "runs/far", "--table", "ask.csv").splitlines()[1].split()
    assert float(told[2]) == pytest.approx(np.log(0.5 / (0.3 * np.sqrt(2 * np.pi))), abs=0.5)


def test_evidence_far_outside_and_infinite_is_said_by_line_and_column(far: Path) -> None:
    (far / "ask.csv").write_text("a,b\n1e9,\ninf,\n1e300,\n")
    result = CliRunner().invoke(app, ["predict", "runs/far", "--table", "ask.csv"])
    assert result.exception is None
    assert "column 'a', line 3: 'inf' is none of its values (number)" in result.output
    (far / "ask.csv").write_text("a,b\n1e9,\n,1e300\n")
    told = call("predict", "runs/far", "--table", "ask.csv")
    assert "column 'b', line 3: '1e300' lies too far from the column's values" in told
    (far / "ask.csv").write_text("a,b\n1e9,\n,1e17\n")
    assert "line 3" in refused("predict", "runs/far", "--table", "ask.csv")
    assert "so far from all components" in refused("complete", "runs/far", "--table", "ask.csv")
    # 10,000 deviations away is answered, by probabilities.
    (far / "ask.csv").write_text(f"a,b\n{1e9 + 2e4},\n{1e9 - 2e4},\n")
    lines = [line.split() for line in call("predict", "runs/far", "--table", "ask.csv").splitlines()[-2:]]
    assert all(float(x) + float(y) == pytest.approx(1) for _, x, y in lines)
    # An error in a later batch names its own line.
    (far / "ask.csv").write_text("a,b\n" + "1e9,\n" * 250 + ",1e17\n")
    assert "line 252" in refused("predict", "runs/far", "--table", "ask.csv")


def test_thirty_columns_with_a_fifth_missing_and_one_empty(folder: Path) -> None:
    rng = np.random.default_rng(0)
    state = rng.integers(0, 2, 300)
    values = state[:, None] * np.linspace(2, 6, 29) + rng.normal(0, 1, (300, 29))
    gone = rng.random(values.shape) < 0.2
    head = ",".join([*(f"c{i}" for i in range(29)), "empty"])
    rows = [
        ",".join([*("" if g else f"{v:.3f}" for v, g in zip(row, lost, strict=True)), ""])
        for row, lost in zip(values, gone, strict=True)
    ]
    (folder / "wide.csv").write_text("\n".join([head, *rows]) + "\n")
    result = CliRunner().invoke(app, ["arrange", "wide.csv", "--set", "iterations=10", "--set", "states=4"])
    assert "column 'empty': holds no value; it is left out" in result.output
    told = call("train", "wide.prototxt")
    assert "with missing values" in told  # how many patches had some
    call("complete", "runs/wide", "--table", "wide.csv")
    lines = [line.split(",") for line in (folder / "wide_completed.csv").read_text().splitlines()[1:]]
    assert all(line[29] == "" for line in lines)  # unknown stays unknown
    filled = np.array([[float(cell) for cell in line[:29]] for line in lines])
    error = np.square(filled - values)[gone].mean()
    assert error < 1.5  # what the state explains; noise alone is 1, the columns' own variance 3 and more


def test_a_density_is_told_from_a_probability(folder: Path) -> None:
    rng = np.random.default_rng(0)
    words = rng.choice(["a", "b", "c"], 60)
    (folder / "words.csv").write_text("w,v\n" + "".join(f"{w},{w * 2}\n" for w in words))
    (folder / "mixed.csv").write_text("w,v\n" + "".join(f"{w},{rng.normal():.3f}\n" for w in words))
    for name, told in (("words", "of a probability"), ("mixed", "of a density in the columns' own units")):
        call("arrange", f"{name}.csv", "--set", "iterations=10", "--set", "states=4", "--test", "0")
        call("train", f"{name}.prototxt")
        lines = call("likelihood", f"runs/{name}", "--table", f"{name}.csv").splitlines()
        assert told in lines[-1]
        first = json.loads(
            call("likelihood", f"runs/{name}", "--table", f"{name}.csv", "--json").splitlines()[0]
        )
        assert first["kind"] in told
    # Probabilities of all rows that can be sum to 1.
    (folder / "all.csv").write_text("w,v\n" + "".join(f"{w},{v * 2}\n" for w in "abc" for v in "abc"))
    lines = call("likelihood", "runs/words", "--table", "all.csv", "--json").splitlines()
    assert sum(np.exp(json.loads(line)["log_likelihood"]) for line in lines) == pytest.approx(1, abs=1e-4)


def test_a_table_is_not_written_over_by_its_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = [f"{i},{i % 7},{'' if i % 5 == 0 else i % 3}" for i in range(40)]
    Path("t.csv").write_text("a,b,c\n" + "\n".join(lines) + "\n")
    assert "--number 'b' predicts it as a number" in call(
        "arrange", "t.csv", "--target", "b", "--set", "iterations=3"
    )
    call("train", "t.prototxt")
    before = Path("t.csv").read_bytes()
    for command in ("complete", "predict"):
        with pytest.raises(DataError, match=r"t\.csv: is the table that is asked about.*another name"):
            call(command, "runs/t", "--table", "t.csv", "-o", "t.csv")
    assert Path("t.csv").read_bytes() == before


def test_pixels_that_are_hidden_unasked_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    pictures = np.random.default_rng(0).integers(0, 256, (12, 8, 8), dtype=np.uint8)
    np.savez("some.npz", images=pictures, labels=np.arange(12) % 2)
    call("arrange", "some.npz", "--set", "iterations=2", "--set", "gaussians=4", "--set", "states=4")
    call("train", "some.prototxt")
    told = [
        CliRunner().invoke(app, ["complete", "runs/some", "--images", "some.npz", "-o", "out", *more]).stderr
        for more in ((), ("--missing", "rects:1x3"))
    ]
    assert "no pixel of these pictures is missing, so iid:0.5 is hidden" in told[0]
    assert "is hidden" not in told[1]
