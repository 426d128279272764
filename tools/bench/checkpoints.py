"""Peak memory and time of a training step with blobs kept and with blobs computed again, beside the estimate.

    python -m tools.bench.checkpoints [NET ...] [--batch 512] [--record docs/results/checkpoints.json]

Each measurement is a process of its own: the peak is that of its resident memory over a step, less what it had before
the net ran. `again` keeps what fits half of the estimate of all blobs, or the least that any choice of layers needs.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from netspec import make_net
from netspec.errors import NetspecError
from netspec.net.checkpointing import fitted, kept_bytes
from netspec.run import experiment
from netspec.schema.spec import TRAIN, NetSpec
from tools.bench.timing import machine

NETS = ("ht_cac_mnist", "lenet_mnist")


def with_batch(spec: NetSpec, batch: int) -> NetSpec:
    """The net with another batch in its data layers."""
    layers = []
    for layer in spec.layers:
        message = type(layer.message)()
        message.CopyFrom(layer.message)
        if message.HasField("dataset_param"):
            message.dataset_param.batch_size = batch
        layers.append(replace(layer, message=message))
    return replace(spec, layers=tuple(layers))


def chosen(net: str, batch: int, again: bool) -> tuple[NetSpec, int, int]:
    """(the net, bytes of its blobs by the estimate, layers that are computed again)"""
    spec = with_batch(experiment.load(f"nets/{net}_solver.prototxt").train, batch)
    shaped = make_net(spec, device="meta")
    whole = kept_bytes(shaped.graph, shaped.shapes)
    for share in (0.5, 0.6, 0.7, 0.8, 0.9) if again else ():
        try:
            spec = fitted(shaped.graph, shaped.shapes, int(share * whole)) or spec
            break
        except NetspecError:
            continue
    made = make_net(spec, device="meta")
    marked = sum(bool(layer.message.checkpoint) for layer in spec.layers)
    return spec, kept_bytes(made.graph, made.shapes), marked


def measure(name: str, batch: int, again: bool) -> dict[str, Any]:
    """One way, in this process."""
    torch.set_num_threads(1)
    spec, estimate, marked = chosen(name, batch, again)
    net = make_net(spec, TRAIN, seed=1)
    values = [torch.zeros(net.shapes[slot]) for slot in net.graph.inputs]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    net.objective(net(*values)).backward()
    return {
        "estimate_mb": round(estimate / 1e6, 1),
        "peak_mb": round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e3, 1),
        "cpu_s": round(time.process_time() - started, 3),
        "layers_again": marked,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("nets", nargs="*", default=NETS)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--record")
    parser.add_argument("--only", choices=("kept", "again"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.only:
        print(json.dumps(measure(asked.nets[0], asked.batch, asked.only == "again")))
        return
    record: dict[str, Any] = {"batch": asked.batch, **machine(), "nets": {}}
    for net in asked.nets:
        record["nets"][net] = {}
        for way in ("kept", "again"):
            words = [
                sys.executable,
                "-m",
                "tools.bench.checkpoints",
                net,
                "--batch",
                str(asked.batch),
                "--only",
                way,
            ]
            done = subprocess.run(words, capture_output=True, text=True, check=True)
            record["nets"][net][way] = json.loads(done.stdout)
            print(net, way, record["nets"][net][way], flush=True)
    if asked.record:
        Path(asked.record).write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
