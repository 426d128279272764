"""Tables with hidden cells: how well a net fills them in and predicts classes, compared with scikit-learn's methods."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from netspec.data.files.idx import Array
from netspec.data.files.whole import write_whole
from netspec.data.sources.table import TableSource
from netspec.data.tables.columns import CATEGORY
from netspec.errors import DataError, did_you_mean
from netspec.lab.baselines.tables import BASELINES, BOOSTING, IMPUTERS, boosted, imputed
from netspec.model.model import Model, load
from netspec.model.rows import TableModel
from netspec.schema.spec import TEST, TRAIN

METRICS = ("rmse", "mae", "category", "accuracy", "ece")
"""rmse, mae: of hidden numbers, in deviations of their columns; category: share of hidden categories filled in right;
accuracy, ece: of the target's classes, ece the expected calibration error over BINS bins.
"""
BINS = 15
SHARES = (0.1, 0.3, 0.5, 0.7)


def calibration_error(probabilities: Array, labels: Array, bins: int = BINS) -> float:
    """sum_b (n_b / n) |accuracy_b - confidence_b| over bins of equal width of the likeliest class's probability.

    Source: Naeini, Cooper and Hauskrecht 2015.
    """
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    inside = [place == b for b in np.unique(place)]
    return float(sum(abs(right[b].mean() - confidence[b].mean()) * b.mean() for b in inside))


def hidden_cells(rows: Array, share: float, seed: int) -> Array:
    """The observed cells (n, D) to hide, each with this probability."""
    return (np.random.default_rng([seed, round(1000 * share)]).random(rows.shape) < share) & ~np.isnan(rows)


def cell_errors(whole: Array, filled: Array, hidden: Array, category: Array) -> dict[str, float]:
    """rmse, mae and category over the hidden cells; a metric without any cell is left out. category (D,): which columns
    hold categories, as numbers.
    """
    errors: dict[str, float] = {}
    numbers = hidden & ~category
    if numbers.any():
        apart = (filled - whole)[numbers]
        errors |= {"rmse": float(np.sqrt(np.square(apart).mean())), "mae": float(np.abs(apart).mean())}
    if (names := hidden & category).any():
        errors["category"] = float((np.rint(filled) == whole)[names].mean())
    return errors


@dataclass
class Rows:
    """A table's model with the rows that it was trained on and those that it is asked about, in the net's units."""

    model: TableModel
    training: Array
    labels: Array
    tested: Array
    truth: Array

    @classmethod
    def of(cls, trained: Model, table: str = "") -> Rows:
        """The training and test parts of the model's own table, or the rows of another as test part."""
        model = TableModel(trained)
        train = TableSource(trained.data, TRAIN, 0)
        if table:
            asked = list(model.pieces(model.open(table)))
            tested = np.concatenate([piece.x[:, 0, 0].cpu().numpy() for piece in asked])
            truth = np.concatenate([piece.labels for piece in asked])
        else:
            own = TableSource(trained.data, TEST, 0)
            tested, truth = np.asarray(own.data), own.labels
        return cls(model, np.asarray(train.data, float), train.labels, np.asarray(tested, float), truth)

    @property
    def category(self) -> Array:
        """(D,) which columns hold categories."""
        return np.array([column.kind == CATEGORY for column in self.model.layout.inputs])

    def own(self, hidden: Array, seed: int) -> dict[str, float]:
        """The model's figures with these cells hidden."""
        rows = np.where(hidden, np.nan, self.tested)
        x = torch.from_numpy(rows.astype(np.float32))[:, None, None]
        filled, _ = self.model.fill(x, np.full(len(rows), np.nan, np.float32), "expected", seed)
        figures = cell_errors(self.tested, filled[:, 0, 0].double().numpy(), hidden, self.category)
        if self.model.layout.classes:
            figures |= self.of_classes(self.model.trained.scores(x).double().softmax(1).numpy())
        return figures

    def of_classes(self, probabilities: Array) -> dict[str, float]:
        """accuracy and ece of p(class) (n, K), over the rows whose class is known."""
        known = ~np.isnan(self.truth)
        p, y = probabilities[known], self.truth[known].astype(int)
        return {"accuracy": float((p.argmax(1) == y).mean()), "ece": calibration_error(p, y)}

    def baseline(self, name: str, hidden: Array, share: float, seed: int) -> dict[str, float]:
        """A baseline's figures; its training rows lose the same share of cells."""
        lost = hidden_cells(self.training, share, seed + 1)
        training, rows = np.where(lost, np.nan, self.training), np.where(hidden, np.nan, self.tested)
        if name != BOOSTING:
            return cell_errors(self.tested, imputed(name, training, rows, seed), hidden, self.category)
        if not self.model.layout.classes:
            return {}
        return self.of_classes(boosted(training, self.labels, rows, len(self.model.layout.classes), seed))


