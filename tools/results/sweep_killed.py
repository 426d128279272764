"""Make a sweep, kill it at random so many times, and see that nothing is lost and nothing is repeated.

Each kill comes at a random time after the runs at hand have got further than they were; it ends all processes, the
sweep's own (the others see that, and stop after a snapshot), or one of those that make the runs (the sweep goes on).
The record is written at each kill: begun again with the same FOLDER and FILE, this program goes on counting.

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
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from netspec.data.files.whole import write_whole
from netspec.experiments.ledger import attempts, read_result
from netspec.experiments.plan_reading import read_plan
from netspec.run.folder import Metrics


def over(folder: Path) -> dict[str, float]:
    """The runs that are over, with the time at which each was."""
    return {path.parent.name: path.stat().st_mtime for path in folder.glob("*/result.json")}


HOW = ("all processes", "the sweep alone", "a process that makes a run")


def got(folder: Path) -> int:
    """Bytes of metrics so far: what grows where a run gets further."""
    return sum(path.stat().st_size for path in folder.glob("*/metrics.jsonl"))


def under_way(folder: Path) -> dict[str, int]:
    """The runs that have begun and are not over, with the last iteration that each has written down."""
    runs = {}
    for path in sorted(folder.glob("*/attempts")):
        if not (path.parent / "result.json").is_file():
            lines = Metrics(path.parent / "metrics.jsonl").read()
            runs[path.parent.name] = max((line["iteration"] for line in lines), default=0)
    return runs


def children(parent: int) -> list[int]:
    """Processes that a process has started."""
    listed = Path(f"/proc/{parent}/task/{parent}/children")
    return [int(number) for number in listed.read_text().split()] if listed.is_file() else []


def strike(process: subprocess.Popen[bytes], how: str, chance: random.Random) -> bool:
    """Kill; whether there was something to kill."""
    if how == HOW[0]:
        os.killpg(process.pid, signal.SIGKILL)
    elif how == HOW[1]:
        process.kill()
    else:
        made = children(process.pid)
        if not made:
            return False
        os.kill(chance.choice(made), signal.SIGKILL)
    return True


def killed(
    plan: str, out: Path, kills: int, wait: tuple[float, float], seed: int, jobs: int, record: Path
) -> dict[str, Any]:
    """Make the sweep; what was seen in each of its sessions, and in those that `record` tells of."""
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
    seen = json.loads(record.read_text()) if record.is_file() else {}
    strikes: list[dict[str, Any]] = seen.get("strikes", [])
    repeated: list[str] = seen.get("repeated", [])
    chance = random.Random(seed + len(strikes))
    before_this: float = seen.get("seconds", 0.0)
    started = time.monotonic()

    def passed() -> float:
        return round(before_this + time.monotonic() - started, 1)

    while True:
        process = subprocess.Popen(command, start_new_session=True)
        while process.poll() is None:
            before, known = got(out), over(out)
            while process.poll() is None and got(out) <= before:
                time.sleep(0.1)
            due = time.monotonic() + chance.uniform(*wait) if len(strikes) < kills else float("inf")
            while process.poll() is None and time.monotonic() < due:
                time.sleep(0.1)
            now, begun = over(out), under_way(out)
            repeated += [run for run, when in known.items() if now.get(run) != when]
            how = chance.choice(HOW)
            if process.poll() is not None or not strike(process, how, chance):
                continue
            strikes.append(
                {"at": passed(), "clock": datetime.now(UTC).isoformat(timespec="seconds"), "killed": how,
                 "over": sorted(now), "under_way": begun}
            )  # fmt: skip
            so_far = {"strikes": strikes, "repeated": repeated, "seconds": passed()}
            write_whole(record, json.dumps(so_far).encode())
            print(f"{passed():.0f} s: {how}; {len(now)} over; under way: {begun}", flush=True)
            if how != HOW[2]:
                process.wait()
        if process.returncode >= 0:
            return {"command": " ".join(command[1:]), "strikes": strikes, "repeated": repeated,
                    "code": process.returncode, "seconds": passed()}  # fmt: skip


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
        "--wait", type=float, nargs=2, default=(0, 10), help="Seconds from progress to a kill."
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    seen = killed(given.plan, given.out, given.kills, tuple(given.wait), given.seed, given.jobs, given.record)
    record = {**described(given.plan, given.out), **seen}
    record["kills"] = len(record["strikes"])
    given.record.write_text(json.dumps(record, indent=1) + "\n")
    runs = record["runs"].values()
    print(
        f"{len(runs)} of {record['points']} runs over after {record['kills']} kills; repeated: {record['repeated']}; "
        f"lines of metrics twice: {sum(run['lines_twice'] for run in runs)}"
    )


if __name__ == "__main__":
    main()
