"""Nets that come with the package: found by name wherever netspec is installed, and copied to start a net of one's own.

They lie in `netspec/nets` of an installed package, in `nets` of a checkout.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from netspec.errors import NetspecError, did_you_mean

SUFFIX = ".prototxt"
BEGINNINGS = ("images", "caffe")
"""The kinds of nets that `netspec new` can start with."""


def folder() -> Path:
    """Where the nets lie."""
    package = Path(__file__).parents[1]
    inside = package / "nets"
    return inside if inside.is_dir() else package.parent / "nets"


@dataclass(frozen=True)
class Shipped:
    """A net that comes with the package."""

    name: str
    path: Path
    about: str
    """The first sentence of the comment at its top."""
    solvers: tuple[str, ...]
    """Names of its solvers, the one that `netspec train NAME` takes first."""


def nets() -> list[Shipped]:
    """All nets that are shipped, by name."""
    files = sorted(folder().glob(f"*{SUFFIX}"))
    names = {file.stem for file in files if not file.stem.endswith("_solver")}
    entries = []
    for file in files:
        if file.stem not in names:
            continue
        solvers = [
            other.stem for other in files if other.stem.endswith("_solver") and owner(other) == file.stem
        ]
        own = f"{file.stem}_solver"
        solvers.sort(key=lambda solver: (solver != own, solver))
        entries.append(Shipped(file.stem, file, about(file), tuple(solvers)))
    return entries


def owner(solver: Path) -> str:
    """The net that a solver names, without its folder and ending."""
    named = re.search(r'^\s*(?:train_)?net:\s*"([^"]+)"', solver.read_text(encoding="utf-8"), re.M)
    return Path(named[1]).stem if named else ""


def about(path: Path) -> str:
    """The first sentence of the comment at the top of a file, '' without one."""
    words: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        words.append(line.lstrip("# ").strip())
    text = " ".join(words).removeprefix(f"{path.stem}: ")
    ends = [match.start() for match in re.finditer(r"(?<!\bal)[.:](?= |$)", text)]
    return text[: ends[0]] if ends else text


def names() -> list[str]:
    """Names by which `find` knows a file: those of nets and of their solvers."""
    return [file.stem for file in sorted(folder().glob(f"*{SUFFIX}"))]


def find(path: str | Path) -> Path:
    """Where no file or folder lies at `path`: the file of this name with .prototxt, in the working directory or else
    among those shipped; else `path` itself.
    """
    path = Path(path)
    if path.name != str(path) or path.name in ("", ".", "..") or path.exists():
        return path
    name = path.name if path.suffix else path.name + SUFFIX
    if Path(name).is_file():
        return Path(name)
    file = folder() / name
    return file if file.is_file() else path


def begin(kind: str, path: Path) -> list[Path]:
    """Write a net to start from, and its solver, at `path` (with or without .prototxt); returns the two files.

    kind: one of BEGINNINGS. Raises NetspecError for another kind, and where one of the files is there already.
    """
    if kind not in BEGINNINGS:
        raise NetspecError(f"nothing of the kind {kind!r} to begin with{did_you_mean(kind, BEGINNINGS)}")
    stem = path.name.removesuffix(SUFFIX)
    if not stem or not stem.replace("_", "a").replace("-", "a").replace(".", "a").isalnum():
        raise NetspecError(f"{path.name!r} is no name for a net: use letters, digits, '_', '-' and '.'")
    targets = [path.with_name(f"{stem}{end}{SUFFIX}") for end in ("", "_solver")]
    texts = [
        (folder() / "new" / f"{kind}{end}{SUFFIX}").read_text(encoding="utf-8").replace("NAME", stem)
        for end in ("", "_solver")
    ]
    refuse_taken(targets)
    path.parent.mkdir(parents=True, exist_ok=True)
    for target, text in zip(targets, texts, strict=True):
        target.write_text(text, encoding="utf-8")
    return targets


def begin_solver(net: Path, tests: bool) -> Path:
    """Write a solver to start from beside a net that has none; returns its path.

    tests: whether the solver tests the net.
    """
    target = net.with_name(f"{net.name.removesuffix(SUFFIX)}_solver{SUFFIX}")
    refuse_taken([target])
    text = (folder() / "new" / f"solver{SUFFIX}").read_text(encoding="utf-8").replace("NET", net.name)
    lines = [line for line in text.splitlines() if tests or not line.startswith("test_")]
    target.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return target


def refuse_taken(paths: list[Path]) -> None:
    """NetspecError where one of the files already exists."""
    for path in paths:
        if path.exists():
            raise NetspecError(f"{path} is there already; give another name, or move it away")
