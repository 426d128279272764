"""Layer, what is true of every layer; and the registry of layer types."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn, TypeVar

import torch
from torch import Tensor, nn

from netspec.errors import SpecError
from netspec.layers import fillers
from netspec.schema.spec import LayerSpec

Shape = tuple[int, ...]
"""A blob's dimensions, as in Caffe: (N, C, H, W) for images, () for a scalar loss."""

registry: dict[str, type[Layer]] = {}
"""Layer class by type name, as written in `type:` of a prototxt."""

LayerClass = TypeVar("LayerClass", bound="type[Layer]")


@dataclass(frozen=True)
class Arity:
    """How many blobs a layer takes or gives; `most` None means any number from `least` up."""

    least: int
    most: int | None

    def __str__(self) -> str:
        if self.most is None:
            return f"at least {self.least}"
        return str(self.least) if self.least == self.most else f"{self.least} to {self.most}"

    def allows(self, n: int) -> bool:
        return n >= self.least and (self.most is None or n <= self.most)


def exactly(n: int) -> Arity:
    """Exactly n blobs."""
    return Arity(n, n)


def at_least(n: int) -> Arity:
    """n blobs or more."""
    return Arity(n, None)


def between(least: int, most: int) -> Arity:
    """From `least` to `most` blobs."""
    return Arity(least, most)


def register(*types: str) -> Callable[[LayerClass], LayerClass]:
    """Class decorator: make a Layer subclass known under the given `type:` names."""

    def add(cls: LayerClass) -> LayerClass:
        for name in types:
            registry[name] = cls
        return cls

    return add


class Layer(nn.Module):
    """A layer of a net: `setup` sees the bottoms' shapes once and adds blobs, `forward` computes.

    A subclass says how many blobs it takes (`bottoms`, `tops`), names its message field (`param_field`, then
    `self.param` is that message with its defaults), and implements `setup` (optional) and `forward`.
    `forward` gets the bottoms as tensors and returns one tensor, or a tuple with one tensor a top. It must not
    branch on values of tensors, nor write into a bottom.
    """

    bottoms: ClassVar[Arity] = exactly(1)
    tops: ClassVar[Arity] = exactly(1)
    paired: ClassVar[bool] = False
    """As many tops as bottoms (the layer is applied to each bottom alike)."""
    is_loss: ClassVar[bool] = False
    """The first top counts into the objective with weight 1 unless `loss_weight` says otherwise."""
    is_source: ClassVar[bool] = False
    """Its tops are inputs of the graph, fed by a loader; it is never run (see `source_shapes`)."""
    differentiable: ClassVar[bool] = True
    """False for layers without a gradient (ArgMax, Accuracy): they get detached bottoms."""
    param_field: ClassVar[str | None] = None
    spreads: ClassVar[tuple[int, ...]] = ()
    """Blobs (1, C, H, W) that take weights of another image size: the mean of each channel everywhere."""
    looks_for: ClassVar[tuple[str, ...]] = ()
    """Attributes that `look` sets, with values that JSON can hold."""

    def __init__(self, spec: LayerSpec, phase: str):
        super().__init__()
        self.spec = spec
        self.phase = phase
        self.blobs = nn.ParameterList()
        self.blob_shapes: list[Shape] = []
        self.blob_fillers: list[Any] = []
        self.blob_lr_mults: list[float] = []
        self.strict = bool(spec.message.strict)
        """Compute as the SimNets fork does on CPU, its known bugs included, where that differs."""
        self.versions: tuple[int, ...] = ()
        self.param: Any = getattr(spec.message, self.param_field) if self.param_field else None

    # What a subclass implements

    def setup(self, *shapes: Shape) -> None:
        """Check the bottoms' shapes and add blobs; called once, before the first forward."""

    def forward(self, *bottoms: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Compute the tops from the bottoms."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def source_shapes(self) -> list[Shape]:
        """For a source layer: the shapes of its tops, known before any data is read in full."""
        raise NotImplementedError(f"{type(self).__name__} is not a source")

    @property
    def passes(self) -> bool:
        """Whether the top is the bottom, as for layers that only act in TRAIN."""
        return False

    def look(self) -> None:
        """Note what `forward` branches on in the blobs' values, in the attributes `looks_for`; compiled code,
        which cannot look, keeps it.
        """

    def infer(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """The tops as meta tensors; override where `forward` cannot run on the meta device."""
        state = {name: buffer.to("meta") for name, buffer in self.named_buffers()}
        return as_tuple(torch.func.functional_call(self, state, bottoms))

    # What a subclass uses

    def add_blob(self, shape: Shape, filler: Any = None, lr_mult: float = 1.0) -> int:
        """Declare the next learnable blob; `filler` is a FillerParameter (None: zeros). Gives its index.

        `lr_mult` is the default learning-rate factor, in force when the file has no `param` for this blob.
        """
        try:
            self.blobs.append(nn.Parameter(torch.empty(shape, device="meta")))
        except (RuntimeError, TypeError):  # a negative size, or more values than torch can count
            self.fail(f"blob {len(self.blob_shapes)} cannot have shape {tuple(shape)}")
        self.blob_shapes.append(tuple(shape))
        self.blob_fillers.append(filler)
        self.blob_lr_mults.append(lr_mult)
        return len(self.blob_shapes) - 1

    def blob(self, i: int) -> Tensor:
        """Blob i in this layer's own shape (a shared blob may be stored in its owner's shape)."""
        value: Tensor = self.blobs[i]
        return value if value.shape == self.blob_shapes[i] else value.view(self.blob_shapes[i])

    def changed(self, *blobs: Tensor) -> bool:
        """Whether any of these was written to since it was asked last (by Python; writes through arrays do not
        count).
        """
        versions, before = tuple(blob._version for blob in blobs), self.versions
        self.versions = versions
        return versions != before

    def fill(self, blobs: Iterable[int], generator: torch.Generator) -> None:
        """Give the blobs of these indices their initial values, in order."""
        for i in blobs:
            try:
                fillers.fill(self.blobs[i], self.blob_fillers[i], generator, self.strict)
            except fillers.FillerError as error:
                self.fail(f"blob {i}: {error}", *((self.param_field,) if self.param_field else ()))

    def project(self) -> None:
        """Change blobs in place before a training step where the layer's definition says so (default: nothing)."""

    def fail(self, message: str, *path: str | int) -> NoReturn:
        """Raise a SpecError at field `path` of this layer, e.g. fail("must be > 0", self.param_field, "stride")."""
        raise SpecError([self.spec.problem(message, *path)])

    def axis(self, axis: int, rank: int, *path: str | int) -> int:
        """A possibly negative axis as 0..rank-1; SpecError at field `path` when outside."""
        if not -rank <= axis < rank:
            self.fail(f"axis {axis} is outside a blob of {rank} axes", *path)
        return axis % rank


def as_tuple(tops: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """What a layer's forward returned, always as a tuple."""
    return tops if isinstance(tops, tuple) else (tops,)
