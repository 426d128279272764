"""Refuse a net that would not fit, before anything is allocated."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from netspec.errors import Problem, SpecError
from netspec.net.checkpointing import FLOAT, kept_bytes
from netspec.schema.spec import TRAIN

if TYPE_CHECKING:
    from netspec.net.graph import Graph
    from netspec.net.params import Param


def activation_bytes(graph: Graph, shapes: Sequence[tuple[int, ...]]) -> int:
    """Bytes of the blobs alive at once: in TRAIN those kept, and their gradients; the largest live set in TEST."""
    sizes = [FLOAT * prod(shape) for shape in shapes]
    if graph.spec.phase == TRAIN:
        return kept_bytes(graph, shapes)
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
    return min(limits + cgroup_bytes())


def cgroup_bytes(mounted: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> list[int]:
    """Bytes left in each limited control group of this process, including the groups above its own.

    File pages that the kernel drops when memory is wanted count as free. Both versions of control groups are read;
    in a container the path in `own` may be the host's, so folders that do not exist are passed over.
    """
    free: list[int] = []
    for line in own.read_text().splitlines() if own.is_file() else ():
        number, controllers, path = line.split(":", 2)
        first = "memory" in controllers.split(",")
        if not first and number != "0":
            continue
        root = mounted / "memory" if first else mounted
        inner = root / path.lstrip("/")
        names = FIRST_VERSION if first else SECOND_VERSION
        for folder in (inner, *(above for above in inner.parents if above.is_relative_to(root))):
            (limit, used), pages = (
                (numbers_in(folder / n).get("") for n in names[:2]),
                numbers_in(folder / names[2]),
            )
            if limit is not None and used is not None:
                free.append(max(0, limit - used + sum(pages.get(name, 0) for name in names[3:])))
    return free


FIRST_VERSION = (
    "memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat", "total_inactive_file", "total_active_file",
)  # fmt: skip
SECOND_VERSION = ("memory.max", "memory.current", "memory.stat", "inactive_file", "active_file")
"""Files of a control group: its limit, its use, the kinds of its pages; and the kinds that are file pages."""


def numbers_in(path: Path) -> dict[str, int]:
    """The `name number` lines of a file, or its single number under ""; empty where the file does not exist or has no
    number.
    """
    try:
        lines = [line.rpartition(" ") for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {name: int(number) for name, _, number in lines if number.isdigit()}


def check_memory(
    graph: Graph,
    shapes: Sequence[tuple[int, ...]],
    new: Sequence[Param],
    device: torch.device,
    history: int = 0,
) -> None:
    """Raise SpecError with the figures, and what is largest, when blobs and new weights exceed what is free.

    history: tensors that the solver keeps beside each weight.
    """
    copies = 2 + history if graph.spec.phase == TRAIN else 1
    weights = copies * FLOAT * sum(param.value.numel() for param in new)
    blobs, free = activation_bytes(graph, shapes), available_bytes(device)
    if weights + blobs <= free:
        return
    beside = " with their gradients and the solver's history" if history else ""
    needs = (
        f"the {graph.spec.phase} net needs {gib(weights + blobs)} ({gib(blobs)} for blobs, {gib(weights)} for "
        f"weights{beside}), {gib(free)} is free on {device}; "
    )
    if weights > blobs:
        raise SpecError([needs_less(graph, new, needs)])
    largest = max(range(len(shapes)), key=lambda slot: prod(shapes[slot]))
    maker = graph.spec.layers[graph.slots[largest].maker]
    shape = tuple(shapes[largest])
    what = (
        f"its largest blob is {graph.name(largest)!r} of shape {shape}; reduce the batch size, or that blob"
    )
    raise SpecError([maker.problem(needs + what)])


def needs_less(graph: Graph, new: Sequence[Param], needs: str) -> Problem:
    """That the weights are too many, at the layer that has most of them."""
    sizes = Counter[str]()
    for param in new:
        sizes[param.name.rpartition("/")[0]] += param.value.numel()
    name, count = sizes.most_common(1)[0]
    what = f"{needs}most weights are in this layer: {count:,}"
    layer = next((layer for layer in graph.spec.layers if layer.name == name), graph.spec.layers[0])
    return layer.problem(what)


def gib(n: int) -> str:
    return f"{n / 2**30:.2f} GiB"
