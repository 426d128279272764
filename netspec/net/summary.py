"""What each layer of a net costs and sees: shapes, parameters, multiply-adds, memory, receptive field.

Multiply-adds are those of the layer's defining sum, for the whole batch: one for each product that is added
up. Comparisons, plain additions, exponentials and divisions count nothing, as is the custom.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, prod
from typing import TYPE_CHECKING, Any

from netspec.layers.base import Layer, Shape
from netspec.net.graph import Graph, Step
from netspec.net.net import Net

if TYPE_CHECKING:
    from rich.table import Table

FLOAT_BYTES = 4
Shapes = Sequence[Shape]


@dataclass(frozen=True)
class Field:
    """How much of the input one value of a blob sees, along each spatial axis.

    Both are empty for constants. A step below 1 is that of an enlarged map.
    """

    size: tuple[float, ...]
    """Cells of the input that take part in one value."""
    stride: tuple[float, ...]
    """Cells of the input from one value to the next."""


NOTHING = Field((), ())


@dataclass(frozen=True)
class Row:
    """One layer. `parameters` counts blobs owned here, `shared` those of another layer that it uses.

    `multiply_adds` is None where no formula is known (a layer of the user's own with parameters).
    `activation_bytes` counts the tops in float32, nothing for tops computed in place.
    `field` is None where it has no meaning (after an InnerProduct, for labels).
    """

    name: str
    type: str
    bottoms: tuple[Shape, ...]
    tops: tuple[Shape, ...]
    parameters: int
    shared: int
    multiply_adds: int | None
    activation_bytes: int
    field: Field | None


@dataclass(frozen=True)
class Total:
    """Sums over the layers; `batch` is the first input's first dimension."""

    parameters: int
    trained: int
    multiply_adds: int
    uncounted: int
    """Layers whose multiply-adds are not known."""
    activation_bytes: int
    batch: int


def rows(net: Net) -> list[Row]:
    """A Row for each layer of a net, in order; a net built on the meta device will do."""
    fields: dict[int, Field | None] = {}
    owned = {place: param for param in net.params for place in param.users[:1]}
    found = []
    for i, (step, layer) in enumerate(zip(net.graph.steps, net.made, strict=True)):
        bottoms = tuple(net.shapes[slot] for slot in step.reads)
        tops = tuple(net.shapes[slot] for slot in step.writes)
        own = sum(layer.blobs[j].numel() for j in range(len(layer.blobs)) if (i, j) in owned)
        used = sum(blob.numel() for blob in layer.blobs)
        seen = field_of(step, layer, bottoms, tops, [fields.get(slot) for slot in step.reads])
        fields.update(dict.fromkeys(step.writes, seen))
        found.append(
            Row(
                step.layer.name, step.layer.type, bottoms, tops, own, used - own,
                multiply_adds(layer, bottoms, tops), _top_bytes(net.graph, step, net.shapes), seen,
            )
        )  # fmt: skip
    return found


def total(net: Net, found: Sequence[Row]) -> Total:
    """The sums of a net's rows."""
    inputs = [net.shapes[slot] for slot in net.graph.inputs]
    return Total(
        sum(param.value.numel() for param in net.params),
        sum(param.value.numel() for param in net.params if param.value.requires_grad and param.lr_mult != 0),
        sum(row.multiply_adds or 0 for row in found),
        sum(row.multiply_adds is None for row in found),
        sum(row.activation_bytes for row in found),
        inputs[0][0] if inputs and inputs[0] else 1,
    )


# Multiply-adds


def multiply_adds(layer: Layer, bottoms: Shapes, tops: Shapes) -> int | None:
    """Products that a layer adds up in a forward pass over the batch; None when its type is not known."""
    formula = _FORMULAS.get(layer.spec.type)
    if formula is not None:
        return formula(layer, bottoms, tops)
    return None if layer.blobs or layer.spec.type == "Python" else 0


def _filters(layer: Layer, bottoms: Shapes, tops: Shapes) -> int:
    """Every output position uses every weight once."""
    return sum(prod(top) for top in tops) // layer.blob_shapes[0][0] * prod(layer.blob_shapes[0])


def _spread(layer: Layer, bottoms: Shapes, tops: Shapes) -> int:
    """Every input position uses every weight once."""
    return sum(prod(bottom) for bottom in bottoms) // layer.blob_shapes[0][0] * prod(layer.blob_shapes[0])


def _inner(layer: Layer, bottoms: Shapes, tops: Shapes) -> int:
    outputs = int(layer.param.num_output)
    return prod(tops[0]) // outputs * prod(layer.blob_shapes[0])


def _patches(products: int) -> Callable[[Any, Shapes, Shapes], int]:
    """Every output value runs over its patch, with so many products a value of it."""
    return lambda layer, bottoms, tops: sum(prod(top) for top in tops) * layer.block.values * products


def _similarity(layer: Any, bottoms: Shapes, tops: Shapes) -> int:
    """The weighted square distance is a sum over x^2 and x (two products), the others over x or |t - x|."""
    return _patches(2 if layer.kind == "L2" else 1)(layer, bottoms, tops)


def _recurrent(layer: Layer, bottoms: Shapes, tops: Shapes) -> int:
    """Every step of every sequence uses every matrix once."""
    steps, sequences = bottoms[0][:2]
    return steps * sequences * sum(prod(shape) for shape in layer.blob_shapes if len(shape) == 2)


def _each(layer: Layer, bottoms: Shapes, tops: Shapes) -> int:
    """One for each value."""
    return prod(tops[0])


def _neighbours(layer: Any, bottoms: Shapes, tops: Shapes) -> int:
    """A sum of squares over neighbours for each value, in the layer's own region."""
    neighbours: int = layer.size if layer.across else layer.size**2
    return prod(tops[0]) * neighbours


def _eltwise(layer: Layer, bottoms: Shapes, tops: Shapes) -> int:
    """A product for each further bottom, or each coefficient; a maximum and a plain sum have none."""
    p = layer.param
    if p.operation == p.PROD:
        return prod(tops[0]) * (len(bottoms) - 1)
    return prod(tops[0]) * len(bottoms) if p.operation == p.SUM and len(p.coeff) else 0


_FORMULAS: dict[str, Callable[[Any, Shapes, Shapes], int]] = {
    "Convolution": _filters,
    "ConvolutionDepthwise": _filters,
    "DepthwiseConvolution": _filters,
    "Deconvolution": _spread,
    "InnerProduct": _inner,
    "Embed": lambda layer, bottoms, tops: 0,
    "Bias": lambda layer, bottoms, tops: 0,
    "Parameter": lambda layer, bottoms, tops: 0,
    "Similarity": _similarity,
    "MEX": _patches(1),
    "LSTM": _recurrent,
    "RNN": _recurrent,
    "BatchNorm": _each,
    "BN": _each,
    "Scale": _each,
    "Axpy": _each,
    "PReLU": _each,
    "Normalize": _each,
    "LRN": _neighbours,
    "Eltwise": _eltwise,
}


def _top_bytes(graph: Graph, step: Step, shapes: Shapes) -> int:
    names = {graph.name(slot) for slot in step.reads}
    return sum(FLOAT_BYTES * prod(shapes[slot]) for slot in step.writes if graph.name(slot) not in names)


# Receptive fields

_MIXING = {
    "InnerProduct",
    "MVN",
    "Permutation",
    "Permute",
    "Proposal",
    "Python",
    "Reorg",
    "Reshape",
    "SPP",
    "SpatialTransformer",
}
"""Types that look at other places than their top's own, though shapes may suggest otherwise."""


def field_of(
    step: Step, layer: Any, bottoms: Shapes, tops: Shapes, seen: Sequence[Field | None]
) -> Field | None:
    """The field of a layer's tops from those of its bottoms."""
    if step.kind.is_source:
        axes = len(tops[0]) - 2
        return Field((1.0,) * axes, (1.0,) * axes) if axes > 0 else None
    before = _merge(seen)
    if before is None or layer.spec.type in _MIXING or not tops:
        return None
    if before == NOTHING:
        return NOTHING
    if step.layer.type == "Deconvolution":
        return _enlarged(before, layer.window.extent, layer.window.stride)
    window = _window(layer)
    if window is not None:
        extent, stride = window
        if len(extent) != len(before.size):
            return None
        size = tuple(f + (e - 1) * s for f, e, s in zip(before.size, extent, before.stride, strict=True))
        return Field(size, tuple(a * b for a, b in zip(before.stride, stride, strict=True)))
    same = len(tops[0]) == len(bottoms[0]) and tops[0][2:] == bottoms[0][2:]
    return before if same else None


def _merge(seen: Sequence[Field | None]) -> Field | None:
    """The field of several bottoms together: the largest, if their steps agree; constants have no say."""
    if None in seen:
        return None
    known = [field for field in seen if field is not None and field != NOTHING]
    if len({field.stride for field in known}) > 1:
        return None
    if not known:
        return NOTHING
    return Field(tuple(max(sizes) for sizes in zip(*(f.size for f in known), strict=True)), known[0].stride)


def _window(layer: Any) -> tuple[Sequence[int], Sequence[int]] | None:
    """Cells spanned and step along each spatial axis, for a layer that slides a window."""
    if hasattr(layer, "window"):
        return layer.window.extent, layer.window.stride
    if hasattr(layer, "frame"):
        return layer.frame.kernel, layer.frame.stride
    if hasattr(layer, "block"):
        return layer.block.size[1:], layer.block.stride[1:]
    if layer.spec.type == "LRN" and not layer.across:
        return (layer.size,) * 2, (1, 1)
    return None


def _enlarged(before: Field, extent: Sequence[int], stride: Sequence[int]) -> Field | None:
    """After a transposed window: a value gathers ceil(extent / stride) values below, and the step shrinks."""
    if len(extent) != len(before.size):
        return None
    size = (
        f + (ceil(e / s) - 1) * j
        for f, e, s, j in zip(before.size, extent, stride, before.stride, strict=True)
    )
    return Field(tuple(size), tuple(j / s for j, s in zip(before.stride, stride, strict=True)))


# The table

COLUMNS = ("layer", "type", "tops", "parameters", "multiply-adds", "memory", "field", "step")


def table(net: Net) -> Table:
    """The rows and their sums as a rich table, for `console.print`."""
    from rich.markup import escape
    from rich.table import Table as RichTable

    found = rows(net)
    sums = total(net, found)
    title = f"{escape(net.graph.spec.name or 'net')}, {net.graph.spec.phase}, {len(found)} layers"
    made = RichTable(title=title, caption="\n".join(remarks(sums)), caption_justify="left")
    for i, name in enumerate(COLUMNS):
        made.add_column(
            name, justify="left" if i < 3 else "right", overflow="fold", min_width=6 if i < 3 else 4
        )
    for row in found:
        made.add_row(*map(escape, cells(row)))
    made.add_section()
    made.add_row(*total_cells(sums))
    return made


def remarks(sums: Total) -> list[str]:
    """Lines to stand below the table."""
    lines = [f"{sums.parameters:,} parameters, {sums.trained:,} of them trained"]
    if sums.batch > 1:
        lines.append(
            f"a batch of {sums.batch}: {count(sums.multiply_adds // sums.batch)} multiply-adds a sample"
        )
    if sums.uncounted:
        lines.append(f"multiply-adds of {sums.uncounted} layers are not known")
    return lines


def cells(row: Row) -> list[str]:
    """A row as text, one a column."""
    parameters = f"{row.parameters:,}" if row.parameters else ""
    if row.shared:
        parameters = f"{parameters} (+{row.shared:,} shared)".strip()
    field, step = "", ""
    if row.field is not None and row.field.size:
        field, step = _cells(row.field.size), _cells(row.field.stride)
    adds = "?" if row.multiply_adds is None else count(row.multiply_adds) if row.multiply_adds else ""
    memory = size(row.activation_bytes) if row.activation_bytes else "in place" if row.tops else ""
    shapes = " ".join("×".join(map(str, top)) or "scalar" for top in row.tops)
    return [row.name, row.type, shapes, parameters, adds, memory, field, step]


def total_cells(sums: Total) -> list[str]:
    """The last row as text."""
    return [
        "total", "", "", f"{sums.parameters:,}", count(sums.multiply_adds), size(sums.activation_bytes),
        "", "",
    ]  # fmt: skip


def _cells(values: Sequence[float]) -> str:
    """(3, 3) as '3', (3, 5) as '3×5'."""
    return f"{values[0]:g}" if len(set(values)) == 1 else "×".join(f"{value:g}" for value in values)


def count(n: int) -> str:
    """A large number with three digits and its power of a thousand: 1234567 as '1.23 M'."""
    return _scaled(n, 1000, ("", " k", " M", " G", " T", " P"))


def size(n: int) -> str:
    """Bytes with three digits, in powers of 1024."""
    return _scaled(n, 1024, (" B", " KiB", " MiB", " GiB", " TiB", " PiB"))


def _scaled(n: float, base: int, units: Sequence[str]) -> str:
    power = 0
    while n >= 999.5 and power < len(units) - 1:
        n, power = n / base, power + 1
    return f"{n:.0f}{units[power]}" if power == 0 or n >= 99.95 else f"{n:.3g}{units[power]}"
