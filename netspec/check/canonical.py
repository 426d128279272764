"""Files and folders in canonical form (`netspec fmt`)."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from netspec.data.files.whole import write_whole
from netspec.errors import SpecError
from netspec.schema.formatting import format_text
from netspec.schema.read import load_text

ENDINGS = (".prototxt", ".pbtxt")
"""Suffixes of the files that are sought in folders."""
TEMPLATE = ".prototmp"
INPUT = Path("-")
"""Stands for standard input."""


@dataclass(frozen=True)
class Formatted:
    """A file and its canonical form."""

    path: Path
    before: str
    after: str

    @property
    def differs(self) -> bool:
        return self.before != self.after

    def diff(self) -> str:
        """The changes, as `diff -u` shows them."""
        old, new = self.before.splitlines(keepends=True), self.after.splitlines(keepends=True)
        lines = difflib.unified_diff(old, new, str(self.path), f"{self.path} (canonical)")
        return "".join(
            line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines
        )

    def write(self) -> None:
        """Replace the file by its canonical form, whole or not at all; a link stays a link."""
        path = self.path.resolve()
        mode = path.stat().st_mode
        write_whole(path, self.after.encode())
        path.chmod(mode)


def formatted(path: Path) -> Formatted:
    """The canonical form of a file. Raises SpecError for a template, and for a text that is no spec."""
    if path.suffix == TEMPLATE:
        raise SpecError(f"{path}: is a template; fmt takes what `netspec render` makes of it")
    text = load_text(path)
    try:
        before = path.read_bytes().decode("utf-8")  # with the ends of its lines, and a mark at its beginning
    except UnicodeDecodeError:
        before = ""
    return Formatted(path, before, format_text(text, str(path)))


def from_input(text: str) -> Formatted:
    """The canonical form of what came through standard input."""
    return Formatted(Path("<standard input>"), text, format_text(text, "<standard input>"))


def files_of(paths: Iterable[Path]) -> Iterator[Path]:
    """The given files, and the specs in given folders in the order of their names."""
    for path in paths:
        if path.is_dir():
            inside = sorted(spec for spec in path.rglob("*") if spec.suffix in ENDINGS and spec.is_file())
            yield from (
                spec
                for spec in inside
                if not any(part.startswith(".") for part in spec.relative_to(path).parts)
            )
        else:
            yield path
