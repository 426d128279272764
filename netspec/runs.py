"""Run folder: what was run, with what, and what came of it.

net.prototxt, solver.prototxt     the resolved experiment, settings from the command line written in
run.json                          seed, device, versions, command, notes, and each resumption
metrics.jsonl                     a line a display or test, see Metrics
snapshots/iter_N.safetensors, snapshots/iter_N.state.safetensors
loss.png
"""

from __future__ import annotations

import json
import math
import os
import platform
import shlex
import sys
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from netspec.errors import NetspecError
from netspec.experiment import Experiment
from netspec.snapshot import clean, write_whole

METRICS = "metrics.jsonl"


def new_folder(stem: str, out: str | Path | None) -> Path:
    """The folder of a new run: `out`, or runs/<stem> with the first number that is free."""
    if out is not None:
        folder = Path(out)
        if (folder / METRICS).exists():
            raise NetspecError(
                f"{folder} already holds a run: resume it (--resume {folder}) or give another --out"
            )
    else:
        names = (stem if n == 1 else f"{stem}-{n}" for n in range(1, 10**6))
        folder = next(path for name in names if not (path := Path("runs") / name).exists())
    (folder / "snapshots").mkdir(parents=True, exist_ok=True)
    return folder


class Folder:
    """A run folder being written."""

    def __init__(self, path: Path):
        self.path = path
        self.snapshots = path / "snapshots"
        self.snapshots.mkdir(parents=True, exist_ok=True)
        clean(path)
        clean(self.snapshots)
        self.metrics = Metrics(path / METRICS)

    def describe(self, experiment: Experiment, facts: Mapping[str, Any]) -> None:
        """Write the resolved experiment and run.json; on a resumption the latter gains an entry."""
        for name, text in experiment.texts().items():
            write_whole(self.path / name, text.encode())
        entry = {**facts, **circumstances()}
        known = self.facts()
        if known:
            known.setdefault("resumed", []).append(entry)
        write_whole(self.path / "run.json", (json.dumps(known or entry, indent=2) + "\n").encode())

    def facts(self) -> dict[str, Any]:
        """What run.json says; empty for a new run. Raises NetspecError when it cannot be read."""
        path = self.path / "run.json"
        if not path.exists():
            return {}
        try:
            return dict(json.loads(path.read_text()))
        except (ValueError, TypeError, OSError) as error:
            raise NetspecError(f"{path}: cannot be read: {error}") from None


def circumstances() -> dict[str, Any]:
    """When, where and with which versions this process runs."""
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    for name in ("netspec", "numpy", "protobuf"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": shlex.join(sys.argv),
        "versions": versions,
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
    }


class Metrics:
    """JSON lines; each has `kind`, `iteration` (updates done before it) and `seconds` of training so far.

    kind "train": lr, loss (averaged over `average_loss`), outputs {blob: value}.
    kind "test": net (its number), outputs averaged over its batches.
    Values are numbers, lists of numbers for outputs of several values, or null for what is not finite.
    """

    def __init__(self, path: Path):
        self.path = path

    def write(self, kind: str, iteration: int, **values: Any) -> None:
        """Append a line."""
        line = json.dumps({"kind": kind, "iteration": iteration, **plain(values)}, allow_nan=False)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(line + "\n")

    def read(self) -> list[dict[str, Any]]:
        """All whole lines; one cut short by a kill is left out."""
        return [] if not self.path.exists() else [*parse_lines(self.path.read_text(encoding="utf-8"))]

    def rewind(self, iteration: int) -> None:
        """Forget lines from `iteration` on: a run resumed there writes them again."""
        kept = [line for line in self.read() if line["iteration"] < iteration]
        text = "".join(json.dumps(line) + "\n" for line in kept)
        write_whole(self.path, text.encode())


def parse_lines(text: str) -> list[dict[str, Any]]:
    """The JSON lines of a metrics file."""
    lines = []
    for line in text.splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            continue  # the line being written when the run was killed
    return lines


def plain(value: Any) -> Any:
    """Tensors as numbers or lists, floats that JSON cannot hold as null."""
    if isinstance(value, torch.Tensor):
        value = value.item() if value.numel() == 1 else value.flatten().tolist()
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return os.fspath(value) if isinstance(value, Path) else value
