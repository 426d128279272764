"""Layer, what is true of every layer; and the registry of layer types."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite, prod
from typing import Any, ClassVar, NoReturn, TypeVar

import torch
from torch import Tensor, nn

from netspec.errors import SpecError
from netspec.layers import fillers
from netspec.layers.traits import Field, Lack, Value
from netspec.schema.spec import LayerSpec

Shape = tuple[int, ...]
"""A blob's dimensions, as in Caffe: (N, C, H, W) for images, () for a scalar loss."""

registry: dict[str, type[Layer]] = {}
"""Layer class by type name, as written in `type:` of a prototxt."""

LOOK_EVERY = 100
"""Iterations after which code that runs ahead, compiled or on a GPU, asks anew what it goes by in the weights."""

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
    """Class decorator: make a Layer subclass known under the given `type:` names.

    >>> import torch, netspec
    >>> @netspec.register("Thrice")
    ... class Thrice(netspec.Layer):
    ...     def forward(self, *bottoms):
    ...         return 3 * bottoms[0]
    >>> net = netspec.make_net('''
    ...     layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 2 } } }
    ...     layer { name: "y" type: "Thrice" bottom: "x" top: "y" }''')
    >>> net(torch.ones(1, 2))
    (tensor([[3., 3.]]),)
    """

    def add(cls: LayerClass) -> LayerClass:
        for name in types:
            registry[name] = cls
        return cls

    return add


