"""Other libraries of probabilistic circuits beside netspec: training step, marginal query, sample, in one run.

    python -m tools.bench.peers [--venvs DIR] [--rounds 7] [--variables 64] [--states 32] [--batch 64]
                                [--out docs/results/peers.json]

Each library runs in a child process of its own, which times itself and prints JSON:
- netspec, by this interpreter: a net of the kind of HT-CAC over a square of pixels, layer by layer and compiled;
- spflow and cirkit (libcirkit), which pin other versions of torch: by DIR/spflow/bin/python and DIR/cirkit/bin/python,
  virtual environments that the user made (`python -m venv DIR/cirkit && DIR/cirkit/bin/pip install libcirkit`).
What is absent is skipped with a line that says so. All have the same number of variables, states of a unit and images
of a batch, on Gaussians of one variable. Structures differ, so each reports its parameters. Times are processor time,
medians over rounds within each child; children run one after another, so a ratio of two is less sure than one of
tools.bench.nets.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from tools.bench.timing import machine

ROOT = Path(__file__).parent.parent.parent
GOAL = 10.0
"""Times that netspec is to be faster than the best peer, compiled against compiled."""
TASKS = ("step", "marginal", "sample")
LIMIT = 1200
"""Seconds for a child."""


@dataclass(frozen=True)
class Peer:
    """A library and the interpreter that runs its child."""

    name: str
    python: Path | None
    lacks: str = ""
    """Why it cannot be run, in words."""


def peers(options: argparse.Namespace) -> list[Peer]:
    """Every library, with what it lacks here."""
    known = [Peer("netspec", Path(sys.executable))]
    for name in ("spflow", "cirkit"):
        python = options.venvs / name / "bin" / "python" if options.venvs else None
        lacks = "" if python and python.exists() else f"no interpreter at {python or '--venvs DIR'}"
        known.append(Peer(name, python, lacks=lacks))
    return known


def run(peer: Peer, sizes: dict[str, int]) -> dict[str, Any]:
    """What a child printed, or {"skipped": why}."""
    if peer.lacks:
        return {"skipped": peer.lacks}
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [str(peer.python), "-m", f"tools.bench.peers_children.child_{peer.name}", json.dumps(sizes)]
    try:
        child = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=LIMIT, check=False, cwd=ROOT
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"skipped": str(error).splitlines()[0]}
    if child.returncode:
        return {"skipped": (child.stderr.strip().splitlines() or [f"ended with {child.returncode}"])[-1]}
    result: dict[str, Any] = json.loads(child.stdout.splitlines()[-1])
    return result


def table(results: dict[str, dict[str, Any]]) -> list[str]:
    """Milliseconds of every library, and times that netspec is faster, also for each parameter."""
    mine = results["netspec"]
    lines = ["| library | parameters | step, ms | marginal, ms | sample, ms | step: netspec is faster |"]
    lines += ["| --- | ---: | ---: | ---: | ---: | ---: |"]
    for name, entry in results.items():
        if "skipped" in entry:
            lines.append(f"| {name} | skipped: {entry['skipped']} | | | | |")
            continue
        for way, times in entry["ms"].items():
            base = mine.get("ms", {}).get(way) or mine.get("ms", {}).get("eager", {})
            faster = times["step"] / base["step"] if base.get("step") and times.get("step") else None
            cells = [f"{times[task]:.2f}" if task in times else "" for task in TASKS]
            more = f"{faster:.1f}" if faster is not None and name != "netspec" else ""
            lines.append(f"| {name}, {way} | {entry['parameters']} | {' | '.join(cells)} | {more} |")
    return lines


def verdict(results: dict[str, dict[str, Any]]) -> str:
    """Whether the best peer is GOAL times slower, in words; compiled against compiled where both compile."""
    mine = results["netspec"].get("ms", {})
    steps = {
        name: times["step"] / mine[way]["step"]
        for name, entry in results.items()
        if name != "netspec"
        for way, times in entry.get("ms", {}).items()
        if way in mine and "step" in times
    }
    if not steps:
        return "no peer was run"
    best = min(steps, key=lambda name: steps[name])
    word = "reached" if steps[best] >= GOAL else "MISSED"
    return f"{word}: {best} takes {steps[best]:.1f} times as long; goal {GOAL:g}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--venvs", type=Path, help="folder of the virtual environments spflow and cirkit")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--variables", type=int, default=64, help="a square of a power of two (default 64)")
    parser.add_argument("--states", type=int, default=32)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    sizes = {name: getattr(options, name) for name in ("variables", "states", "batch", "rounds")}
    results = {}
    for peer in peers(options):
        results[peer.name] = entry = run(peer, sizes)
        print(f"{peer.name}: {'skipped, ' + entry['skipped'] if 'skipped' in entry else entry}", flush=True)
    lines = [*table(results), "", verdict(results)]
    print("\n".join(lines))
    if options.out:
        record = {
            "machine": machine(),
            "sizes": sizes,
            "libraries": results,
            "goal": GOAL,
            "verdict": lines[-1],
        }
        options.out.write_text(json.dumps(record, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
