"""An index of runs in one SQLite file, made from their folders. It can be deleted at any time: it is made again.

runs      a run each: id, path, name, sweep (its folder, "" where there is none), status, reason, iteration, max_iter,
          seconds, seed, started, device, parameters, file, net, solver, again, commit_id, netspec, torch
settings  run, name, value, kind: "value" (of a plan, or behind --set), "solver", "net" (resolved fields)
tests     run, net, iteration, output, value: every number of every test
train     run, iteration, loss, lr, seconds, gradient_norm
data      run, layer, phase, name, sha256
last      a view: run, output, value of the last test; of nets behind the first, outputs are named `1:accuracy`
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from netspec.errors import NetspecError, one_line
from netspec.experiments.runs import SIGNS, RunFolder, as_text, find_runs, flat, flat_net, settable_text

FILE = "index.sqlite"
"""In the folder of the runs."""
APPLICATION = 0x6E73_6978
"""SQLite's application_id of the file; a file without it belongs to another program."""
VERSION = 2
TABLES = """
create table runs (
  id integer primary key, path text unique not null, stamp text not null, name text, sweep text, status text,
  reason text, iteration integer, max_iter integer, seconds real, seed integer, started text, device text,
  parameters integer, file text, net text, solver text, again text, commit_id text, netspec text, torch text
);
create table settings (run integer, name text, value text, kind text);
create table tests (run integer, net integer, iteration integer, output text, value real);
create table train (run integer, iteration integer, loss real, lr real, seconds real, gradient_norm real);
create table data (run integer, layer text, phase text, name text, sha256 text);
create index settings_of on settings (run, name);
create index tests_of on tests (run, output, iteration);
create index train_of on train (run, iteration);
create view last as
  select run, case net when 0 then output else net || ':' || output end as output, value from tests as t
  where iteration = (select max(iteration) from tests as u where u.run = t.run and u.net = t.net);
"""
CHILDREN = ("settings", "tests", "train", "data")


class Index:
    """The index of the runs in a folder, up to date when it is opened; a context manager.

    The index lies in the folder, or in memory where the folder is read-only. A file that is damaged, or of another
    version, is made anew, as with `rebuild`. Raises NetspecError where something else lies in its place.
    """

    def __init__(self, root: str | Path, rebuild: bool = False):
        self.root = Path(root)
        if not self.root.is_dir():
            raise NetspecError(f"{root}: no such folder of runs")
        self.file = self.root / FILE
        refuse_foreign(self.file)
        if rebuild:
            self.discard()
        try:
            self.base = self.opened()
            self.update()
        except sqlite3.DatabaseError:
            self.base.close()
            self.discard()
            self.base = self.opened()
            self.update()

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *error: object) -> None:
        self.base.close()

    def discard(self) -> None:
        """Remove the file; where it stays, the index is in memory."""
        try:
            self.file.unlink(missing_ok=True)
        except OSError:
            self.file = Path(":memory:")

    def opened(self) -> sqlite3.Connection:
        """The file with its tables."""
        try:
            base = self.base = sqlite3.connect(self.file, timeout=60)
            base.execute("pragma user_version")
            base.execute("begin immediate")
        except sqlite3.OperationalError:  # no place to write
            self.file = Path(":memory:")
            base = self.base = sqlite3.connect(":memory:")
            base.execute("begin immediate")
        (version,) = base.execute("pragma user_version").fetchone()
        if version != VERSION:
            names = base.execute(
                "select type, name from sqlite_master where name not like 'sqlite_%'"
            ).fetchall()
            for kind, name in names:
                if kind in ("table", "view"):
                    base.execute(f'drop {kind} if exists "{name}"')
            for statement in TABLES.split(";"):
                base.execute(statement)
            base.execute(f"pragma user_version = {VERSION}")
            base.execute(f"pragma application_id = {APPLICATION}")
        base.commit()
        return base

    def update(self) -> None:
        """Take in the runs that are new or have changed, and leave out those that are gone."""
        known = dict(self.base.execute("select path, stamp from runs"))
        seen: set[str] = set()
        with self.base:
            for run in find_runs(self.root):
                path, stamp = as_text(os.path.relpath(run.path, self.root)), stamp_of(run.path)
                seen.add(path)
                if known.get(path) != stamp:
                    self.forget([path])
                    self.add(run, path, stamp)
            self.forget(path for path in known if path not in seen)

    def forget(self, paths: Iterable[str]) -> None:
        for path in paths:
            for (run,) in self.base.execute("select id from runs where path = ?", (path,)).fetchall():
                for table in CHILDREN:
                    self.base.execute(f"delete from {table} where run = ?", (run,))
                self.base.execute("delete from runs where id = ?", (run,))

    def add(self, run: RunFolder, path: str, stamp: str) -> None:
        """Take in a run."""
        facts = run.facts
        named = facts.get("versions")
        versions: dict[str, Any] = named if isinstance(named, dict) else {}
        row = {
            "path": path, "stamp": stamp, "name": run.name,
            "sweep": os.path.relpath(run.path.parent, self.root) if run.is_of_sweep else "",
            "status": run.status, "reason": run.result.get("reason", ""), "iteration": run.iteration,
            "max_iter": run.solver.max_iter, "seconds": run.seconds, "seed": run.seed,
            "started": facts.get("started"), "device": facts.get("device"), "parameters": facts.get("parameters"),
            "file": facts.get("file"), "net": run.net.name, "solver": run.solver.type, "again": run.again,
            "commit_id": facts.get("commit"), "netspec": versions.get("netspec"), "torch": versions.get("torch"),
        }  # fmt: skip
        names = ", ".join(row)
        values = [plain(value) for value in row.values()]
        done = self.base.execute(f"insert into runs ({names}) values ({', '.join('?' * len(row))})", values)
        key = done.lastrowid
        many = self.base.executemany
        many("insert into settings values (?, ?, ?, ?)", ((key, *row) for row in settings_of(run)))
        many("insert into tests values (?, ?, ?, ?, ?)", ((key, *map(plain, row)) for row in tests_of(run)))
        many(
            "insert into train values (?, ?, ?, ?, ?, ?)", ((key, *map(plain, row)) for row in train_of(run))
        )
        many("insert into data values (?, ?, ?, ?, ?)", ((key, *row) for row in data_of(facts)))

    def ask(self, query: str) -> tuple[list[str], list[tuple[Any, ...]]]:
        """(names of the columns, rows) of a query in SQL that reads. Raises NetspecError for one that does not."""
        try:
            self.base.execute("pragma query_only = on")
            self.base.set_authorizer(reading)
            with closing(self.base.execute(query)) as cursor:
                return [column[0] for column in cursor.description or ()], cursor.fetchall()
        except (sqlite3.Error, sqlite3.Warning) as error:
            raise NetspecError(f"--sql: {one_line(error)}") from None
        finally:
            self.base.set_authorizer(None)
            self.base.execute("pragma query_only = off")


