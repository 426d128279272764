"""Sharding: learned weights, their gradients and history cut among the processes (FSDP2), for nets that do not fit one.

Each layer's weights are gathered for its forward and backward pass and let go again. The solver works on a process's
own part, as all its rules go value by value along the first axis; files hold whole weights, so a snapshot is one of any
run. The net is made whole once, in the memory of each process's host.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from netspec.errors import Position, SpecError
from netspec.layers import ranks
from netspec.layers.base import Layer
from netspec.net.net import Net
from netspec.net.params import numbered
from netspec.solver import Solver

ROWS = ("DirectionalAdam",)
"""Rules that go by whole rows, which must not be cut."""


def refuse(message: Any, net: Net, at: Any) -> None:
    """Raise SpecError where a net or its solver cannot be cut."""

    def fail(text: str, field: str) -> None:
        place: Position | None = at(field)
        raise SpecError(f"--shard: {text}", place)

    if message.type in ("EM", "HardEM"):
        fail(f"type {message.type!r} does not go along gradients of cut weights", "type")
    if message.keep_best:
        fail("keep_best needs whole weights at every test", "keep_best")
    if message.gradient_norms:
        fail("gradient_norms are of whole gradients", "gradient_norms")
    if message.larc:
        fail("larc goes by norms of whole blobs", "larc")
    smooth = "L2_Smoothing" in (
        message.regularization_type,
        *(t for p in net.params for t in p.regularization_types),
    )
    flat = [param.name for param in net.params if param.lr_mult and param.value.dim() < 2]
    if flat and (message.type in ROWS or smooth):
        fail(
            f"{message.type} with {message.regularization_type} goes along rows, which {flat[0]} is cut across",
            "type",
        )
    for param in net.params:
        if len({i for i, _ in param.users}) > 1 and param.value.requires_grad:
            raise SpecError(
                [net.made[param.users[0][0]].spec.problem("--shard: shares a blob with another layer")]
            )


class Sharded:
    """A training net whose learned blobs are cut among the processes, with a solver for this one's parts."""

    def __init__(self, net: Net, tests: Sequence[Net], solver: Solver, device: torch.device):
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        self.net, self.solver, self.device = net, solver, device
        self.mesh = init_device_mesh(device.type, (ranks.current().world,))
        for layer in net.made:
            layer.to(device)
            learned = [blob for blob in layer.blobs if blob.requires_grad]
            if learned:
                still = {blob for blob in layer.blobs if not blob.requires_grad}
                fully_shard(layer, mesh=self.mesh, ignored_params=still)
        fully_shard(net, mesh=self.mesh, ignored_params={p for p in net.parameters() if not p.requires_grad})
        self.blobs: dict[int, Any] = {}
        """By place in `net.params` the cut blob of a learned parameter."""
        for k, param in enumerate(net.params):
            i, j = param.users[0]
            blob = net.made[i].blobs[j]
            if blob.requires_grad:
                self.blobs[k] = blob
                param.value = nn.Parameter(blob.to_local().detach(), requires_grad=False)
            else:
                param.value = blob
        self.cut_solver()
        twins = dict(zip(numbered(net.graph), net.made, strict=True))
        for test in tests:
            for name, layer in zip(numbered(test.graph), test.made, strict=True):
                if len(layer.blobs) and name in twins:
                    layer.to(device)
                    self.lend(twins[name], layer)

    def lend(self, owner: Layer, layer: Layer) -> None:
        """Let a test net's layer have the owner's blobs while it runs."""
        if not any(blob is own for blob in owner.blobs for own in self.blobs.values()):
            layer.blobs = owner.blobs
            return
        layer.blobs = nn.ParameterList()

        def before(module: nn.Module, bottoms: Any) -> None:
            owner.unshard()  # type: ignore[operator]
            layer.blobs = owner.blobs

        def after(module: nn.Module, bottoms: Any, tops: Any) -> None:
            layer.blobs = nn.ParameterList()
            owner.reshard()  # type: ignore[operator]

        layer.register_forward_pre_hook(before)
        layer.register_forward_hook(after)

    # The solver

    def cut_solver(self) -> None:
        """Let the solver's parameters and history be this process's parts."""
        places = {param.name: k for k, param in enumerate(self.net.params)}
        self.solver.params = [replace(param) for param in self.net.params]
        self.solver.active = [param for param in self.solver.params if param.lr_mult != 0]
        self.solver._zeros.clear()
        self.solver.cut = True
        for slot in self.solver.history:
            for n, param in enumerate(self.solver.active):
                if places[param.name] in self.blobs:
                    slot[n] = self.part(slot[n])

    def part(self, value: Tensor) -> Tensor:
        """This process's part of a tensor that is cut along its first axis."""
        parts, now = value.chunk(ranks.current().world), ranks.current()
        mine = parts[now.rank] if now.rank < len(parts) else value[:0]
        return mine.to(self.device).clone()

    def gradients(self) -> list[Tensor | None]:
        """The gradients of this process's parts, which are let go."""
        parts: list[Tensor | None] = []
        for k, _ in enumerate(self.net.params):
            blob = self.blobs.get(k)
            parts.append(None if blob is None or blob.grad is None else blob.grad.to_local())
            if blob is not None:
                blob.grad = None
        return parts

    # Whole again

    def gathered(self, k: int, mine: Tensor) -> Tensor:
        """The whole of which this process has `mine`, cut as blob k is."""
        from torch.distributed.tensor import DTensor

        blob = self.blobs[k]
        cut = DTensor.from_local(mine, self.mesh, blob.placements, shape=blob.shape, stride=blob.stride())
        whole: Tensor = cut.full_tensor().cpu()
        return whole

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Whole weights and history in net and solver meanwhile, on the host; every process must come here."""
        places = {param.name: k for k, param in enumerate(self.net.params)}
        values = [param.value for param in self.net.params]
        slots = [list(slot) for slot in self.solver.history]
        for k in self.blobs:
            self.net.params[k].value = nn.Parameter(self.gathered(k, values[k].detach()), requires_grad=False)
        for slot in self.solver.history:
            for n, param in enumerate(self.solver.active):
                if places[param.name] in self.blobs:
                    slot[n] = self.gathered(places[param.name], slot[n])
        try:
            yield
        finally:
            for param, value in zip(self.net.params, values, strict=True):
                param.value = value
            for slot, cut in zip(self.solver.history, slots, strict=True):
                slot[:] = cut
