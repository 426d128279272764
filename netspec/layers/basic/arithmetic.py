"""Sums, products and maxima over blobs and over axes; choosing items of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from netspec.layers.base import Layer, Shape, at_least, exactly, register
from netspec.layers.traits import Chain, Common, Constant, Other, Value


@register("Eltwise")
class Eltwise(Layer):
    """y = sum of coeff_i * x_i, product, or maximum of the bottoms, value by value.

    Shapes: bottoms of one shape (one alone only with forks, FlowNet's for `coeff`), the top alike. `coeff`
    (SUM only) has a value per bottom, or none.
    MAX gives the gradient to one bottom: of equal values among the first two the second, after that the
    earliest. NaN: SUM and PROD pass it on; MAX overlooks it in the first bottom. The gradient of PROD is
    always the product of the others, which is what `stable_prod_grad` asks for; Caffe without it divides and
    so has NaN at 0. Raises SpecError for unequal shapes and a wrong number of coefficients. Source: Caffe,
    eltwise_layer.cpp.
    """

    family, roles = "pointwise", ("values",)
    alike = carries = True
    bottoms = at_least(1)
    param_field = "eltwise_param"

    def setup(self, *shapes: Shape) -> None:
        p = self.param
        for i, shape in enumerate(shapes):
            if shape != shapes[0]:
                self.fail(f"needs bottoms of one shape, found {shapes[0]} and {shape}", "bottom", i)
        self.require(not p.coeff or p.operation == p.SUM, ("coeff", 0), "coeff goes with operation SUM only")
        if p.coeff and len(p.coeff) != len(shapes):
            self.fail(f"{len(p.coeff)} coeff values for {len(shapes)} bottoms", "coeff", 0)
        self.coefficients = list(p.coeff) or [1.0] * len(shapes)

    def forward(self, *bottoms: Tensor) -> Tensor:
        p = self.param
        if p.operation == p.SUM:
            terms = [x if c == 1 else c * x for c, x in zip(self.coefficients, bottoms, strict=True)]
            y = terms[0]
            for term in terms[1:]:
                y = y + term
            return y
        y = bottoms[0]
        if p.operation == p.PROD:
            for x in bottoms[1:]:
                y = y * x
            return y
        if len(bottoms) > 1:
            y = torch.where(y > bottoms[1], y, bottoms[1])
        for x in bottoms[2:]:
            y = torch.where(x > y, x, y)
        return y

    def multiply_adds(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int:
        """A product for each further bottom, or each coefficient; a maximum and a plain sum have none."""
        p = self.param
        if p.operation == p.PROD:
            return prod(tops[0]) * (len(bottoms) - 1)
        return prod(tops[0]) * len(bottoms) if p.operation == p.SUM and len(p.coeff) else 0

    def inverse(
        self, tops: Sequence[Tensor], bottoms: Sequence[Tensor | None], shapes: Sequence[Shape]
    ) -> tuple[Tensor, ...] | None:
        """Of a sum with one bottom unknown: what is left for it."""
        unknown = [i for i, bottom in enumerate(bottoms) if bottom is None]
        if self.param.operation != self.param.SUM or len(unknown) != 1 or not self.coefficients[unknown[0]]:
            return None
        rest = tops[0]
        for bottom, coefficient in zip(bottoms, self.coefficients, strict=True):
            rest = rest if bottom is None else rest - coefficient * bottom
        remainder = rest / self.coefficients[unknown[0]]
        return tuple(remainder if bottom is None else bottom for bottom in bottoms)

    def tree_value(self, index: int, below: Sequence[Value]) -> Value | None:
        """Of a sum: one chain or other blob, plus common terms and constants. Of a product: times ones."""
        p = self.param
        constants = [value for value in below if isinstance(value, Constant)]
        rest = [
            pair for pair in zip(below, self.coefficients, strict=True) if not isinstance(pair[0], Constant)
        ]
        if p.operation == p.PROD:
            return (
                rest[0][0] if len(rest) == 1 and all(constant.value == 1 for constant in constants) else None
            )
        if p.operation != p.SUM or not rest:
            return None
        chains = [(value, factor) for value, factor in rest if isinstance(value, Chain)]
        others = [(value, factor) for value, factor in rest if isinstance(value, Other)]
        if not chains and not others:
            return Common()
        if len(chains) == 1 and not others and chains[0][1] == 1:
            return chains[0][0]
        nothing_added = len(rest) == 1 and all(constant.value == 0 for constant in constants)
        return others[0][0] if others and nothing_added and others[0][1] == 1 else None


@register("Axpy")
class Axpy(Layer):
    """y = a_c * x + z: the second bottom scaled a channel at a time by the first, plus the third.

    Shapes: a (N, C) or (N, C, 1, 1); x, z and top (N, C, H, W). NaN passes on. Raises SpecError for shapes
    that do not fit. Source: Hu et al. 2018, "Squeeze-and-excitation networks", its Caffe.
    """

    family, roles = "pointwise", ("operand", "image", "image")
    products = 1
    bottoms = exactly(3)

    def setup(self, *shapes: Shape) -> None:
        a, x, z = shapes
        if len(x) < 2 or a[:2] != x[:2] or prod(a[2:]) != 1:
            self.fail(f"needs a scale for each channel of {x}, found bottom 0 of shape {a}", "bottom", 0)
        self.require(x == z, ("bottom", 2), f"adds bottoms of one shape, found {x} and {z}")

    def forward(self, *bottoms: Tensor) -> Tensor:
        a, x, z = bottoms
        return a.reshape(*x.shape[:2], *(1,) * (x.dim() - 2)) * x + z


@register("Reduction")
class Reduction(Layer):
    """y = coeff * (sum, sum of |x|, sum of x^2, or mean) over all axes from `axis` on.

    Shapes: bottom (d0, ..., reduced axes), top (d0, ...), () for axis 0, the default. The gradient of |x| at
    0 is 0. NaN passes on. Raises SpecError when the bottom has no such axis. Source: Caffe,
    reduction_layer.cpp.
    """

    family, roles = "shape", ("values",)
    param_field = "reduction_param"

    def setup(self, *shapes: Shape) -> None:
        self.start = self.axis(self.param.axis, len(shapes[0]), "axis")

    def forward(self, *bottoms: Tensor) -> Tensor:
        p = self.param
        x = bottoms[0].flatten(self.start)
        if p.operation == p.ASUM:
            x = x.abs()
        elif p.operation == p.SUMSQ:
            x = x.square()
        y = x.mean(self.start) if p.operation == p.MEAN else x.sum(self.start)
        return y if p.coeff == 1 else p.coeff * y


@register("ArgMax")
class ArgMax(Layer):
    """y = the indices of the `top_k` largest values along `axis`, the largest first; no gradient.

    Shapes: with `axis` the bottom's, top_k along the axis; `out_max_val` gives the values in place of the
    indices. Without `axis` each item is read as one row: top (N, 1, top_k), more axes of 1 for bottoms of
    more than 3; there `out_max_val` adds the values, (N, 2, top_k). Of equal values the larger index comes
    first. NaN counts as largest. Raises SpecError when top_k exceeds the number of values. Source: Caffe,
    argmax_layer.cpp.
    """

    family, roles = "accuracy", ("scores",)
    param_field = "argmax_param"
    differentiable = False

    def setup(self, *shapes: Shape) -> None:
        p, (shape,) = self.param, shapes
        self.along = None
        if p.HasField("axis"):
            self.along = self.axis(p.axis, len(shape), "axis")
        count = prod(shape[1:]) if self.along is None else shape[self.along]
        if not 1 <= p.top_k <= count:
            self.fail(
                f"top_k {p.top_k} is outside 1..{count}, the values of a line of {shape}",
                "top_k",
            )

    def forward(self, *bottoms: Tensor) -> Tensor:
        p, (x,) = self.param, bottoms
        if self.along is not None:
            values, indices = self.largest(x, self.along)
            return values if p.out_max_val else indices
        values, indices = self.largest(x.reshape(x.shape[0], -1), 1)
        top = torch.stack((indices, values), 1) if p.out_max_val else indices.unsqueeze(1)
        return top.reshape(*top.shape, *(1,) * (x.dim() - 3))

    def largest(self, x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        """The top_k values along the axis and their indices, as x's type; ties by the larger index."""
        backwards, k = x.flip(axis), self.param.top_k
        if k == 1:
            values, places = backwards.max(axis, keepdim=True)
        else:
            values, places = backwards.sort(dim=axis, descending=True, stable=True)
            values, places = values.narrow(axis, 0, k), places.narrow(axis, 0, k)
        return values, (x.shape[axis] - 1 - places).to(x.dtype)


@register("BatchReindex")
class BatchReindex(Layer):
    """y_i = x_(p_i): items of the first bottom in the order of the indices p in the second.

    Shapes: x (N, ...), p (M,), top (M, ...). Indices may repeat, their gradients add up; p gets none. NaN in
    x moves along. Raises SpecError when p is not a list; an index outside 0..N-1 is an IndexError in forward.
    Source: Caffe, batch_reindex_layer.cpp.
    """

    family, roles = "shape", ("values", "row index")
    bottoms = exactly(2)

    def setup(self, *shapes: Shape) -> None:
        if len(shapes[1]) != 1:
            self.fail(f"needs a list of indices (M,), found bottom 1 of shape {shapes[1]}", "bottom", 1)
        self.require(
            len(shapes[0]) > 0, ("bottom", 0), "needs items along a first axis, found a single number"
        )

    def forward(self, *bottoms: Tensor) -> Tensor:
        return bottoms[0].index_select(0, bottoms[1].long())


@register("Filter")
class Filter(Layer):
    """Tops = the items of the bottoms where the last bottom, the selector, is not 0; the others are dropped.

    A selector alone selects from itself.

    Shapes: bottoms (N, ...) each, selector (N,) or (N, 1, ...); tops (M, ...), M <= N the number of selected
    items, so the size depends on values: N is taken for the shapes, and the layer cannot be compiled or
    exported whole. Dropped items get gradient 0, the selector none. A missing selector (NaN) selects. Raises
    SpecError for bottoms of different N, or a number of tops other than bottoms less one. Source: Caffe,
    filter_layer.cpp.
    """

    family, roles = "shape", ("values", "row index")
    products = 0
    bottoms = at_least(1)
    tops = at_least(1)

    @classmethod
    def role(cls, i: int, count: int) -> str:
        return "row index" if i == count - 1 else "values"

    def setup(self, *shapes: Shape) -> None:
        *blobs, selector = shapes if len(shapes) > 1 else shapes * 2
        if len(self.spec.tops) != len(blobs):
            self.fail(f"needs a top for each bottom but the selector, found {len(self.spec.tops)}", "top", 0)
        if not selector or prod(selector) != selector[0]:
            self.fail(f"needs a selector (N,), found {selector}", "bottom", len(blobs))
        for i, shape in enumerate(blobs):
            self.require(
                shape[:1] == selector[:1],
                ("bottom", i),
                f"bottom of shape {shape} has another number of items than the selector, {selector}",
            )

    def infer(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        return bottoms[:-1] or bottoms

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        *blobs, selector = bottoms if len(bottoms) > 1 else bottoms * 2
        kept = selector.flatten().nonzero().flatten()
        return tuple(x.index_select(0, kept) for x in blobs)
