"""Kill a training before, half-way through and after each of its file operations; flip single bits in its snapshots.

    python -m tools.fuzz.snapshots [--every 1] [--flips 10000] [--record docs/results/snapshots.json]

A small net is trained with snapshots, a best one, and files for Caffe. Its process is ended by SIGKILL at operation k
(a write, fsync, rename or removal of a file), before it, with half of a write done, or after it. Then the run is
resumed: it must end with the weights and the metrics of a run that nobody touched, to the bit, and with every file for
Caffe. A flip of any bit of a snapshot's two files must be named by the file, and in a tensor's values by the tensor.
"""

from __future__ import annotations

import argparse
import builtins
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

import torch

from netspec.errors import NetspecError, SnapshotError
from netspec.interchange import safetensors
from netspec.run.fit import fit
from netspec.run.folder import Metrics

NET = """layer { name: "data" type: "Dataset" top: "data" top: "label" transform_param { scale: 0.0625 }
  dataset_param { name: "digits" split: "train" batch_size: 7 shuffle: true } }
layer { name: "ip1" type: "InnerProduct" bottom: "data" top: "h" inner_product_param { num_output: 12
  weight_filler { type: "xavier" } } }
layer { name: "bn" type: "BatchNorm" bottom: "h" top: "b" }
layer { name: "ip2" type: "InnerProduct" bottom: "b" top: "y" inner_product_param { num_output: 10
  weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "y" bottom: "label" top: "loss" }
"""
SOLVER = """net: "net.prototxt" type: "Adam" momentum: 0.9 base_lr: 0.01 lr_policy: "fixed" max_iter: 6 display: 2
test_iter: 1 test_interval: 3 snapshot: 2 snapshot_format: BINARYPROTO random_seed: 3 solver_mode: CPU keep_best: "loss"
"""
WHEN = ("before", "half", "after")
IDENTICAL, NOTHING, REFUSED, DIFFERENT, FAILED = (
    "identical",
    "nothing to resume",
    "refused",
    "different",
    "failed",
)


# File operations, patched


