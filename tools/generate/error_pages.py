"""Make docs/errors, a page per kind of error, from netspec/errors/kinds.toml: python -m tools.generate.error_pages

What an example prints is what the command printed. `--check` says whether the pages are current (it runs nothing:
tests/test_errors.py runs every example); codes as arguments make these pages alone and print what was printed.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from unittest.mock import patch

from netspec.errors.kinds import Example, Kind, kinds

ROOT = Path(__file__).resolve().parent.parent.parent

PAGES = Path(__file__).parents[2] / "docs" / "errors"
HEADINGS = {
    "0": "Of a class of errors",
    "1": "The text of a file",
    "2": "How layers are joined",
    "3": "Fields and shapes of a layer",
    "4": "Solvers and runs",
    "5": "Data",
    "6": "Weights and snapshots",
    "7": "Questions to a trained net",
    "8": "The command line",
    "9": "Templates, plans and sweeps",
}
"""By the first digit of a code."""


@contextlib.contextmanager
def folder_with(example: Example, files: dict[str, str]) -> Iterator[Path]:
    """A temporary working folder that holds the example's files."""
    before, path = Path.cwd(), list(sys.path)
    with tempfile.TemporaryDirectory(prefix="netspec-error-") as name:
        os.chdir(name)
        try:
            exec(example.before, {})
            for file, text in files.items():
                Path(file).write_text(text.lstrip("\n") + "\n", encoding="utf-8")
            yield Path(name)
        finally:
            os.chdir(before)
            sys.path[:] = path


def outcome(example: Example, right: bool = False) -> tuple[int, str]:
    """(exit status, what it printed) of the example's command, on the wrong files or on the right ones."""
    from netspec.cli import main

    command = example.command_right or example.command if right else example.command
    output = io.StringIO()
    with (
        folder_with(example, example.right if right else example.wrong) as folder,
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(output),
        patch.object(sys, "argv", ["netspec", *shlex.split(command)]),
    ):
        try:
            main()
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
    printed = output.getvalue().replace(str(folder), ".").replace(f"{ROOT}/", "")
    return status, printed


def line_of(kind: Kind, printed: str) -> str:
    """The line that ends with the kind's code."""
    marked = [line.strip() for line in printed.splitlines() if line.rstrip().endswith(f"[{kind.code}]")]
    return marked[0] if marked else ""


def digest(kind: Kind) -> str:
    """Of all that a page is made of, but what commands print."""
    parts = (kind.code, kind.name, kind.means, kind.instead, str(asdict(kind.example)))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def block(language: str, text: str) -> list[str]:
    """A fenced block."""
    return [f"```{language}", text.strip("\n"), "```", ""]


def shown(command: str, files: dict[str, str]) -> list[str]:
    """Files and the command on them, as blocks."""
    lines: list[str] = []
    for name, text in files.items():
        lines += [f"`{name}`:", "", *block("protobuf" if name.endswith("prototxt") else "text", text)]
    return lines + block("console", f"$ netspec {command}")


def page(kind: Kind) -> str:
    """The page of a kind, with its example run."""
    example = kind.example
    lines = [f"# {kind.code}: {kind.name}", "", f"<!-- made of {digest(kind)} -->", "", kind.means, ""]
    if example.command:
        same = {n: text for n, text in example.wrong.items() if example.right.get(n) == text}
        lines += ["## Example", ""]
        if example.before.strip():
            lines += ["With files made by", "", *block("python", example.before)]
        printed = line_of(kind, outcome(example)[1])
        if not printed:
            raise SystemExit(f"{kind.code}: the example does not end with this kind")
        wrong = shown(example.command, example.wrong)
        wrong[-2:-2] = [re.sub(r"(?<=.{400}).+(?= \[)", " ...", printed)]
        right = {n: text for n, text in example.right.items() if n not in same}
        lines += [
            *wrong,
            "## Instead",
            "",
            kind.instead,
            "",
            *shown(example.command_right or example.command, right),
        ]
    else:
        lines += ["## Instead", "", kind.instead, ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def index() -> str:
    """The list of all kinds."""
    lines = [
        "# Errors",
        "",
        "An error ends with the code of its kind, such as `[NS202]`; `--json` and Python have it as `code`. Each code",
        "has a page: what it means, an example, and what to write instead.",
        "",
    ]
    for digit, heading in HEADINGS.items():
        rows = [kind for code, kind in sorted(kinds().items()) if code[2] == digit]
        lines += [f"## {heading}", "", "| | |", "|---|---|"]
        lines += [f"| [{kind.code}]({kind.code}.md) | {kind.name} |" for kind in rows] + [""]
    return "\n".join(lines).rstrip("\n") + "\n"


def stale() -> list[str]:
    """What of docs/errors is not as the table says, a line each."""
    lines = []
    for code, kind in kinds().items():
        path = PAGES / f"{code}.md"
        if not path.exists() or f"<!-- made of {digest(kind)} -->" not in path.read_text(encoding="utf-8"):
            lines.append(
                f"{path.name}: is not as the table says; python -m tools.generate.error_pages {code}"
            )
    known = {"index", *kinds()}
    lines += [f"{path.name}: is of no kind" for path in PAGES.glob("*.md") if path.stem not in known]
    if not (PAGES / "index.md").exists() or (PAGES / "index.md").read_text(encoding="utf-8") != index():
        lines.append("index.md: is not as the table says; python -m tools.generate.error_pages")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("codes", nargs="*", help="only these")
    parser.add_argument("--check", action="store_true", help="say what is stale, run nothing")
    told = parser.parse_args()
    if told.check:
        lines = stale()
        print("\n".join(lines), file=sys.stderr)
        return int(bool(lines))
    PAGES.mkdir(exist_ok=True)
    for code in told.codes or kinds():
        (PAGES / f"{code}.md").write_text(page(kinds()[code]), encoding="utf-8")
    for path in PAGES.glob("*.md"):
        if path.stem not in kinds():
            path.unlink()
    (PAGES / "index.md").write_text(index(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
