"""Give damaged LMDB files to LMDB's own library and to netspec's reader: how often each ends, and how.

    python -m tools.fuzz.lmdb [--count 3000] [--seed 0]

File i is a function of the seed and i alone (tools/fuzz/databases.py). The library runs in a child process, as it
follows the numbers of the file unchecked; what it is asked for is what netspec asked of it when it read with it.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from netspec.data.files.lmdb import Damage, Reader
from netspec.errors import DataError
from tests.mutations import mutated
from tools.fuzz.databases import PAGE_CHANGES, files

READ, REFUSED = range(2)
SECONDS, MOST = 5, 5000
"""Of the library: time, and records, of which a damaged tree can give any number."""


def library(folder: Path) -> int:
    """In the child: read a database to its end."""
    import lmdb

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.alarm(SECONDS)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    try:
        env = lmdb.open(str(folder), readonly=True, lock=False)
        end = (env.info()["last_pgno"] + 1) * env.stat()["psize"]
        if (folder / "data.mdb").stat().st_size < end:
            return REFUSED
        with env.begin() as transaction:
            for _ in zip(range(MOST), transaction.cursor(), strict=False):
                pass
        return READ
    except Exception:
        return REFUSED


def in_child(folder: Path) -> str:
    """How a process ends that the library reads the database in."""
    child = os.fork()
    if child == 0:
        os._exit(library(folder))
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    return ("read", "refused")[os.WEXITSTATUS(status)]


def ours(folder: Path) -> str:
    """What netspec's reader makes of it."""
    try:
        reader = Reader(folder / "data.mdb")
        for node in reader.nodes():
            reader.value(node)
    except (DataError, Damage):
        return "refused"
    return "read"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    ends: Counter[tuple[str, str]] = Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seeds = files(folder)
        for index in range(options.count):
            chance = random.Random(f"{options.seed}/{index}")
            data = mutated(chance.choice(seeds), chance, PAGE_CHANGES, seeds)
            (folder / "data.mdb").write_bytes(data)
            ends[in_child(folder), ours(folder)] += 1
    for (theirs, mine), count in sorted(ends.items()):
        print(f"the library {theirs}, netspec {mine}: {count}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
