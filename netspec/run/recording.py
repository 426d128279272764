"""Where the results of a run come from: the data that it read, and the commit of its files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from netspec.data import Feeder
from netspec.data.transform import near
from netspec.errors import DataError
from netspec.net.net import Net
from netspec.schema.spec import LayerSpec

WHOLE = 1 << 28
"""Most bytes of a file that its checksum covers; a larger file's covers its size, beginning and end."""
PART = 1 << 20


def data_facts(nets: Sequence[Net], feeders: Sequence[Feeder]) -> list[dict[str, Any]]:
    """For each source of data: its layer and phase, what it reads, and a checksum.

    The checksum of a named data set covers the images and labels of its split before they are transformed; that of
    files covers their bytes (for a list of files, the bytes of the list). "sha256" is missing where the data is
    neither: random numbers, arrays of a program.
    """
    entries: dict[str, dict[str, Any]] = {}
    for net, feeder in zip(nets, feeders, strict=True):
        layers = [step.layer for step in net.graph.steps if step.kind.is_source]
        for layer, source in zip(layers, feeder.sources, strict=True):
            entry: dict[str, Any] = {"layer": layer.name, "phase": net.graph.spec.phase, "type": layer.type}
            files = list(files_of(layer.message, layer))
            data = getattr(source, "data", None)
            images, labels = getattr(data, "images", None), getattr(data, "labels", None)
            if images is not None and labels is not None and layer.message.HasField("dataset_param"):
                p = layer.message.dataset_param
                entry |= {"name": p.name, "split": p.split, "sha256": of_arrays((images, labels))}
            elif files:
                entry |= {"files": [str(path) for path in files], "sha256": of_files(files)}
            entries.setdefault(str(entry), entry)
    return list(entries.values())


def of_arrays(arrays: Iterable[Any]) -> str:
    """Checksum of arrays: their shapes, types and values."""
    total = hashlib.sha256()
    for array in arrays:
        total.update(f"{array.dtype} {array.shape}".encode())
        for start in range(0, len(array), 4096):
            total.update(array[start : start + 4096].tobytes())
    return total.hexdigest()


def of_files(paths: Iterable[Path]) -> str:
    """Checksum of the bytes of files, one after another."""
    total = hashlib.sha256()
    for path in paths:
        size = path.stat().st_size
        total.update(f"{size} ".encode())
        with open(path, "rb") as file:
            if size <= WHOLE:
                while chunk := file.read(PART):
                    total.update(chunk)
            else:
                total.update(file.read(PART))
                file.seek(size - PART)
                total.update(file.read(PART))
    return total.hexdigest()


def files_of(message: Any, spec: LayerSpec | None = None) -> Iterator[Path]:
    """The regular files that a layer's texts name; of a database in a folder, the file that holds its records.

    spec: the layer; as layers do, files are sought in the working directory, then in the folder of the layer's file.
    """
    for field, value in message.ListFields():
        values = [value] if isinstance(value, str) or hasattr(value, "ListFields") else value
        if field.message_type is not None:
            for inner in values:
                yield from files_of(inner, spec)
        elif field.cpp_type == field.CPPTYPE_STRING and field.name not in ("name", "type", "bottom", "top"):
            for text in values:
                if not text or len(text) >= 1000:
                    continue
                try:
                    path = Path(text) if spec is None else near(spec, text)
                except DataError:  # a device or a pipe: no file to sum up
                    continue
                for candidate in (path, path / "data.mdb", path / "CURRENT"):
                    if candidate.is_file():
                        yield candidate
                        break


def commit_of(file: str | Path) -> str:
    """The commit checked out in the folder of a file; "" outside a git checkout. Runs no program."""
    for folder in Path(file).absolute().parents:
        git = folder / ".git"
        try:
            if git.is_file():  # a worktree's, or a submodule's
                git = (folder / git.read_text(encoding="utf-8").partition("gitdir:")[2].strip()).resolve()
            if not git.is_dir():
                continue
            head = (git / "HEAD").read_text(encoding="utf-8").strip()
            return head if not head.startswith("ref:") else resolved(git, head.removeprefix("ref:").strip())
        except (OSError, UnicodeDecodeError):
            return ""
    return ""


def resolved(git: Path, name: str) -> str:
    """The commit of a branch."""
    common = git / "commondir"
    homes = [git, (git / common.read_text(encoding="utf-8").strip()).resolve()] if common.is_file() else [git]
    for home in homes:
        if (home / name).is_file():
            return (home / name).read_text(encoding="utf-8").strip()
    for home in homes:
        packed = home / "packed-refs"
        for line in packed.read_text(encoding="utf-8").splitlines() if packed.is_file() else ():
            commit, _, own = line.partition(" ")
            if own == name:
                return commit
    return ""
