"""`netspec report`: runs as one HTML page that needs nothing else, and asks for nothing."""

from __future__ import annotations

import base64
import json
import math
import os
import time
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import netspec
from netspec.data.files.whole import write_whole
from netspec.errors import DataError, NetspecError
from netspec.experiments.comparing import Group, falls, outputs_of
from netspec.experiments.curves import Points, joined
from netspec.experiments.importance import importance
from netspec.experiments.inside import net_of
from netspec.experiments.runs import RunFolder, content, differing, is_own, mapping, runs_in
from netspec.experiments.runs import outputs_of as named_outputs
from netspec.interchange.snapshot_files import states
from netspec.lab.plot import by_kind
from netspec.lab.table import Table
from netspec.run.confusion import confusion
from netspec.run.folder import is_number
from netspec.run.stopping import BEST

MOST_SETTINGS = 24
"""Most settings that get a column of the table."""
MOST_PICTURE = 4 << 20
"""Most bytes of a picture that the page includes."""
MOST_FILE, MOST_FILES = 1 << 20, 50
"""Most bytes of a prototxt file that the page includes, and most files."""
MOST_TEXT = 1000
"""Letters of a fact that are shown."""
OWN = ("loss.png",)
"""Pictures of curves, which the page draws itself."""
PLACES, LEAST = {20: 1200, 50: 600}, 400
"""Places that a curve keeps, by the number of runs up to which that holds, and beyond."""
Tell = Callable[[str], None]


def report(
    paths: Sequence[str | Path],
    out: str | Path | None = None,
    *,
    metric: str = "",
    test: bool = True,
    tell: Tell = lambda text: None,
) -> Path:
    """Write a report of runs, or of folders of runs such as a sweep's; gives its path.

    out: an .html file; by default report.html in the folder that is given, or in that of the first run's parent.
    metric: the test output by which runs are ranked; by default the plan's, else an accuracy, error or loss that all
    runs have, else their first output. The plan says whether lower is better, else the output's name does.
    test: run the test net of the run shown in detail, for its confusion matrix and histograms, where it keeps its
    weights. tell: called with what the page lacks, and why.
    Raises NetspecError where a path means no run, or `out` is no .html file.
    """
    runs = runs_in(paths)
    if out is None:
        folder = Path(paths[0])
        out = folder / "report.html" if len(paths) == 1 else folder.parent / "report.html"
    if Path(out).suffix.lower() not in (".html", ".htm"):
        raise NetspecError(f"{out}: a report is an .html file")
    if Path(out).is_dir():
        raise NetspecError(f"{out}: is a folder")
    page = page_of(holdable(collect(runs, paths, metric, test, tell)))
    write_whole(Path(out), page.encode("utf-8", "replace"))
    return Path(out)


def page_of(data: dict[str, Any]) -> str:
    """The page that shows the data: text, styles and programs in one."""
    folder = resources.files(__package__).joinpath("page")

    def part(name: str) -> str:
        return folder.joinpath(name).read_text(encoding="utf-8")

    # no text of the data can end the element that it stands in
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace(
        "<", "\\u003c"
    )
    page = part("page.html")
    for name, content_ in {
        "STYLE": part("uPlot.min.css") + part("page.css"),
        "LICENSE": part("uPlot.LICENSE").strip(),
        "UPLOT": part("uPlot.iife.min.js"),
        "SCRIPT": part("page.js"),
        "DATA": text,
    }.items():
        page = page.replace(f"@@{name}@@", content_, 1)
    return page


