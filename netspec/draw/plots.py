"""Training curves from the metrics file of a run."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from itertools import cycle
from math import isfinite, nan
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from netspec.draw.canvas import DrawError, check_path, figure, write
from netspec.errors import DataError
from netspec.schema.regular import read_regular

Series = dict[int, float]
"""Values by iteration; values that a resumed run wrote again replace the earlier ones."""
_COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#8c564b", "#e377c2", "#17becf", "#bcbd22")
MOST_NAMES = 30
"""Lines that the legend of a panel names."""


@dataclass
class Metrics:
    """The series of one metrics file."""

    loss: Series = field(default_factory=dict)
    lr: Series = field(default_factory=dict)
    outputs: dict[str, Series] = field(default_factory=dict)
    tests: dict[tuple[int, str], Series] = field(default_factory=dict)
    """Test results by number of the test net and name of the output."""
    damaged: int = 0
    """Number of lines that are no record."""

    def named_tests(self) -> dict[str, Series]:
        """Test results by displayed name, which contains the net's number where there are several nets."""
        several = len({k for k, _ in self.tests}) > 1
        head = "test {}: {}" if several else "test {1}"
        return {head.format(k, name): series for (k, name), series in self.tests.items()}


def read_metrics(path: str | Path) -> Metrics:
    """Read JSON lines with `iteration` and any of loss, lr, outputs {name: value}.

    Test results are lines of kind "test" with `net` and `outputs`, or a list `test` of {name: value}, one a
    net.
    Outputs of several values are left out.

    A line cut off in the middle (a killed run), or damaged, is left out and counted. Raises DrawError for a file
    without any record.
    """
    path = Path(path)
    try:
        lines = read_regular(path).split(b"\n")
    except (OSError, DataError) as error:
        raise DrawError(f"{path}: cannot be read: {error}") from error
    metrics = Metrics()
    for line in lines:
        if not line.strip():
            continue
        try:
            _add(metrics, json.loads(line))
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
            metrics.damaged += 1
    if not (metrics.loss or metrics.lr or metrics.outputs or metrics.tests):
        raise DrawError(f"{path}: holds no metrics")
    return metrics


def _add(metrics: Metrics, record: dict[str, Any]) -> None:
    t = int(record["iteration"])
    for key, series in (("loss", metrics.loss), ("lr", metrics.lr)):
        if key in record:
            series[t] = _number(record[key])
    outputs = record.get("outputs") or {}
    tests = list(enumerate(record.get("test") or []))
    if record.get("kind") == "test":
        tests, outputs = [(int(record.get("net", 0)), outputs)], {}
    for name, value in outputs.items():
        if not isinstance(value, list):
            metrics.outputs.setdefault(name, {})[t] = _number(value)
    for k, results in tests:
        for name, value in results.items():
            if not isinstance(value, list):
                metrics.tests.setdefault((k, name), {})[t] = _number(value)


def _number(value: Any) -> float:
    """A number of a record; null stands for one that is not finite."""
    return nan if value is None else float(value)


def smooth(values: npt.NDArray[np.float64], span: float) -> npt.NDArray[np.float64]:
    """Weighted mean of the values around each value; weights halve every `span` / 3 values; NaN is skipped.

    Both sides count equally, so that the smooth line does not lag behind. Near the start the window reaches only as far
    as the start, so that the line begins at the first value. Weights sum to one everywhere.
    """
    keep = 0.5 ** (3 / max(span, 1.0))
    good = np.isfinite(values)
    if not good.any():
        return np.full(len(values), np.nan)
    first = int(good.argmax())
    means = np.full(len(values), np.nan)
    means[first:] = _means(np.where(good, values, 0.0)[first:], good[first:].astype(float), keep)
    means[:first] = means[first]
    return means


def _means(
    known: npt.NDArray[np.float64], good: npt.NDArray[np.float64], keep: float
) -> npt.NDArray[np.float64]:
    """`smooth` of values with weights 1 (there) and 0 (NaN), the first of which is there."""
    total, weight, count = known.copy(), good.copy(), len(known)
    for far in range(1, count):
        share = keep**far
        if share < 1e-6:
            break
        after, both = slice(far, count), slice(far, count - far)
        total[after] += share * known[: count - far]
        weight[after] += share * good[: count - far]
        if far < count - far:  # those that have a value as far behind them
            total[both] += share * known[2 * far :]
            weight[both] += share * good[2 * far :]
    means = np.full(count, np.nan)
    np.divide(total, weight, out=means, where=weight > 0)
    return means


@dataclass(frozen=True)
class Panel:
    """One pair of axes: lines of training (dense) and of tests (points), each with its name."""

    label: str
    trained: dict[str, Series]
    tested: dict[str, Series]
    height: float = 3.0


MOST_PANELS = 8


