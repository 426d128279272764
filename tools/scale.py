"""What a net needs on many devices: memory, work and communication by layer and by way of sharing, from its file.

    python -m tools.scale [NET.prototxt] [--batch 256] [--devices 1 8 64] [--record docs/results/scale.json]

Without a file: HT-CAC on 224 x 224 pictures with a million mixture weights at each position of each level. Nothing is
allocated: shapes and operations come from the meta device. A device is described by its vendor's figures (DEVICE, not
measured here); seconds are a roofline: the longer of operations / rate and bytes / bandwidth, and communication beside
it where it can overlap (data, sharded) or behind it (positions). Ways of sharing:

  data       each device has all weights and a part of the batch; gradients are averaged (DistributedDataParallel)
  sharded    the same, weights and the solver's history cut into parts that are gathered layer by layer (FSDP2)
  positions  each device has the whole batch at a part of the positions: weights that belong to a position never move,
             and activations only where a window's children lie on several devices
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

from netspec import make_net
from netspec.layers.simnets.mex import MEX
from netspec.net.checkpointing import FLOAT
from netspec.net.net import Net
from netspec.schema.spec import TRAIN

HISTORY = 2
"""Tensors that Nadam keeps beside each weight."""
TOUCHED = 10
"""Times that a step moves a weight-sized tensor: read forward and backward, gradient written, and Nadam's seven."""
WAYS = ("data", "sharded", "positions")


@dataclass(frozen=True)
class Device:
    """One device and its links, by the vendor's data sheet."""

    name: str = "H100 SXM, data sheet: TF32 dense, HBM3, NVLink one way, 400 Gbit/s network"
    flops: float = 494e12
    bandwidth: float = 3.35e12
    memory: float = 80e9
    near: float = 450e9
    """Bytes a second to the devices of one machine."""
    far: float = 50e9
    """Bytes a second between machines."""
    together: int = 8
    """Devices of one machine."""

    def link(self, devices: int) -> float:
        return self.near if devices <= self.together else self.far


@dataclass(frozen=True)
class Part:
    """What one layer takes for a batch."""

    layer: str
    type: str
    parameters: int
    positions: int
    """Places with weights of their own; 1 where all places share theirs."""
    multiply_adds: int
    tops: int
    """Values of its tops."""


def text(side: int = 224, patch: int = 2, states: int = 1000, classes: int = 1000, batch: int = 256) -> str:
    """HT-CAC with `states` mixtures of `states` at each position of each level; a window is 2 x 2, or what is left."""
    grid, level, below = side // patch, 1, "leaf"
    parts = [
        f'name: "ht_cac_{side}" layer {{ name: "data" type: "Input" top: "data" top: "label" input_param {{ '
        f"shape {{ dim: {batch} dim: 3 dim: {side} dim: {side} }} shape {{ dim: {batch} }} }} }}",
        f'layer {{ name: "leaf" type: "Similarity" bottom: "data" top: "leaf" similarity_param {{ '
        f"num_instances: {states} block_param {{ block_size: {patch} stride: {patch} }} normalization_term: true "
        "ignore_nan_input: true } }",
    ]
    while True:
        window = 2 if grid % 2 == 0 else grid
        parts.append(mixture(f"mex{level}", below, states))
        parts.append(
            f'layer {{ name: "sum{level}" type: "Pooling" bottom: "mex{level}" top: "sum{level}" pooling_param {{ '
            f"pool: SUM kernel_size: {window} stride: {window} }} }}"
        )
        below, grid, level = f"sum{level}", grid // window, level + 1
        if grid == 1:
            break
    parts.append(mixture("classes", below, classes))
    parts.append(
        'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "classes" bottom: "label" top: "loss" }'
    )
    return "\n".join(parts)


def mixture(name: str, below: str, instances: int) -> str:
    return (
        f'layer {{ name: "{name}" type: "MEX" bottom: "{below}" top: "{name}" param {{ lr_mult: 0 }} '
        f"param {{ is_logspace: true }} mex_param {{ num_instances: {instances} block_param {{ block_size: 1 }} "
        "shared_offsets_region_size: 1 softmax_mode: true normalize_offsets: true "
        'epsilon_filler { type: "constant" value: 1 } } }'
    )


