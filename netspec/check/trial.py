"""Walk a net once on random input: forward, and backward from its loss."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import torch
from torch import Tensor

from netspec.check.assume import roles
from netspec.errors import Problem, SpecError
from netspec.layers.base import Shape
from netspec.net.graph import Graph
from netspec.net.net import Net, build

BATCH = 2
"""Images per batch: enough for batch statistics, and quick."""
VALUES = 1 << 27
"""Most values in a net's blobs during a trial; pictures are halved until the net fits."""
SMALLEST = 32
"""Pictures are not halved below this side."""
OBJECT = (0.0, 1.0, 0.0, 0.25, 0.25, 0.75, 0.75, 0.0)
"""A row of ground truth as AnnotatedData makes it: class 1 in the middle of the first picture."""


def try_out(graph: Graph, shapes: Mapping[str, Shape]) -> str:
    """ "forward", or "forward and backward" where the net has a loss that reaches weights.

    `shapes` are those of the inputs whose data is not here. Raises SpecError where the walk fails.
    """
    net = build(graph, seed=0, input_shapes=shapes)
    try:
        values = random_inputs(net)
        total = net.objective(net(*values))
        if not (graph.losses and total.requires_grad):
            return "forward"
        total.backward()  # type: ignore[no-untyped-call]
        return "forward and backward"
    except Exception as error:  # whatever a layer, ours or the user's, runs into
        notes = getattr(error, "__notes__", [])
        text = f"a walk on random input fails: {type(error).__name__}: {error}"
        raise SpecError([Problem("; ".join((text.splitlines()[0], *notes)))]) from error


def small(graph: Graph, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """Shapes of all inputs, reduced where the net accepts it: BATCH examples, pictures that fit into memory."""
    net = build(graph, device="meta", input_shapes=shapes)
    own = {graph.name(slot): net.shapes[slot] for slot in graph.inputs}
    few = {name: (min(BATCH, shape[0]), *shape[1:]) if shape else shape for name, shape in own.items()}
    if few != own and (smaller := shaped_with(graph, few)) is not None:
        own, net = few, smaller
    while total(net) > VALUES:
        half = {name: halved(shape) for name, shape in own.items()}
        smaller = shaped_with(graph, half) if half != own else None
        if smaller is None:
            break
        own, net = half, smaller
    return own


def shaped_with(graph: Graph, shapes: Mapping[str, Shape]) -> Net | None:
    """The net on the meta device with other input shapes; None where it refuses them."""
    try:
        return build(graph, device="meta", input_shapes=shapes)
    except SpecError:
        return None


def total(net: Net) -> int:
    """How many values its blobs hold."""
    return sum(prod(shape) for shape in net.shapes if shape is not None)


def halved(shape: Shape) -> Shape:
    """The shape of a picture or volume with halved sides."""
    if len(shape) < 4 or min(shape[2:]) < 2 * SMALLEST:
        return shape
    return (*shape[:2], *(side // 2 for side in shape[2:]))


def random_inputs(net: Net, seed: int = 0) -> list[Tensor]:
    """Values for the inputs of a net: valid labels, indices and regions; standard normal numbers elsewhere."""
    generator = torch.Generator().manual_seed(seed)
    graph = net.graph
    kinds = roles(graph)
    images = [net.shapes[slot] for slot in graph.inputs if len(net.shapes[slot]) == 4]
    values = []
    for slot in graph.inputs:
        shape, name = net.shapes[slot], graph.name(slot).lower()
        if kinds[slot] == "boxes" and shape[-1] == len(OBJECT):
            values.append(torch.tensor(OBJECT).expand(shape).clone())
        elif kinds[slot] in ("label", "index") or any(word in name for word in ("label", "index")):
            values.append(torch.zeros(shape))
        elif kinds[slot] == "continuation":
            values.append(torch.ones(shape).index_fill_(0, torch.tensor(0), 0))
        elif kinds[slot] == "regions" or "rois" in name:
            values.append(regions(shape, images[0] if images else (1, 3, 64, 64)))
        elif "im_info" in name and images:
            height, width = images[0][2:]
            row = torch.tensor([height, width, 1.0, 1.0, 1.0, 1.0])
            values.append(row[: shape[-1]].expand(shape).clone() if shape[-1] <= 6 else torch.ones(shape))
        else:
            values.append(torch.randn(shape, generator=generator))
    return values


def regions(shape: Shape, image: Shape) -> Tensor:
    """Rows (0, x1, y1, x2, y2): the middle of the first image."""
    height, width = image[2:]
    row = torch.tensor([0, width // 4, height // 4, width * 3 // 4, height * 3 // 4]).float()
    if shape[1:2] != (5,):
        return torch.zeros(shape)
    return row.view(1, 5, *(1 for _ in shape[2:])).expand(shape).clone()
