"""The index of runs: what it holds is what the folders hold, whatever happens to its file."""

from __future__ import annotations

import csv
import io
import json
import os
import sqlite3
from pathlib import Path

import pytest
from typer.testing import CliRunner

from netspec.cli import app
from netspec.errors import NetspecError
from netspec.experiments.index import FILE, Index
from netspec.experiments.listing import listing
from netspec.experiments.runs import RunFolder, differing, find_runs
from tests.experiments.folders import write_run


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", (0.4, 0.7), base_lr=0.01, seed=2)
    for i, value in enumerate((0.2, 0.95)):
        write_run(tmp_path / "sweep" / f"p_{i}", (value,), values={"keep": 0.5 + i / 2, "states": 8})
    write_run(tmp_path / "a" / "abandoned" / "1")  # belongs to run a
    (tmp_path / "no run").mkdir()
    return tmp_path


def dump(index: Index) -> list[str]:
    """All that the index holds, but the keys that tell its rows apart."""
    query = "select path, status, iteration, seconds, seed, sweep, file, again from runs order by path"
    lines = [str(row) for row in index.ask(query)[1]]
    for table in ("settings", "tests", "train", "data"):
        joined = f"select r.path, t.* from {table} t join runs r on r.id = t.run"
        lines += sorted(str((row[0], *row[2:])) for row in index.ask(joined)[1])
    return lines


def test_the_index_holds_what_the_folders_hold(root: Path) -> None:
    with Index(root) as index:
        assert (root / FILE).is_file()
        rows = index.ask("select path, status, iteration, seed, sweep, max_iter from runs order by path")[1]
        assert rows == [
            ("a", "done", 20, 1, "", 20),
            ("b", "done", 20, 2, "", 20),
            ("sweep/p_0", "done", 20, 1, "sweep", 20),
            ("sweep/p_1", "done", 20, 1, "sweep", 20),
        ]
        query = "select output, value from last join runs on id = run where path = 'b' order by output"
        last = dict(index.ask(query)[1])
        assert list(last) == ["accuracy", "loss", "per_class[0]", "per_class[1]"]
        assert (last["accuracy"], last["per_class[1]"]) == (0.7, None)
        assert last["loss"] == pytest.approx(0.3)
        assert index.ask("select count(*) from train")[1] == [(16,)]
        names = "select value from settings where name = 'ip.inner_product_param.num_output'"
        assert {value for (value,) in index.ask(names)[1]} == {"4"}
        assert index.ask("select distinct name, sha256 from data")[1] == [("digits train", "ab")]


def test_changes_are_seen_and_a_rebuilt_index_is_the_same(root: Path) -> None:
    Index(root).base.close()
    write_run(root / "c")
    with open(root / "a" / "metrics.jsonl", "a") as file:
        line = {"kind": "test", "iteration": 20, "net": 1, "outputs": {"accuracy": 0.99}}
        file.write(json.dumps(line) + "\n")
    (root / "b" / "run.json").unlink()
    for name in ("metrics.jsonl", "solver.prototxt", "net.prototxt"):
        (root / "b" / name).unlink()
    with Index(root) as index:
        grown = dump(index)
        assert index.ask("select path from runs order by path")[1][:2] == [("a",), ("c",)]
        assert ("1:accuracy", 0.99) in index.ask("select output, value from last")[1]
    with Index(root, rebuild=True) as index:
        assert dump(index) == grown
    with Index(root) as index:
        assert dump(index) == grown


def test_a_damaged_or_later_file_is_made_anew(root: Path) -> None:
    with Index(root) as index:
        whole = dump(index)
    for damage in ((root / FILE).read_bytes()[:5000], b""):
        (root / FILE).write_bytes(damage)
        with Index(root) as index:
            assert dump(index) == whole
    base = sqlite3.connect(root / FILE)
    base.executescript("drop table train; pragma user_version = 99; create table other (x)")
    base.close()
    with Index(root) as index:
        assert dump(index) == whole


def test_damaged_runs_are_listed_with_what_is_left(root: Path) -> None:
    (root / "a" / "run.json").write_text("{")
    (root / "a" / "solver.prototxt").write_text("base_lr: {")
    test = b'{"kind": "test", "iteration": 3, "net": 0, "outputs": {"accuracy": 0.5}}'
    (root / "b" / "metrics.jsonl").write_bytes(b"\xff\n[1]\n" + test + b'\n{"ki')
    with Index(root) as index:
        query = "select path, iteration from runs where path < 'c' order by path"
        assert index.ask(query)[1] == [("a", 20), ("b", 3)]


def test_sql_reads_and_does_nothing_else(root: Path) -> None:
    with Index(root) as index:
        before = dump(index)
        for query in (
            "delete from runs", "drop table runs", "attach 'x.sqlite' as x", "pragma user_version = 3",
            "insert into train values (1, 1, 1, 1, 1, 1)", "select load_extension('x')", "selec", "select 1; select 2",
            "vacuum into 'copy.sqlite'",
        ):  # fmt: skip
            with pytest.raises(NetspecError, match="--sql: "):
                index.ask(query)
        assert dump(index) == before
        counting = (
            "with recursive n(i) as (select 1 union select i + 1 from n where i < 3) select sum(i) from n"
        )
        assert index.ask(counting)[1] == [(6,)]


