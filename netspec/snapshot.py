"""Snapshots: tensors in safetensors files, written whole or not at all, and refused when damaged.

Two files make a snapshot: `iter_N.safetensors` holds the weights, `iter_N.state.safetensors` all else that a
resumed run needs. Each carries a checksum of its content; the state file names the weights it belongs to.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from netspec.errors import SnapshotError

STATE = ".state.safetensors"
WEIGHTS = ".safetensors"


def save(path: Path, tensors: Mapping[str, Tensor], info: Mapping[str, Any]) -> str:
    """Write tensors and `info` (plain data, kept as JSON); `path` is the old file or the new one, never half.

    Gives the checksum, a SHA-256 of names, types, shapes, values and `info`.
    """
    ours = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    text = json.dumps(info, sort_keys=True)
    checksum = digest(ours, text)
    data = safetensors.torch.save(ours, {"format": "pt", "info": text, "sha256": checksum})
    write_whole(path, data)
    return checksum


def write_whole(path: Path, data: bytes) -> None:
    """Write through a temporary file in the same folder: flushed to disk, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:  # a full disk does not say whose write it refuses
        temporary.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from None
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def digest(tensors: Mapping[str, Tensor], info: str) -> str:
    """SHA-256 of everything a file holds."""
    found = hashlib.sha256(info.encode())
    for name in sorted(tensors):
        value = tensors[name]
        found.update(f"\n{name} {value.dtype} {tuple(value.shape)}\n".encode())
        found.update(value.reshape(-1).view(torch.uint8).numpy().data if value.numel() else b"")
    return found.hexdigest()


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any], str]:
    """Tensors, info and checksum of a file; one that another program wrote has no info and no checksum.

    Raises SnapshotError, with file and reason, when it is missing, truncated or differs from its checksum.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SnapshotError(f"{path}: cannot be read: {error.strerror}") from None
    header = read_header(path, data)
    try:
        tensors = safetensors.torch.load(data)
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise SnapshotError(f"{path}: is damaged: {error}") from None
    metadata = header.get("__metadata__", {})
    if "sha256" not in metadata:
        return tensors, {}, ""
    text = metadata.get("info", "")
    if digest(tensors, text) != metadata["sha256"]:
        raise SnapshotError(f"{path}: is damaged: its content does not match its checksum")
    return tensors, json.loads(text), metadata["sha256"]


def read_header(path: Path, data: bytes) -> dict[str, Any]:
    """The JSON header of a safetensors file; SnapshotError when the file is not whole."""
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > len(data) - 8:
        raise SnapshotError(f"{path}: is truncated or no safetensors file: {len(data)} bytes hold no header")
    try:
        header = json.loads(data[8 : 8 + size])
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        whole = 8 + size + max(ends, default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise SnapshotError(f"{path}: is damaged: its header cannot be read") from None
    if len(data) < whole:
        raise SnapshotError(f"{path}: is truncated: {len(data)} of {whole} bytes")
    return dict(header)


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
    saved, _ = newest(place)
    return saved.path.with_name(Path(saved.info["weights"]).name)


def load_pair(path: Path) -> Snapshot:
    """Read a snapshot by its state file, or by its weights; SnapshotError when either file is not good."""
    if not path.name.endswith(STATE):
        path = path.with_name(path.name.removesuffix(WEIGHTS) + STATE)
    tensors, info, _ = load(path)
    if "weights" not in info or "iteration" not in info:
        raise SnapshotError(f"{path}: is no solver state of netspec")
    weights_path = path.with_name(Path(info["weights"]).name)
    weights, _, checksum = load(weights_path)
    if checksum != info["weights_sha256"]:
        raise SnapshotError(f"{weights_path}: is not the file that {path.name} was saved with")
    return Snapshot(path, weights, tensors, info)


def states(folder: Path) -> list[Path]:
    """State files in a run folder or a folder of snapshots, newest iteration first."""
    found = {*folder.glob(f"*{STATE}"), *folder.glob(f"snapshots/*{STATE}")}
    return sorted((path for path in found if not path.name.startswith(".")), key=iteration_of, reverse=True)


def iteration_of(path: Path) -> int:
    """The number in the name of a snapshot file; -1 when it has none."""
    match = re.search(r"iter_(\d+)\.", path.name)
    return int(match[1]) if match else -1


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


def clean(folder: Path) -> None:
    """Remove temporary files that an interrupted write left behind."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)
