"""Tables of one's own: how files are read, what columns are found to be, and cells in their own units again."""

from __future__ import annotations

import gzip
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from netspec.data.tables.arranging import information, mutual_information, order
from netspec.data.tables.cells import is_missing, moment, number, written_moment
from netspec.data.tables.columns import CATEGORY, DATE, INTEGER, LEFT_OUT, NUMBER, Column
from netspec.data.tables.reading import Form, Frame, open_table
from netspec.data.tables.split import Split
from netspec.data.tables.table import Layout, Wishes, describe
from netspec.errors import DataError


def table(
    tmp_path: Path, text: str | bytes, name: str = "t.csv", form: Form | None = None, **wishes: object
) -> Layout:
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return describe(open_table(path, form), Wishes(**wishes))  # type: ignore[arg-type]


def kinds(layout: Layout) -> dict[str, str]:
    return {column.name: column.kind for column in layout.columns}


def whole(path: Path, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    rows = open_table(path)
    parts = [layout.encode(piece, layout.fit(rows.names, str(path))) for piece in rows.pieces()]
    return np.concatenate([a for a, _ in parts]), np.concatenate([b for _, b in parts])


# Cells


@pytest.mark.parametrize("word", ["", " ", "NA", "n/a", "NaN", "null", "None", "?", "<NA>"])
def test_words_for_missing_cells(word: str) -> None:
    assert is_missing(word)


def test_a_word_of_ones_own_for_missing_cells() -> None:
    assert not is_missing("-9")
    assert is_missing("-9", ("-9",))


@pytest.mark.parametrize(
    ("cell", "decimal", "value"),
    [("1.5", ".", 1.5), (" -2e3 ", ".", -2000.0), ("1,5", ",", 1.5), ("1.234,5", ",", 1234.5), ("1,234.5", ".", 1234.5),
     ("1 234,5", ",", 1234.5), ("inf", ".", None), ("1e999", ".", None), ("1.5", ",", None), ("1,5", ".", None),
     ("0x10", ".", None), ("1_000", ".", None), ("", ".", None)],
)  # fmt: skip
def test_numbers(cell: str, decimal: str, value: float | None) -> None:
    assert number(cell, decimal) == value


def test_dates_come_back_as_they_were_written() -> None:
    for form, text in (("%Y-%m-%d", "2024-02-29"), ("%d.%m.%Y", "01.03.1969"),
                       ("%Y-%m-%d %H:%M:%S", "2001-01-01 23:59:59"),
                       ("%Y-%m-%dT%H:%M", "1970-01-01T00:01"), ("%Y-%m-%d", "0800-12-25")):  # fmt: skip
        days = moment(text, form)
        assert days is not None
        assert written_moment(days + 1e-7, form) == text


# Files


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_separators_are_found(tmp_path: Path, separator: str) -> None:
    layout = table(tmp_path, f"a{separator}b\n1.5{separator}x\n2.5{separator}y\n3{separator}x\n")
    assert kinds(layout) == {"a": NUMBER, "b": CATEGORY}


def test_decimal_commas(tmp_path: Path) -> None:
    layout = table(tmp_path, "a;b;c\n1,5;2;1.234,5\n2,5;3;2.000,0\n0,25;5;1,5\n")
    assert kinds(layout) == {"a": NUMBER, "b": INTEGER, "c": NUMBER}
    a = layout.columns[0]
    assert a.mean == pytest.approx(np.mean([1.5, 2.5, 0.25]))
    assert a.decode(np.array([0.0, (1.5 - a.mean) / a.deviation])) == ["1,41667", "1,5"]


@pytest.mark.parametrize(
    ("text", "means"),
    [
        # Three digits behind a comma: the other column, or the semicolons, say that it is a decimal sign.
        ("a;b\n1,5;1,234\n2,5;2,345\n0,5;3,456\n", {"a": 1.5, "b": 2.345}),
        ("b;c\n1,234;x\n2,345;y\n3,456;x\n", {"b": 2.345}),
        ("a;b\n1,5;1.234\n2,5;2.345\n0,5;3.456\n", {"a": 1.5, "b": 2345}),
        # Here the other column has decimal points, so commas and points alike set thousands apart or are points.
        ("a;b\n1.5;1,234\n2.5;2,345\n0.5;3,456\n", {"a": 1.5, "b": 2345}),
        ("a\tb\n1.25;1\t1,234\n2.5;1\t2,345\n0.5;2\t3,456\n", {"b": 2345}),
        ("a;b\n1.234;1\n2.345;2\n3.456;3\n", {"a": 2.345, "b": 2}),
    ],
)
def test_what_a_comma_with_three_digits_is(tmp_path: Path, text: str, means: dict[str, float]) -> None:
    columns = {column.name: column for column in table(tmp_path, text).columns}
    for name, mean in means.items():
        assert columns[name].mean == pytest.approx(mean)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_encodings_are_found(tmp_path: Path, encoding: str) -> None:
    layout = table(tmp_path, "größe,ort\n1.5,Köln\n2.5,Zürich\n3.5,Köln\n".encode(encoding))
    assert [column.name for column in layout.columns] == ["größe", "ort"]
    assert layout.columns[1].values == ("Köln", "Zürich")


def test_compressed_text(tmp_path: Path) -> None:
    layout = table(tmp_path, gzip.compress(b"a,b\n1,2\n3,4\n5,6\n"), "t.csv.gz")
    assert kinds(layout) == {"a": INTEGER, "b": INTEGER}


def test_a_first_line_of_numbers_is_no_header(tmp_path: Path) -> None:
    assert kinds(table(tmp_path, "1,2.5\n3,4.5\n7,1.5\n")) == {"column_1": INTEGER, "column_2": NUMBER}
    letters = table(tmp_path, "p,x,p\nq,x,q\np,y,p\nq,y,p\n")
    assert kinds(letters) == {"column_1": CATEGORY, "column_2": CATEGORY, "column_3": CATEGORY}
    named = table(tmp_path, "2001,2002\n3,4.5\n7,1.5\n", form=Form(header=True))
    assert kinds(named) == {"2001": CATEGORY, "2002": NUMBER}


def test_quoted_cells_and_empty_lines(tmp_path: Path) -> None:
    layout = table(tmp_path, 'a,b\n\n"1.5","x, y"\n\n2.5,"line\nbreak"\n3,"x, y"\n')
    assert layout.columns[1].values == ("line\nbreak", "x, y")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b\n1,2\n1,2,3\n", "t.csv:3: 3 cells, the table has 2 columns"),
        ("a,a\n1,2\n", "two columns are called 'a'"),
        ("", "the table is empty"),
        ("a,b\n", "the table has no rows"),
        (b"a,b\n\0\0\0\n", "is no text"),
        (
            "a,b\n" + "1,2\n" * 12 + "oops,2\n",
            "column 'a', line 14: 'oops' is no finite number, as 12 of its 13 cells",
        ),
        ("a,b\n" + "1,2\n" * 12 + "inf,2\n", "'inf' is no finite number"),
        ("a,b\n,\n,\n", "no column is left to learn from"),
    ],
)
def test_files_that_are_no_tables(tmp_path: Path, text: str | bytes, words: str) -> None:
    with pytest.raises(DataError) as caught:
        table(tmp_path, text)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_wrong_names_and_settings(tmp_path: Path) -> None:
    text = "height,weight\n1.5,2\n2.5,3\n"
    for wishes, words in (
        ({"target": "heigth"}, "has no column 'heigth'; did you mean 'height'?"),
        ({"leave_out": ("x",)}, "has no column 'x'; it has height, weight"),
        ({"category": ("height",), "number": ("height",)}, "cannot hold both"),
        ({"decimal": ";"}, "it is '.' or ','"),
    ):
        with pytest.raises(DataError, match=r"column|decimal") as caught:
            table(tmp_path, text, **wishes)
        assert words in str(caught.value)
    with pytest.raises(DataError, match="give one character"):
        Form(separator=",,")
    with pytest.raises(DataError, match="no encoding is called 'utf-9'"):
        Form(encoding="utf-9")
    with pytest.raises(DataError, match="no such file"):
        open_table(tmp_path / "none.csv")
    with pytest.raises(DataError, match="is a folder"):
        open_table(tmp_path)
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 not")
    with pytest.raises(DataError, match=r"bad\.parquet"):
        open_table(tmp_path / "bad.parquet")