class Operations:
    """Counts the file operations of this process below a folder, and kills it at one of them."""

    def __init__(self, folder: Path, at: int = 0, when: str = "before"):
        self.folder, self.at, self.when = str(folder), at, when
        self.names: list[str] = []

    def do(self, name: str, action: Callable[[], Any], half: Callable[[], Any] | None = None) -> Any:
        self.names.append(name)
        hit = len(self.names) == self.at
        if hit and self.when == "before":
            kill()
        if hit and self.when == "half" and half is not None:
            half()
            kill()
        result = action()
        if hit:
            kill()
        return result

    def install(self) -> None:
        """Put the operations in the place of Python's own, for the rest of this process."""
        plain_open, replace, rename, fsync, unlink = builtins.open, os.replace, os.rename, os.fsync, os.unlink

        def opened(file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
            handle = plain_open(file, mode, *args, **options)
            ours = not isinstance(file, int) and os.path.abspath(os.fspath(file)).startswith(self.folder)
            return Written(handle, self) if ours and set(mode) & set("wax+") else handle

        changed: Any = builtins
        changed.open = opened
        changed = os
        changed.replace = lambda *a, **k: self.do("rename", lambda: replace(*a, **k))
        changed.rename = lambda *a, **k: self.do("rename", lambda: rename(*a, **k))
        changed.fsync = lambda descriptor: self.do("fsync", lambda: fsync(descriptor))
        changed.unlink = lambda *a, **k: self.do("remove", lambda: unlink(*a, **k))


class Written:
    """An open file whose writes are counted."""

    def __init__(self, file: Any, operations: Operations):
        self.file, self.operations = file, operations

    def write(self, data: Any) -> Any:
        def half() -> None:
            self.file.write(data[: len(data) // 2])
            self.file.flush()

        def whole() -> Any:
            count = self.file.write(data)
            self.file.flush()
            return count

        return self.operations.do("write", whole, half)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> Written:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


# Runs, each in a process of its own


def forked(action: Callable[[], Any]) -> tuple[int, Any]:
    """(wait status, what the action gives, as JSON) of an action in a child process; quiet."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            answer = json.dumps(action()).encode()
            os.write(writing, answer)
            os._exit(0)
        except BaseException as error:
            os.write(writing, json.dumps(f"{type(error).__name__}: {error}"[:2000]).encode())
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    return status, json.loads(answer) if answer else None


def train(folder: Path, operations: Operations | None = None, **options: Any) -> list[str]:
    """Train in `folder`; gives the names of the operations that were counted."""
    os.chdir(folder)
    (folder / "net.prototxt").write_text(NET)
    (folder / "net_solver.prototxt").write_text(SOLVER)
    if operations is not None:
        operations.install()
    fit("net_solver.prototxt", progress=False, **options)
    return operations.names if operations is not None else []


def outcome(run: Path) -> dict[str, Any]:
    """What a finished run holds: checksums, metrics without times, names of files."""
    lines = Metrics(run / "metrics.jsonl").read()
    states = sorted((run / "snapshots").glob("*.safetensors"))
    sums = {path.name: {name: safetensors.tensor_sum(value) for name, value in safetensors.load(path)[0].items()}
            for path in states if "iter_6" in path.name}  # fmt: skip
    return {
        "lines": [{key: value for key, value in line.items() if key != "seconds"} for line in lines],
        "sums": sums,
        "files": sorted(path.name for path in (run / "snapshots").iterdir()),
        "best": safetensors.load(run / "best.safetensors")[1],
    }


def after_kill(place: Path, at: int, when: str) -> str:
    """Train and kill at operation `at`, resume, compare; gives how it ended."""
    folder = place / f"{at}_{when}"
    folder.mkdir()
    status, said = forked(lambda: train(folder, Operations(folder / "run", at, when), out="run"))
    if not os.WIFSIGNALED(status):
        return FAILED if status else IDENTICAL  # the half of what is no write: nothing to kill at
    states = list((folder / "run" / "snapshots").glob("*.state.safetensors"))
    status, said = forked(lambda: train(folder, resume="run"))
    if status:
        refused = isinstance(said, str) and said.startswith("SnapshotError: run: holds no good snapshot")
        return NOTHING if refused and not states else REFUSED
    same = json.loads(json.dumps(outcome(folder / "run"))) == json.loads((place / "whole.json").read_text())
    shutil.rmtree(folder)
    return IDENTICAL if same else DIFFERENT


def kills(place: Path, every: int) -> tuple[dict[str, Any], list[str]]:
    """All kills: how they ended by operation and moment, and the names of the operations."""
    torch.set_num_threads(1)
    warm, whole = place / "warm", place / "whole"
    warm.mkdir()
    whole.mkdir()
    train(warm, out="run")  # every module is imported now, and forks have them
    status, names = forked(lambda: train(whole, Operations(whole / "run"), out="run"))
    if status:
        raise SystemExit(f"the run that nobody touches failed: {names}")
    (place / "whole.json").write_text(json.dumps(outcome(whole / "run")))
    counts: dict[str, Counter[str]] = {}
    for at in range(1, len(names) + 1, every):
        for when in WHEN if names[at - 1] == "write" else ("before", "after"):
            end = after_kill(place, at, when)
            counts.setdefault(f"{when} a {names[at - 1]}", Counter())[end] += 1
            if end not in (IDENTICAL, NOTHING):
                print(f"operation {at} ({names[at - 1]}), {when}: {end}", flush=True)
    return counts, names


# Flips


def flips(run: Path, count: int, seed: int) -> Counter[str]:
    """Flip single bits of the newest snapshot's files; how each was named."""
    chance, counts = random.Random(seed), Counter[str]()
    files = [run / "snapshots" / f"net_iter_6{kind}.safetensors" for kind in ("", ".state")]
    files = [
        path if path.is_file() else next((run / "snapshots").glob(f"*iter_6{path.name[10:]}"))
        for path in files
    ]
    for path in files:
        good = path.read_bytes()
        start = 8 + int.from_bytes(good[:8], "little")
        spans = {name: entry["data_offsets"] for name, entry in json.loads(good[8:start]).items()
                 if name != "__metadata__"}  # fmt: skip
        for _ in range(count // len(files)):
            place = chance.randrange(len(good))
            data = bytearray(good)
            data[place] ^= 1 << chance.randrange(8)
            path.write_bytes(data)
            tensor = next((name for name, (a, b) in spans.items() if a <= place - start < b), None)
            counts[named(path, tensor)] += 1
        path.write_bytes(good)
    return counts


def named(path: Path, tensor: str | None) -> str:
    """What the reader says of a damaged file: whether it names the file, and the tensor where the flip is in one."""
    try:
        safetensors.load(path)
    except SnapshotError as error:
        text = str(error)
    except NetspecError:
        return "another error"
    else:
        return "not seen"
    if str(path) not in text:
        return "file not named"
    if tensor is None:
        return "header: named by file"
    return "values: named by file and tensor" if f"tensor {tensor!r}" in text else "tensor not named"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--every", type=int, default=1, metavar="N", help="kill at every Nth operation only")
    parser.add_argument("--flips", type=int, default=10_000, help="bits that are flipped, one at a time")
    parser.add_argument("--record", type=Path, help="write the figures to this JSON file")
    options = parser.parse_args(arguments)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        before = Path.cwd()
        counts, names = kills(Path(folder), options.every)
        os.chdir(before)
        flipped = flips(Path(folder) / "whole" / "run", options.flips, 1)
    total: Counter[str] = sum(counts.values(), Counter())
    for name, ends in (*sorted(counts.items()), ("all", total)):
        print(f"{name:18}" + ", ".join(f"{end} {number}" for end, number in ends.items()))
    print(f"{len(names)} operations: {dict(Counter(names))}; flips: {dict(flipped)}")
    if options.record:
        figures = {"operations": Counter(names), "every": options.every, "kills": counts, "flips": flipped,
                   "seconds": round(time.monotonic() - started)}  # fmt: skip
        options.record.write_text(json.dumps(figures, indent=1) + "\n")
    well = set(total) <= {IDENTICAL, NOTHING} and all(
        " named by " in word or "named by" in word for word in flipped
    )
    return 0 if well else 1


if __name__ == "__main__":
    raise SystemExit(main())