@dataclass
class Figures:
    """Figures by method, metric and share of missing cells, one for each repeat; `facts` say how they were made."""

    values: dict[str, dict[str, dict[str, list[float]]]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def put(self, method: str, share: float, figures: dict[str, float]) -> None:
        """Add the figures of one repeat."""
        for metric, value in figures.items():
            self.values.setdefault(metric, {}).setdefault(method, {}).setdefault(f"{share:g}", []).append(
                value
            )

    def lines(self) -> list[list[str]]:
        """A head, and a line per metric and method: means, with the standard error over several repeats."""
        shares = list(dict.fromkeys(s for rows in self.values.values() for row in rows.values() for s in row))
        out = [["metric", "method", *shares]]
        for metric, rows in self.values.items():
            for method, row in rows.items():
                out.append([metric, method, *(shown(row.get(share, [])) for share in shares)])
        return out

    def text(self) -> str:
        """Columns for a terminal."""
        lines = self.lines()
        widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
        return "\n".join(
            "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines
        )

    def write(self, path: Path) -> Path:
        """Write by suffix: .json, .csv, .md or .txt."""
        if path.suffix == ".json":
            text = json.dumps({**self.facts, "figures": self.values}, indent=1)
        elif path.suffix == ".csv":
            out = io.StringIO()
            csv.writer(out, lineterminator="\n").writerows(self.lines())
            text = out.getvalue().rstrip("\n")
        elif path.suffix == ".md":
            head, *rest = self.lines()
            text = "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *rest))
        elif path.suffix == ".txt":
            text = self.text()
        else:
            raise DataError(f"{path}: figures of tables are written as .json, .csv, .md, .txt")
        write_whole(path, f"{text}\n".encode())
        return path


def shown(values: Sequence[float]) -> str:
    """The mean, and the standard error over repeats."""
    if not values:
        return ""
    error = float(np.std(values, ddof=1)) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return f"{np.mean(values):.4f}" + (f" ± {error:.4f}" if error else "")


def missing_cells(
    runs: Sequence[str | Path],
    metrics: Sequence[str] = METRICS,
    shares: Sequence[float] = SHARES,
    *,
    table: str = "",
    baselines: Sequence[str] = BASELINES,
    repeats: int = 1,
    seed: int = 1,
    out: Sequence[Path] = (),
    progress: Callable[[str], None] | None = None,
) -> Figures:
    """Figures of nets over tables, and of baselines, with each observed cell hidden with probability `share`.

    runs: run folders of nets over the same table. table: rows to ask about in place of the held-out ones. Baselines
    learn from the training rows with the same share hidden; they know nothing of categories, whose numbers they round.
    """
    for name in metrics:
        if name not in METRICS:
            raise DataError(
                f"no metric {name!r}{did_you_mean(name, METRICS, 'there are ' + ', '.join(METRICS))}"
            )
    for name in baselines:
        if name not in BASELINES:
            raise DataError(
                f"no baseline {name!r}{did_you_mean(name, BASELINES, 'there are ' + ', '.join(BASELINES))}"
            )
    if not runs:
        raise DataError("no run of a net over a table is given")
    of_runs = {name: Rows.of(load(run), table) for run, name in names_of(runs).items()}
    figures = Figures(
        facts={"runs": [str(run) for run in runs], "seed": seed, "repeats": repeats, "table": table}
    )
    for share in shares:
        for repeat in range(repeats):
            own = seed + 1000 * repeat
            for name, rows in of_runs.items():
                hidden = hidden_cells(rows.tested, share, own)
                figures.put(name, share, chosen(rows.own(hidden, own), metrics))
            for name in baselines:
                if needed(name, metrics):
                    figures.put(name, share, chosen(rows.baseline(name, hidden, share, own), metrics))
            if progress is not None:
                progress(f"{share:g} of the cells hidden, repeat {repeat + 1} of {repeats}")
    for path in out:
        figures.write(path)
    return figures


def names_of(runs: Sequence[str | Path]) -> dict[str, str]:
    """The name of each run in a table: the folder's name, or the path where several share it."""
    paths = list(dict.fromkeys(str(Path(run)) for run in runs))
    names = [Path(path).resolve().name for path in paths]
    return {path: name if names.count(name) == 1 else path for path, name in zip(paths, names, strict=True)}


def needed(baseline: str, metrics: Sequence[str]) -> bool:
    """Whether a baseline has any of these metrics."""
    of_classes = {"accuracy", "ece"}
    return bool(set(metrics) & of_classes if baseline not in IMPUTERS else set(metrics) - of_classes)


def chosen(figures: dict[str, float], metrics: Sequence[str]) -> dict[str, float]:
    """The figures that were asked for, in the order of `metrics`."""
    return {name: figures[name] for name in metrics if name in figures}


def of_tables(runs: Sequence[str | Path]) -> bool:
    """Whether the first run is of a net over a table."""
    return bool(runs) and load(runs[0]).layout is not None


def report(
    runs: Sequence[str | Path], metrics: str, shares: str, baselines: str, useless: Sequence[str], **more: Any
) -> Figures:
    """`missing_cells` from a command line: names and shares separated by commas; baselines "none" means none.

    DataError for options that tables have no use for (`useless`), and shares that are none.
    """
    if useless:
        raise DataError(
            f"{', '.join(useless)}: for images, not for nets over tables; give --iid and --metric"
        )
    numbers = []
    for text in filter(None, shares.split(",")):
        try:
            numbers.append(float(text))
        except ValueError:
            raise DataError(f"--iid {text}: is no number") from None
        if not 0 < numbers[-1] < 1:
            raise DataError(f"--iid {text}: a share of hidden cells is above 0 and below 1")
    beside = () if baselines == "none" else tuple(filter(None, baselines.split(","))) or BASELINES
    return missing_cells(
        runs, tuple(filter(None, metrics.split(","))) or METRICS, numbers or SHARES, baselines=beside, **more
    )
