"""From a raw file of one's own to a trained model, a question at the command line, and an answer in its own units."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import netspec
from netspec.cli import app
from netspec.data.files.images import decode, encode
from netspec.data.tables.reading import Frame
from netspec.errors import DataError, NetspecError
from netspec.model import showing
from netspec.model.columns import first_rows
from netspec.model.rows import TableModel
from tests.command import call
from tests.model.own_data import pictures, table_text, train

TABLE = 'type: "Table" table_param {{ source: "{}" target: "kind" batch_size: 100 split {{ test: 0.2 }} {} }}'


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module", params=["", "one_hot: true"], ids=["codes", "one_hot"])
def table(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(the file, the run of a net that learnt from it)."""
    folder = tmp_path_factory.mktemp("table")
    file = folder / "animals.csv"
    file.write_text(table_text())
    return file, train(folder, TABLE.format(file, request.param))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(the folder of pictures, the run of a net that learnt from it)."""
    here = tmp_path_factory.mktemp("pictures")
    source = pictures(here / "own")
    data = f"""type: "Pictures" transform_param {{ mean_value: 127.5 scale: 0.0078 }}
      pictures_param {{ source: "{source}" batch_size: 20 shuffle: true split {{ test: 0.25 }} }}"""
    return source, train(here, data, block=2)


# Tables


def test_a_run_knows_its_table_without_the_file(table: tuple[Path, Path], tmp_path: Path) -> None:
    file, run = table
    text = (run / "net.prototxt").read_text()
    assert 'value: "blue"' in text
    gone = file.rename(tmp_path / "moved.csv")
    try:
        model = netspec.load(run)
        assert model.class_names == ("cat", "dog")
        assert "Table" in repr(model)
        assert "classes cat, dog" in repr(model)
    finally:
        gone.rename(file)


@pytest.mark.parametrize("how", ["expected", "most_probable", "sampled"])
def test_holes_are_filled_in_the_tables_own_units(table: tuple[Path, Path], tmp_path: Path, how: str) -> None:
    file, run = table
    out = tmp_path / "whole.csv"
    assert "240 rows" in call("complete", run, "--table", file, "--out", out, "--how", how)
    before, after = rows(file), rows(out)
    right = filled = 0
    for old, new in zip(before, after, strict=True):
        assert list(old) == list(new)
        assert all(new[name] == cell for name, cell in old.items() if cell)
        assert new["name"] == old["name"]
        cat = new["kind"] == "cat"
        assert new["kind"] in ("cat", "dog")
        assert new["colour"] in ("red", "green", "blue")
        assert new["legs"] == str(int(new["legs"]))
        assert new["born"][:2] == "20"
        assert len(new["born"]) == 10
        for name, cell in old.items():
            if cell or name in ("kind", "name"):
                continue
            filled += 1
            right += {
                "weight": (float(new["weight"]) < 12000) == cat,
                "legs": (int(new["legs"]) > 5) == cat,
                "colour": (new["colour"] != "blue") == cat,
                "born": (new["born"] < "2015") == cat,
            }[name]
    assert filled > 100
    assert right / filled > (0.8 if how == "sampled" else 0.9)


def test_the_default_name_of_a_completed_table(table: tuple[Path, Path], tmp_path: Path) -> None:
    file, run = table
    (tmp_path / "x.tsv").write_text(file.read_text().replace(",", "\t"))
    assert "x_completed.tsv: 240 rows" in call("complete", run, "--table", tmp_path / "x.tsv")
    assert "\t" in (tmp_path / "x_completed.tsv").read_text().splitlines()[0]


def test_other_forms_of_the_same_table(table: tuple[Path, Path], tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    file, run = table
    frame = pandas.read_csv(file)
    frame.to_parquet(tmp_path / "x.parquet")
    frame.to_csv(tmp_path / "x.csv", index=False, sep=";", decimal=",", encoding="utf-16")
    call("complete", run, "--table", file, "--out", tmp_path / "a.csv")
    call("complete", run, "--table", tmp_path / "x.parquet", "--out", tmp_path / "b.parquet")
    whole = pandas.read_parquet(tmp_path / "b.parquet")
    assert str(whole["weight"].dtype) == "float64"
    assert str(whole["legs"].dtype) == "int64"
    first = pandas.read_csv(tmp_path / "a.csv")
    np.testing.assert_allclose(whole["weight"], first["weight"])
    assert whole["colour"].tolist() == first["colour"].tolist()


def test_rows_without_a_target_in_another_order_and_a_new_category(
    table: tuple[Path, Path], tmp_path: Path
) -> None:
    _, run = table
    (tmp_path / "q.csv").write_text("colour,born,weight,legs\nblue,,20100,\npink,2010-03-11,,9\n")
    result = CliRunner().invoke(app, ["predict", str(run), "--table", str(tmp_path / "q.csv")])
    assert result.exit_code == 0, result.output
    assert "'pink' was not seen in training" in result.output
    lines = [line.split() for line in result.output.splitlines() if "%" not in line and "warning" not in line]
    assert lines[0] == ["kind", "p(kind=cat)", "p(kind=dog)"]
    assert [line[0] for line in lines[1:]] == ["dog", "cat"]
    call("predict", run, "--table", tmp_path / "q.csv", "--out", tmp_path / "p.csv")
    told = rows(tmp_path / "p.csv")
    assert [row["predicted kind"] for row in told] == ["dog", "cat"]
    assert told[1]["colour"] == "pink"
    assert float(told[0]["p(kind=dog)"]) > 0.9


def test_likelihoods_are_densities_in_the_tables_units(table: tuple[Path, Path]) -> None:
    _, run = table
    if "one_hot" in (run / "net.prototxt").read_text():
        pytest.skip("the units are the same")
    asked = TableModel(netspec.load(run))
    weights = np.linspace(-20000, 60000, 4001)
    frame = Frame({"weight": weights, "legs": [None] * 4001, "colour": [None] * 4001, "born": [None] * 4001})
    density = np.exp([answer["log_likelihood"] for answer in asked.answers(frame)])
    assert np.trapezoid(density, weights) == pytest.approx(1, abs=0.01)


def test_answers_as_lines_and_as_json(table: tuple[Path, Path]) -> None:
    file, run = table
    assert call("likelihood", run, "--table", file).splitlines()[0].split() == [
        "row",
        "observed",
        "log",
        "p",
        "classes",
    ]
    told = [json.loads(line) for line in call("likelihood", run, "--table", file, "--json").splitlines()]
    assert len(told) == 240
    assert set(told[0]["posterior"]) == {"cat", "dog"}
    assert sum(told[0]["posterior"].values()) == pytest.approx(1)


def test_new_rows(table: tuple[Path, Path], tmp_path: Path) -> None:
    _, run = table
    call("sample", run, "--out", tmp_path / "new.csv", "--rows", 50)
    drawn = rows(tmp_path / "new.csv")
    assert len(drawn) == 50
    assert list(drawn[0]) == ["weight", "legs", "colour", "born", "kind"]
    assert {row["colour"] for row in drawn} <= {"red", "green", "blue"}


def test_new_rows_are_drawn_beside_the_table(table: tuple[Path, Path], tmp_path: Path) -> None:
    source, run = table
    picture = tmp_path / "new.svg"
    assert call("sample", run, "--rows", 300, "-o", picture) == f"{picture}\n"
    text = picture.read_text()
    layout = TableModel(netspec.load(run)).layout
    wanted = {column.name for column in layout.inputs} | {layout.target}
    assert {name for name in wanted if f">{name}<" in text} == wanted
    count = len(rows(source))
    assert f">{count:,} rows of the table, 300 samples<" in text
    trained = netspec.load(run)
    assert showing.samples(trained, count=50)._repr_png_()
    data = first_rows(TableModel(trained))
    assert [len(cells) for cells in data.values()] == [count] * len(data)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("weight,legs,colour\n1,2,red\n", "has no column 'born'"),
        ("weight,legs,color,born\n1,2,red,\n", "has no column 'colour'; did you mean 'color'?"),
        ("weight,legs,colour,born\n1,2,red\n", "q.csv:2: 3 cells, the table has 4 columns"),
        ("", "the table is empty"),
    ],
)
def test_wrong_rows_are_refused_and_nothing_is_left(
    table: tuple[Path, Path], tmp_path: Path, text: str, words: str
) -> None:
    _, run = table
    (tmp_path / "q.csv").write_text(text)
    with pytest.raises(DataError) as caught:
        call("complete", run, "--table", tmp_path / "q.csv", "--out", tmp_path / "out.csv")
    assert words in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["q.csv"]


def test_wrong_questions_about_tables(table: tuple[Path, Path], tmp_path: Path) -> None:
    file, run = table
    for arguments, words in (
        (("complete", run, "--table", file, "--how", "expectd"), "did you mean 'expected'"),
        (("complete", run, "--table", file, "--out", tmp_path / "x.xlsx"), "a table is written as"),
        (("complete", run, "--table", tmp_path / "none.csv"), "no such file"),
        (("complete", run, "--table", "red_wyne"), "did you mean 'red_wine'"),
        (("likelihood", run, "--images", tmp_path), "reads a table; ask it about --table"),
    ):
        with pytest.raises(NetspecError) as caught:
            call(*arguments)
        assert words in str(caught.value)
    assert not list(tmp_path.iterdir())


# Pictures


def test_a_run_knows_its_classes_and_size_without_the_folder(
    folder: tuple[Path, Path], tmp_path: Path
) -> None:
    source, run = folder
    gone = source.rename(tmp_path / "moved")
    try:
        model = netspec.load(run)
        assert model.class_names == ("above", "below")
        assert model.image_shape == (1, 8, 8)
    finally:
        gone.rename(source)


def test_classes_of_pictures_by_their_names(folder: tuple[Path, Path], tmp_path: Path) -> None:
    source, run = folder
    call("predict", run, "--images", source, "--out", tmp_path / "p.csv")
    told = rows(tmp_path / "p.csv")
    assert len(told) == 40
    assert np.mean([row["class"] == row["label"] for row in told]) > 0.9
    one = next((source / "above").iterdir())
    line = call("predict", run, "--images", one).splitlines()[-1].split()
    assert line[1] == "above"
    assert len(call("predict", run, "--images", "0:3").splitlines()) == 4
    images = np.stack([decode(path, False, "") for path in sorted((source / "below").iterdir())])
    np.savez(tmp_path / "x.npz", images=images)
    told = call("predict", run, "--images", f"{tmp_path / 'x.npz'}:2:5").splitlines()[1:]
    assert [line.split()[:2] for line in told] == [[str(i), "below"] for i in (2, 3, 4)]


def test_pictures_are_completed(folder: tuple[Path, Path], tmp_path: Path) -> None:
    source, run = folder
    one = next((source / "above").iterdir())
    page = tmp_path / "page.png"
    call("complete", run, "--images", one, "--images", one, "--out", page)
    assert page.stat().st_size > 1000
    mask = np.full((1, 8, 8), 255, np.uint8)
    mask[:, :, :4] = 0
    (tmp_path / "mask.png").write_bytes(encode(mask, "png", "mask"))
    call(
        "complete",
        run,
        "--images",
        one,
        "--missing",
        f"file:{tmp_path / 'mask.png'}",
        "--out",
        tmp_path / "out",
    )
    before, after = decode(one, False, ""), decode(tmp_path / "out" / one.name, False, "")
    np.testing.assert_array_equal(after[:, :, 4:], before[:, :, 4:])
    assert after[:, :4, :4].mean() > after[:, 4:, :4].mean() + 50


def test_missing_pixels_in_an_array_are_missing(folder: tuple[Path, Path], tmp_path: Path) -> None:
    source, run = folder
    image = decode(next((source / "below").iterdir()), False, "").astype(np.float32)
    image[:, :, :5] = np.nan
    np.save(tmp_path / "x.npy", image)
    told = [
        json.loads(line)
        for line in call("likelihood", run, "--images", tmp_path / "x.npy", "--json").splitlines()
    ]
    assert told[0]["observed"] == 24
    call("complete", run, "--images", tmp_path / "x.npy", "--out", tmp_path / "out")
    whole = decode(tmp_path / "out" / "0.png", False, "")
    np.testing.assert_array_equal(whole[:, :, 5:], image[:, :, 5:].astype(np.uint8))


def test_every_question_takes_pictures(folder: tuple[Path, Path], tmp_path: Path) -> None:
    source, run = folder
    one = next((source / "below").iterdir())
    for command in ("explain", "tree"):
        call(command, run, "--images", one, "--out", tmp_path / f"{command}.png")
    assert "below" in call("likelihood", run, "--images", one)
    for arguments, words in (
        (("likelihood", run, "--images", tmp_path / "none.png"), "no such file or folder"),
        (("likelihood", run, "--images", "500:510"), "has no images 500 to 510"),
        (("complete", run, "--table", "red_wine"), "reads no table; ask it about --images"),
    ):
        with pytest.raises(NetspecError) as caught:
            call(*arguments)
        assert words in str(caught.value)


def test_nets_over_other_sources_answer_too(folder: tuple[Path, Path], tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    source, _ = folder
    pixels = np.stack([decode(path, False, "") for path in sorted(source.rglob("*.png"))])
    labels = np.repeat([0, 1], 20)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["data"], file["label"] = pixels.astype(np.float32) / 255, labels
    (tmp_path / "x.txt").write_text(f"{tmp_path / 'x.h5'}\n")
    data = f'type: "HDF5Data" hdf5_data_param {{ source: "{tmp_path / "x.txt"}" batch_size: 20 }}'
    run = train(tmp_path, data, block=2, iterations=120)
    one = next((source / "below").iterdir())
    assert call("predict", run, "--images", one).splitlines()[-1].split()[1] == "1"
    assert len(call("likelihood", run, "--images", "0:3").splitlines()) == 5  # a head, three rows, a remark


# In Python


def test_queries_take_arrays_lists_and_frames(table: tuple[Path, Path]) -> None:
    _, run = table
    model = netspec.load(run)
    x = np.random.default_rng(0).normal(size=(3, *model.image_shape))
    expected = model.log_likelihood(torch.from_numpy(x).float())
    for same in (x, x.astype(np.float32), x.tolist(), torch.from_numpy(x), x.reshape(3, -1)):
        torch.testing.assert_close(model.log_likelihood(same), expected)
    torch.testing.assert_close(model.log_likelihood(x[0]), expected[:1])
    for wrong, words in ((x[:, :, :, :2], "takes x of shape"), (np.zeros((2, 2, 2)), "takes x of shape"),
                         ([["a"]], "numbers"), (np.array([[1j]]), "numbers")):  # fmt: skip
        with pytest.raises(DataError, match=words):
            model.log_likelihood(wrong)
    posteriors = model.marginals(x)
    assert set(posteriors.names) == {"leaf", "mex", "sum", "scores"} & set(posteriors.names)
    torch.testing.assert_close(posteriors["leaf"], posteriors[0])
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        {"weight": [4000.0, None], "legs": [8, 2], "colour": ["red", None], "born": [None, None]}
    )
    assert model.posterior(frame).argmax(1).tolist() == [0, 1]
    whole = model.expected_completion(frame)
    assert list(whole.columns) == list(frame.columns)
    assert whole["weight"][0] == 4000.0
    assert whole["weight"][1] > 12000
    assert whole["colour"][1] == "blue"


def test_a_frame_is_answered_in_its_own_units(table: tuple[Path, Path]) -> None:
    """A density of grams is a thousandth of one of kilograms; the command line says the same as Python."""
    pandas = pytest.importorskip("pandas")
    path, run = table
    model = netspec.load(run)
    frame = pandas.read_csv(path)
    told = [answer["log_likelihood"] for answer in TableModel(model).answers(TableModel(model).open(path))]
    torch.testing.assert_close(model.log_likelihood(frame).double(), torch.tensor(told).double())
    x = model.take(frame)
    weight = next(column for column in model.layout.columns if column.name == "weight")
    alone = torch.full_like(x, torch.nan)
    place = model.layout.names.index("weight")
    alone[..., place] = x[..., place]
    seen = ~x[:, 0, 0, place].isnan()
    only = pandas.DataFrame({name: frame[name] if name == "weight" else None for name in frame}, dtype=object)
    apart = model.log_likelihood(alone) - model.log_likelihood(only)
    torch.testing.assert_close(apart, seen.float() * float(np.log(weight.deviation)))
    by_class = model.class_log_likelihood(frame) - model.class_log_likelihood(x)
    torch.testing.assert_close(by_class, (model.log_likelihood(frame) - model.log_likelihood(x))[:, None].expand(-1, 2),
                               atol=1e-4, rtol=1e-4)  # fmt: skip


def test_classes_by_name_number_and_none(table: tuple[Path, Path]) -> None:
    _, run = table
    model = netspec.load(run)
    x = np.full((2, *model.image_shape), np.nan)
    names = model.class_names
    for same in (list(names), np.array(names), np.array([0.0, 1.0]), torch.tensor([0, 1])):
        assert torch.equal(model.expected_completion(x, same)[0], model.expected_completion(x, [0, 1])[0])
        assert torch.equal(model.sample(same, seed=1), model.sample(torch.tensor([0, 1]), seed=1))
    for wrong, words in (([0], "each of 2 examples, found 1"), ([0, 2], "no class 2"), ([0, -1], "no class -1"),
                         ([0, 0.5], "no class 0.5"), ([0, np.nan], "no class nan")):  # fmt: skip
        with pytest.raises(DataError, match=words):
            model.expected_completion(x, wrong)
    with pytest.raises(NetspecError, match=f"no class 'x'.*{names[0]}"):
        model.sample(["x"])
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"weight": [4000.0], "legs": [8], "colour": ["red"], "born": [None]})
    with pytest.raises(DataError, match="no classes beside a frame; set its column"):
        model.complete(frame, [0])


def test_masked_cells_are_missing(table: tuple[Path, Path]) -> None:
    _, run = table
    model = netspec.load(run)
    x = np.random.default_rng(0).normal(size=(3, *model.image_shape))
    hidden = np.random.default_rng(1).random(x.shape) < 0.5
    masked = model.log_likelihood(np.ma.masked_array(x, hidden))
    torch.testing.assert_close(masked, model.log_likelihood(np.where(hidden, np.nan, x)))


def test_a_frame_keeps_the_types_of_its_columns(table: tuple[Path, Path]) -> None:
    pandas = pytest.importorskip("pandas")
    path, run = table
    model = netspec.load(run)
    frame = pandas.read_csv(path)
    frame["legs"] = frame["legs"].astype("Int64")
    frame["weight"] = frame["weight"].astype("Float32")
    frame["colour"] = frame["colour"].astype("category")
    frame["born"] = pandas.to_datetime(frame["born"])
    for whole in (model.expected_completion(frame), model.complete(frame, seed=1)):
        assert not whole[["legs", "weight", "colour", "born"]].isna().to_numpy().any()
        assert list(whole.dtypes[["legs", "weight", "colour", "born"]]) == list(
            frame.dtypes[["legs", "weight", "colour", "born"]]
        )
        for name in frame:
            seen = frame[name].notna()
            assert (whole[name][seen] == frame[name][seen]).all()


def test_what_is_read_otherwise_than_meant_is_warned_of(table: tuple[Path, Path]) -> None:
    pandas = pytest.importorskip("pandas")
    model = netspec.load(table[1])
    frame = pandas.DataFrame({"weight": [4000.0], "legs": [8], "colour": ["pink"], "born": [None]})
    for ask in (model.posterior, model.expected_completion):
        with pytest.warns(UserWarning, match="'pink' was not seen in training"):
            ask(frame)