def test_a_wrong_encoding_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"t\.csv: cannot be read as ascii"):
        table(tmp_path, "größe\n1\n", form=Form(encoding="ascii"))


# Columns


def test_what_columns_are(tmp_path: Path) -> None:
    rows = ["id,whole,number,flag,kind,when,empty,same"]
    rows += [f"name {i},{i % 7},{i / 3},{i % 2},{'abc'[i % 3]},2024-01-{i % 28 + 1:02},,5" for i in range(40)]
    layout = table(tmp_path, "\n".join(rows) + "\n")
    assert kinds(layout) == {
        "id": LEFT_OUT, "whole": INTEGER, "number": NUMBER, "flag": CATEGORY, "kind": CATEGORY, "when": DATE,
        "empty": LEFT_OUT, "same": INTEGER,
    }  # fmt: skip
    assert len(layout.notes) == 2
    assert "40 different texts" in layout.notes[0]
    assert "holds no value" in layout.notes[1]
    assert layout.columns[-1].deviation == 1
    assert layout.width == 6


def test_categories_and_numbers_by_wish(tmp_path: Path) -> None:
    text = "a,b\n1,2\n2,3\n10,4\n?,5\n"
    assert table(tmp_path, text, category=("a",)).columns[0].values == ("1", "2", "10")
    assert table(tmp_path, "a\n0\n1\n1\n", number=("a",)).columns[0].kind == INTEGER
    with pytest.raises(DataError, match="'x' is no finite number"):
        table(tmp_path, "a\nx\ny\n", number=("a",))
    odd = table(tmp_path, "a\n1\n-\n2\n" + "3.5\n" * 20, words=("-",))
    assert odd.columns[0].kind == NUMBER


