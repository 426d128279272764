"""Layers that make blobs: Input, Parameter, DummyData; and Noise, which disturbs one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import log
from typing import Any

import torch
from torch import Tensor

from netspec import schema
from netspec.layers import fillers, ranks
from netspec.layers.base import Layer, Shape, at_least, exactly, register
from netspec.layers.traits import Constant, Value
from netspec.schema.spec import TRAIN, LayerSpec


class Draw:
    """Draws fresh tensors as a FillerParameter says, from torch's default generator.

    The fillers that a training step draws (constant, uniform, gaussian, bernoulli) are plain torch
    operations; the others run in `fillers.fill`, behind an operator that compilers do not look into. `key`
    tells equal draws of different places apart, so that no compiler merges them.
    """

    def __init__(self, filler: Any, key: str, strict: bool):
        self.filler, self.key, self.strict = filler, key, strict
        self.simple = filler.type in SIMPLE and filler.sparse < 0
        self.written = filler.SerializeToString().hex()

    def __call__(self, shape: Shape, like: Tensor) -> Tensor:
        """A tensor of this shape, with the device and dtype of `like`."""
        return ranks.drawn(lambda rows: self.draw(rows, like), shape)

    def draw(self, shape: Shape, like: Tensor) -> Tensor:
        """The same, without a look at ranks."""
        filler = self.filler
        if not self.simple:
            drawn: Tensor = torch.ops.netspec.fill(like, list(shape), self.written, self.strict, self.key)
            return drawn
        if filler.type == "constant":
            return like.new_full(shape, filler.value)
        if filler.type == "gaussian":
            return torch.randn(shape, dtype=like.dtype, device=like.device) * float(filler.std) + float(
                filler.mean
            )
        unit = torch.rand(shape, dtype=like.dtype, device=like.device)
        if filler.type == "uniform":
            return unit * float(filler.max - filler.min) + float(filler.min)
        p: float | Tensor = filler.non_zero_probability
        if filler.use_range:
            p = torch.rand((), dtype=like.dtype, device=like.device) * (filler.max - filler.min) + filler.min
        if filler.to_log:  # the log of 1 is 0; a large negative number stands for that of 0
            return torch.where(unit < p, 0.0, like.new_full((), filler.fudge_factor))
        return (unit < p).to(like.dtype)


SIMPLE = ("constant", "uniform", "gaussian", "bernoulli")
"""Filler types that `Draw` writes as torch operations, and that Noise accepts."""


@torch.library.custom_op("netspec::fill", mutates_args=())
def _fill(like: Tensor, shape: list[int], filler: str, strict: bool, key: str) -> Tensor:
    blob = torch.empty(shape, dtype=like.dtype, device=like.device)
    fillers.fill(blob, schema.FillerParameter.FromString(bytes.fromhex(filler)), None, strict)
    return blob


@_fill.register_fake
def _fill_fake(like: Tensor, shape: list[int], filler: str, strict: bool, key: str) -> Tensor:
    return torch.empty(shape, dtype=like.dtype, device=like.device)


def check_filler(layer: Layer, filler: Any, shape: Shape, *path: str | int) -> None:
    """Fill a blob on the meta device once; SpecError of `layer` at field `path` when the filler cannot."""
    try:
        if filler.type == "bernoulli" and filler.use_range and not 0 <= filler.min <= filler.max <= 1:
            raise fillers.FillerError(
                f"filler 'bernoulli': range [{filler.min}, {filler.max}] is not within [0, 1]"
            )
        fillers.fill(torch.empty(shape, device="meta"), filler, torch.Generator(), layer.strict)
    except fillers.FillerError as error:
        layer.fail(str(error), *path)


INPUT = "Input"


@register(INPUT)
class Input(Layer):
    """y = what the caller feeds: an input of the net, of the given shape.

    Shapes: each top as its entry in `shape`, or all as the only one. Raises SpecError when there are fewer.
    Source: Caffe, input_layer.cpp.
    """

    family, roles = "data", ()
    bottoms = exactly(0)
    tops = at_least(1)
    is_source = True
    param_field = "input_param"

    def source_shapes(self) -> list[Shape]:
        shapes = [tuple(int(size) for size in shape.dim) for shape in self.param.shape]
        return one_each(self, shapes, "shape", "input_param", "shape")


def input_layer(layer: LayerSpec, shapes: Mapping[str, Shape]) -> LayerSpec:
    """An Input in place of a layer, under its name, with these tops."""
    message = schema.LayerParameter(name=layer.name, type=INPUT, top=list(shapes))
    for shape in shapes.values():
        message.input_param.shape.add().dim.extend(shape)
    return replace(layer, type=INPUT, tops=tuple(shapes), message=message)


@register("Parameter")
class Parameter(Layer):
    """y = a learned blob of the given shape.

    Shapes: top and blob as `shape`; it starts at 0. Source: Caffe, parameter_layer.cpp.
    """

    family, roles = "data", ()
    products = 0
    bottoms = exactly(0)
    param_field = "parameter_param"

    def setup(self, *shapes: Shape) -> None:
        self.require(self.param.HasField("shape"), "shape", "needs a shape")
        self.add_blob(tuple(int(size) for size in self.param.shape.dim))

    def forward(self, *bottoms: Tensor) -> Tensor:
        return self.blob(0).clone()


@register("DummyData")
class DummyData(Layer):
    """y = values of a filler: constant ones, or a fresh draw in every forward.

    Shapes: each top as its entry in `shape` (or num, channels, height, width), or all as the only one;
    fillers alike, zeros when there is none. Random numbers: torch's generator of the net's device. A filler
    that gives NaN (constant nan) makes missing values. Raises SpecError when the counts differ or a filler
    cannot fill its shape. Source: Caffe, dummy_data_layer.cpp; fillers of the SimNets fork.
    """

    family, roles = "data", ()
    bottoms = exactly(0)
    tops = at_least(1)
    draws_batches = True
    param_field = "dummy_data_param"
    anchor: Tensor

    def setup(self, *shapes: Shape) -> None:
        self.register_buffer("anchor", torch.empty(0), persistent=False)  # follows the net's device and dtype
        self.shapes = one_each(self, self.written_shapes(), "shape", "dummy_data_param", "shape")
        if bad := next((shape for shape in self.shapes if any(size < 0 for size in shape)), None):
            self.fail(f"a top cannot have shape {bad}", "shape", 0)
        zeros = [schema.FillerParameter(type="constant")]
        written = list(self.param.data_filler) or zeros
        given = one_each(self, written, "filler", "dummy_data_param", "data_filler")
        for i, (filler, shape) in enumerate(zip(given, self.shapes, strict=True)):
            check_filler(self, filler, shape, "dummy_data_param", "data_filler", min(i, len(written) - 1))
        self.draws = [Draw(filler, f"{self.spec.name}/{i}", self.strict) for i, filler in enumerate(given)]

    def written_shapes(self) -> list[Shape]:
        p = self.param
        if p.shape:
            return [tuple(int(size) for size in shape.dim) for shape in p.shape]
        sizes = (p.num, p.channels, p.height, p.width)
        if len({len(size) for size in sizes}) > 1:
            self.fail("num, channels, height and width are not given equally often", "dummy_data_param")
        return [tuple(int(size) for size in shape) for shape in zip(*sizes, strict=True)]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        return tuple(draw(shape, self.anchor) for draw, shape in zip(self.draws, self.shapes, strict=True))

    def tree_value(self, index: int, below: Sequence[Value]) -> Value | None:
        """The one value that all cells get, where there is one."""
        values = set()
        for filler in self.param.data_filler:
            if filler.type == "constant":
                values.add(float(filler.value))
            elif filler.type == "bernoulli" and filler.non_zero_probability == 1 and not filler.use_range:
                values.add(1.0)
            else:
                return None
        return Constant(values.pop() if values else 0.0) if len(values) < 2 else None


def one_each(layer: Layer, written: list[Any], what: str, *path: str | int) -> list[Any]:
    """`written` as one entry per top: as it stands, or its only entry for all; SpecError otherwise."""
    tops = len(layer.spec.tops)
    if len(written) not in (1, tops):
        layer.fail(f"{len(written)} {what} entries for {tops} tops", *path)
    return written if len(written) == tops else written * tops


@register("Noise")
class Noise(Layer):
    """y = mul * x + add with both noises drawn for each value in TRAIN; TEST: their means in their place.

    Shapes: top as bottom. `offset_mul_mean` divides mul by its mean, `offset_add_mean` subtracts add's;
    `force_random` draws in TEST too. An omitted mul_noise_filler is the constant 0, which erases the signal:
    write a constant 1. Fillers: constant, uniform, gaussian, bernoulli. NaN stays NaN. Random numbers:
    torch's generator of the device. Raises SpecError unless there is exactly one noise_param, for other
    fillers, and for offset_mul_mean with a mean of 0. Source: SimNets fork of Caffe, noise_layer.cpp; under
    `strict` the mean of a filler with `to_log` is log(mean + fudge_factor), though the values drawn are not
    logarithms (bernoulli's are, in both ways).
    """

    family, roles = "pointwise", ("values",)
    carries = True

    def setup(self, *shapes: Shape) -> None:
        (shape,) = shapes
        given = self.spec.message.noise_param
        if len(given) != 1:
            self.fail(
                f"needs exactly one noise_param, found {len(given)}", "noise_param", max(len(given) - 1, 0)
            )
        self.noise = given[0]
        for name in ("add_noise_filler", "mul_noise_filler"):
            filler = getattr(self.noise, name)
            self.require(
                filler.type in SIMPLE,
                ("noise_param", 0, name, "type"),
                f"takes fillers {', '.join(SIMPLE)}; found {filler.type!r}",
            )
            check_filler(self, filler, shape, "noise_param", 0, name)
        self.add_mean = self.mean(self.noise.add_noise_filler)
        self.mul_mean = self.mean(self.noise.mul_noise_filler)
        if self.noise.offset_mul_mean and self.mul_mean == 0:
            self.fail("offset_mul_mean divides by the mean of mul_noise_filler, which is 0", "noise_param", 0)
        self.draw_add = Draw(self.noise.add_noise_filler, f"{self.spec.name}/add", self.strict)
        self.draw_mul = Draw(self.noise.mul_noise_filler, f"{self.spec.name}/mul", self.strict)
        self.random = self.phase == TRAIN or self.noise.force_random

    def mean(self, filler: Any) -> float:
        """The mean of a filler's values; with `strict`, what the fork takes for it."""
        if filler.type == "bernoulli":
            p = filler.non_zero_probability
            if filler.use_range and not self.strict:
                p = (filler.min + filler.max) / 2
            return float((1 - p) * filler.fudge_factor if filler.to_log else p)
        half = (filler.min + filler.max) / 2
        mean = {"constant": filler.value, "gaussian": filler.mean, "uniform": half}[filler.type]
        return log(mean + filler.fudge_factor) if filler.to_log and self.strict else float(mean)

    def forward(self, *bottoms: Tensor) -> Tensor:
        (x,) = bottoms
        mul: float | Tensor = self.mul_mean
        add: float | Tensor = self.add_mean
        if self.random:
            add, mul = self.draw_add(tuple(x.shape), x), self.draw_mul(tuple(x.shape), x)
        if self.noise.offset_mul_mean:
            mul = mul / self.mul_mean
        if self.noise.offset_add_mean:
            add = add - self.add_mean
        return mul * x + add
