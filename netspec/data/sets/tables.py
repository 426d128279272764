"""Named tables: scikit-learn's embedded ones, and those of the UCI archive that lie on $NETSPEC_DATA."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from netspec.data.sets.datasets import Absent, cache, folders
from netspec.data.tables.reading import Frame, Rows, Text
from netspec.errors import did_you_mean


@dataclass(frozen=True)
class KnownTable:
    """A named table: its source, and the column to predict."""

    name: str
    target: str
    file: str = ""
    """Its file in the folder `uci`; "" for a set of scikit-learn."""
    is_class: bool = True


TABLES = {
    table.name: table
    for table in (
        KnownTable("sklearn_iris", "species"),
        KnownTable("sklearn_wine", "cultivar"),
        KnownTable("sklearn_breast_cancer", "diagnosis"),
        KnownTable("sklearn_diabetes", "progression", is_class=False),
        KnownTable("banknote", "class", "banknote.csv"),
        KnownTable("breast_cancer_wdbc", "class", "breast_cancer_wdbc.csv"),
        KnownTable("concrete", "strength", "concrete.csv", is_class=False),
        KnownTable("red_wine", "quality", "red_wine.csv"),
        KnownTable("white_wine", "quality", "white_wine.csv"),
        KnownTable("yeast", "class", "yeast.csv"),
    )
}


def open_named(name: str) -> Rows:
    """The rows of a named table; Absent where a file of it is nowhere, or scikit-learn is not installed."""
    table = TABLES[name]
    if table.file:
        return Text(locate(table))
    return Frame(embedded(name), name)


def locate(table: KnownTable) -> Path:
    """The table's file: in `uci` of a folder of $NETSPEC_DATA, in that folder itself, or in the user's cache."""
    places = [folder / part for folder in folders() for part in (f"uci/{table.file}", table.file)]
    places.append(cache() / "uci" / table.file)
    for place in places:
        if place.is_file():
            return place
    searched = ", ".join(str(folder) for folder in folders()) or "not set"
    raise Absent(
        f"table {table.name!r} is not on $NETSPEC_DATA ({searched}), nor in {cache() / 'uci'}; put {table.file} "
        f"there: a line with the names of the columns, the last of them {table.target!r}"
    )


@lru_cache(maxsize=4)
def embedded(name: str) -> dict[str, list[Any]]:
    """A set of scikit-learn as columns, the target last, classes by their names."""
    try:
        from sklearn import datasets as sets
    except ImportError as error:
        raise Absent(f"data set {name!r} comes with scikit-learn, which is not installed") from error
    load = {"sklearn_iris": sets.load_iris, "sklearn_wine": sets.load_wine,
            "sklearn_breast_cancer": sets.load_breast_cancer, "sklearn_diabetes": sets.load_diabetes}[name]  # fmt: skip
    bunch = load()
    names = [str(feature).replace(" (cm)", "").replace(" ", "_") for feature in bunch.feature_names]
    columns: dict[str, list[Any]] = dict(zip(names, np.asarray(bunch.data).T.tolist(), strict=True))
    target = np.asarray(bunch.target).tolist()
    columns[TABLES[name].target] = (
        [str(bunch.target_names[i]) for i in target] if TABLES[name].is_class else target
    )
    return columns


def unknown(name: str) -> str:
    """The error for a name that is neither a file nor a table."""
    here = [entry.name for entry in Path().iterdir()]
    return f"{name}: no such file, and no table of that name" + did_you_mean(
        name, [*here, *TABLES], f"known: {', '.join(TABLES)}"
    )