def test_targets(tmp_path: Path) -> None:
    text = "x,y\n" + "".join(f"{i / 7},{i % 4}\n" for i in range(40))
    assert table(tmp_path, text, target="y").classes == ("0", "1", "2", "3")
    assert table(tmp_path, text, target="y", number=("y",)).classes == ()
    many = "x,y\n" + "".join(f"{i / 7},{i}\n" for i in range(40))
    assert table(tmp_path, many, target="y").label.kind == INTEGER  # type: ignore[union-attr]
    with pytest.raises(DataError, match="cannot be the target"):
        table(tmp_path, "x,y\n1,\n2,\n", target="y")


def test_deviations_of_values_far_from_0(tmp_path: Path) -> None:
    values = 1e9 + np.random.default_rng(0).normal(size=3000) * 1e-3
    layout = table(tmp_path, "x\n" + "".join(f"{value:.9f}\n" for value in values))
    assert layout.columns[0].deviation == pytest.approx(values.std(), rel=1e-3)
    rows, _ = whole(tmp_path / "t.csv", layout)
    assert rows.std() == pytest.approx(1, abs=1e-3)


def test_rows_there_and_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    lines = ["n,i,k,d,y"]
    for i in range(60):
        cells = [
            f"{rng.normal(50, 20):.3f}",
            str(rng.integers(-9, 9)),
            "rgb"[i % 3],
            f"2020-{i % 12 + 1:02}-03",
            "ab"[i % 2],
        ]
        cells[i % 5] = "" if i % 4 == 0 else cells[i % 5]
        lines.append(",".join(cells))
    for one_hot in (False, True):
        (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
        rows = open_table(tmp_path / "t.csv")
        layout = describe(rows, Wishes("y"), one_hot=one_hot)
        assert layout.names == (["n", "i", "k=b", "k=g", "k=r", "d"] if one_hot else ["n", "i", "k", "d"])
        values, labels = whole(tmp_path / "t.csv", layout)
        assert values.shape == (60, layout.width)
        back = layout.decode(values)
        for column, name in enumerate("nikd"):
            for line, cell in zip(lines[1:], back[name], strict=True):
                written = line.split(",")[column]
                if name == "n" and written:
                    assert float(str(cell)) == pytest.approx(float(written), abs=2e-3)
                else:
                    assert (cell or "") == written
        assert [("ab"[int(label)] if label == label else "") for label in labels] == [
            line.split(",")[4] for line in lines[1:]
        ]


def test_a_category_that_training_has_not_seen_is_missing(tmp_path: Path) -> None:
    layout = table(tmp_path, "a,b\n1.5,x\n2.5,y\n3.5,x\n")
    said: list[str] = []
    piece = next(iter(Frame({"a": [1.5, None], "b": ["z", "x"]}).pieces()))
    rows, _ = layout.encode(piece, [0, 1], said.append)
    assert np.isnan(rows).tolist() == [[False, True], [True, False]]
    assert said == ["column 'b', line 1: 'z' was not seen in training (category); it is taken as missing"]


def test_columns_are_matched_by_name(tmp_path: Path) -> None:
    layout = table(tmp_path, "a,b,y\n1.5,x,0\n2.5,y,1\n3.5,x,1\n", target="y")
    assert layout.fit(["y", "extra", "b", "a"], "t") == [3, 2, 0]
    assert layout.fit(["b", "a"], "t") == [1, 0, None]
    assert layout.fit(["column_1", "column_2", "column_3"], "t") == [0, 1, 2]
    with pytest.raises(DataError, match="has no column 'b'; did you mean 'B'"):
        layout.fit(["a", "B"], "t")


def test_whole_numbers_written_with_a_point_are_the_same_category() -> None:
    column = Column("a", CATEGORY, values=("0", "1"))
    assert column.encode(["1.0", "0", None, "2"], ())[0].tolist()[:2] == [1.0, 0.0]
    column = Column("a", CATEGORY, values=("0.0", "1.0"))
    assert column.encode(["1", "0"], ())[0].tolist() == [1.0, 0.0]


# Frames and Parquet


def test_frames_and_parquet_read_as_the_text_does(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    frame = pandas.DataFrame(
        {
            "n": [1.5, np.nan, 3.25], "i": pandas.array([1, None, 7], dtype="Int64"), "k": ["x", None, "y"],
            "c": pandas.Categorical(["u", "v", "u"]), "b": [True, False, True],
            "d": pandas.to_datetime(["2024-01-01", None, "2024-03-01"]),
        }
    )  # fmt: skip
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_parquet(tmp_path / "t.parquet")
    layouts = [describe(rows, Wishes()) for rows in (
        Frame(frame), open_table(tmp_path / "t.csv"), open_table(tmp_path / "t.parquet"))]  # fmt: skip
    for layout in layouts:
        assert kinds(layout) == {
            "n": NUMBER,
            "i": CATEGORY,
            "k": CATEGORY,
            "c": CATEGORY,
            "b": CATEGORY,
            "d": DATE,
        }
    rows = [
        np.concatenate(
            [layouts[1].encode(piece, layouts[1].fit(source.names, "t"))[0] for piece in source.pieces()]
        )
        for source in (Frame(frame), open_table(tmp_path / "t.csv"), open_table(tmp_path / "t.parquet"))
    ]
    np.testing.assert_array_equal(rows[0][:, :5], rows[1][:, :5])
    np.testing.assert_array_equal(rows[2][:, :5], rows[1][:, :5])


def test_reading_takes_the_memory_of_a_piece(tmp_path: Path) -> None:
    path = tmp_path / "long.csv"
    with open(path, "w") as file:
        file.write("a,b,c\n")
        for i in range(60_000):
            file.write(f"{i / 3:.6f},{i % 5},{'xyz'[i % 3]}\n")
    rows = open_table(path)
    tracemalloc.start()
    assert sum(len(piece) for piece in rows.pieces(500)) == 60_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < path.stat().st_size / 2


# Splits


def test_parts_cut_the_data_and_keep_the_shares_of_classes() -> None:
    labels = np.repeat([0.0, 1.0, np.nan], [100, 20, 40])
    split = Split(validation=0.1, test=0.25, seed=3)
    parts = {part: split.rows(160, labels, part) for part in ("train", "validation", "test")}
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(160))
    assert [int((labels[parts["test"]] == kind).sum()) for kind in (0, 1)] == [25, 5]
    assert [int((labels[parts["validation"]] == kind).sum()) for kind in (0, 1)] == [10, 2]
    np.testing.assert_array_equal(
        parts["test"], Split(test=0.25, validation=0.1, seed=3).rows(160, labels, "test")
    )
    assert parts["test"].tolist() != Split(test=0.25, seed=4).rows(160, labels, "test").tolist()
    whole_train = split.rows(160, labels, "whole_train")
    assert sorted(whole_train) == sorted([*parts["train"], *parts["validation"]])


def test_shares_that_make_no_sense() -> None:
    for wrong, words in (
        ({"test": 1.5}, "less than 1"),
        ({"test": 0.6, "validation": 0.5}, "leave nothing"),
        ({"part": "tset", "test": 0.1}, "did you mean 'test'"),
        ({"part": "test"}, "needs a share"),
    ):
        with pytest.raises(DataError, match=words):
            Split(**wrong)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="is empty"):
        Split("test", test=0.01).rows(10)


