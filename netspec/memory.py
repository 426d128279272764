"""Refuse a net that would not fit, before anything is allocated."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from math import prod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from netspec.errors import SpecError
from netspec.spec import TRAIN

if TYPE_CHECKING:
    from netspec.graph import Graph

FLOAT = 4
"""Bytes of a blob's value."""


def activation_bytes(graph: Graph, shapes: Sequence[tuple[int, ...]]) -> int:
    """Bytes of the blobs alive at once: all of them and their gradients in TRAIN, the largest live set in TEST."""
    sizes = [FLOAT * prod(shape) for shape in shapes]
    if graph.spec.phase == TRAIN:
        return 2 * sum(sizes)
    live = most = sum(sizes[slot] for slot in graph.inputs)
    for step in graph.steps:
        if not step.kind.is_source:
            live += sum(sizes[slot] for slot in step.writes)
        most = max(most, live)
        live -= sum(sizes[slot] for slot in step.drops)
    return most


def available_bytes(device: torch.device) -> int:
    """Bytes that can still be allocated on `device`; on the CPU as the kernel and the process's cgroup see it."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    if os.path.exists("/proc/meminfo"):
        with open("/proc/meminfo") as lines:
            limits += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")]
    limit = "/sys/fs/cgroup/memory.max"
    if os.path.exists(limit):
        with open(limit) as lines:
            limits += [int(text) for text in lines.read().split() if text.isdigit()]
    return min(limits)


def check_memory(
    graph: Graph, shapes: Sequence[tuple[int, ...]], new: Iterable[Tensor], device: torch.device
) -> None:
    """Raise SpecError with the figures, and the largest blob, when blobs and new weights exceed what is free."""
    copies = 2 if graph.spec.phase == TRAIN else 1
    weights = copies * FLOAT * sum(value.numel() for value in new)
    blobs, free = activation_bytes(graph, shapes), available_bytes(device)
    if weights + blobs <= free:
        return
    largest = max(range(len(shapes)), key=lambda slot: prod(shapes[slot]))
    maker = graph.spec.layers[graph.slots[largest].maker]
    raise SpecError(
        [
            maker.problem(
                f"the {graph.spec.phase} net needs {gib(weights + blobs)} ({gib(blobs)} for blobs, {gib(weights)} for "
                f"weights), {gib(free)} is free on {device}; its largest blob is {graph.name(largest)!r} of shape "
                f"{tuple(shapes[largest])}; reduce the batch size"
            )
        ]
    )


def gib(n: int) -> str:
    return f"{n / 2**30:.2f} GiB"
