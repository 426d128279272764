"""run: every method in every setting on the same images with the same masks."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from netspec.data.files.idx import Array
from netspec.errors import DataError
from netspec.lab.layout import SEED
from netspec.lab.methods import Method
from netspec.lab.settings import Setting
from netspec.lab.table import Cell, Table
from netspec.layers import ranks
from netspec.run.spread import from_all

CHUNK = 1000
"""Images shown at a time."""


def run(
    methods: Sequence[Method],
    settings: Sequence[Setting],
    pixels: Array,
    labels: Array,
    *,
    repeats: int = 1,
    seed: int = SEED,
    first: int = 0,
    progress: Callable[[str], None] = lambda line: None,
) -> Table:
    """The table of accuracies; every method sees the same masks, which depend on seed, setting, repeat and
    image only.

    pixels (N, C, H, W) 0..255, labels (N,). repeats: masks drawn for each image; a setting without masks is run
    once. Among several processes each sees every world-th chunk of the images, and all get the table.
    first: number of the first image in its split, so that an image has the same mask in any selection.
    """
    names = [method.name for method in methods]
    if repeated := [name for i, name in enumerate(names) if name in names[:i]]:
        raise DataError(
            f"two methods are called {repeated[0]!r}; a table has a row per name, so give each its own"
        )
    table, among = Table(), ranks.current()
    size = min(CHUNK, -(-len(labels) // among.world) or 1)
    for setting in {setting.name: setting for setting in settings}.values():
        right = dict.fromkeys((method.name for method in methods), 0)
        started = time.monotonic()
        times = 1 if setting.how is None else repeats
        for repeat in range(times):
            for begin in range(among.rank * size, len(labels), among.world * size):
                places = np.arange(begin, min(begin + size, len(labels)))
                shown = pixels[places]
                observed = setting.observed(shown, first + places, seed, repeat)
                for method in methods:
                    answers = np.asarray(method.predict(shown, observed))
                    right[method.name] += int((answers == labels[places]).sum())
        for name in right:
            right[name] = sum(from_all(right[name]))
        for name, count in right.items():
            table.put(name, setting.name, Cell(count, len(labels), times))
            progress(f"{name}, {setting.name}: {100 * table.cells[name][setting.name].accuracy:.2f} %")
        progress(f"{setting.name}: {time.monotonic() - started:.1f} s")
    return table


def circumstances(device: str | torch.device | None = None) -> dict[str, Any]:
    """What a result must say of its making: command, commit, machine, versions, date.

    device: what it was computed on; by default the GPU where there is one.
    """
    return {
        "command": command(),
        "commit": commit(Path(__file__).parent),
        "machine": machine(device),
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }


def command() -> str:
    """How this process was started, as one types it in the checkout; a module of it as `python -m`."""
    name, *arguments = sys.argv or [""]
    path = Path(os.path.relpath(name)) if Path(name).is_absolute() else Path(name)
    if path.suffix == ".py" and path.parts[0] == "tools":
        return shlex.join(["python", "-m", ".".join(path.with_suffix("").parts), *arguments])
    if path.name == "netspec":
        return shlex.join(["netspec", *arguments])
    return shlex.join(["python", str(path), *arguments])


def commit(folder: Path) -> str:
    """The commit of a checkout, with '+' when tracked files differ from it; '' outside of one."""
    try:
        answer = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--abbrev=12", "--dirty=+"],
            capture_output=True, text=True, timeout=20, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
    return answer.stdout.strip()


def machine(device: str | torch.device | None = None) -> str:
    """Processor, number of threads, and the GPU: `device`, or where that is not given the one there is."""
    names = []
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    name = names[0] if names else platform.processor() or platform.machine()
    text = f"{name}, {torch.get_num_threads()} threads"
    used = torch.cuda.is_available() and (device is None or torch.device(device).type == "cuda")
    return f"{text}, {torch.cuda.get_device_name(device)}" if used else text
