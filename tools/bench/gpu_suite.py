"""All that a GPU is asked when one is at hand: the gpu tests, accuracy by precision, speed, memory; one JSON.

    python -m tools.bench.gpu_suite [--out docs/results/gpu_suite.json]   under 9 minutes; a line where there is no GPU
    python -m tools.bench.gpu_suite --dry --out rehearsal.json            the same stages on a CPU, with tiny sizes

What is left when the time is over is named under "skipped". Times of a step are of whole training steps on random
numbers: the median of several, each awaited. `of_product_rate` is the share of the rate of the best float32 product of
this device (measured in the same run, in the same precision) that the net's products reach.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from netspec import make_net
from netspec.lab import circumstances
from netspec.net.checkpointing import fitted, kept_bytes
from netspec.net.compiling import compile_net
from netspec.net.net import Net
from netspec.net.precision import tf32
from netspec.run import experiment
from netspec.run.captured import Captured
from netspec.run.fit import fit
from netspec.solver import history_of, solver_of

LIMIT = 520.0
"""Seconds after which no stage begins; the last one has a limit of its own."""
PRECISIONS = ("FP32", "TF32", "BF16")
WAYS = (("eager", "FP32"), *(("compiled", one) for one in PRECISIONS), ("graph", "FP32"), ("graph", "BF16"))
"""Layer by layer; compiled; compiled and replayed as one CUDA graph."""
NETS = ("ht_cac_mnist", "lenet_mnist", "drmm2_mnist", "cp_cac_mnist")
SIDES = (8192, 4096)


class Suite:
    """The stages and what they gave."""

    def __init__(self, device: torch.device, dry: bool):
        self.device, self.dry = device, dry
        self.started = time.monotonic()
        self.record: dict[str, Any] = {"dry": dry, "device": str(device), **circumstances(device)}
        self.skipped: list[str] = []

    def left(self) -> float:
        return LIMIT - (time.monotonic() - self.started)

    def stage(self, name: str, run: Callable[[], Any]) -> None:
        """One stage; its error is its result, and the others go on."""
        if self.left() <= 0:
            self.skipped.append(name)
            return
        begun = time.monotonic()
        try:
            result = run()
        except Exception as error:  # a stage that fails is a finding
            result = {"error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}
        self.record[name] = result
        print(f"{name}: {time.monotonic() - begun:.1f} s", flush=True)

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def milliseconds(self, run: Callable[[], Any], count: int) -> float:
        """The median of `count` runs, each awaited, after three."""
        taken = []
        for _ in range(count + 3):
            self.wait()
            begun = time.perf_counter()
            run()
            self.wait()
            taken.append(1e3 * (time.perf_counter() - begun))
        return round(statistics.median(taken[3:]), 3)

    # Stages

    def tests(self) -> dict[str, Any]:
        """`pytest -m gpu`, at most three minutes."""
        words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "gpu", "tests"]
        if self.dry:
            words = [*words[:-1], "--collect-only", "tests/data/test_pinned.py"]
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=min(180.0, self.left()), check=False
        )
        lines = done.stdout.strip().splitlines()
        failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
        return {"status": done.returncode, "summary": lines[-1] if lines else "", "failed": failed}

    def accuracy(self) -> dict[str, Any]:
        """The digits net trained in each precision from one seed: test outputs and seconds."""
        results = {}
        for precision in PRECISIONS:
            with tempfile.TemporaryDirectory() as folder:
                run = fit(
                    "ht_cac_digits", out=Path(folder) / "run", device=str(self.device), seed=1, progress=False,
                    iterations=2 if self.dry else 1000, compiled=False if self.dry else None,
                    overrides=[f"precision={precision}", "test_interval=0", *(["test_iter=1"] if self.dry else [])],
                )  # fmt: skip
                results[precision] = {"seconds": round(run.seconds, 2), **run.results[0]}
        return results

    def rates(self) -> dict[str, float]:
        """Billions of operations a second of the best product, by precision."""
        best: dict[str, float] = {}
        for precision in PRECISIONS:
            for side in (64,) if self.dry else SIDES:
                kind = torch.bfloat16 if precision == "BF16" else torch.float32
                a, b = (torch.randn(side, side, device=self.device, dtype=kind) for _ in range(2))
                with tf32(self.device if precision == "TF32" else torch.device("cpu")):
                    taken = self.milliseconds(lambda a=a, b=b: a @ b, 3 if self.dry else 20)  # type: ignore[misc]
                best[precision] = max(best.get(precision, 0.0), round(2 * side**3 / taken / 1e6, 1))
        return best

    def speed(self) -> dict[str, Any]:
        """Milliseconds of a training step of each net, in WAYS."""
        results: dict[str, Any] = {}
        for name in ("ht_cac_digits",) if self.dry else NETS:
            results[name] = {}
            for way, precision in WAYS:
                if self.left() < 60 or (self.dry and way != "eager"):
                    self.skipped.append(f"speed of {name}, {way} in {precision}")
                    continue
                results[name][f"{way} {precision}"] = self.step(name, way, precision)
        return results

    def step(self, name: str, way: str, precision: str) -> dict[str, Any]:
        """One net's training step."""
        compiled = way != "eager"
        plan = experiment.load(f"nets/{name}_solver.prototxt")
        net = make_net(plan.train, seed=1, device=self.device, history=history_of(plan.solver.type))
        net.short_products = precision == "BF16"
        solver = solver_of(plan.solver.type)(net, plan.solver)
        shapes = [net.shapes[slot] for slot in net.graph.inputs]
        batch = [torch.rand(shape, device=self.device) for shape in shapes]
        for i, shape in enumerate(shapes):
            if len(shape) == 1:
                batch[i] = torch.zeros(shape, device=self.device)
        result: dict[str, Any] = {"batch": shapes[0][0]}
        with tf32(self.device if precision == "TF32" else torch.device("cpu")):
            if compiled:
                if reason := compile_net(net, batch):
                    return {"not compiled": reason}
                solver.compile()
            net.look()

            def once() -> None:
                net.objective(net(*batch)).backward()
                solver.step()

            run: Callable[[], Any] = once
            if way == "graph":
                run = partial(Captured(net, solver, batch, self.device), batch)
            result["ms"] = self.milliseconds(run, 3 if self.dry else 30)
        work = 6 * sum(part or 0 for part in products(net))
        rate = self.record.get("rates", {}).get(precision)
        if rate:
            result["of_product_rate"] = round(work / (result["ms"] * 1e6) / rate, 4)
        return result

    def memory(self) -> dict[str, Any]:
        """Peak bytes of a step beside the estimate, with all blobs kept and within half of that."""
        if self.device.type != "cuda":
            return {"peak": "a CPU's allocator counts none; see tools/bench/checkpoints.py"}
        plan = experiment.load("nets/lenet_mnist_solver.prototxt")
        results = {}
        for way in ("kept", "again"):
            shaped = make_net(plan.train, device="meta")
            estimate = kept_bytes(shaped.graph, shaped.shapes)
            spec = fitted(shaped.graph, shaped.shapes, int(0.6 * estimate)) if way == "again" else plan.train
            net = make_net(spec or plan.train, seed=1, device=self.device)
            batch = [torch.zeros(net.shapes[slot], device=self.device) for slot in net.graph.inputs]
            net.objective(net(*batch)).backward()
            torch.cuda.reset_peak_memory_stats(self.device)
            before = torch.cuda.memory_allocated(self.device)
            net.objective(net(*batch)).backward()
            peak = torch.cuda.max_memory_allocated(self.device) - before
            results[way] = {"peak": peak, "estimate": kept_bytes(net.graph, net.shapes)}
        return results


def products(net: Net) -> list[int | None]:
    """Multiply-adds of each layer's forward pass."""
    return [
        layer.multiply_adds([net.shapes[s] for s in step.reads], [net.shapes[s] for s in step.writes])
        for step, layer in zip(net.graph.steps, net.made, strict=True)
    ]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dry", action="store_true", help="on a CPU, with tiny sizes")
    parser.add_argument("--out", default="docs/results/gpu_suite.json")
    asked = parser.parse_args(argv)
    if not asked.dry and not torch.cuda.is_available():
        print("no CUDA device is here: nothing was measured; --dry rehearses the stages on a CPU")
        return 3
    suite = Suite(torch.device("cpu" if asked.dry else "cuda"), asked.dry)
    for name in ("tests", "rates", "accuracy", "memory", "speed"):
        suite.stage(name, getattr(suite, name))
    suite.record |= {"skipped": suite.skipped, "seconds": round(time.monotonic() - suite.started, 1)}
    Path(asked.out).write_text(json.dumps(suite.record, indent=2) + "\n")
    print(asked.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