def collect(
    runs: Sequence[RunFolder],
    paths: Sequence[str | Path],
    metric: str = "",
    test: bool = True,
    tell: Tell = print,
) -> dict[str, Any]:
    """All that the page shows, as plain data."""
    notes: list[str] = []

    def note(text: str) -> None:
        notes.append(text)
        tell(text)

    outputs = list(dict.fromkeys(name for run in runs for name in run.last if "[" not in name))
    metric, lower = metric_of(runs, outputs, metric)
    columns, rows = settings_shown(runs, note)
    scores = [finite(run.last.get(metric)) for run in runs]
    best = best_of(runs, metric, lower)
    folder = os.path.commonpath([run.path.resolve().parent for run in runs])
    entries = []
    for i, run in enumerate(runs):
        entries.append(
            {
                "name": os.path.relpath(run.path.resolve(), folder), "status": run.status,
                "reason": str(run.result.get("reason") or ""), "seed": run.seed, "iteration": run.iteration,
                "seconds": finite(run.seconds), "started": run.facts.get("started"),
                "values": [row[i] for row in rows],
                "outputs": [finite(run.last.get(name)) for name in outputs], "again": run.again,
            }
        )  # fmt: skip
    title = (
        runs[0].name if len(runs) == 1 else f"{Path(paths[0]).resolve().name if len(paths) == 1 else 'Runs'}"
    )
    return {
        "title": title, "made": time.strftime("%Y-%m-%d %H:%M"), "version": netspec.__version__,
        "runs": entries, "columns": columns, "outputs": outputs, "metric": metric, "lower": lower,
        "curves": curves_of(runs, outputs), "importance": importance(columns, rows, scores, note),
        "detail": detail(runs[best], str(entries[best]["name"]), test, note), "best": best,
        "missing": missing_tables(runs, paths), "notes": notes,
    }  # fmt: skip


def finite(value: Any) -> float | None:
    """A number that the page can hold, else None."""
    if not is_number(value) or value is None:
        return None
    return value if math.isfinite(value) else None


