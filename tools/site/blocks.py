"""Run the command blocks of tutorials and how-tos, and the notebooks, in a short form; write the record.

    python -m tools.site.blocks [PAGE...] [--check]

A page's fenced blocks of `sh` and `python` are run in order, in an empty folder of the page's own. A comment before a
block says what stands in for it: `<!-- short: netspec train ht_cac_digits -n 50 -->` a command that does less,
`<!-- not run: it waits for a browser -->` nothing, with the reason. docs/blocks.json records what was run, by the
digest of each page: --check says whether the pages are still those that were run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
RECORD = DOCS / "blocks.json"
FENCE = re.compile(
    r"(?:<!-- (short|not run): (.*?) -->\n+)?^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL
)
SECONDS = 900


@dataclass(frozen=True)
class Block:
    """A block of a page, and what is run for it."""

    language: str
    text: str
    short: str | None = None
    """In place of `text`."""
    not_run: str | None = None
    """Why nothing is run."""

    @property
    def script(self) -> str:
        """What is run."""
        return self.text if self.short is None else self.short


def pages() -> list[Path]:
    """Tutorials, how-tos and notebooks."""
    return sorted([*DOCS.glob("tutorials/*.md"), *DOCS.glob("how-to/*.md"), *DOCS.glob("notebooks/*.ipynb")])


def blocks(text: str) -> list[Block]:
    """The blocks of a page, in order."""
    listed = []
    for kind, value, language, body in FENCE.findall(text):
        short = value if kind == "short" else None
        listed.append(Block(language, body, short, value if kind == "not run" else None))
    return listed


def name_of(page: Path) -> str:
    """A page's name in the record."""
    return page.relative_to(DOCS).as_posix()


def digest(page: Path) -> str:
    """Of what is run for a page: its blocks, or the code of a notebook."""
    if page.suffix == ".ipynb":
        cells = json.loads(page.read_text(encoding="utf-8"))["cells"]
        parts = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    else:
        parts = [
            f"{one.language} {one.not_run} {one.script}" for one in blocks(page.read_text(encoding="utf-8"))
        ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def environment(folder: Path) -> dict[str, str]:
    """That of a block: `netspec` is the command of this checkout, data sets and settings as they are here."""
    bin_ = folder / ".bin"
    bin_.mkdir(exist_ok=True)
    command = bin_ / "netspec"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m netspec "$@"\n')
    command.chmod(0o755)
    for name in ("python", "python3"):
        if not (bin_ / name).exists():
            (bin_ / name).symlink_to(sys.executable)
    path = f"{bin_}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"}


def run_block(one: Block, folder: Path) -> tuple[bool, str]:
    """(whether it ended well, what it printed)."""
    shell = one.language == "sh" or one.short is not None
    command = ["bash", "-euo", "pipefail", "-c", one.script] if shell else [sys.executable, "-c", one.script]
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment(folder),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    return done.returncode == 0, done.stdout


def run_notebook(page: Path) -> None:
    """Run a notebook and keep what its cells give; raises what a cell raises."""
    import nbformat
    from nbclient import NotebookClient

    notebook: Any = nbformat.read(page, as_version=4)
    with tempfile.TemporaryDirectory(prefix="netspec-notebook-") as folder:
        os.environ.update(environment(Path(folder)))
        NotebookClient(notebook, timeout=SECONDS, resources={"metadata": {"path": folder}}).execute()
    for cell in notebook.cells:
        cell.metadata.clear()
    notebook.metadata.clear()
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, page)


def run_page(page: Path, first_only: bool = False) -> dict[str, Any]:
    """Run a page's blocks in order; gives its entry of the record. Stops at a block that fails."""
    begin = time.monotonic()
    entry: dict[str, Any] = {"digest": digest(page), "blocks": 0, "ok": True}
    if page.suffix == ".ipynb":
        run_notebook(page)
        return entry | {"digest": digest(page), "seconds": round(time.monotonic() - begin, 1)}
    with tempfile.TemporaryDirectory(prefix="netspec-page-") as folder:
        for one in blocks(page.read_text(encoding="utf-8")):
            if one.not_run is not None:
                continue
            ok, printed = run_block(one, Path(folder))
            entry["blocks"] += 1
            if not ok:
                print(f"{name_of(page)}:\n{one.script}\n{printed}", file=sys.stderr)
                entry["ok"] = False
                break
            if first_only:
                break
    return entry | {"seconds": round(time.monotonic() - begin, 1)}


def stale() -> list[str]:
    """What the record does not hold, or holds of another text, or as failed; one line each."""
    record = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
    names = {name_of(page): page for page in pages()}
    lines = [f"{name}: the record has a page that is gone" for name in sorted(set(record) - set(names))]
    for name, page in names.items():
        entry = record.get(name)
        if entry is None:
            lines.append(f"{name}: was never run; python -m tools.site.blocks docs/{name}")
        elif entry["digest"] != digest(page):
            lines.append(f"{name}: was changed since it was run; python -m tools.site.blocks docs/{name}")
        elif not entry["ok"]:
            lines.append(f"{name}: failed when it was run")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("pages", nargs="*", type=Path)
    parser.add_argument("--check", action="store_true", help="say what is stale, run nothing")
    options = parser.parse_args()
    if options.check:
        lines = stale()
        print("\n".join(lines), file=sys.stderr)
        return int(bool(lines))
    record = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
    record = {name: entry for name, entry in record.items() if (DOCS / name).exists()}
    failed = False
    for page in [path.resolve() for path in options.pages] or pages():
        entry = record[name_of(page)] = run_page(page)
        print(
            f"{name_of(page)}: {'ok' if entry['ok'] else 'FAILED'}, {entry['blocks']} blocks, {entry['seconds']} s"
        )
        failed |= not entry["ok"]
        RECORD.write_text(json.dumps(dict(sorted(record.items())), indent=1) + "\n", encoding="utf-8")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