def parts_of(net: Net) -> list[Part]:
    """Each layer of a net on the meta device."""
    parts = []
    for step, layer in zip(net.graph.steps, net.made, strict=True):
        bottoms, tops = ([net.shapes[slot] for slot in slots] for slots in (step.reads, step.writes))
        parts.append(
            Part(
                layer.spec.name,
                layer.spec.type,
                sum(prod(shape) for shape in layer.blob_shapes),
                layer.regions.number if isinstance(layer, MEX) else 1,
                layer.multiply_adds(bottoms, tops) or 0,
                sum(prod(top) for top in tops),
            )
        )
    return parts


def shared(parts: Sequence[Part], way: str, devices: int, batch: int, device: Device) -> dict[str, Any]:
    """Bytes of memory, bytes sent and seconds of a step on each of so many devices."""
    weights = FLOAT * sum(part.parameters for part in parts)
    blobs = 2 * FLOAT * sum(part.tops for part in parts) / devices
    own = 1 / devices if way != "data" else 1.0
    held, sent = (2 + HISTORY) * weights * own, 0.0
    if way == "data":
        sent = 2 * (devices - 1) / devices * weights
    elif way == "sharded":
        sent = 3 * (devices - 1) / devices * weights
        held += 2 * FLOAT * max(part.parameters for part in parts)
    else:
        held, sent = 0.0, 0.0
        for part in parts:
            most = -(-part.positions // devices) / part.positions  # of the device with the most positions
            held += (2 + HISTORY) * FLOAT * part.parameters * most
            if part.positions == 1 and part.parameters:
                sent += 2 * (devices - 1) / devices * FLOAT * part.parameters
            if part.positions > 1 and part.positions < 4 * devices:  # children of a window lie apart
                sent += 2 * FLOAT * part.tops * (devices - 1) / devices / devices
    work = 3 * 2 * sum(part.multiply_adds for part in parts) / devices
    moved = TOUCHED * weights * own + 3 * blobs
    if way == "sharded":  # gathered weights are written and read whole, forward and backward
        moved += 4 * weights
    compute = max(work / device.flops, moved / device.bandwidth)
    talk = sent / device.link(devices)
    seconds = compute + talk if way == "positions" else max(compute, talk)
    return {
        "way": way,
        "devices": devices,
        "memory_gb": round((held + blobs) / 1e9, 2),
        "fits": held + blobs <= device.memory,
        "sent_gb": round(sent / 1e9, 3),
        "compute_s": float(f"{compute:.3g}"),
        "communicate_s": float(f"{talk:.3g}"),
        "images_per_s": round(batch / seconds, 1),
    }


def report(source: str, batch: int, devices: Sequence[int], device: Device) -> dict[str, Any]:
    """The record: the net's layers, and each way of sharing on each number of devices."""
    net = make_net(source, TRAIN, device="meta")
    parts = parts_of(net)
    total = sum(part.parameters for part in parts)
    return {
        "net": net.graph.spec.name,
        "batch": batch,
        "device": asdict(device),
        "parameters": total,
        "weights_gb": round(FLOAT * total / 1e9, 2),
        "with_gradients_and_history_gb": round((2 + HISTORY) * FLOAT * total / 1e9, 2),
        "multiply_adds_per_image": sum(part.multiply_adds for part in parts) // batch,
        "blobs_per_image_mb": round(FLOAT * sum(part.tops for part in parts) / batch / 1e6, 1),
        "layers": [asdict(part) for part in parts if part.parameters],
        "shared": [shared(parts, way, n, batch, device) for n in devices for way in WAYS],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("net", nargs="?")
    parser.add_argument("--batch", type=int, default=256, help="of the default net")
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 8, 64, 512])
    parser.add_argument("--record")
    asked = parser.parse_args()
    batch = asked.batch
    if asked.net:
        shaped = make_net(asked.net, TRAIN, device="meta")
        batch = shaped.shapes[shaped.graph.inputs[0]][0]
    record = report(asked.net or text(batch=batch), batch, asked.devices, Device())
    for one in record["shared"]:
        print("  ".join(f"{name} {value}" for name, value in one.items()))
    if asked.record:
        Path(asked.record).write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