def holdable(value: Any) -> Any:
    """Plain data with null for what JSON has no number for."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [holdable(item) for item in value]
    return {key: holdable(item) for key, item in value.items()} if isinstance(value, dict) else value


def metric_of(runs: Sequence[RunFolder], outputs: Sequence[str], wanted: str) -> tuple[str, bool]:
    """(the output by which runs are ranked, "" where there is none; whether lower is better)."""
    said = {run.aim[0] for run in runs if run.aim}
    if not wanted and len(said) == 1 and said <= set(outputs):
        (wanted,) = said
    elif not wanted and outputs:
        ranked = outputs_of([Group(run.name, [run]) for run in runs if run.last], "")
        wanted = next(iter(ranked or outputs))
    elif wanted and wanted not in outputs:
        raise NetspecError(
            f"no test of these runs has an output {wanted!r}; there are {', '.join(outputs) or 'none'}"
        )
    return wanted, falls(runs, wanted)


def best_of(runs: Sequence[RunFolder], metric: str, lower: bool) -> int:
    """The run to show in detail: the best run that keeps its weights, else the best run."""

    def rank(i: int) -> tuple[bool, float]:
        value = runs[i].last.get(metric, math.nan)
        kept = bool(states(runs[i].path)) or (runs[i].path / BEST).is_file()
        return kept, -math.inf if math.isnan(value) else -value if lower else value

    return max(range(len(runs)), key=rank)


def settings_shown(runs: Sequence[RunFolder], note: Tell) -> tuple[list[str], list[list[str | None]]]:
    """The settings that differ; only those of plans and --set where there are any."""
    if len(runs) == 1:
        return [], []
    settings = differing(runs)
    own = {name for run in runs for name in run.values}
    chosen = {name: row for name, row in settings.items() if name in own} or settings
    chosen = {name: row for name, row in chosen.items() if name not in ("random_seed", "snapshot_prefix")}
    if len(chosen) > MOST_SETTINGS:
        note(f"{len(chosen)} settings differ; the first {MOST_SETTINGS} are shown")
        chosen = dict(list(chosen.items())[:MOST_SETTINGS])
    return list(chosen), list(chosen.values())


def curves_of(runs: Sequence[RunFolder], outputs: Sequence[str]) -> list[dict[str, Any]]:
    """The loss of training, and each output of the tests, of all runs."""
    most = next((places for count, places in PLACES.items() if len(runs) <= count), LEAST)

    def trained(run: RunFolder, name: str) -> Points:
        return [(line["iteration"], line.get(name)) for line in run.train if name in line]

    curves = []
    for name, label in (
        ("loss", "training loss"),
        ("gradient_norm", "gradient norm"),
        ("lr", "learning rate"),
    ):
        series = [trained(run, name) for run in runs]
        if any(series):
            curves.append({"name": label, "kind": "train", **joined(series, most)})
    by_test: list[dict[str, list[tuple[int, float]]]] = []
    for run in runs:
        lines: dict[str, list[tuple[int, float]]] = {}
        for line in run.tests:
            for name, value in named_outputs(line).items():
                lines.setdefault(name, []).append((line["iteration"], value))
        by_test.append(lines)
    for name in outputs:
        curves.append(
            {
                "name": f"test {name}",
                "kind": "test",
                **joined([lines.get(name, []) for lines in by_test], most),
            }
        )
    return curves


def detail(run: RunFolder, name: str, test: bool, note: Tell) -> dict[str, Any]:
    """What is shown of one run: facts, net, confusion matrix, pictures, files."""
    hidden = (
        ("iteration", "command") if run.is_of_sweep else ("iteration",)
    )  # a worker's command makes nothing again
    facts = [
        [key, str(value)[:MOST_TEXT]]
        for key, value in run.facts.items()
        if key not in hidden and isinstance(value, str | int | float) and value != ""
    ]
    named = run.facts.get("versions")
    if isinstance(named, dict):
        facts.append(["versions", ", ".join(f"{key} {value}" for key, value in named.items())])
    listed = run.facts.get("data")
    for entry in listed if isinstance(listed, list) else ():
        if isinstance(entry, dict):
            what = " ".join(str(entry.get(key, "")) for key in ("name", "split")).strip() or entry.get(
                "type", ""
            )
            label = f"data of {entry.get('layer', '')} ({entry.get('phase', '')})"
            facts.append([label, f"{what} {str(entry.get('sha256', ''))[:16]}".strip()])
    noted = run.facts.get("notes")
    told = [str(remark)[:MOST_TEXT] for remark in noted] if isinstance(noted, list) else []
    shown: dict[str, Any] = {"name": name, "facts": facts, "notes": told}
    specs = sorted(run.path.glob("*.prototxt"))
    if foreign := [path.name for path in specs if not is_own(path, MOST_FILE)]:
        note(f"no graph: {', '.join(foreign)}: links out of the run's folder, or too large")
    else:
        net_shown(run, test, note, shown)
    shown["pictures"] = pictures(run.path)
    texts = [path for path in specs if path.name not in foreign]
    shown["files"] = [[path.name, run.text(path.name)] for path in texts[:MOST_FILES]]
    return shown


def net_shown(run: RunFolder, test: bool, note: Tell, shown: dict[str, Any]) -> None:
    """Add the net to `shown`, and with `test` the confusion matrices."""
    try:
        shown["net"] = net_of(run, test, note)
    except (NetspecError, OSError) as error:
        note(f"no graph: {error}")
    if test:
        shown["confusion"] = matrices(run, note)


def matrices(run: RunFolder, note: Tell) -> list[dict[str, Any]]:
    """The confusion of each test net."""
    best = run.path / BEST
    if not states(run.path) and not best.is_file():
        return []
    try:
        confusions = confusion(run.path, None if states(run.path) else best)
    except (NetspecError, OSError) as error:
        note(f"no confusion matrix: {error}")
        return []
    return [{"counts": confused.counts.tolist(), "accuracy": confused.accuracy} for confused in confusions]


def pictures(folder: Path) -> list[dict[str, str]]:
    """The folder's PNG pictures: samples, completions, and whatever else lies there."""
    images = []
    for path in sorted(folder.glob("*.png")):
        data = content(path, MOST_PICTURE) if path.name not in OWN else None
        if data and data.startswith(b"\x89PNG"):
            images.append({"name": path.stem.replace("_", " "), "data": base64.b64encode(data).decode()})
    return images


def missing_tables(runs: Sequence[RunFolder], paths: Sequence[str | Path]) -> list[dict[str, Any]]:
    """The tables that `netspec missing -o FILE.json` wrote into a run's folder, or into one that is given."""
    folders = dict.fromkeys([*(Path(path) for path in paths), *(run.path for run in runs)])
    tables = []
    for folder in folders:
        for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
            data = mapping(path) if path.name not in ("run.json", "result.json", "point.json") else {}
            if "right" not in data and "methods" not in data:
                continue
            try:
                table = Table.from_json(data, folder.name)
                kinds = by_kind(table)
                cells = {
                    method: {
                        name: [round(100 * cell.accuracy, 3), *(round(100 * end, 3) for end in cell.interval)]
                        for name, cell in row.items()
                    }
                    for method, row in table.cells.items()
                }
            except (DataError, KeyError, TypeError, AttributeError, ValueError, ZeroDivisionError):
                continue  # a table of something else
            tables.append({"name": path.stem.replace("_", " "), "kinds": kinds, "cells": cells})
    return tables
