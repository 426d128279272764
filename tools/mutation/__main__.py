"""`python -m tools.mutation record | judge | report`."""

from __future__ import annotations

import argparse


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tools.mutation", description="Judge the tests by mutants."
    )
    parser.add_argument("job", choices=["record", "judge", "report"])
    parser.add_argument("--minutes", type=float, default=20, help="stop after so many minutes; go on later")
    parser.add_argument("--mutants", type=int, default=400, help="how many are drawn")
    parser.add_argument("--seed", type=int, default=1, help="with which they are drawn")
    told = parser.parse_args()
    if told.job == "record":
        from tools.mutation.record import record

        record(told.minutes)
    elif told.job == "judge":
        from tools.mutation.judge import judge

        judge(told.mutants, told.seed, told.minutes)
    else:
        from tools.mutation.report import report

        report(told.mutants, told.seed)


if __name__ == "__main__":
    main()