def refuse_foreign(file: Path) -> None:
    """NetspecError where the index would overwrite a file that netspec did not write."""
    remedy = "move it, or give another folder of runs"
    if file.is_symlink() or (file.exists() and not file.is_file()):
        raise NetspecError(f"{file}: is no regular file; the index of the runs is written there: {remedy}")
    if not file.exists():
        return
    try:
        with open(file, "rb") as opened:
            head = opened.read(72)
    except OSError as error:
        raise NetspecError(f"{file}: {error.strerror or error}") from None
    ours = head[:16] == b"SQLite format 3\0" and int.from_bytes(head[68:72]) == APPLICATION
    if head and not ours and not is_earlier(file):
        raise NetspecError(f"{file}: is no index of runs, and would be overwritten by one: {remedy}")


def is_earlier(file: Path) -> bool:
    """Whether the file is an index of the first version, which had no application_id; its tables show it."""
    try:
        with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)) as base:
            (version,) = base.execute("pragma user_version").fetchone()
            tables = base.execute("select name from sqlite_master where type in ('table', 'view')").fetchall()
    except sqlite3.Error:
        return False
    return version == 1 and {name for (name,) in tables} == {"runs", "last", *CHILDREN}


ALLOWED = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE)


def reading(action: int, *about: str | None) -> int:
    """SQLite's authorizer: a query may read, and may not load extensions."""
    if action == sqlite3.SQLITE_FUNCTION and "load_extension" in about:
        return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK if action in ALLOWED else sqlite3.SQLITE_DENY


def stamp_of(folder: Path) -> str:
    """Sizes and times of a run's files, by which changes are noticed."""
    signs = []
    for name in (*SIGNS, "solver.prototxt", "snapshots"):
        try:
            facts = (folder / name).stat()
        except OSError:
            continue
        signs.append(f"{name} {facts.st_size} {facts.st_mtime_ns}")
    return "; ".join(signs)


def settings_of(run: RunFolder) -> Iterator[Sequence[Any]]:
    for name, value in run.values.items():
        yield name, settable_text(value), "value"
    for name, value in flat(run.solver).items():
        yield name, value, "solver"
    for name, value in flat_net(run.net).items():
        yield name, value, "net"


def train_of(run: RunFolder) -> Iterator[Sequence[Any]]:
    for line in run.train:
        yield tuple(line.get(name) for name in ("iteration", "loss", "lr", "seconds", "gradient_norm"))


def tests_of(run: RunFolder) -> Iterator[Sequence[Any]]:
    for line in run.tests:
        for name, value in line["outputs"].items():
            listed = isinstance(value, list)
            for i, item in enumerate(value if listed else [value]):
                yield line["net"], line["iteration"], f"{name}[{i}]" if listed else name, item


def data_of(facts: dict[str, Any]) -> Iterator[Sequence[Any]]:
    listed = facts.get("data")
    for entry in listed if isinstance(listed, list) else ():
        if isinstance(entry, dict):
            files = entry.get("files")
            listed_files = map(str, files) if isinstance(files, list) else ()
            name = f"{entry.get('name', '')} {entry.get('split', '')}".strip() or ", ".join(listed_files)
            yield plain(entry.get("layer")), plain(entry.get("phase")), name, plain(entry.get("sha256"))


def plain(value: Any) -> Any:
    """A value that a column can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float | str | None):
        return as_text(str(value))
    if isinstance(value, str):
        return as_text(value)
    return value if not isinstance(value, int) or abs(value) < 2**63 else str(value)
