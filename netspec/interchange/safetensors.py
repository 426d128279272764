"""Tensors in safetensors files, each with a checksum of its content; damaged files are refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from netspec.data.files.whole import write_whole
from netspec.errors import DataError, SnapshotError, one_line
from netspec.schema.regular import read_regular


def save(path: Path, tensors: Mapping[str, Tensor], info: Mapping[str, Any]) -> str:
    """Write tensors and `info` (plain data, kept as JSON); `path` is the old file or the new one, never half.

    Gives the checksum, a SHA-256 of `info` and of each tensor's name, type, shape and own SHA-256.
    """
    ours = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    text = json.dumps(info, sort_keys=True)
    sums = {name: tensor_sum(value) for name, value in ours.items()}
    checksum = sum_of_sums(ours, sums, text)
    notes = {"format": "pt", "info": text, "sha256": checksum, "sums": json.dumps(sums, sort_keys=True)}
    write_whole(path, safetensors.torch.save(ours, notes))
    return checksum


def tensor_sum(value: Tensor) -> str:
    """SHA-256 of a tensor's values."""
    return hashlib.sha256(
        value.reshape(-1).view(torch.uint8).numpy().data if value.numel() else b""
    ).hexdigest()


def sum_of_sums(tensors: Mapping[str, Tensor], sums: Mapping[str, str], info: str) -> str:
    """SHA-256 of everything a file holds, by the sums of its tensors."""
    whole = hashlib.sha256(info.encode())
    for name in sorted(tensors):
        value = tensors[name]
        whole.update(f"\n{name} {value.dtype} {tuple(value.shape)} {sums[name]}\n".encode())
    return whole.hexdigest()


def digest(tensors: Mapping[str, Tensor], info: str) -> str:
    """SHA-256 of everything a file holds, as files without `sums` have it: those written until December 2026."""
    sha = hashlib.sha256(info.encode())
    for name in sorted(tensors):
        value = tensors[name]
        sha.update(f"\n{name} {value.dtype} {tuple(value.shape)}\n".encode())
        sha.update(value.reshape(-1).view(torch.uint8).numpy().data if value.numel() else b"")
    return sha.hexdigest()


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any], str]:
    """Tensors, info and checksum of a file; one that another program wrote has no info and no checksum.

    Raises SnapshotError, with file, tensor and reason, when it is missing, truncated or differs from its checksums.
    """
    try:
        data = read_regular(path)
    except OSError as error:
        raise SnapshotError(f"{path}: cannot be read: {error.strerror}") from None
    except DataError as error:
        raise SnapshotError(str(error)) from None
    header = read_header(path, data)
    try:
        tensors = safetensors.torch.load(data)
    except Exception as error:  # the library raises errors of every kind for what it does not read
        raise SnapshotError(f"{path}: is damaged: {one_line(error)}") from None
    notes = header.get("__metadata__", {})
    if "sha256" not in notes:
        if {"info", "sums"} & set(notes):  # ours, with a flip in the name of its checksum
            raise SnapshotError(f"{path}: is damaged: its header lacks its checksum")
        return tensors, {}, ""
    text, checksum = notes.get("info", ""), notes["sha256"]
    if "sums" in notes:
        check_sums(path, tensors, notes)
    elif digest(tensors, text) != checksum:
        raise SnapshotError(f"{path}: is damaged: its content does not match its checksum")
    try:
        info = json.loads(text)
    except (ValueError, RecursionError):
        info = None
    if not isinstance(info, dict):
        raise SnapshotError(f"{path}: is damaged: its info is no JSON object")
    return tensors, info, checksum


def check_sums(path: Path, tensors: Mapping[str, Tensor], notes: Mapping[str, str]) -> None:
    """SnapshotError that names the tensor which differs from its checksum, or the header."""
    try:
        sums = json.loads(notes["sums"])
    except (ValueError, RecursionError):
        sums = None
    if (
        not isinstance(sums, dict)
        or set(notes) != {"format", "info", "sha256", "sums"}
        or notes["format"] != "pt"
    ):
        raise SnapshotError(f"{path}: is damaged: its header does not match its checksum")
    for name, value in tensors.items():
        if name not in sums:
            raise SnapshotError(f"{path}: is damaged: tensor {name!r} has no checksum in the header")
        if tensor_sum(value) != sums[name]:
            raise SnapshotError(f"{path}: is damaged: tensor {name!r} does not match its checksum")
    if set(sums) != set(tensors) or sum_of_sums(tensors, sums, notes.get("info", "")) != notes["sha256"]:
        raise SnapshotError(f"{path}: is damaged: its header does not match its checksum")


def read_header(path: Path, data: bytes) -> dict[str, Any]:
    """The JSON header of a safetensors file; SnapshotError when the file is not whole."""
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > len(data) - 8:
        raise SnapshotError(f"{path}: is truncated or no safetensors file: {len(data)} bytes hold no header")
    try:
        header = json.loads(data[8 : 8 + size])
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        whole = 8 + size + max(ends, default=0)
        sound = isinstance(whole, int) and is_notes(header.get("__metadata__", {}))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        sound = False
    if not sound:
        raise SnapshotError(f"{path}: is damaged: its header cannot be read")
    if len(data) < whole:
        raise SnapshotError(f"{path}: is truncated: {len(data)} of {whole} bytes")
    return dict(header)


def is_notes(notes: Any) -> bool:
    """Whether it is what the header of a file may say of it: texts by name."""
    return isinstance(notes, dict) and all(isinstance(value, str) for value in notes.values())
