"""What each layer of a net costs and sees: shapes, parameters, multiply-adds, memory, receptive field.

Multiply-adds are those of the layer's defining sum, for the whole batch: one for each product that is added up.
Comparisons, plain additions, exponentials and divisions are not counted, as is customary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from netspec.layers.base import Layer, Shape
from netspec.layers.traits import NOTHING, Field
from netspec.net.graph import Graph, Step
from netspec.net.net import Net

if TYPE_CHECKING:
    from rich.table import Table

FLOAT_BYTES = 4
Shapes = Sequence[Shape]


@dataclass(frozen=True)
class Row:
    """One layer. `parameters` counts blobs owned here, `shared` those of another layer that it uses.

    `multiply_adds` is None where it is unknown (a user's own layer that does not run on the meta device).
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
    known: bool = True
    """False where a Python layer that is not imported hides the shapes; then all other fields are empty."""


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
    unknown: int = 0
    """Layers whose shapes are not known, so that nothing of them is counted."""


def rows(net: Net) -> list[Row]:
    """A Row for each layer of a net, in order; a net built on the meta device will do."""
    fields: dict[int, Field | None] = {}
    owned = {place: param for param in net.params for place in param.users[:1]}
    lines = []
    for i, (step, layer) in enumerate(zip(net.graph.steps, net.made, strict=True)):
        if not all(net.is_known(slot) for slot in (*step.reads, *step.writes)):
            lines.append(Row(step.layer.name, step.layer.type, (), (), 0, 0, None, 0, None, known=False))
            continue
        bottoms = tuple(net.shapes[slot] for slot in step.reads)
        tops = tuple(net.shapes[slot] for slot in step.writes)
        own = sum(layer.blobs[j].numel() for j in range(len(layer.blobs)) if (i, j) in owned)
        used = sum(blob.numel() for blob in layer.blobs)
        seen = field_of(step, layer, bottoms, tops, [fields.get(slot) for slot in step.reads])
        fields.update(dict.fromkeys(step.writes, seen))
        lines.append(
            Row(
                step.layer.name, step.layer.type, bottoms, tops, own, used - own,
                layer.multiply_adds(bottoms, tops), _top_bytes(net.graph, step, net.shapes), seen,
            )
        )  # fmt: skip
    return lines


def total(net: Net, lines: Sequence[Row]) -> Total:
    """The sums of a net's rows."""
    inputs = [net.shapes[slot] for slot in net.graph.inputs if net.is_known(slot)]
    return Total(
        sum(param.value.numel() for param in net.params),
        sum(param.value.numel() for param in net.params if param.value.requires_grad and param.lr_mult != 0),
        sum(row.multiply_adds or 0 for row in lines),
        sum(row.multiply_adds is None for row in lines),
        sum(row.activation_bytes for row in lines),
        inputs[0][0] if inputs and inputs[0] else 1,
        sum(not row.known for row in lines),
    )


def _top_bytes(graph: Graph, step: Step, shapes: Shapes) -> int:
    names = {graph.name(slot) for slot in step.reads}
    return sum(FLOAT_BYTES * prod(shapes[slot]) for slot in step.writes if graph.name(slot) not in names)


# Receptive fields


def field_of(
    step: Step, layer: Layer, bottoms: Shapes, tops: Shapes, seen: Sequence[Field | None]
) -> Field | None:
    """The field of a layer's tops from those of its bottoms."""
    if step.kind.is_source:
        axes = len(tops[0]) - 2
        return Field((1.0,) * axes, (1.0,) * axes, (0.0,) * axes) if axes > 0 else None
    below = _merge(seen)
    if below is None or layer.mixes or not tops:
        return None
    return NOTHING if below == NOTHING else layer.field(below, bottoms, tops)


def _merge(seen: Sequence[Field | None]) -> Field | None:
    """The field of several bottoms together: the largest, if their steps agree; constants do not count."""
    if None in seen:
        return None
    known = [field for field in seen if field is not None and field != NOTHING]
    if len({field.stride for field in known}) > 1:
        return None
    if not known:
        return NOTHING
    size = tuple(max(sizes) for sizes in zip(*(f.size for f in known), strict=True))
    return Field(size, known[0].stride, known[0].first)


# The table

COLUMNS = ("layer", "type", "tops", "parameters", "multiply-adds", "memory", "field", "step")


def table(net: Net) -> Table:
    """The rows and their sums as a rich table, for `console.print`."""
    from rich.markup import escape
    from rich.table import Table as RichTable

    lines = rows(net)
    sums = total(net, lines)
    title = f"{escape(net.graph.spec.name or 'net')}, {net.graph.spec.phase}, {len(lines)} layers"
    shown = RichTable(title=title, caption="\n".join(remarks(sums)), caption_justify="left")
    for i, name in enumerate(COLUMNS):
        shown.add_column(
            name, justify="left" if i < 3 else "right", overflow="fold", min_width=6 if i < 3 else 4
        )
    for row in lines:
        shown.add_row(*map(escape, cells(row)))
    shown.add_section()
    shown.add_row(*total_cells(sums))
    return shown


def remarks(sums: Total) -> list[str]:
    """Lines to stand below the table."""
    lines = [f"{sums.parameters:,} parameters, {sums.trained:,} of them trained"]
    if sums.batch > 1:
        lines.append(
            f"a batch of {sums.batch}: {count(sums.multiply_adds // sums.batch)} multiply-adds a sample"
        )
    if sums.unknown:
        lines.append(f"shapes of {sums.unknown} layers are not known: nothing of them is in the totals")
    if uncounted := sums.uncounted - sums.unknown:
        lines.append(f"multiply-adds of {uncounted} layers are not known")
    return lines


def cells(row: Row) -> list[str]:
    """A row as texts, one per column."""
    parameters = f"{row.parameters:,}" if row.parameters else ""
    if row.shared:
        parameters = f"{parameters} (+{row.shared:,} shared)".strip()
    field, step = "", ""
    if row.field is not None and row.field.size:
        field, step = _cells(row.field.size), _cells(row.field.stride)
    adds = "?" if row.multiply_adds is None else count(row.multiply_adds) if row.multiply_adds else ""
    memory = size(row.activation_bytes) if row.activation_bytes else "in place" if row.tops else ""
    shapes = " ".join("×".join(map(str, top)) or "scalar" for top in row.tops) if row.known else "unknown"
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


def as_html(net: Net) -> str:
    """The table as HTML, for notebooks."""
    from html import escape

    lines = rows(net)
    sums = total(net, lines)
    name = escape(net.graph.spec.name or "net")
    head = "".join(f"<th>{escape(column)}</th>" for column in COLUMNS)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells(row)) + "</tr>" for row in lines
    )
    notes = "<br>".join(escape(remark) for remark in remarks(sums))
    caption = f"<caption>{name}, {escape(net.graph.spec.phase)}, {len(lines)} layers</caption>"
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table><p>{notes}</p>"
