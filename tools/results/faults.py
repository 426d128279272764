"""Verdicts of `netspec check --run` on the files of tests/corpus/faults, as a table beside those of an earlier commit.

    python -m tools.results.faults [--before docs/results/faults_before.json] [--record docs/results/faults.json]

Run at the earlier commit with its own record as --record, then here with it as --before. Prints the table.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from netspec.check import check

FOLDER = Path(__file__).parent.parent.parent / "tests" / "corpus" / "faults"


def verdicts() -> dict[str, list[str]]:
    """Of each file: "ok" or "not ok", then its problems without their places."""
    by_name = {}
    for path in sorted(FOLDER.glob("*.prototxt")):
        report = check(path, run=True)
        by_name[path.stem] = [
            "ok" if report.ok else "not ok",
            *(problem.message for problem in report.problems),
        ]
    return by_name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--before", type=Path, help="record of an earlier commit")
    parser.add_argument("--record", type=Path, help="JSON file to write")
    options = parser.parse_args()
    now = verdicts()
    before = json.loads(options.before.read_text()) if options.before else {}
    print("| file | before | now |\n| --- | --- | --- |")
    for name, lines in now.items():
        print(f"| {name} | {'; '.join(before.get(name, ['']))} | {'; '.join(lines)} |")
    if options.record:
        options.record.write_text(json.dumps(now, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
