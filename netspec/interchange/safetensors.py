"""Tensors in safetensors files, each with a checksum of its content; damaged files are refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from netspec.data.files.whole import write_whole
from netspec.errors import SnapshotError


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
