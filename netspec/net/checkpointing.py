"""Activation checkpointing: blobs inside a run of layers with `checkpoint: true` are computed again, not kept.

A block is a longest run of such layers, in the order of execution. Forward keeps what enters it; backward walks it once
more, from the same random state, so that losses and gradients are those without (Chen et al. 2016): to the bit, or to
rounding where two layers are otherwise computed in one piece of work (`Layer.with_reader`). A layer that writes its
learned blobs in forward (not `Layer.repeatable`) is never computed again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from math import isqrt, prod
from typing import Any

import torch
from torch import Tensor

from netspec.errors import NetspecError
from netspec.layers.base import Layer
from netspec.net.graph import Graph
from netspec.schema.spec import NetSpec

FLOAT = 4
"""Bytes of a blob's value."""


@dataclass(frozen=True)
class Block:
    """A run of steps with their layers, and the slots that enter and leave it."""

    steps: tuple[int, ...]
    """Numbers of the steps in the graph."""
    again: bool
    """Whether it is computed again in backward."""
    reads: tuple[int, ...]
    writes: tuple[int, ...]

    def inner(self, graph: Graph) -> set[int]:
        """Slots that live inside of it alone."""
        return {slot for i in self.steps for slot in graph.steps[i].writes} - set(self.writes)


def blocks(graph: Graph) -> list[Block]:
    """The steps that compute, in runs of those that are marked and those that are not; [] where none is marked."""
    runs: list[tuple[bool, list[int]]] = []
    for i, step in enumerate(graph.steps):
        if step.kind.is_source:
            continue
        again = bool(step.layer.message.checkpoint) and step.kind.repeatable(step.layer.message)
        if runs and runs[-1][0] == again:
            runs[-1][1].append(i)
        else:
            runs.append((again, [i]))
    if not any(again for again, _ in runs):
        return []
    ends = {*graph.outputs, *(slot for slot, _ in graph.losses)}
    last = {slot: i for i, step in enumerate(graph.steps) for slot in step.reads}
    return [block_of(graph, again, numbers, ends, last) for again, numbers in runs]


def block_of(
    graph: Graph, again: bool, numbers: Sequence[int], ends: set[int], last: Mapping[int, int]
) -> Block:
    """last: the last step that reads a slot."""
    mine = [graph.steps[i] for i in numbers]
    made = {slot for step in mine for slot in step.writes}
    reads = dict.fromkeys(slot for step in mine for slot in step.reads if slot not in made)
    leaves = {slot for slot in made if slot in ends or last.get(slot, -1) > numbers[-1]}
    return Block(tuple(numbers), again, tuple(reads), tuple(sorted(leaves)))


def kept_bytes(graph: Graph, shapes: Sequence[tuple[int, ...]]) -> int:
    """Bytes of blobs and their gradients alive at once in a training step: what is kept between the passes, and the
    block that is computed again with the most in it.
    """
    sizes = [FLOAT * prod(shape) for shape in shapes]
    inside = [sum(sizes[slot] for slot in one.inner(graph)) for one in blocks(graph) if one.again]
    return 2 * (sum(sizes) - sum(inside) + max(inside, default=0))


class Walker:
    """Walks a net's blocks. `walk(call, steps, slots)` walks some steps over a list of slots' values."""

    def __init__(self, graph: Graph, layers: Sequence[Layer]):
        self.graph, self.layers = graph, layers
        self.blocks = blocks(graph)

    def run(self, walk: Callable[..., None], slots: list[Any]) -> None:
        """All steps, over `slots`, which holds the inputs and gets what leaves the blocks."""
        from torch.utils.checkpoint import checkpoint

        for block in self.blocks:
            pairs = [(self.graph.steps[i], self.layers[i]) for i in block.steps]
            if not block.again:
                walk(pairs, slots)
                continue

            def inside(*values: Tensor, block: Block = block, pairs: Any = pairs) -> tuple[Tensor, ...]:
                own: list[Any] = [None] * len(self.graph.slots)
                for slot, value in zip(block.reads, values, strict=True):
                    own[slot] = value
                walk([(replace(step, drops=()), layer) for step, layer in pairs], own)
                return tuple(own[slot] for slot in block.writes)

            def contexts(
                pairs: Any = pairs,
            ) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
                return nullcontext(), unmoved([layer for _, layer in pairs])

            tops = checkpoint(
                inside, *(slots[slot] for slot in block.reads), use_reentrant=False, context_fn=contexts
            )
            for slot, value in zip(block.writes, tops, strict=True):
                slots[slot] = value
            for step, _ in pairs:
                for slot in step.drops:
                    slots[slot] = None


@contextmanager
def unmoved(layers: Sequence[Layer]) -> Iterator[None]:
    """Statistics that a forward moves are as before at the end: a second pass over a batch counts nothing."""
    moving = [value for layer in layers for value in layer.blobs if not value.requires_grad]
    moving += [buffer for layer in layers for buffer in layer.buffers()]
    before = [value.detach().clone() for value in moving]
    try:
        yield
    finally:
        with torch.no_grad():
            for value, copy in zip(moving, before, strict=True):
                value.copy_(copy)


# Choosing


def fitted(graph: Graph, shapes: Sequence[tuple[int, ...]], most: int) -> NetSpec | None:
    """The net with layers marked so that blobs and gradients need at most `most` bytes; None where they do unmarked.

    The steps are cut into groups of about equal bytes, and each group but its first step is computed again. Of all
    numbers of groups that are tried the one is taken that needs the least.
    Raises NetspecError, with that least, where it is too much.
    """
    if kept_bytes(graph, shapes) <= most:
        return None
    most_groups = min(len(graph.steps), 8 + 4 * isqrt(len(graph.steps)))
    best = min((marked(graph, shapes, n) for n in range(1, most_groups + 1)), key=lambda one: one[1])
    if best[1] > most:
        raise NetspecError(
            f"--memory: the blobs of a step need {best[1] / 2**20:.1f} MiB even when layers are computed again, "
            f"{most / 2**20:.1f} MiB are allowed; reduce the batch size"
        )
    return best[0]


def marked(graph: Graph, shapes: Sequence[tuple[int, ...]], groups: int) -> tuple[NetSpec, int]:
    """The net cut into so many groups, and the bytes that it needs."""
    total, seen, last = sum(prod(shape) for shape in shapes), 0, -1
    names: list[bool] = []
    for step in graph.steps:
        group = min(groups - 1, seen * groups // max(total, 1))
        names.append(group == last and not step.kind.is_source and step.kind.repeatable(step.layer.message))
        last = group
        seen += sum(prod(shapes[slot]) for slot in step.writes)
    layers, steps = [], []
    for written, step, again in zip(graph.spec.layers, graph.steps, names, strict=True):
        message = type(written.message)()
        message.CopyFrom(written.message)
        message.checkpoint = again or message.checkpoint
        layers.append(replace(written, message=message))
        steps.append(replace(step, layer=replace(step.layer, message=message)))
    spec = replace(graph.spec, layers=tuple(layers))
    return spec, kept_bytes(replace(graph, spec=spec, steps=tuple(steps)), shapes)


def bytes_of(text: str) -> int:
    """A size as `4G`, `500M` or a number of bytes; NetspecError for anything else."""
    units = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
    number, unit = (text[:-1], units[text[-1].upper()]) if text[-1:].upper() in units else (text, 1)
    try:
        size = float(number) * unit
    except ValueError:
        size = 0.0
    if not 0 < size < 2**60:
        raise NetspecError(f"--memory {text}: is no size; write 4G, 500M or a number of bytes")
    return int(size)
