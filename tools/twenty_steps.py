"""The losses of the first 20 steps of five nets: a change of structure must not move a bit of them.

    python -m tools.twenty_steps --against f5ed140     both commits on this machine, one thread; they must be equal
    python -m tools.twenty_steps --record              write docs/results/twenty_steps.json
    python -m tools.twenty_steps --check               this machine's losses against the record

The record has each net's losses by several kernels: those that torch takes here, those of processors with AVX2 alone
and of processors with neither, and an earlier record of another make. They add in other orders, and training magnifies
the difference. A loss of another machine must lie within 1e-5 of theirs, or as far outside as they lie apart, which is
at most 1e-4: later steps are not compared.


The nets that need MNIST are left out where there is none.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from netspec.lab import circumstances

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / "docs" / "results" / "twenty_steps.json"
NETS = ("ht_cac_digits", "ht_cac_mnist", "lenet_mnist", "rfm_mnist", "drmm2_mnist")
TOLERANCE = 1e-5
"""Relative."""
APART = 1e-4
"""Relative; from the first step where the recorded kernels lie farther apart, a net's losses are not compared."""
KERNELS: dict[str, dict[str, str]] = {
    "this processor's": {},
    "AVX2": {"ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    "SSE": {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE", "ONEDNN_MAX_CPU_ISA": "SSE41"},
}
"""Environments that make torch and its libraries take the kernels of older processors."""
PROGRAM = """
import json, sys, torch
torch.set_num_threads(1)
import netspec
from pathlib import Path
net, out = sys.argv[1:]
fixed = ["display=1", "average_loss=1", "test_interval=1000", "test_initialization=false", "snapshot=0"]
fixed += ["snapshot_after_train=false", "compile=false"]
netspec.fit(net, seed=1, iterations=20, overrides=fixed, out=out, device="cpu", progress=False)
rows = [json.loads(line) for line in (Path(out) / "metrics.jsonl").read_text().splitlines()]
print(json.dumps([row["loss"] for row in rows if row["kind"] == "train"]))
"""


def losses(net: str, package: Path, kernels: dict[str, str] | None = None) -> list[float]:
    """The losses of a net of today's files, trained by the netspec in `package`; kernels: of KERNELS."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", PROGRAM, str(ROOT / "nets" / f"{net}.prototxt"), f"{folder}/run"]
        environment = {**os.environ, "PYTHONPATH": str(package), "OMP_NUM_THREADS": "1", **(kernels or {})}
        run = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, cwd=folder
        )
    if run.returncode:
        raise SystemExit(f"{net}: {run.stderr.strip().splitlines()[-1]}")
    values: list[float] = json.loads(run.stdout.splitlines()[-1])
    return values


def against(commit: str) -> int:
    """Compare with another commit, bit for bit; gives the number of nets that differ."""
    differ = 0
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["git", "worktree", "add", "-q", "--detach", folder, commit], cwd=ROOT, check=True)
        try:
            for net in NETS:
                equal = losses(net, Path(folder)) == losses(net, ROOT)
                differ += not equal
                print(f"{net}: {'equal to the bit' if equal else 'DIFFERS'}", flush=True)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", folder], cwd=ROOT, check=True)
    return differ


def check(names: tuple[str, ...] = NETS) -> list[str]:
    """What lies outside the record, in words."""
    record = json.loads(RECORD.read_text())["losses"]
    problems = []
    for net in names:
        for step, (ours, *theirs) in enumerate(zip(losses(net, ROOT), *record[net].values(), strict=True), 1):
            low, high = min(theirs), max(theirs)
            if high - low > APART * max(1.0, abs(low)):
                break
            room = high - low + TOLERANCE * max(1.0, abs(low))
            if not low - room <= ours <= high + room:
                problems.append(f"{net}: step {step} has loss {ours!r}, the record {low!r} to {high!r}")
                break
    return problems


def main() -> None:
    """Compare or record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--against")
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    if options.against:
        sys.exit(against(options.against) > 0)
    if options.record:
        kept = json.loads(RECORD.read_text())["losses"] if RECORD.exists() else {}
        content: dict[str, Any] = {
            "command": "python -m tools.twenty_steps --record",
            "machine": circumstances()["machine"],
            "seed": 1,
            "threads": 1,
            "losses": {
                net: {
                    **{name: row for name, row in kept.get(net, {}).items() if name not in KERNELS},
                    **{name: losses(net, ROOT, kernels) for name, kernels in KERNELS.items()},
                }
                for net in NETS
            },
        }
        RECORD.write_text(json.dumps(content, indent=1) + "\n")
        return
    problems = check()
    print("\n".join(problems) or f"{len(NETS)} nets: as recorded")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
