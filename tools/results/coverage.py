"""Coverage: of the nets of public repositories, the share whose layer types are all known.

    python -m tools.results.coverage NET_TYPES.csv [--record docs/results/coverage.json] [--missing 20]

NET_TYPES.csv has a row a net: repository, kind ("deploy" or "train"), types joined by ";". Repositories weigh equally:
each counts with the share of its nets whose types are all known. Types of the old syntaxes count as what they are
upgraded to. Also printed: the types whose absence costs most, each with the share that its nets make up.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

from netspec.layers import registry
from netspec.schema.upgrade import V1_TYPES
from netspec.schema.upgrade_v0 import V0_TYPES

FOLDED = ("padding",)
"""Types of the oldest syntax that upgrading folds into other layers."""


def is_known(name: str) -> bool:
    """Whether a layer type, as the table writes it, is one that netspec runs."""
    syntax, colon, inner = name.partition(":")
    if colon and syntax == "V0":
        return inner in FOLDED or V0_TYPES.get(inner, inner) in registry
    if colon:
        return V1_TYPES.get(inner, inner) in registry
    return name in registry or V1_TYPES.get(name, name) in registry


def share(nets: Iterable[tuple[str, list[str]]]) -> tuple[float, Counter[str]]:
    """(share of nets without a missing type, what each missing type costs) in percent, repositories weighing alike."""
    by_repository: dict[str, list[list[str]]] = defaultdict(list)
    for repository, types in nets:
        by_repository[repository].append([name for name in types if not is_known(name)])
    count = len(by_repository)
    whole, cost = 0.0, Counter[str]()
    for missing in by_repository.values():
        whole += sum(not names for names in missing) / len(missing)
        for names in missing:
            for name in names:
                cost[name] += 100 / len(missing) / count  # type: ignore[assignment]
    return 100 * whole / max(count, 1), cost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("table", type=Path, metavar="NET_TYPES.csv")
    parser.add_argument("--record", type=Path, help="JSON file to write the shares to")
    parser.add_argument(
        "--missing", type=int, default=20, metavar="N", help="how many missing types to print"
    )
    options = parser.parse_args()
    with options.table.open() as file:
        rows = [(row["kind"], row["repository"], row["types"].split(";")) for row in csv.DictReader(file)]
    found = {}
    for kind in ("deploy", "train"):
        nets = [(repository, types) for of, repository, types in rows if of == kind]
        percent, cost = share(nets)
        found[kind] = round(percent, 2)
        print(f"{kind}: {percent:.1f} % of {len({name for name, _ in nets})} repositories' nets")
        for name, points in cost.most_common(options.missing):
            print(f"  {points:5.2f} {name}")
    if options.record:
        options.record.write_text(
            json.dumps({"table": options.table.name, "known": len(registry), **found}, indent=1)
        )


if __name__ == "__main__":
    main()
