"""Make a sweep, kill it at random so many times, and see that nothing is lost and nothing is repeated.

python -m tools.results.sweep_killed PLAN --kills 20 --out FOLDER --record FILE.json
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from netspec.experiments.ledger import attempts, read_result
from netspec.experiments.plans import read_plan
from netspec.run.folder import Metrics


def over(folder: Path) -> dict[str, float]:
    """The runs that are over, with the time at which each was."""
    return {path.parent.name: path.stat().st_mtime for path in folder.glob("*/result.json")}


def killed(
    plan: str, out: Path, kills: int, wait: tuple[float, float], seed: int, jobs: int
) -> dict[str, Any]:
    """Make the sweep; what was seen in each of its sessions."""
    command = [
        sys.executable,
        "-m",
        "netspec",
        "sweep",
        plan,
        "--out",
        str(out),
        "-j",
        str(jobs),
        "--device",
        "cpu",
    ]
    chance, sessions, repeated = random.Random(seed), [], []
    while True:
        before = over(out)
        started = time.monotonic()
        process = subprocess.Popen(command, start_new_session=True)
        left = kills - sum(session["killed"] != "" for session in sessions)
        deadline = started + (chance.uniform(*wait) if left else float("inf"))
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        how = ""
        if process.poll() is None:
            how = chance.choice(("all processes", "the sweep alone"))
            if how == "all processes":
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
        process.wait()
        now = over(out)
        repeated += [run for run, when in before.items() if now.get(run) != when]
        sessions.append({"seconds": round(time.monotonic() - started, 1), "killed": how, "over": len(now)})
        print(sessions[-1], flush=True)
        if not how:
            return {"command": " ".join(command[1:]), "sessions": sessions, "repeated": repeated,
                    "code": process.returncode}  # fmt: skip


def described(plan: str, out: Path) -> dict[str, Any]:
    """Each run: its values, result and beginnings, and whether any line of its metrics is there twice."""
    wanted = read_plan(plan, out=out)
    runs = {}
    for path in sorted(out.glob("*/result.json")):
        result = read_result(path.parent)
        point = json.loads((path.parent / "point.json").read_text())
        lines = [(line["kind"], line["iteration"]) for line in Metrics(path.parent / "metrics.jsonl").read()]
        if result is not None:
            runs[path.parent.name] = {
                "values": point["values"], "status": result.status, "value": result.value, "best": result.best,
                "seconds": round(result.seconds, 2), "beginnings": attempts(path.parent),
                "lines": len(lines), "lines_twice": len(lines) - len(set(lines)),
            }  # fmt: skip
    return {"plan": plan, "points": wanted.points, "metric": wanted.metric.output, "runs": runs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("plan")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--record", type=Path, required=True)
    parser.add_argument(
        "--wait", type=float, nargs=2, default=(10, 40), help="Seconds until a kill, least and most."
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    seen = killed(given.plan, given.out, given.kills, tuple(given.wait), given.seed, given.jobs)
    record = {**described(given.plan, given.out), **seen}
    record["kills"] = sum(session["killed"] != "" for session in record["sessions"])
    given.record.write_text(json.dumps(record, indent=1) + "\n")
    runs = record["runs"].values()
    print(
        f"{len(runs)} of {record['points']} runs over after {record['kills']} kills; repeated: {record['repeated']}; "
        f"lines of metrics twice: {sum(run['lines_twice'] for run in runs)}"
    )


if __name__ == "__main__":
    main()
