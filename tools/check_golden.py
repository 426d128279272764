"""Run golden vectors of the original programs through netspec.

    python tools/check_golden.py DIR [--only TEXT] [--verbose]

prints, for every .npz of DIR, the largest error of outputs, gradients and parameter steps beside its tolerance, then
`N passed, N failed, N unsupported`. Exit status 1 when anything failed. Cases called `hazard_` record accidents of the
originals: they are listed apart and do not count. What is compared, and how: tests/golden_case.py.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))  # as a script, this file finds those beside it

from netspec import schema
from netspec.layers import registry
from tests.golden_case import Case, Check
from tests.golden_runs import (
    check_fillers,
    check_lr_policy,
    check_solver,
    check_solver_net,
    check_unsupervised,
)
from tests.golden_walks import check_layer, check_net_test

KINDS: dict[str, Callable[[Case, Check], None]] = {
    "layer": check_layer,
    "net": check_layer,
    "net_raw": check_layer,
    "net_test": check_net_test,
    "solver": check_solver,
    "solver_net": check_solver_net,
    "lr_policy": check_lr_policy,
    "fillers": check_fillers,
    "unsupervised_init": check_unsupervised,
}


def missing_types(case: Case) -> set[str]:
    """Layer types of the case that are not registered."""
    if "prototxt" not in case.arrays:
        return set()
    document = schema.parse_net(str(case.arrays["prototxt"]), f"{case.name}.prototxt")
    return {layer.type for layer in document.message.layer} - set(registry)


def run(path: Path) -> tuple[Case, Check | None]:
    """Check one file; None in place of a Check when it needs a layer type or a kind that is not there."""
    case = Case(path)
    if case.kind not in KINDS or missing_types(case):
        return case, None
    check = Check()
    torch.manual_seed(0)
    try:
        KINDS[case.kind](case, check)
    except Exception as error:  # any exception is this case's failure; the others still run
        check.failures.append(f"{type(error).__name__}: {error}")
    return case, check


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument(
        "folder", type=Path, metavar="DIR", help="folder of .npz files in the format of golden/README.md"
    )
    parser.add_argument("--only", default="", metavar="TEXT", help="run cases whose name contains TEXT")
    parser.add_argument("--verbose", action="store_true", help="list every failing array")
    options = parser.parse_args()
    counts = {"passed": 0, "failed": 0, "unsupported": 0}
    hazards = []
    paths = sorted(path for path in options.folder.glob("*.npz") if options.only in path.stem)
    if not paths:
        print(f"no .npz files in {options.folder}", file=sys.stderr)
        return 2
    for path in paths:
        case, check = run(path)
        status = "unsupported" if check is None else "failed" if check.failures else "passed"
        hazard = "hazard_" in case.name
        word = "differs" if hazard and status == "failed" else status
        line = f"{word:11} {case.name:48} {report(case, check, options.verbose)}"
        if hazard:
            hazards.append(line)
        else:
            counts[status] += 1
            print(line)
    if hazards:
        print("\nrecords of the originals' accidents, not counted:")
        print("\n".join(hazards))
    print()
    print(", ".join(f"{n} {status}" for status, n in counts.items()))
    return 1 if counts["failed"] else 0


def report(case: Case, check: Check | None, verbose: bool) -> str:
    if check is None:
        return "needs " + (", ".join(sorted(missing_types(case))) or f"kind {case.kind!r}")
    errors = "  ".join(f"{kind} {error:.1e} (<= {limit:g})" for kind, (error, limit) in check.worst.items())
    shown = check.failures if verbose else check.failures[:1]
    granted = "".join(f"\n{'':12}{name}: rounding grants {most:.2g}" for name, most in check.granted.items())
    return errors + "".join(f"\n{'':12}{failure}" for failure in shown) + granted


if __name__ == "__main__":
    sys.exit(main())
