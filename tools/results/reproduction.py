"""What the reproduction scripts share: results that survive an interruption, trainings that are
done once, pages.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from netspec.data.files.whole import write_whole
from netspec.interchange.snapshot_files import iteration_of, states
from netspec.lab import circumstances
from netspec.run.fit import fit
from netspec.run.trainer import Run


class Results:
    """A JSON file of results by key, written after each; what is there already is not computed again.

    `settings` are what the results depend on; a file made with others is refused, lest two experiments mix.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], device: str | None = None):
        """device: what results are computed on, see `lab.circumstances`."""
        self.device = device
        self.path, self.settings = path, json.loads(json.dumps(dict(settings)))
        self.values: dict[str, Any] = {}
        self.made: dict[str, Any] = {}
        """Circumstances of the last result that was computed."""
        self.before: list[dict[str, Any]] = []
        """Circumstances of earlier results, each with the keys that they hold for as its `results`."""
        if path.exists():
            data = json.loads(path.read_text())
            if data["settings"] != self.settings:
                raise SystemExit(
                    f"{path}: was made with {data['settings']}, now asked for {self.settings}; "
                    "remove it or give another --out"
                )
            self.values, self.made = data["results"], data.get("made", {})
            for one in data.get("made_before", []):
                if keys := [key for key in one["results"] if key in self.values]:
                    self.before.append({**one, "results": keys})
        self.latest = self._latest()
        """Keys whose circumstances are `made`."""

    def get(self, key: str, compute: Callable[[], Any]) -> Any:
        """The result under `key`, computed where it is missing."""
        if key not in self.values:
            self.values[key] = json.loads(json.dumps(compute()))
            self.save()
        return self.values[key]

    def save(self) -> None:
        """Write the file whole."""
        now = circumstances(self.device)
        if self.made and now != self.made and self.latest:
            self.before.append({**self.made, "results": self.latest})
        self.made, self.latest = now, self._latest()
        data = {"settings": self.settings, "results": self.values, "made": self.made}
        if self.before:
            data["made_before"] = self.before
        write_whole(self.path, (json.dumps(data, indent=1) + "\n").encode())

    def _latest(self) -> list[str]:
        earlier = {key for one in self.before for key in one["results"]}
        return [key for key in self.values if key not in earlier]

    def facts(self) -> dict[str, Any]:
        """How the results were made, for a page: the last circumstances, then the earlier ones with their keys."""
        earlier = {}
        for one in self.before:
            said = ", ".join(f"{name} {value}" for name, value in one.items() if name != "results")
            earlier[f"made before ({'; '.join(one['results'])})"] = said
        return {**self.made, **earlier}


def trained(
    net: str,
    folder: Path,
    iterations: int | None = None,
    overrides: Sequence[str] = (),
    device: str | None = None,
) -> Path:
    """The folder of a finished training of `net`: trained, gone on with, or found."""
    done = max((iteration_of(path) for path in states(folder)), default=-1) if folder.exists() else -1
    finished = folder / "finished"
    if finished.exists():
        return folder
    if done > 0:
        run = fit(net, resume=folder, iterations=iterations, overrides=overrides, device=device)
    else:
        fresh = folder if not (folder / "metrics.jsonl").exists() else _emptied(folder)
        run = fit(net, out=fresh, iterations=iterations, overrides=overrides, device=device)
    mark(run, folder)
    return folder


def mark(run: Run, folder: Path) -> None:
    """Say in `folder` that its training is finished; a training that a signal stopped ends the script instead."""
    if run.interrupted:
        raise SystemExit(f"{folder}: stopped; the same command goes on")
    (folder / "finished").touch()


def _emptied(folder: Path) -> Path:
    """A run that was cut off before its first snapshot starts again."""
    (folder / "metrics.jsonl").unlink()
    return folder


PUBLISHED = Path(__file__).parents[2] / "docs/results/published.json"


def published(name: str) -> dict[str, Any]:
    """The rows of one table as its paper prints them: what a page shows beside our figures."""
    rows: dict[str, Any] = json.loads(PUBLISHED.read_text())[name]["rows"]
    return rows


def parser(doc: str | None, out: str) -> argparse.ArgumentParser:
    """A command line with the options that all reproductions have."""
    arguments = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument(
        "--quick", action="store_true", help="a small version of the experiment, minutes on 2 cores"
    )
    arguments.add_argument("--out", type=Path, default=Path(out), help="stem of the files that are written")
    arguments.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the trainings")
    arguments.add_argument("--device", default="cpu")
    arguments.add_argument("--seed", type=int, default=1)
    return arguments


def write_record(path: Path, values: Mapping[str, Any]) -> Path:
    """Write the JSON record of a page's numbers, as `path` with the suffix .json."""
    write_whole(path.with_suffix(".json"), (json.dumps(dict(values), indent=1) + "\n").encode())
    return path.with_suffix(".json")


def markdown(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table, first column left, the others right."""
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    lines += ["| " + " | ".join(_cell(value) for value in row) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def page(path: Path, title: str, parts: Iterable[str], facts: Mapping[str, Any]) -> Path:
    """Write a Markdown page: title, paragraphs, and how it was made."""
    made = "\n".join(f"- {key}: {value}" for key, value in facts.items() if value not in (None, ""))
    write_whole(path, ("\n\n".join([f"# {title}", *parts, made]) + "\n").encode())
    return path
