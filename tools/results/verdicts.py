"""The verdict of `netspec check` on every file of tests/corpus and nets/, into tests/corpus/verdicts.json.

    python -m tools.results.verdicts

A verdict is "ok" or "not ok" and the first problem without its place; whether data is here does not matter. Files of
nets/new are left out: they are templates of `netspec new`, whose names are places to fill in.
"""

from __future__ import annotations

import json
from pathlib import Path

from netspec.check import check

ROOT = Path(__file__).resolve().parent.parent.parent
LISTED = ROOT / "tests" / "corpus" / "verdicts.json"
TEMPLATES = ROOT / "nets" / "new"


def files() -> list[Path]:
    """The prototxt files of tests/corpus and nets/."""
    every = [path for name in ("tests/corpus", "nets") for path in (ROOT / name).rglob("*.prototxt")]
    return sorted(path for path in every if TEMPLATES not in path.parents)


def name(path: Path) -> str:
    """The path of a file from the root, as the list writes it."""
    return path.relative_to(ROOT).as_posix()


def verdict(path: Path) -> list[str]:
    """What the list holds of a file."""
    report = check(path)
    return ["ok"] if report.ok else ["not ok", report.problems[0].message]


def main() -> None:
    verdicts = {name(path): verdict(path) for path in files()}
    LISTED.write_text(json.dumps(verdicts, indent=1, ensure_ascii=False) + "\n")
    print(f"{LISTED}: {sum(one == ['ok'] for one in verdicts.values())} of {len(verdicts)} ok")


if __name__ == "__main__":
    main()