def panels(metrics: Metrics) -> list[Panel]:
    """Loss, a panel for each further output (their scales differ), accuracies together, learning rate."""
    tests = metrics.named_tests()
    names = list(dict.fromkeys([*metrics.outputs, *(name for _, name in metrics.tests)]))
    plain = [name for name in names if not _is_accuracy(name)]
    shown = []
    if metrics.loss or len(plain) == 1:
        own = {
            name: series
            for (_, n), (name, series) in _paired(metrics, tests)
            if len(plain) == 1 and n == plain[0]
        }
        label = "loss" if len(plain) < 2 else "total loss"
        shown.append(Panel(label, {label: metrics.loss} if metrics.loss else {}, own))
    for name in plain if len(plain) > 1 else []:
        trained = {name: metrics.outputs[name]} if name in metrics.outputs else {}
        shown.append(
            Panel(name, trained, {label: s for (_, n), (label, s) in _paired(metrics, tests) if n == name})
        )
    right = {name: series for name, series in metrics.outputs.items() if _is_accuracy(name)}
    tested = {label: series for (_, name), (label, series) in _paired(metrics, tests) if _is_accuracy(name)}
    if right or tested:
        shown.append(Panel("accuracy", right, tested))
    if metrics.lr:
        shown.append(Panel("learning rate", {"learning rate": metrics.lr}, {}, 1.4))
    return shown[: MOST_PANELS - 2] + shown[-2:] if len(shown) > MOST_PANELS else shown


def _paired(metrics: Metrics, tests: dict[str, Series]) -> zip[tuple[tuple[int, str], tuple[str, Series]]]:
    """((net, output), (shown name, series)) of each test result."""
    return zip(metrics.tests, tests.items(), strict=True)


def curves(
    metrics: str | Path, path: str | Path, *, title: str = "", page: tuple[float, float] | None = None
) -> Path:
    """Draw loss (raw faint, smoothed strong), outputs, test results and learning rate of a metrics file.

    page: width and height in inches. Gives the path; raises DrawError (see `read_metrics`).
    """
    path = check_path(path)
    shown = panels(read_metrics(metrics))
    heights = [panel.height * (1.0 if len(shown) < 4 else 0.75) for panel in shown]
    fig = figure(*(page or (8.0, sum(heights) + 0.6)), constrained=True)
    axes = np.atleast_1d(fig.subplots(len(shown), 1, sharex=True, height_ratios=heights))
    if title:
        fig.suptitle(title, fontsize=11, parse_math=False)
    for panel, place in zip(shown, axes, strict=True):
        _draw(place, panel)
    axes[-1].set_xlabel("iteration")
    return write(fig, path)


def _is_accuracy(name: str) -> bool:
    return "acc" in name.lower() or "top" in name.lower()


def _draw(axes: Any, panel: Panel) -> None:
    colours = cycle(_COLOURS)
    for name, series in panel.trained.items():
        at, values = _points(series)
        colour, dense = next(colours), len(at) > 20 and panel.label != "learning rate"
        _line(axes, at, values, name, colour, alpha=0.3 if dense else 1.0, linewidth=0.8 if dense else 1.4)
        if dense:
            smoothed = smooth(values, max(5.0, len(at) / 50))
            axes.plot(at, smoothed, color=colour, label=_plain(f"{name}, smoothed"))
    for name, series in panel.tested.items():
        at, values = _points(series)
        _line(axes, at, values, f"{name} (last {values[-1]:.4g})", next(colours), marker="o", markersize=3)
    axes.grid(True, color="#e0e0e0", linewidth=0.6)
    axes.set_ylabel(_plain(panel.label))
    every = [*panel.trained.values(), *panel.tested.values()]
    if panel.label != "accuracy" and max(map(_spread, every), default=1.0) > 100:
        axes.set_yscale("log")
    if panel.label != "learning rate":
        told = axes.get_legend_handles_labels()[0][:MOST_NAMES]
        axes.legend(handles=told, loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=8, frameon=False)


def _spread(series: Series) -> float:
    """Largest over smallest value, or 1 when one is not positive."""
    values = [v for v in series.values() if isfinite(v)]
    return max(values) / min(values) if values and min(values) > 0 else 1.0


def _points(series: Series) -> tuple[list[int], npt.NDArray[np.float64]]:
    at = sorted(series)
    return at, np.array([series[t] for t in at])


def _line(
    axes: Any, at: list[int], values: npt.NDArray[np.float64], label: str, colour: str, **style: Any
) -> None:
    """A line, or a point where one value is all there is."""
    if len(at) == 1:
        style["marker"] = "o"
    axes.plot(at, values, label=_plain(label), color=colour, **style)


def _plain(label: str) -> str:
    """A label that matplotlib neither reads as mathematics nor hides (a leading underscore)."""
    label = label.replace("$", r"\$")
    return f" {label}" if label.startswith("_") else label
