"""Write tests/slow.txt: the tests that take long, which the default run leaves to `-m slow`.

    python -m pytest -m "slow or not slow" --durations=0 | tee LOG
    python -m tools.generate.slow_tests LOG [--seconds 1]

The list is a file rather than marks in the tests, since how long a test takes is measured and changes; a test that is
slow by its nature has the mark in its own file. A test that is listed and no longer exists does no harm.
"""

from __future__ import annotations

import argparse
import re
from collections import defaultdict
from pathlib import Path

TARGET = Path(__file__).resolve().parent.parent.parent / "tests" / "slow.txt"


def slow(log: str, seconds: float) -> list[str]:
    """Names of the tests whose call and fixtures took this long together."""
    taken: dict[str, float] = defaultdict(float)
    for duration, name in re.findall(r"^ *([\d.]+)s (?:call|setup|teardown) +(\S.*)$", log, re.M):
        taken[name] += float(duration)
    return sorted(name for name, total in taken.items() if total >= seconds)


def main() -> None:
    """Write the list."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("log", type=Path)
    parser.add_argument("--seconds", type=float, default=1.0)
    options = parser.parse_args()
    names = slow(options.log.read_text(), options.seconds)
    TARGET.write_text("\n".join(names) + "\n", encoding="utf-8")
    print(f"{TARGET}: {len(names)} tests")


if __name__ == "__main__":
    main()
