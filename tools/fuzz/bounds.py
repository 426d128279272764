"""Memory that `netspec check` takes for long texts, above what the process held before.

    python -m tools.fuzz.bounds [--record docs/results/bounds.json]

tests/attacks/test_files.py holds each to a gigabyte.
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

ROOT = Path(__file__).parent.parent.parent
MILLION = 1_000_000
LONG_TEXTS = {
    "numbers for names": 'layer {\n name: "a"\n' + "bottom: 1\n" * MILLION + "}\n",
    "wrong names": 'layer {\n type: "Concat"\n' + 'bottom: "x"\n' * MILLION + "}\n",
    "axes": 'layer { type: "Input" top: "a" input_param { shape {\n' + "dim: 1\n" * MILLION + "} } }\n",
    "braces": "layer {\n" * MILLION,
    "unknown fields": "foo: 1\n" * MILLION,
    "signs": "$ % ^\n" * MILLION,
    "empty layers in 1 MB": "layer{}" * (MILLION // 7),
}

CHILD = """
import re, sys, time
import netspec.check

def peak():  # of this program alone: what getrusage says is never below the peak of the program that started it
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])

before = peak()
ok = netspec.check.check(sys.argv[1]).ok
print((peak() - before) // 1024, round(time.process_time(), 1), ok)
"""


def measured(text: str, path: Path) -> dict[str, float]:
    """Megabytes of the file, megabytes that the process grew by, and seconds of its processor time."""
    path.write_text(text)
    own = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", CHILD, str(path)]
    done = subprocess.run(command, env=own, check=True, capture_output=True, text=True)
    grown, seconds, ok = done.stdout.split()
    if ok != "False":
        raise SystemExit("such a text is no net")
    return {"file_megabytes": round(len(text) / 1e6, 1), "megabytes": int(grown), "seconds": float(seconds)}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--record", type=Path, help="write the figures to this JSON file")
    options = parser.parse_args(arguments)
    sizes = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, text in LONG_TEXTS.items():
            sizes[name] = measured(text, Path(folder) / "net.prototxt")
            print(name, sizes[name], flush=True)
    if options.record:
        options.record.write_text(json.dumps(sizes, indent=1) + "\n")


if __name__ == "__main__":
    main()