@pytest.mark.parametrize(
    ("filters", "sort", "paths"),
    [
        ([], "", ["a", "b", "sweep/p_0", "sweep/p_1"]),
        (["sweep"], "", ["sweep/p_0", "sweep/p_1"]),
        (["accuracy>0.5"], "-accuracy", ["sweep/p_1", "a", "b"]),
        (["accuracy>0.5", "base_lr<0.05"], "", ["b"]),
        (["keep=1.0"], "", ["sweep/p_1"]),
        (["seed != 1"], "", ["b"]),
        (["ip.inner_product_param.num_output=4", "keep<=0.5"], "", ["sweep/p_0"]),
        (["file~small"], "keep", ["sweep/p_0", "sweep/p_1", "a", "b"]),
        (["type=SGD"], "accuracy", ["sweep/p_0", "b", "a", "sweep/p_1"]),
    ],
)
def test_filters_and_order(root: Path, filters: list[str], sort: str, paths: list[str]) -> None:
    with Index(root) as index:
        assert [row["path"] for row in listing(index, filters, sort).rows] == paths


def test_a_name_that_no_run_has_is_told_with_the_nearest(root: Path) -> None:
    with (
        Index(root) as index,
        pytest.raises(NetspecError, match="no run has 'acuracy'; did you mean 'accuracy'"),
    ):
        listing(index, ["acuracy>0.5"])


def test_the_command(root: Path) -> None:
    def call(*words: str) -> str:
        result = CliRunner().invoke(app, ["runs", *words, "--in", str(root)], catch_exceptions=False)
        assert result.exit_code == 0
        return result.output

    lines = call("--sort", "-accuracy").splitlines()
    assert lines[0].split()[:5] == ["path", "status", "iteration", "seconds", "seed"]
    assert lines[1].startswith("sweep/p_1 ")
    assert "states" not in lines[0]  # the same in all runs that have it
    assert [json.loads(line)["path"] for line in call("--json", "seed=2").splitlines()] == ["b"]
    rows = list(csv.DictReader(io.StringIO(call("--csv"))))
    assert [row["accuracy"] for row in rows] == ["0.9", "0.7", "0.2", "0.95"]
    assert call("--sql", "select path from runs where seed = 2").split() == ["path", "b"]


def test_a_folder_that_cannot_be_written_to(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = sqlite3.connect

    def refusing(file: object, **how: float) -> sqlite3.Connection:
        if str(file) != ":memory:":
            raise sqlite3.OperationalError("unable to open database file")
        return real(":memory:", **how)  # type: ignore[call-overload,no-any-return]

    monkeypatch.setattr(sqlite3, "connect", refusing)
    with Index(root) as index:
        assert len(index.ask("select * from runs")[1]) == 4
    assert not (root / FILE).exists()


def test_what_makes_a_run_again(root: Path) -> None:
    assert RunFolder(root / "b").again == "netspec train small.prototxt --set base_lr=0.01 --seed 2"
    again = RunFolder(root / "sweep" / "p_1").again
    assert again == (
        "netspec render small.prototmp --set keep=1.0 --set states=8 -o again.prototxt "
        "&& netspec train again.prototxt --seed 1"
    )


def test_the_command_is_quoted(tmp_path: Path) -> None:
    odd = "a b; $(touch x)\n.prototxt"
    run = RunFolder(write_run(tmp_path / "a", facts={"file": odd, "settings": {"display": "1\n2"}}))
    assert run.again == "netspec train 'a b; $(touch x) .prototxt' --set 'display=1 2' --seed 1"
    run = RunFolder(write_run(tmp_path / "b", facts={"file": "-x"}))
    assert run.again.startswith("netspec train ./-x --set")
    made = write_run(tmp_path / "c", values={"k": 1})
    (made / "point.json").write_text(json.dumps({"values": {"k": 1}, "source": "x;y"}))
    assert RunFolder(made).again.startswith("netspec render 'x;y' --set k=1 -o")


def test_columns_of_one_name_and_blobs(root: Path) -> None:
    def call(*words: str) -> str:
        result = CliRunner().invoke(app, ["runs", *words, "--in", str(root)], catch_exceptions=False)
        return result.output

    assert call("--sql", "select 1 as x, 2 as x").split() == ["x", "x:2", "1", "2"]
    assert json.loads(call("--json", "--sql", "select x'00ff' as x")) == {"x": "b'\\x00\\xff'"}


def test_an_output_is_no_column_of_the_run(root: Path) -> None:
    line = {"kind": "test", "iteration": 20, "net": 0, "outputs": {"path": 3.0, "id": 1.0, "status": 2.0}}
    (root / "a" / "metrics.jsonl").write_text(json.dumps(line))
    with Index(root) as index:
        (row,) = listing(index, ["output.path=3"]).rows
        assert (row["path"], row["status"], row["output.status"]) == ("a", "done", 2.0)


def test_settings_that_differ(root: Path) -> None:
    write_run(root / "wide", outputs=8)
    runs = {run.name: run for run in find_runs(root)}
    assert differing([runs["a"], runs["b"]]) == {"base_lr": ["0.1", "0.01"]}
    assert differing([runs["a"], runs["wide"]]) == {"ip.inner_product_param.num_output": ["4", "8"]}
    assert differing([runs["p_0"], runs["p_1"]]) == {"keep": ["0.5", "1"]}


def test_names_of_folders_that_are_no_text(root: Path) -> None:
    """A name of bytes that are no UTF-8 is listed with them escaped, and breaks no command over runs."""
    odd = Path(os.fsdecode(os.fsencode(root) + b"/odd\xff"))
    write_run(odd)
    with Index(root) as index:
        assert index.ask("select path from runs where path like 'odd%'")[1] == [("odd\\udcff",)]
        before = dump(index)
    with Index(root) as index:
        assert dump(index) == before
    for command in (
        ["runs", "--in", str(root)],
        ["runs", "--in", str(root), "--csv"],
        ["runs", "--in", str(root), "--json"],
        ["compare", "--no-test", str(root / "b"), str(odd)],
        ["report", "--no-test", str(odd), "-o", str(root / "page.html")],
    ):
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, (command, result.output, result.exception)
    assert "odd" in (root / "page.html").read_text(encoding="utf-8")