class Layer(nn.Module):
    """A layer of a net: `setup` sees the bottoms' shapes once and adds blobs, `forward` computes.

    A subclass says how many blobs it takes (`bottoms`, `tops`), names its message field (`param_field`, then
    `self.param` is that message with its defaults), and implements `setup` (optional) and `forward`.
    `forward` gets the bottoms as tensors and returns one tensor, or a tuple with one tensor per top. It must not
    branch on values of tensors, nor write into a bottom.

    >>> import netspec
    >>> @netspec.register("Twice")
    ... class Twice(netspec.Layer):
    ...     '''y = 2 x.'''
    ...
    ...     family, roles = "pointwise", ("values",)
    ...
    ...     def forward(self, *bottoms):
    ...         return 2 * bottoms[0]
    """

    bottoms: ClassVar[Arity] = exactly(1)
    tops: ClassVar[Arity] = exactly(1)
    paired: ClassVar[bool] = False
    """As many tops as bottoms (the layer is applied to each bottom alike)."""
    is_loss: ClassVar[bool] = False
    """The first top counts into the objective with weight 1 unless `loss_weight` says otherwise."""
    scores_unlabelled: ClassVar[bool] = False
    """For a loss with labels: rows without one (NaN) may count, so a test may have no label at all."""
    is_source: ClassVar[bool] = False
    """Its tops are inputs of the graph, fed by a loader; it is never run (see `source_shapes`)."""
    draws_batches: ClassVar[bool] = False
    """No source, but its tops are a batch that it draws itself in each forward."""
    gathers: ClassVar[bool] = False
    """Its tops hold rows of detections, which a test gathers over all batches (`average_precision.Detections`)."""
    of_images: ClassVar[bool] = True
    """For a source: its first top holds images; False: arrays of any meaning."""
    differentiable: ClassVar[bool] = True
    """False for layers without a gradient (ArgMax, Accuracy): they get detached bottoms."""
    param_field: ClassVar[str | None] = None
    spreads: ClassVar[tuple[int, ...]] = ()
    """Blobs (1, C, H, W) that accept weights of another image size: each channel is filled with its mean."""
    places: int = 0
    """How many places of a plane a bottom of switches may name, 0 where they are not places of this layer's top."""
    MOST_ENTRIES: ClassVar[int] = 1 << 20
    """Upper bound for numbers that a layer's set-up loops over: classes, steps, pixels of a side."""
    looks_for: ClassVar[tuple[str, ...]] = ()
    """Attributes that `look` sets, with values that JSON can hold."""

    # What a subclass says of itself to drawings, `netspec check`, the summary and the queries

    family: ClassVar[str] = "other"
    """The kind of layer, one of `traits.FAMILIES`: its colour in a drawing."""
    roles: ClassVar[tuple[str, ...]] = ()
    """What each bottom is, in words of `traits.ROLES`; further bottoms have the last one's role."""
    alike: ClassVar[bool] = False
    """All bottoms have the same shape."""
    is_softmax: ClassVar[bool] = False
    """Its tops after the loss are probabilities of the classes in the order of its scores."""
    carries: ClassVar[bool] = False
    """A label or image at its bottom is still a label or image at its top, perhaps with other values."""
    resizes: ClassVar[bool] = False
    """Carries pictures of labels into another size."""
    counts_values: ClassVar[bool] = False
    """Accepts only bottoms with the number of values that its fields say."""
    undone_by: ClassVar[int | None] = None
    """Number of tops, from the first, that `inverse` needs; None: all."""
    mixes: ClassVar[bool] = False
    """A value depends on several or all places of its bottom: it has no useful receptive field."""
    products: ClassVar[int | None] = None
    """Products that a value of the first top adds up, for layers without matrix products and convolutions."""

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
        self.glances = 0
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
        """Whether the layer returns its bottom unchanged, as Dropout does in TEST."""
        return False

    def look(self) -> None:
        """Read from the blobs' values what `forward` branches on, and keep it in the attributes `looks_for`.

        Compiled code cannot read values: it keeps what was read last.
        """

    def glance(self) -> None:
        """`look`, as an eager forward does; on a GPU, which a look waits for, in every LOOK_EVERY-th one."""
        if not torch.compiler.is_compiling() and len(self.blobs) and self.blobs[0].is_cuda:
            self.glances += 1
            if self.glances % LOOK_EVERY != 1:
                return
        self.look()

    @property
    def adds_tiles(self) -> tuple[int, int] | None:
        """Rows and columns of windows, side by side, whose values are added up; None where it does something else."""
        return None

    def with_reader(self, reader: Layer, *bottoms: Tensor) -> tuple[Tensor, ...] | None:
        """The tops of `reader`, the only layer that reads this one's top, without making that top; None where the two
        have no such joint form.
        """
        return None

    @classmethod
    def repeatable(cls, message: Any) -> bool:
        """Whether a second forward over the same bottoms finds the learned blobs as the first one did."""
        return True

    def infer(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        """The tops as meta tensors; override where `forward` cannot run on the meta device."""
        state = {name: buffer.to("meta") for name, buffer in self.named_buffers()}
        return as_tuple(torch.func.functional_call(self, state, bottoms))

    def inverse(
        self, tops: Sequence[Tensor], bottoms: Sequence[Tensor | None], shapes: Sequence[Shape]
    ) -> tuple[Tensor, ...] | None:
        """The bottoms that `forward` turns into these tops; None where there is no such way back, the default.

        bottoms: those that are known already, None at the others; shapes: of all bottoms, rows as in the tops.
        """
        return None

    # What a subclass says of itself, where it is not the same for all layers of the type

    @classmethod
    def kind_for(cls, spec: LayerSpec) -> type[Layer]:
        """The class that computes a layer of this type: the registered one, unless the layer's fields select
        another.
        """
        return cls

    @classmethod
    def other(cls, spec: LayerSpec) -> str:
        """The fork whose layer of this name computes another size from the same fields, where the fork is not known;
        else "".
        """
        return ""

    @classmethod
    def role(cls, i: int, count: int) -> str:
        """The role of bottom i of `count`: a word of `traits.ROLES`, "" where the class does not say."""
        return cls.roles[min(i, len(cls.roles) - 1)] if cls.roles else ""

    @classmethod
    def classes_along(cls, spec: LayerSpec) -> int:
        """The axis of the bottom of scores along which the classes lie, perhaps negative: `axis`, by default 1."""
        return int(getattr(getattr(spec.message, cls.param_field or "", None), "axis", 1))

    @classmethod
    def needs(cls, spec: LayerSpec, i: int, known: Sequence[Shape | None], image: Shape) -> Shape | None:
        """The shape of bottom i, given the `known` shapes, where its role does not determine it; None: its role does.

        image: the shape of pictures in this net.
        """
        return None

    @classmethod
    def lacking(cls, spec: LayerSpec) -> Lack | None:
        """A thing outside the net file that the layer needs and that is missing here; None where nothing is missing."""
        return None

    @classmethod
    def bottom_for(cls, spec: LayerSpec, tops: Mapping[int, Shape], sure: Sequence[int]) -> Shape:
        """For a layer that `carries`: the bottom's shape that gives the tops (by number) these shapes.

        sure: numbers of the tops whose shape is certain; of other tops only the rank is.
        """
        return next(iter(tops.values()))

    @classmethod
    def likely_shapes(cls, spec: LayerSpec, image: Shape) -> list[Shape] | None:
        """For a source whose data is not here: its tops' shapes, if they do not depend on what reads them."""
        return None

    def tree_value(self, index: int, below: Sequence[Value]) -> Value | None:
        """The part of a latent tree that the first top holds, if the bottoms hold `below`; None for anything else.

        index: the number of the layer's step.
        """
        return below[0] if self.passes else None

    def multiply_adds(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int | None:
        """Products that a forward pass adds up, over the batch; None where unknown.

        By default `products` for each value of the first top, else what torch's counter finds in the matrix
        products and convolutions of `forward` on the meta device.
        """
        if self.is_source:
            return 0
        if self.products is not None:
            return self.products * sum(prod(top) for top in tops[:1])
        if type(self).infer is not Layer.infer:
            return None
        from torch.utils.flop_counter import FlopCounterMode  # takes a while to import

        state = {name: value.to("meta") for name, value in (*self.named_parameters(), *self.named_buffers())}
        inputs = tuple(torch.empty(shape, device="meta") for shape in bottoms)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            torch.func.functional_call(self, state, inputs)
        return int(counter.get_total_flops()) // 2

    def field(self, below: Field, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> Field | None:
        """The receptive field of a value of the tops, from that of a bottom; None where it has no meaning.

        By default `below`, where the top has the first bottom's places and the layer does not mix them.
        """
        same = len(tops[0]) == len(bottoms[0]) and tops[0][2:] == bottoms[0][2:]
        return below if same and not self.mixes else None

    # What a subclass uses

    def add_blob(self, shape: Shape, filler: Any = None, lr_mult: float = 1.0) -> int:
        """Declare the next learnable blob; `filler` is a FillerParameter (None: zeros). Gives its index.

        `lr_mult` is the default learning-rate factor, in force when the file has no `param` for this blob.
        """
        try:
            self.blobs.append(nn.Parameter(torch.empty(shape, device="meta")))
        except (RuntimeError, TypeError):  # a negative size, or more values than torch can count
            self.fail(f"blob {len(self.blob_shapes)} cannot have shape {tuple(shape)}")
        try:
            fillers.refuse(self.blobs[-1], filler, self.strict)
        except fillers.FillerError as error:
            self.fail_to_fill(len(self.blob_shapes), error)
        self.blob_shapes.append(tuple(shape))
        self.blob_fillers.append(filler)
        self.blob_lr_mults.append(lr_mult)
        return len(self.blob_shapes) - 1

    def blob(self, i: int) -> Tensor:
        """Blob i in this layer's own shape (a shared blob may be stored in its owner's shape)."""
        value: Tensor = self.blobs[i]
        return value if value.shape == self.blob_shapes[i] else value.view(self.blob_shapes[i])

    def changed(self, *blobs: Tensor) -> bool:
        """Whether any of these was written to since the last call (from Python; writes through arrays do not count)."""
        versions, before = tuple(blob._version for blob in blobs), self.versions
        self.versions = versions
        return versions != before

    def fill(self, blobs: Iterable[int], generator: torch.Generator) -> None:
        """Give the blobs of these indices their initial values, in order."""
        for i in blobs:
            try:
                fillers.fill(self.blobs[i], self.blob_fillers[i], generator, self.strict)
            except fillers.FillerError as error:
                self.fail_to_fill(i, error)

    def fail_to_fill(self, i: int, error: fillers.FillerError) -> NoReturn:
        self.fail(f"blob {i}: {error}", *((self.param_field,) if self.param_field else ()))

    def project(self) -> None:
        """Change blobs in place before a training step where the layer's definition says so (default: nothing)."""

    def require(self, condition: object, field: str | tuple[str | int, ...], message: str) -> None:
        """`fail` at `field`, a name or a path of names and indices, unless `condition` holds."""
        if not condition:
            self.fail(message, *((field,) if isinstance(field, str) else field))

    def fail(self, message: str, *path: str | int) -> NoReturn:
        """Raise a SpecError at field `path` of this layer's own parameters (of `param_field`), else of the layer.

        For example fail("must be > 0", "stride"), fail("has no such axis", "bottom", 0), fail("cannot be made").
        """
        own = self.param.DESCRIPTOR.fields_by_name if self.param is not None else ()
        if path and path[0] in own and self.param_field is not None:
            path = (self.param_field, *path)
        raise SpecError([self.spec.problem(message, *path)])

    def positive(self, *fields: str, most: float = inf) -> None:
        """`fail` at the first of these own fields with a value that is not finite, not above 0, or above `most`."""
        for name in fields:
            value = getattr(self.param, name)
            for i, one in enumerate(value if isinstance(value, Sequence) else [value]):
                place = (name, i) if isinstance(value, Sequence) else (name,)
                if not (isfinite(one) and 0 < one <= most):
                    bound = f" and at most {most:g}" if isfinite(most) else ""
                    self.fail(f"{name} must be > 0{bound}, found {one:g}", *place)

    def axis(self, axis: int, rank: int, *path: str | int) -> int:
        """A possibly negative axis as 0..rank-1; SpecError at field `path` when outside."""
        if not -rank <= axis < rank:
            self.fail(f"axis {axis} is outside a blob of {rank} axes", *path)
        return axis % rank


def as_tuple(tops: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The result of a layer's forward as a tuple."""
    return tops if isinstance(tops, tuple) else (tops,)
