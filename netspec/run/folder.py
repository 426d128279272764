"""Run folder: what was run, with what, and what came of it.

net.prototxt, solver.prototxt     the resolved experiment, settings from the command line written in
run.json                          seed, device, versions, command, settings, checksums of the data, the commit that the
                                  spec's folder has checked out, notes, and each resumption
metrics.jsonl                     a line per display or test, see Metrics
snapshots/iter_N.safetensors, snapshots/iter_N.state.safetensors
loss.png
abandoned/N/                      what a run wrote after the snapshot from which it was resumed another way
"""

from __future__ import annotations

import json
import math
import os
import platform
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import netspec
from netspec.data.files.whole import clean, write_whole
from netspec.errors import DataError, NetspecError
from netspec.interchange.snapshot_files import STATE, iteration_of, states
from netspec.run.experiment import Experiment
from netspec.run.lock import Lock
from netspec.schema.regular import append_regular, read_regular

METRICS = "metrics.jsonl"


def refuse_taken(out: Path) -> None:
    """Raise NetspecError where `out` cannot be the folder of a new run: it already holds a run, or is no folder."""
    if (out / METRICS).exists():
        remedy = f"resume it (--resume {out})" if states(out) else "remove it, it has no snapshot to resume"
        raise NetspecError(f"{out} already holds a run: {remedy} or give another --out")
    if out.exists() and not out.is_dir():
        raise NetspecError(f"{out}: is a file; a run needs a folder (--out)")


def new_folder(stem: str, out: str | Path | None) -> Path:
    """Make the folder of a new run: `out`, or runs/<stem> with the first number that is free."""
    if out is not None:
        refuse_taken(Path(out))
        Path(out).mkdir(parents=True, exist_ok=True)
        return Path(out)
    for n in range(1, 10**6):
        folder = Path("runs") / (stem if n == 1 else f"{stem}-{n}")
        try:
            folder.mkdir(parents=True)  # two runs that start at once get a folder each
            return folder
        except FileExistsError:
            continue
    raise NetspecError(f"runs/{stem}: all names with numbers are taken")


class Folder:
    """A run folder being written."""

    def __init__(self, path: Path):
        self.path = path
        self.snapshots = path / "snapshots"
        self.snapshots.mkdir(parents=True, exist_ok=True)
        self.lock = Lock(path)
        clean(path)
        clean(self.snapshots)
        self.metrics = Metrics(path / METRICS)

    def discard(self) -> None:
        """Remove the folder if nothing was written to it."""
        self.lock.release()
        for folder in (self.snapshots, self.path):
            with suppress(OSError):  # holds something: then it stays
                folder.rmdir()

    def set_aside(self, iteration: int) -> Path | None:
        """Move snapshots past `iteration` to abandoned/<n>, with a copy of the metrics; returns that folder, or None
        where there was nothing to move.

        A run that continues from an older snapshot is another branch, and must not be confused with what the first
        branch wrote later. abandoned/<n> is itself a run folder.
        """
        later = [path for path in self.snapshots.iterdir() if iteration_of(path) > iteration]
        if not later:
            return None
        aside = next(p for n in range(1, 10**6) if not (p := self.path / "abandoned" / str(n)).exists())
        (aside / "snapshots").mkdir(parents=True)
        for path in (*self.path.glob("*.prototxt"), *self.path.glob("run.json"), *self.path.glob(METRICS)):
            if path.is_file():
                shutil.copy2(path, aside)
        for path in sorted(later, key=lambda path: not path.name.endswith(STATE)):
            path.rename(aside / "snapshots" / path.name)
        return aside

    def describe(self, experiment: Experiment, facts: Mapping[str, Any]) -> None:
        """Write the resolved experiment and run.json; a resumed run adds an entry to run.json."""
        for name, text in experiment.texts().items():
            write_whole(self.path / name, text.encode())
        entry = {**facts, **circumstances()}
        known = self.facts()
        path = self.path / "run.json"
        if known is None:
            path.rename(damaged := path.with_name("run.damaged.json"))
            entry["notes"] = [
                *entry.get("notes", ()),
                f"{path.name} could not be read; it is {damaged.name} now",
            ]
        if known:
            before = known.get("resumed")
            known["resumed"] = [*(before if isinstance(before, list) else ()), entry]
        write_whole(path, (json.dumps(known or entry, indent=2) + "\n").encode())

    def facts(self) -> dict[str, Any] | None:
        """What run.json says; empty for a new run, None where it is damaged."""
        path = self.path / "run.json"
        if not path.exists():
            return {}
        try:
            known = json.loads(read_regular(path))
        except (DataError, ValueError, RecursionError):  # a device, a pipe; no JSON
            return None
        return known if isinstance(known, dict) else None


