"""The score, as a record beside the pages of results."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from netspec.lab import circumstances
from tools.mutation.judge import drawn, judged
from tools.mutation.sites import ROOMS, ROOT

RECORD = ROOT / "docs" / "results" / "mutation.json"


def report(count: int, seed: int) -> None:
    """Write the record of what was judged so far and print the survivors.

    Of an earlier record the note, and `explained`, the reasons why a mutant changes nothing, are kept.
    """
    verdicts = judged()
    asked = drawn(count, seed)
    entries = [verdicts[site.name] for site in asked if site.name in verdicts]
    counts = Counter(entry["verdict"] for entry in entries)
    killed = counts["killed"] + counts["killed by time"]
    kept: dict[str, Any] = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    survivors = {e["name"]: e["change"] for e in entries if e["verdict"] in ("survived", "no test")}
    equivalent = [name for name in survivors if name in kept.get("explained", {})]
    record = {
        "command": f"python -m tools.mutation judge --mutants {count} --seed {seed}",
        "commit": circumstances()["commit"],
        "note": kept.get("note", ""),
        "rooms": list(ROOMS),
        "drawn": len(asked),
        "judged": len(entries),
        "killed": killed,
        "of these by time": counts["killed by time"],
        "survived": counts["survived"],
        "run by no test": counts["no test"],
        "equivalent": len(equivalent),
        "score": round(killed / (len(entries) - len(equivalent)), 4) if entries else None,
        "survivors": survivors,
        "explained": kept.get("explained", {}),
    }
    RECORD.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    for name, change in survivors.items():
        print(name, "  ", change)
    print(f"{killed} of {len(entries)} judged mutants killed, of {len(asked)} drawn")
