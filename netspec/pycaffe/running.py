"""A net as Caffe runs it: a list of steps over named blobs that keep their memory from pass to pass."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch

from netspec.layers import consent
from netspec.layers.basic.noise import DummyData
from netspec.layers.basic.shape import Split
from netspec.layers.data import HDF5Output
from netspec.layers.python_layer import Python, as_raised
from netspec.net import net as core
from netspec.net.graph import compile
from netspec.pycaffe import debug, feeds, mode
from netspec.pycaffe.memory import Memory, NetBlob, zeros
from netspec.pycaffe.need import needs
from netspec.pycaffe.splits import insert_splits
from netspec.pycaffe.step import Step, UserStep
from netspec.schema.spec import NetSpec, loss_weights


class Running:
    """The executor behind `Net`: steps, blobs, parameters.

    Unlike netspec's own Net, every blob has memory of its own that the program may read and write between
    any two layers, and backward runs layer by layer from the diffs as they stand.
    """

    def __init__(self, spec: NetSpec, share: Running | None = None):
        """share: a net whose parameters are used for layers of the same name."""
        with nullcontext() if consent.commanded() else as_raised():
            graph = compile(insert_splits(spec))
            self.core = core.build(graph, share=None if share is None else share.synced())
        self.device = torch.device("cpu")
        self.debug = False
        """Whether every pass is logged, see netspec.pycaffe.debug."""
        self.memories: dict[int, Memory] = {} if share is None else dict(share.memories)
        if share is not None:
            share.to(self.device)
        self.blobs: list[NetBlob] = []
        self.slots: list[NetBlob] = []
        self.diffs: dict[int, NetBlob] = {}
        """One blob for each parameter, by its id."""
        self.steps: list[Step] = []
        for i in range(len(graph.steps)):
            self.steps.append(self.step(i))
        self.plan()

    def step(self, i: int) -> Step:
        """Step i with its blobs: new ones for tops, but those of an in-place layer are its bottoms."""
        step, layer = self.core.graph.steps[i], self.core.made[i]
        bottoms = [self.slots[slot] for slot in step.reads]
        tops = []
        for j, slot in enumerate(step.writes):
            name = self.core.graph.name(slot)
            if step.layer.bottoms[j : j + 1] == (name,):
                blob = bottoms[j]
            else:
                blob = NetBlob(zeros(self.core.shapes[slot]), name)
                self.blobs.append(blob)
            tops.append(blob)
            self.slots.append(blob)
        rates = {id(param.value): param.lr_mult for param in self.core.params}
        return (UserStep if isinstance(layer, Python) else Step)(
            layer=layer,
            bottoms=bottoms,
            tops=tops,
            blobs=[self.parameter(value) for value in layer.blobs],
            weights=list(loss_weights(step.layer, step.kind.is_loss)),
            rates=[rates[id(value)] for value in layer.blobs],
            shapes=[self.core.shapes[slot] for slot in step.reads],
            feed=feeds.feed(layer),
            sink=feeds.Sink(layer) if isinstance(layer, HDF5Output) else None,
        )

    def parameter(self, value: torch.nn.Parameter) -> NetBlob:
        """The blob of a parameter; layers that share it share the blob."""
        memory = self.memories.setdefault(id(value), Memory(value))
        return self.diffs.setdefault(id(value), NetBlob(memory))

    def plan(self) -> None:
        """Determine which layers need a gradient and whose bottoms are overwritten; fill constants and loss diffs."""
        force = self.core.graph.spec.force_backward
        for i, (step, need) in enumerate(zip(self.steps, needs(self.steps, force), strict=True)):
            step.need, step.down = need.layer, need.bottoms
            step.learned = [j for j, rate in enumerate(step.rates) if force or rate != 0]
            for j in step.learned:
                step.layer.blobs[j].requires_grad_()
            later = {id(top) for other in self.steps[i:] for top in other.tops}
            step.overwritten = [id(blob) in later for blob in step.bottoms]
            after = {id(top) for other in self.steps[i + 1 :] for top in other.tops}
            step.copies = isinstance(step.layer, Split) and not after & {id(top) for top in step.tops}
            for blob, weight in zip(step.tops, step.weights, strict=True):
                if weight:
                    step.fill_loss_diff(blob, weight)
            if isinstance(step.layer, DummyData):
                self.fill_constants(step)

    @staticmethod
    def fill_constants(step: Step) -> None:
        layer: Any = step.layer
        for blob, draw in zip(step.tops, layer.draws, strict=True):
            if draw.filler.type == "constant":
                blob.data[...] = draw.filler.value
        step.filled = True

    # Running

    def forward(self, first: int, last: int, before: Any = (), after: Any = ()) -> float:
        """Run the layers from `first` to `last` inclusive; gives the loss they add up to."""
        self.to(mode.device())
        loss = 0.0
        for i in range(first, last + 1):
            for call in before:
                call(i)
            loss += self.steps[i].forward(self.device)
            if self.debug:
                debug.forward(self.steps[i], self.device)
            for call in after:
                call(i)
        return loss

    def backward(self, first: int, last: int, before: Any = (), after: Any = ()) -> None:
        """Run the layers backward from `first` down to `last` inclusive."""
        self.to(mode.device())
        for i in range(first, last - 1, -1):
            for call in before:
                call(i)
            self.steps[i].backward(self.device)
            if self.debug:
                debug.backward(self.steps[i], self.device)
            for call in after:
                call(i)

    def reshape(self) -> None:
        """Bring all shapes up to date with those of the inputs, without computing."""
        for step in self.steps:
            step.reshape()

    # Parameters

    def to(self, device: torch.device) -> None:
        """Move the parameters; blobs follow when they are used."""
        if device == self.device:
            return
        for step in self.steps:
            for value in step.layer.blobs:
                memory = self.memories[id(value)]
                value.data = memory.tensor(device)
                if device.type == "cpu":
                    memory.remote, memory.newer = None, "both"
            for buffer in step.layer.buffers():
                buffer.data = buffer.to(device)
            step.record = None
        self.device = device

    def synced(self) -> core.Net:
        """netspec's own Net over the same layers and parameters, with what the program wrote into them."""
        for i, step in enumerate(self.steps):
            step.parameters(self.device)
            self.core.made[i] = step.layer
            self.core.layers[i] = step.layer
        for param in self.core.params:
            layer, blob = param.users[0]
            param.value = self.core.made[layer].blobs[blob]
        return self.core

    def changed(self) -> None:
        """The parameters were changed through `synced()`."""
        for step in self.steps:
            for value in step.layer.blobs:
                self.memories[id(value)].changed(self.device)

    def share_with(self, other: Running) -> None:
        """Use the parameters of the other net's layers of the same name."""
        theirs = {step.name: step for step in reversed(other.steps)}
        other.to(self.device)
        for step in self.steps:
            twin = theirs.get(step.name)
            if twin is None:
                continue
            if len(twin.blobs) != len(step.blobs):
                step.layer.fail(f"has {len(step.blobs)} blobs, the net it shares with has {len(twin.blobs)}")
            for j, value in enumerate(twin.layer.blobs):
                if value.shape != step.layer.blobs[j].shape:
                    step.layer.fail(
                        f"blob {j} has shape {tuple(step.layer.blobs[j].shape)}, "
                        f"the net it shares with has {tuple(value.shape)}"
                    )
                step.layer.blobs[j] = value
                self.memories[id(value)] = other.memories[id(value)]
                step.blobs[j].values = other.memories[id(value)]
                self.diffs[id(value)] = step.blobs[j]