def circumstances() -> dict[str, Any]:
    """When, where and with which versions this process runs."""
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    versions["netspec"] = netspec.__version__
    for name in ("numpy", "protobuf"):
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

    kind "train": lr, loss (averaged over `average_loss`), outputs {blob: value}; with the solver's gradient_norms also
    gradient_norm, of all gradients together, and gradient_norms {parameter: norm}.
    kind "test": net (its number), outputs averaged over its batches.
    kind "best" (once, at the end, with keep_best): of (iteration of the best weights), output, results of each test
    net.
    Values are numbers, lists of numbers for outputs of several values, or null where not finite.
    """

    def __init__(self, path: Path):
        self.path = path
        self.listeners: list[Callable[[dict[str, Any]], None]] = []
        """Called with each line after it is written."""

    def write(self, kind: str, iteration: int, **values: Any) -> None:
        """Append a line."""
        entry = {"kind": kind, "iteration": iteration, **plain(values)}
        line = json.dumps(entry, allow_nan=False)
        try:
            with append_regular(self.path) as file:
                file.write(line + "\n")
        except OSError as error:  # a full disk does not say whose write it refuses
            raise OSError(error.errno, error.strerror, str(self.path)) from None
        for listener in self.listeners:
            listener(entry)

    def read(self) -> list[dict[str, Any]]:
        """All whole lines; damaged lines, and a last line cut short by a kill, are left out."""
        return self.look()[0]

    def look(self) -> tuple[list[dict[str, Any]], int]:
        """The whole lines, and how many others were left out."""
        return parse_lines(read_regular(self.path)) if self.path.exists() else ([], 0)

    def rewind(self, iteration: int) -> int:
        """Forget lines from `iteration` on, which a run resumed there writes again; returns how many damaged lines went
        with them.
        """
        lines, damaged = self.look()
        kept = [line for line in lines if line["iteration"] < iteration]
        text = "".join(json.dumps(line) + "\n" for line in kept)
        write_whole(self.path, text.encode())
        return damaged


NUMBERS = ("lr", "loss", "seconds", "net", "gradient_norm")
"""Entries of a line that are numbers, or null for what is not finite."""


def parse_lines(data: bytes) -> tuple[list[dict[str, Any]], int]:
    """The sound lines of a metrics file, and the number of its damaged ones."""
    lines = []
    texts = [text for text in data.split(b"\n") if text.strip()]
    for text in texts:
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if is_sound(line):
            lines.append(line)
    return lines, len(texts) - len(lines)


def is_sound(line: Any) -> bool:
    """Whether a line has the entries that `Metrics.write` writes, each of its type."""
    if not isinstance(line, dict) or not isinstance(line.get("kind"), str):
        return False
    iteration = line.get("iteration")
    if not isinstance(iteration, int) or iteration < 0 or not is_number(iteration):
        return False
    if line["kind"] == "test" and not (isinstance(line.get("net"), int) and "outputs" in line):
        return False
    outputs = line.get("outputs", {})
    if not isinstance(outputs, dict) or not all(map(is_value, outputs.values())):
        return False
    return all(is_number(line[name]) for name in NUMBERS if name in line)


def is_value(value: Any) -> bool:
    """A number, null, or a list of these."""
    return all(map(is_number, value)) if isinstance(value, list) else is_number(value)


def is_number(value: Any) -> bool:
    """A number that a float can hold, or null."""
    if isinstance(value, int) and not isinstance(value, bool):
        return abs(value) <= sys.float_info.max
    return value is None or isinstance(value, float)


def plain(value: Any) -> Any:
    """Tensors as numbers or lists; floats that JSON cannot hold as null."""
    if isinstance(value, torch.Tensor):
        value = value.item() if value.numel() == 1 else value.flatten().tolist()
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return os.fspath(value) if isinstance(value, Path) else value
