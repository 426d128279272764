"""One layer of a running net: forward into its tops, backward from its tops' diffs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn

from netspec.layers import consent
from netspec.layers.base import Layer, Shape
from netspec.layers.basic.noise import DummyData
from netspec.layers.blob import BlobVec
from netspec.layers.python_layer import Python
from netspec.net.net import explained
from netspec.pycaffe.feeds import Feed, Sink
from netspec.pycaffe.memory import NetBlob


@dataclass
class Step:
    """A layer with the blobs it reads and writes, and what its last forward left for backward."""

    layer: Layer
    bottoms: list[NetBlob]
    tops: list[NetBlob]
    blobs: list[NetBlob]
    weights: list[float]
    """Loss weight of each top."""
    rates: list[float]
    """lr_mult of each learnable blob."""
    shapes: list[Shape]
    """The bottoms' shapes that the layer was set up for."""
    feed: Feed | None = None
    sink: Sink | None = None
    overwritten: list[bool] = field(default_factory=list)
    """For each bottom, whether this or a later layer works in place on it."""
    need: bool = False
    down: list[bool] = field(default_factory=list)
    """For each bottom, whether it gets a gradient."""
    learned: list[int] = field(default_factory=list)
    """The learnable blobs that get a gradient."""
    record: tuple[list[Tensor], list[Tensor]] | None = None
    """Inputs and outputs of the last forward, joined by their gradient graph."""
    filled: bool = False
    copies: bool = False
    """Whether it is a Split whose tops can share its bottom's memory, because no layer works in place on them."""

    @property
    def name(self) -> str:
        return self.layer.spec.name

    @property
    def kind(self) -> type[Layer]:
        return type(self.layer)

    # Shapes

    def reshape(self) -> None:
        """Set the layer up for its bottoms' shapes if they changed, and give the tops theirs."""
        shapes = [blob.shape for blob in self.bottoms]
        if self.feed is not None or shapes == self.shapes:
            return
        new = self.remade(shapes)
        with torch.no_grad():
            inferred = new.infer(*(torch.empty(shape, device="meta") for shape in shapes))
        tops = [tuple(top.shape) for top in inferred]
        self.set_up(shapes)
        for blob, shape in zip(self.tops, tops, strict=True):
            blob.reshape(*shape)

    def remade(self, shapes: list[Shape]) -> Layer:
        """The layer anew for other shapes of its bottoms, its learnable blobs on the meta device."""
        old = self.layer
        new = type(old)(old.spec, old.phase)
        new.setup(*shapes)
        if new.blob_shapes != old.blob_shapes:
            new.fail(f"bottoms {shapes} need blobs {new.blob_shapes}, the net has {old.blob_shapes}")
        return new

    def set_up(self, shapes: list[Shape]) -> None:
        """Make the layer ready for bottoms of these shapes, around the same learnable blobs."""
        if shapes == self.shapes:
            return
        old, new = self.layer, self.remade(shapes)
        new.blobs = old.blobs
        new.to(next(iter([*old.parameters(), *old.buffers()]), torch.empty(0)).device)
        self.layer = new
        self.shapes = shapes
        self.record = None

    # Forward

    def forward(self, device: torch.device) -> float:
        """Compute the tops from the bottoms; gives what they add to the loss."""
        if self.feed is not None:
            self.feed.forward(self.tops)
        elif self.sink is not None:
            self.sink.append(self.bottoms)
        else:
            self.set_up([blob.shape for blob in self.bottoms])
            self.record = None  # its memory is there for the new one
            inputs, outputs = self.compute(device)
            held = [*inputs, *self.layer.parameters(), *self.layer.buffers()]
            for i, (blob, value) in enumerate(zip(self.tops, outputs, strict=True)):
                if self.copies:
                    blob.follow(self.bottoms[0])
                elif not self.keeps(i):
                    blob.take(value.detach(), [*held, *outputs[:i]])
            self.filled = True
            self.record = (inputs, outputs) if self.need else None
        return self.loss(device)

    def loss(self, device: torch.device) -> float:
        """What the tops add to the loss, as they stand."""
        loss = 0.0
        for blob, weight in zip(self.tops, self.weights, strict=True):
            if weight:
                self.fill_loss_diff(blob, weight)
                loss += weight * float(blob.values.tensor(device).sum())
        return loss

    def compute(self, device: torch.device) -> tuple[list[Tensor], list[Tensor]]:
        """The layer's inputs and outputs; with their gradient graph where backward needs it."""
        inputs = [
            self.input(blob, self.need and written, device)
            for blob, written in zip(self.bottoms, self.overwritten, strict=True)
        ]
        parameters = self.parameters(device)
        versions = [value._version for value in parameters]
        with torch.set_grad_enabled(self.need):
            for value, wanted in zip(inputs, self.down, strict=True):
                value.requires_grad_(self.need and wanted)
            outputs = list(explained(self.layer, *inputs))
        for value, blob, version in zip(parameters, self.blobs, versions, strict=True):
            if value._version != version:
                blob.values.changed(device)
        return inputs, outputs

    @staticmethod
    def input(blob: NetBlob, copied: bool, device: torch.device) -> Tensor:
        value = blob.values.tensor(device)
        return value.clone() if copied else value

    def parameters(self, device: torch.device) -> list[nn.Parameter]:
        """The layer's parameters, with what the program wrote into their blobs."""
        for blob in self.blobs:
            blob.values.tensor(device)
        return list(self.layer.blobs)

    def keeps(self, top: int) -> bool:
        """Whether a top keeps its values: DummyData fills constants once, and a program may overwrite them."""
        constant = isinstance(self.layer, DummyData) and self.layer.draws[top].filler.type == "constant"
        return self.filled and constant

    @staticmethod
    def fill_loss_diff(blob: NetBlob, weight: float) -> None:
        """The diff of a loss is its weight, unless the program wrote another."""
        if blob._gradient is None:
            blob.diff[...] = weight

    # Backward

    def backward(self, device: torch.device) -> None:
        """Write the bottoms' diffs, and add to those of the learnable blobs, from the tops' diffs."""
        if not self.need or self.feed is not None:
            return
        if self.record is None:  # no forward yet: the blobs as they stand
            self.set_up([blob.shape for blob in self.bottoms])
            self.record = self.compute(device)
        inputs, outputs = self.record
        parameters = list(self.layer.blobs)
        wanted = [inputs[i] for i in range(len(inputs)) if self.down[i]]
        wanted += [parameters[i] for i in self.learned]
        diffs = [blob.gradient.tensor(device) for blob in self.tops]
        gradients = self.gradients(outputs, wanted, diffs)
        for i, blob in enumerate(self.bottoms):
            if self.down[i]:
                gradient = gradients.pop(0)
                if gradient is None:
                    blob.gradient.clear()
                else:
                    rest = [other for other in gradients if other is not None]
                    blob.gradient.take(gradient, [*diffs, *inputs, *outputs, *parameters, *rest])
        for i, gradient in zip(self.learned, gradients, strict=True):
            if gradient is not None:
                self.blobs[i].gradient.tensor(device).add_(gradient)
                self.blobs[i].gradient.changed(device)

    @staticmethod
    def gradients(
        outputs: Sequence[Tensor], wanted: Sequence[Tensor], diffs: Sequence[Tensor]
    ) -> list[Tensor | None]:
        """The gradient of each wanted tensor, None where the outputs do not depend on it."""
        pairs = [(value, diff) for value, diff in zip(outputs, diffs, strict=True) if value.requires_grad]
        if not pairs or not wanted:
            return [None] * len(wanted)
        values, seeds = zip(*pairs, strict=True)
        return list(torch.autograd.grad(values, wanted, seeds, retain_graph=True, allow_unused=True))