# Arranging


def test_mutual_information_of_a_known_table() -> None:
    assert information(np.array([[500.0, 0], [0, 500]])) == pytest.approx(np.log(2) - 1 / 2000)
    assert information(np.array([[250.0, 250], [250, 250]])) == 0


def test_dependent_columns_become_neighbours() -> None:
    rng = np.random.default_rng(0)
    sources = rng.normal(size=(2000, 4))
    columns = [sources[:, i % 4] + 0.3 * rng.normal(size=2000) for i in range(12)]
    columns[3] = (sources[:, 3] > 0).astype(float)
    rows = np.stack(columns, 1)
    rows[rng.random(rows.shape) < 0.3] = np.nan
    nats = order(mutual_information(rows))
    assert sorted(nats) == list(range(12))
    assert all(len({i % 4 for i in nats[begin : begin + 3]}) == 1 for begin in range(0, 12, 3))
    assert order(np.zeros((2, 2))) == [0, 1]
    assert order(mutual_information(np.full((5, 3), np.nan))) != []


def test_numbers_without_end_are_names_or_refused(tmp_path: Path) -> None:
    """Found by the fuzzer: 400 nines are a whole number that no float holds."""
    path = tmp_path / "t.csv"
    path.write_text("a,kind\n1," + "9" * 400 + "\n2,7.0\n3,7\n")
    assert describe(open_table(path), Wishes()).columns[1].values == ("7", "9" * 400)
    path.write_text("a\n9007199254740993\n9007199254740992\n1\n")
    whole = describe(open_table(path), Wishes(category=("a",))).columns[0]
    assert whole.values == ("1", "9007199254740992", "9007199254740993")
    path.write_text("a\n1e308\n-1e308\n2.5\n3\n")
    with pytest.raises(DataError, match="column 'a': its numbers are too large"):
        describe(open_table(path), Wishes())
