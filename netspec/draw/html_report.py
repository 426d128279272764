"""A run as one HTML file that needs nothing else: figures, curves, pictures, layers, graph, settings."""

from __future__ import annotations

import base64
import json
import tempfile
from importlib import resources
from math import isfinite
from pathlib import Path
from typing import Any

from netspec.data.files.whole import write_whole
from netspec.draw.canvas import DrawError, check_path
from netspec.draw.network import graph
from netspec.draw.plots import Metrics, Series, curves, read_metrics
from netspec.draw.text import number
from netspec.errors import DataError
from netspec.net import summary
from netspec.net.graph import Graph
from netspec.net.net import Net
from netspec.schema.regular import read_regular
from netspec.schema.spec import NetSpec

METRICS, FACTS = "metrics.jsonl", "run.json"
TEXTS = ("solver.prototxt", "net.prototxt")
OWN_PLOT = "loss.png"
"""Drawn by the training itself; the report holds the same curves as text that stays sharp."""


def report(
    folder: str | Path,
    path: str | Path | None = None,
    *,
    net: Net | Graph | NetSpec | None = None,
    use_dot: bool | None = None,
) -> Path:
    """Write the report of a run folder; gives its path (default: report.html in the folder).

    The folder's metrics.jsonl, run.json, solver.prototxt, net.prototxt and PNG pictures are taken in where
    they exist. net: what to draw and, for a Net, to tabulate (one on the meta device will do).
    Raises DrawError when there is no such folder, nothing in it, or a file in it cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DrawError(f"{folder}: no such run folder")
    path = check_path(folder / "report.html" if path is None else path, (".html", ".htm"))
    facts = _facts(folder / FACTS)
    metrics = read_metrics(folder / METRICS) if (folder / METRICS).exists() else None
    texts = [(name, _read(folder / name)) for name in TEXTS if (folder / name).exists()]
    if not facts and metrics is None and not texts:
        raise DrawError(f"{folder}: holds no run ({FACTS}, {METRICS} or a prototxt)")
    from markupsafe import Markup

    notes = facts.get("notes")
    page = _template().render(
        title=str(facts.get("name") or folder.resolve().name),
        notes=[str(note) for note in notes] if isinstance(notes, list) else [],
        figures=_figures(facts, metrics),
        tests=_tests(metrics),
        curves=Markup(_inline_curves(folder / METRICS)) if metrics else "",
        images=_images(folder),
        heads=_HEADS,
        layers=_layers(net),
        totals=_totals(net),
        graph=Markup(_inline_graph(net, use_dot)) if net is not None else "",
        files=[*texts, *([(FACTS, json.dumps(facts, indent=2, ensure_ascii=False))] if facts else [])],
    )
    write_whole(path, page.encode())  # in the place of what is there, also of a link
    return path


def _template() -> Any:
    from jinja2 import Environment, StrictUndefined

    text = resources.files(__package__).joinpath("report.html").read_text(encoding="utf-8")
    return Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=False).from_string(text)


def _read(path: Path) -> str:
    try:
        return read_regular(path).decode("utf-8", "replace")
    except (OSError, DataError) as error:
        raise DrawError(f"{path}: cannot be read: {error}") from error


def _facts(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        found = json.loads(_read(path))
    except (ValueError, RecursionError) as error:
        raise DrawError(f"{path}: not JSON: {error}") from error
    if not isinstance(found, dict):
        raise DrawError(f"{path}: must hold one JSON object; found {type(found).__name__}")
    return found


def _figures(facts: dict[str, Any], metrics: Metrics | None) -> list[tuple[str, str]]:
    """Plain facts of the run, then how far it came."""
    found = [(key, str(value)) for key, value in facts.items() if isinstance(value, str | int | float)]
    if isinstance(facts.get("versions"), dict):
        found.append(
            ("versions", ", ".join(f"{name} {version}" for name, version in facts["versions"].items()))
        )
    if facts.get("resumed"):
        times = len(facts["resumed"]) if isinstance(facts["resumed"], list) else "an unknown number of"
        found.append(("resumed", f"{times} times"))
    if metrics and metrics.loss:
        last = max(metrics.loss)
        found.append(("last loss", f"{number(metrics.loss[last])} at iteration {last}"))
    if metrics and metrics.damaged:
        found.append(("damaged lines", f"{metrics.damaged} of {METRICS} are left out"))
    return [(name.replace("_", " "), value) for name, value in found]


def _tests(metrics: Metrics | None) -> list[tuple[str, str, str, str, str]]:
    if metrics is None:
        return []
    return [_test(name, series) for name, series in metrics.named_tests().items()]


def _test(name: str, series: Series) -> tuple[str, str, str, str, str]:
    last = max(series)
    finite = [value for value in series.values() if isfinite(value)]
    extremes = (number(min(finite)), number(max(finite))) if finite else ("", "")
    return name, number(series[last]), str(last), *extremes


def _images(folder: Path) -> list[tuple[str, str]]:
    """(name, base64) of the folder's PNG pictures, but the plot that the report draws itself."""
    files = sorted(path for path in folder.glob("*.png") if path.name != OWN_PLOT)
    return [(path.stem.replace("_", " "), base64.b64encode(read_regular(path)).decode()) for path in files]


def _inline_curves(metrics: Path) -> str:
    with tempfile.TemporaryDirectory() as place:
        return _bare(curves(metrics, Path(place) / "curves.svg"))


def _inline_graph(net: Net | Graph | NetSpec, use_dot: bool | None) -> str:
    with tempfile.TemporaryDirectory() as place:
        return _bare(graph(net, Path(place) / "graph.svg", use_dot=use_dot).paths[0])


def _bare(path: Path) -> str:
    """An SVG file without what stands before its element (XML declaration, document type)."""
    text = path.read_text(encoding="utf-8")
    return text[text.index("<svg") :]


_HEADS = [(name, i > 2) for i, name in enumerate(summary.COLUMNS)]


def _layers(net: Net | Graph | NetSpec | None) -> list[list[str]]:
    if not isinstance(net, Net):
        return []
    found = summary.rows(net)
    return [*(summary.cells(row) for row in found), summary.total_cells(summary.total(net, found))]


def _totals(net: Net | Graph | NetSpec | None) -> str:
    if not isinstance(net, Net):
        return ""
    return "; ".join(summary.remarks(summary.total(net, summary.rows(net))))