@dataclass
class UserStep(Step):
    """Calls the four methods as Caffe does, with the blobs that the neighbouring layers use.

    What the object writes into `bottom[i].data` the other readers of that blob see, a diff that it leaves
    alone keeps its values, and `self.blobs[i].diff` is the sum so far, which it may add to or replace.
    """

    def __post_init__(self) -> None:
        self.python = cast(Python, self.layer)
        self.early = self.python.held
        """The blobs that setup saw, and may have kept."""
        self.own = BlobVec(self.blobs)

    def lend(self) -> None:
        """Let the object's blobs be the net's: its `blobs`, and those that it kept from setup."""
        self.python.user.blobs = self.own
        for early, blob in zip(self.early, self.blobs, strict=True):
            early.hold(blob.data, blob.diff)

    def reshape(self) -> None:
        """Let the object give its tops their shapes."""
        self.lend()
        user = self.python.user
        with self.python.running(user.reshape.__qualname__, not consent.commanded()):
            user.reshape(self.bottoms, self.tops)

    def forward(self, device: torch.device) -> float:
        """reshape and forward of the object; gives what the tops add to the loss."""
        self.reshape()
        user = self.python.user
        with self.python.running(user.forward.__qualname__, not consent.commanded()):
            user.forward(self.bottoms, self.tops)
        return self.loss(device)

    def backward(self, device: torch.device) -> None:
        """backward of the object, which leaves its gradients in the blobs."""
        if self.need:
            self.lend()
            user = self.python.user
            with self.python.running(user.backward.__qualname__, not consent.commanded()):
                user.backward(self.tops, list(self.down), self.bottoms)
