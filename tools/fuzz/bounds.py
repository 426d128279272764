"""Memory that `netspec check` takes for long texts, above what the process held before.

    python -m tools.fuzz.bounds [--record docs/results/bounds.json]

The texts are those of tests/attacks/test_files.py, which holds each to a gigabyte.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from tests.attacks.test_files import LONG_TEXTS
from tests.places import ROOT

CHILD = """
import resource, sys
import netspec.check
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
netspec.check.check(sys.argv[1])
after = resource.getrusage(resource.RUSAGE_SELF)
print((after.ru_maxrss - before) // 1024, round(after.ru_utime, 1))
"""


def measured(text: str, path: Path) -> dict[str, float]:
    """Megabytes of the file, megabytes that the process grew by, and seconds of its processor time."""
    path.write_text(text)
    own = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", CHILD, str(path)]
    done = subprocess.run(command, env=own, check=True, capture_output=True, text=True)
    grown, seconds = done.stdout.split()
    return {"file_megabytes": round(len(text) / 1e6, 1), "megabytes": int(grown), "seconds": float(seconds)}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--record", type=Path, help="write the figures to this JSON file")
    options = parser.parse_args(arguments)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, text in LONG_TEXTS.items():
            found[name] = measured(text, Path(folder) / "net.prototxt")
            print(name, found[name], flush=True)
    if options.record:
        options.record.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
