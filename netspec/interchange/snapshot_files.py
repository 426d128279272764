"""The two files of a snapshot: their names, writing and reading them, and the newest good one of a folder.

A snapshot has two files: `iter_N.safetensors` holds the weights, `iter_N.state.safetensors` everything else that a
resumed run needs. Each carries a checksum of its content; the state file names the weights it belongs to.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from netspec.errors import SnapshotError
from netspec.interchange.safetensors import load, save

STATE = ".state.safetensors"
WEIGHTS = ".safetensors"


@dataclass(frozen=True)
class Snapshot:
    """A snapshot of a run, read and found good."""

    path: Path
    """The state file."""
    weights: dict[str, Tensor]
    tensors: dict[str, Tensor]
    info: dict[str, Any]

    @property
    def iteration(self) -> int:
        """Iterations done."""
        return int(self.info["iteration"])


def save_pair(
    folder: Path,
    stem: str,
    weights: Mapping[str, Tensor],
    tensors: Mapping[str, Tensor],
    info: Mapping[str, Any],
) -> Path:
    """Write the two files of a snapshot, weights first; gives the state file."""
    weights_path = folder / (stem + WEIGHTS)
    checksum = save(weights_path, weights, {"iteration": info["iteration"], "net": info.get("net", "")})
    state_path = folder / (stem + STATE)
    save(state_path, tensors, {**info, "weights": weights_path.name, "weights_sha256": checksum})
    return state_path


def weights_file(place: Path) -> Path:
    """The weights that `place` stands for: of a run folder's newest good snapshot, of a state file, or the file itself.

    Raises SnapshotError when a folder or a state file has no good weights.
    """
    if not os.path.isdir(place) and not place.name.endswith(STATE):
        return place
    saved = newest_aloud(place)
    return saved.path.with_name(Path(saved.info["weights"]).name)


def load_pair(path: Path) -> Snapshot:
    """Read a snapshot by its state file, or by its weights; SnapshotError when either file is not good."""
    if not path.name.endswith(STATE):
        path = path.with_name(path.name.removesuffix(WEIGHTS) + STATE)
    tensors, info, _ = load(path)
    check_info(path, info)
    weights_path = path.with_name(Path(info["weights"]).name)
    weights, _, checksum = load(weights_path)
    if checksum != info["weights_sha256"]:
        raise SnapshotError(f"{weights_path}: is not the file that {path.name} was saved with")
    return Snapshot(path, weights, tensors, {**DEFAULTS, **info})


NEEDED: dict[str, type | tuple[type, ...]] = {
    "iteration": int, "weights": str, "weights_sha256": str, "seed": int, "numbers": dict, "compiled": bool,
}  # fmt: skip
"""Entries of a state's info, and their types."""
DEFAULTS: dict[str, Any] = {
    "seconds": 0.0, "losses": [], "noted": {}, "written": [], "threads": 0, "device": "", "torch": "",
}  # fmt: skip
"""Optional entries of a state with their defaults; present entries have the types of the defaults."""
LISTED = {"losses": (int, float), "written": (int,), "numbers": (int,)}
"""Types of what is in lists and dictionaries."""


def check_info(path: Path, info: Any) -> None:
    """SnapshotError where the info of a state lacks an entry, or one is of another type."""
    if not isinstance(info, dict) or not {"weights", "iteration"} <= info.keys():
        raise SnapshotError(f"{path}: is no solver state of netspec")
    kinds = {
        **NEEDED,
        **{name: (int, float) if name == "seconds" else type(v) for name, v in DEFAULTS.items()},
    }
    for name, kind in kinds.items():
        if name not in info:
            if name in NEEDED:
                raise SnapshotError(f"{path}: its info has no {name!r}")
            continue
        value = info[name]
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        wrong = isinstance(value, bool) and kind is not bool
        if (
            wrong
            or not isinstance(value, kind)
            or not all(isinstance(v, LISTED.get(name, object)) for v in inner)
        ):
            raise SnapshotError(f"{path}: {name!r} of its info is {str(value)[:60]!r}, of the wrong type")
    if info["iteration"] < 0:
        raise SnapshotError(f"{path}: its info says iteration {info['iteration']}")


def states(folder: Path) -> list[Path]:
    """State files in a run folder or a folder of snapshots, newest iteration first."""
    files = {*folder.glob(f"*{STATE}"), *folder.glob(f"snapshots/*{STATE}")}
    return sorted(files, key=iteration_of, reverse=True)


def iteration_of(path: Path) -> int:
    """The number in the name of a snapshot file; -1 when it has none."""
    numbers = re.findall(r"iter_(\d{1,18})\.", path.name)
    return int(numbers[-1]) if numbers else -1


def newest(place: Path) -> tuple[Snapshot, list[str]]:
    """The newest good snapshot of a folder, or the one given by its file, and why newer ones were refused.

    Raises SnapshotError when there is none, with the reason for each file that was tried.
    """
    if not os.path.exists(place):
        raise SnapshotError(f"{place}: cannot be read: there is no such run folder or snapshot")
    if not os.path.isdir(place):
        if not place.name.endswith(WEIGHTS):
            raise SnapshotError(f"{place}: is no snapshot; give a run folder or an iter_N{STATE}")
        return load_pair(place), []
    refused: list[str] = []
    for path in states(place):
        try:
            return load_pair(path), refused
        except SnapshotError as error:
            refused.append(str(error))
    reasons = "".join(f"\n  {reason}" for reason in refused)
    raise SnapshotError(f"{place}: holds no good snapshot{':' if refused else ''}{reasons}")


def newest_aloud(place: Path) -> Snapshot:
    """The newest good snapshot; damaged newer ones are reported on standard error."""
    saved, refused = newest(place)
    for reason in refused:
        sys.stderr.write(f"passed over: {reason}\n")
    if refused:
        sys.stderr.write(f"taken in its place: {saved.path}\n")
    return saved


def stem_of(prefix: str, iteration: int) -> str:
    """The prefix of the names of a snapshot's files; leading dots, which would hide them, are removed."""
    name = Path(prefix).name.lstrip(".")
    return f"{name}_iter_{iteration}" if name else f"iter_{iteration}"


def run_folder_of(state: Path) -> Path:
    """The run folder that a state file lies in."""
    return state.parent.parent if state.parent.name == "snapshots" else state.parent
