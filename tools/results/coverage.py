"""Coverage: of the nets of public repositories, the share whose layer types are all known.

    python -m tools.results.coverage NET_TYPES.csv [--record docs/results/coverage.json] [--missing 20]

NET_TYPES.csv has a row per net: repository, kind ("deploy" or "train"), types joined by ";". Repositories weigh
equally: each counts with the share of its nets whose types are all known. Types of the old syntaxes count as what
they are upgraded to. Also printed: the types whose absence costs most, each with the share that its nets make up,
and in which order they would raise the share: for each step the types that one more net needs, those that gain most
per type first.
A second figure leaves out the nets with a data layer that is only shaped, and not read.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

from netspec.layers import registry
from netspec.layers.data import ShapedData
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


def greedy(nets: Iterable[tuple[str, list[str]]], most: int) -> list[tuple[tuple[str, ...], float]]:
    """(types, points of the share that they gain together), the greatest gain per type first, at most `most`."""
    by_repository: dict[str, list[frozenset[str]]] = defaultdict(list)
    for repository, types in nets:
        by_repository[repository].append(frozenset(name for name in types if not is_known(name)))
    open_sets = Counter[frozenset[str]]()
    for missing in by_repository.values():
        for names in missing:
            open_sets[names] += 100 / len(missing) / len(by_repository)  # type: ignore[assignment]
    steps: list[tuple[tuple[str, ...], float]] = []
    done = frozenset[str]()
    del open_sets[frozenset()]
    while open_sets and len(steps) < most:
        gains = {
            names: float(sum(v for s, v in open_sets.items() if s <= names | done)) for names in open_sets
        }
        best = max(gains, key=lambda names: gains[names] / len(names - done))
        steps.append((tuple(sorted(best - done)), gains[best]))
        done |= best
        open_sets = Counter({names: v for names, v in open_sets.items() if not names <= done})
    return steps


def is_read(name: str) -> bool:
    """Whether a type is no data layer that is only shaped."""
    kind = registry.get(V1_TYPES.get(name.partition(":")[2] or name, name))
    return kind is None or not issubclass(kind, ShapedData)


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
    shares = {}
    for kind in ("deploy", "train"):
        nets = [(repository, types) for of, repository, types in rows if of == kind]
        percent, cost = share(nets)
        shares[kind] = round(percent, 2)
        print(f"{kind}: {percent:.1f} % of {len({name for name, _ in nets})} repositories' nets")
        for name, points in cost.most_common(options.missing):
            print(f"  {points:5.2f} {name}")
        print("  in this order they would gain:")
        for names, gain in greedy(nets, options.missing):
            print(f"  {gain:+5.2f} {', '.join(names)}")
        read, _ = share(
            (name, [t if is_read(t) else f"{t} (not read)" for t in types]) for name, types in nets
        )
        shares[f"{kind}_read"] = round(read, 2)
        print(f"  {read:.1f} % with data layers that are read")
    if options.record:
        options.record.write_text(
            json.dumps({"table": options.table.name, "known": len(registry), **shares}, indent=1)
        )


if __name__ == "__main__":
    main()
