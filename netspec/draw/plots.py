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

Series = dict[int, float]
"""Values by iteration; what a resumed run wrote again replaces what stood there."""
_COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#8c564b", "#e377c2", "#17becf", "#bcbd22")


@dataclass
class Metrics:
    """The series of one metrics file."""

    loss: Series = field(default_factory=dict)
    lr: Series = field(default_factory=dict)
    outputs: dict[str, Series] = field(default_factory=dict)
    tests: dict[tuple[int, str], Series] = field(default_factory=dict)
    """Test results by number of the test net and name of the output."""

    def named_tests(self) -> dict[str, Series]:
        """Test results by a name to show; the net's number is in it where there are several."""
        several = len({k for k, _ in self.tests}) > 1
        head = "test {}: {}" if several else "test {1}"
        return {head.format(k, name): series for (k, name), series in self.tests.items()}


def read_metrics(path: str | Path) -> Metrics:
    """Read JSON lines with `iteration` and any of loss, lr, outputs {name: value}.

    Test results are lines of kind "test" with `net` and `outputs`, or a list `test` of {name: value}, one a net.
    Outputs of several values are left out.

    A last line cut off in the middle (a killed run) is left out. Raises DrawError, with the line, for
    anything else that is no such record, and for a file without any.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DrawError(f"{path}: cannot be read: {error}") from error
    found = Metrics()
    for i, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            _add(found, json.loads(line))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            if i == len(lines) - 1 and isinstance(error, json.JSONDecodeError):
                continue
            raise DrawError(
                f"{path}:{i + 1}: not a metrics record ({type(error).__name__}: {error})"
            ) from error
    if not (found.loss or found.lr or found.outputs or found.tests):
        raise DrawError(f"{path}: holds no metrics")
    return found


def _add(found: Metrics, record: dict[str, Any]) -> None:
    t = int(record["iteration"])
    for key, series in (("loss", found.loss), ("lr", found.lr)):
        if key in record:
            series[t] = _number(record[key])
    outputs = record.get("outputs") or {}
    tests = list(enumerate(record.get("test") or []))
    if record.get("kind") == "test":
        tests, outputs = [(int(record.get("net", 0)), outputs)], {}
    for name, value in outputs.items():
        if not isinstance(value, list):
            found.outputs.setdefault(name, {})[t] = _number(value)
    for k, results in tests:
        for name, value in results.items():
            if not isinstance(value, list):
                found.tests.setdefault((k, name), {})[t] = _number(value)


def _number(value: Any) -> float:
    """A number of a record; null stands for one that is not finite."""
    return nan if value is None else float(value)


def smooth(values: npt.NDArray[np.float64], span: float) -> npt.NDArray[np.float64]:
    """Exponential moving average over about `span` values, without a pull to zero at first; skips NaN."""
    keep = 1 - 1 / max(span, 1.0)
    total = weight = 0.0
    out = np.full(len(values), np.nan)
    for i, value in enumerate(values):
        if isfinite(value):
            total, weight = keep * total + value, keep * weight + 1
        if weight:
            out[i] = total / weight
    return out


def curves(
    metrics: str | Path, path: str | Path, *, title: str = "", page: tuple[float, float] | None = None
) -> Path:
    """Draw loss (raw faint, smoothed strong), test results and learning rate of a metrics file.

    page: width and height in inches. Raises DrawError (see `read_metrics`).
    """
    path = check_path(path)
    found = read_metrics(metrics)
    tests = found.named_tests()
    accuracies = {n: s for n, s in {**found.outputs, **tests}.items() if _is_accuracy(n)}
    others = {n: s for n, s in tests.items() if not _is_accuracy(n)}
    panels = [bool(found.loss or others), bool(accuracies), bool(found.lr)]
    heights = [h for h, used in zip((3.0, 3.0, 1.3), panels, strict=True) if used]
    fig = figure(*(page or (8.0, sum(heights) + 0.6)), constrained=True)
    axes = iter(
        np.atleast_1d(fig.subplots(max(len(heights), 1), 1, sharex=True, height_ratios=heights or [1]))
    )
    if title:
        fig.suptitle(title, fontsize=11, parse_math=False)
    last = None
    if panels[0]:
        _losses(last := next(axes), found.loss, others)
    if panels[1]:
        _accuracies(last := next(axes), accuracies)
    if panels[2]:
        last = next(axes)
        _line(last, found.lr, "learning rate", _COLOURS[2])
        last.set_ylabel("learning rate")
        if _spread(found.lr) > 30:
            last.set_yscale("log")
    if last is not None:
        last.set_xlabel("iteration")
    return write(fig, path)


def _is_accuracy(name: str) -> bool:
    return "acc" in name.lower() or "top" in name.lower()


def _spread(series: Series) -> float:
    """Largest over smallest value, or 1 when one is not positive."""
    values = [v for v in series.values() if isfinite(v)]
    return max(values) / min(values) if values and min(values) > 0 else 1.0


def _points(series: Series) -> tuple[list[int], npt.NDArray[np.float64]]:
    at = sorted(series)
    return at, np.array([series[t] for t in at])


def _line(axes: Any, series: Series, label: str, colour: str, **style: Any) -> None:
    at, values = _points(series)
    axes.plot(at, values, label=_plain(label), color=colour, **style)
    axes.grid(True, color="#e0e0e0", linewidth=0.6)


def _plain(label: str) -> str:
    """A label that matplotlib neither reads as mathematics nor hides (a leading underscore)."""
    label = label.replace("$", r"\$")
    return f" {label}" if label.startswith("_") else label


def _losses(axes: Any, loss: Series, others: dict[str, Series]) -> None:
    if loss:
        at, values = _points(loss)
        dense = len(at) > 20
        _line(axes, loss, "loss", _COLOURS[0], alpha=0.3 if dense else 1.0, linewidth=0.8 if dense else 1.4)
        if dense:
            axes.plot(at, smooth(values, max(5.0, len(at) / 50)), color=_COLOURS[0], label="loss, smoothed")
    for colour, (name, series) in zip(cycle(_COLOURS[1:]), others.items()):
        _line(axes, series, name, colour, marker="o", markersize=3)
    if max((_spread(s) for s in (loss, *others.values())), default=1.0) > 100:
        axes.set_yscale("log")
    axes.set_ylabel("loss")
    _legend(axes)


def _accuracies(axes: Any, accuracies: dict[str, Series]) -> None:
    for colour, (name, series) in zip(cycle(_COLOURS), accuracies.items()):
        at, values = _points(series)
        _line(axes, series, f"{name} (last {values[-1]:.4g})", colour, marker="o", markersize=3)
        if len(at) == 1:
            axes.set_xlim(at[0] - 1, at[0] + 1)
    axes.set_ylabel("accuracy")
    _legend(axes)


def _legend(axes: Any) -> None:
    """Beside the plot, where it hides nothing."""
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=8, frameon=False)
