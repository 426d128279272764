"""Feed mutated files to every reader: weights, solver states, means, LMDB records, nets and solvers.

    python -m tools.fuzz.run [--count 100000] [--seed 0] [--only INDEX] [--out docs/results/fuzz.json]

Input number i is a function of the seed and i alone: its kind, the file that it starts from, and one to twelve
changes (tests/mutations.py). A reader must take it or refuse it with an error of the project's own, within
`--seconds` of processor time and `--megabytes` of memory, that of Python and torch included. The inputs run in a
child process, so that a crash of a library is seen, counted, and passed over; `--only` runs one again, with its
traceback. Exits with 1 where anything else happened.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from netspec.errors import NetspecError
from tests.mutations import mutated
from tools.fuzz.inputs import Kind, kinds

NONE, ACCEPTED, REFUSED, OTHER, SLOW, CRASHED = range(6)
WORDS = ("not run", "accepted", "refused", "other exception", "too slow", "crash")


class TooLong(BaseException):
    """An input took so long that it was stopped; no reader may catch this."""


def kind_of(choices: Sequence[Kind], seed: int, index: int) -> tuple[int, random.Random]:
    """Which kind input `index` is of, and the draws that make it."""
    chance = random.Random(f"{seed}/{index}")
    return chance.choices(range(len(choices)), [kind.share for kind in choices])[0], chance


def make(kind: Kind, chance: random.Random) -> bytes:
    """The input itself."""
    return mutated(chance.choice(kind.seeds), chance, kind.changes, kind.seeds)


def attempt(kind: Kind, data: bytes, seconds: float) -> tuple[int, str]:
    """What becomes of an input: how it ended, and the traceback of an end that must not be."""
    started = time.process_time()
    signal.setitimer(signal.ITIMER_PROF, 5 * seconds)
    try:
        kind.read(data)
        end, why = ACCEPTED, ""
    except NetspecError:
        end, why = REFUSED, ""
    except TooLong:
        end, why = SLOW, traceback.format_exc()
    except Exception:
        end, why = OTHER, traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    taken = time.process_time() - started
    return (SLOW, why or f"{taken:.1f} s of processor time") if taken > seconds else (end, why)


def work(choices: Sequence[Kind], ends: mmap.mmap, first: int, options: argparse.Namespace) -> None:
    """In the child: run the inputs from `first` on, each end noted where the parent sees it."""
    limit_memory(options.megabytes)
    signal.signal(signal.SIGPROF, stop)
    warnings.simplefilter("ignore")  # of decoders, about damaged pictures
    for index in range(first, options.count):
        ends[index] = CRASHED  # until it has come through
        number, chance = kind_of(choices, options.seed, index)
        end, why = attempt(choices[number], make(choices[number], chance), options.seconds)
        ends[index] = end
        if why:
            print(f"input {index} ({choices[number].name}): {WORDS[end]}\n{why}", flush=True)
        if options.progress and (index + 1) % options.progress == 0:
            print(f"{index + 1}: {peak():.0f} MB", flush=True)


def stop(number: int, frame: FrameType | None) -> None:
    raise TooLong


def limit_memory(megabytes: float) -> None:
    """Let the process grow by so much address space at most: what asks for more gets a MemoryError."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + int(megabytes * 2**20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))


def peak() -> float:
    """Most memory that this process has held so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def fuzz(options: argparse.Namespace, folder: Path) -> tuple[dict[str, Counter[str]], float]:
    """Run everything; gives the ends by kind, and the most memory that a process held, MB."""
    choices, ends, most, first = kinds(folder), mmap.mmap(-1, options.count), 0.0, 0
    while first < options.count:
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            try:
                work(choices, ends, first, options)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        _, status, usage = os.wait4(child, 0)
        most = max(most, usage.ru_maxrss / 1024)
        crashed = ends.find(bytes([CRASHED]), first)
        if status and crashed < 0:
            raise SystemExit("the fuzzer itself failed")
        if status:
            print(f"input {crashed}: crash, wait status {status}", flush=True)
        first = crashed + 1 if status else options.count
    counts: dict[str, Counter[str]] = {kind.name: Counter() for kind in choices}
    for index in range(options.count):
        counts[choices[kind_of(choices, options.seed, index)[0]].name][WORDS[ends[index]]] += 1
    return counts, most


def add_up(files: Sequence[Path], out: Path | None) -> int:
    """Print, and write, the sum of several runs; each with a seed of its own."""
    runs = [json.loads(path.read_text()) for path in files]
    if len({run["seed"] for run in runs}) < len(runs):
        raise SystemExit("two of the runs have one seed: their inputs are the same")
    counts: dict[str, Counter[str]] = {}
    for run in runs:
        for name, ends in run["kinds"].items():
            counts.setdefault(name, Counter()).update(ends)
    total = table(counts)
    if out:
        figures = {"count": sum(run["count"] for run in runs), "seeds": [run["seed"] for run in runs],
                   "counts": [run["count"] for run in runs], "seconds": sum(run["seconds"] for run in runs),
                   "peak_megabytes": max(run["peak_megabytes"] for run in runs), "kinds": counts}  # fmt: skip
        out.write_text(json.dumps(figures, indent=1) + "\n")
    return 0 if total["accepted"] + total["refused"] == total.total() else 1


def table(counts: dict[str, Counter[str]]) -> Counter[str]:
    """Print the ends of each kind and of all; gives those of all."""
    total: Counter[str] = sum(counts.values(), Counter())
    for name, ends in (*counts.items(), ("all", total)):
        print(f"{name:24}" + "".join(f"{word} {ends[word]:<7}" for word in WORDS[1:]))
    return total


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=2.0, help="processor time that an input may take")
    parser.add_argument("--megabytes", type=float, default=1024.0, help="memory that the process may hold")
    parser.add_argument("--only", type=int, metavar="INDEX", help="run one input, errors and all")
    parser.add_argument("--save", type=Path, help="with --only: write the input to this file")
    parser.add_argument(
        "--progress", type=int, default=0, metavar="N", help="say every N inputs how far it is"
    )
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    parser.add_argument(
        "--sum", type=Path, nargs="+", metavar="JSON", help="run nothing; add up the figures of earlier runs"
    )
    options = parser.parse_args(arguments)
    if options.sum:
        return add_up(options.sum, options.out)
    with tempfile.TemporaryDirectory() as folder:
        if options.only is not None:
            choices = kinds(Path(folder))
            number, chance = kind_of(choices, options.seed, options.only)
            data = make(choices[number], chance)
            if options.save:
                options.save.write_bytes(data)
            choices[number].read(data)
            return 0
        started = time.monotonic()
        counts, most = fuzz(options, Path(folder))
    seconds = time.monotonic() - started
    total = table(counts)
    print(f"peak memory {most:.0f} MB, {seconds:.0f} s")
    if options.out:
        figures = {"count": options.count, "seed": options.seed, "cores": os.cpu_count(), "peak_megabytes": round(most),
                   "seconds": round(seconds), "kinds": counts}  # fmt: skip
        options.out.write_text(json.dumps(figures, indent=1) + "\n")
    well = total["accepted"] + total["refused"] == options.count and most <= options.megabytes
    return 0 if well else 1


if __name__ == "__main__":
    raise SystemExit(main())
