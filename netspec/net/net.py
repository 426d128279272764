"""Net: a graph with its layers made, its shapes known and its weights filled."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from netspec.errors import LabelError, Problem, SpecError
from netspec.layers import ranks
from netspec.layers.base import Layer, Shape, as_tuple
from netspec.net.checkpointing import Walker
from netspec.net.graph import Graph, Step
from netspec.net.memory import check_memory
from netspec.net.params import Param, freeze, materialise, numbered, share_by_name
from netspec.net.precision import mixed
from netspec.net.shapes import shape_pass
from netspec.schema.spec import TRAIN

Call = Callable[..., tuple[Tensor, ...]]
"""How one layer is applied during a walk: (layer, *bottoms) -> tops."""


def plain(layer: Layer, *bottoms: Tensor) -> tuple[Tensor, ...]:
    """The ordinary call of a walk: the layer's forward."""
    return as_tuple(layer(*bottoms))


def explained(layer: Layer, *bottoms: Tensor) -> tuple[Tensor, ...]:
    """As `plain`; adds a note with the layer's place and its bottoms' shapes to an error of its forward."""
    try:
        return as_tuple(layer(*bottoms))
    except Exception as error:
        explain(error, layer, bottoms)
        raise


def explain(error: Exception, layer: Layer, bottoms: Sequence[Tensor]) -> None:
    """Give an error of a layer's forward a note with its place; raise LabelError where labels are the cause."""
    if isinstance(error, IndexError | RuntimeError) and (text := wrong_labels(layer, bottoms)):
        raise LabelError(text) from error
    place = layer.spec.at()
    shapes = ", ".join(str(tuple(bottom.shape)) for bottom in bottoms) or "none"
    error.add_note(f"{f'{place}: ' if place else ''}{layer.spec}, bottoms {shapes}")


def joint(layer: Layer, reader: Layer, bottoms: Sequence[Tensor]) -> tuple[Tensor, ...] | None:
    """The tops of `reader` from the bottoms of `layer`, which alone writes what it reads, in one piece of work; None
    where there is none, or where somebody hooked into one of the two.
    """
    if any(one._forward_hooks or one._forward_pre_hooks for one in (layer, reader)):
        return None
    try:
        return layer.with_reader(reader, *bottoms)
    except Exception as error:
        explain(error, layer, bottoms)
        raise


def wrong_labels(layer: Layer, bottoms: Sequence[Tensor]) -> str:
    """In words, the labels, indices, lengths or image numbers among a layer's bottoms that are out of range; "" where
    all are valid.
    """
    for i in range(len(bottoms)):
        role = type(layer).role(i, len(bottoms))
        if not bottoms[0].dim() and role != "index":  # a single number has neither classes nor rows
            continue
        values, first, end = range_of(layer, role, bottoms[0].shape, bottoms[i].detach())
        outside = values[~((values >= first) & (values < end))]
        if not outside.numel():
            continue
        there = f"there are {end}, 0 to {end - 1}" if first == 0 else f"it must be below {end}"
        text = f"{role} {outside[0].item():g} is outside: {there} "
        text += f"({outside.numel()} of {values.numel()} values are outside)"
        return str(layer.spec.problem(f"bottom {layer.spec.bottoms[i]!r}: {text}", "bottom", i))
    return ""


def range_of(layer: Layer, role: str, shape: torch.Size, given: Tensor) -> tuple[Tensor, float, int]:
    """(values of a bottom that select something, least valid value, first value beyond the valid ones).

    shape: of the first bottom. No values where the bottom's role sets no range.
    """
    axis = type(layer).classes_along(layer.spec)
    classes = shape[axis] if -len(shape) <= axis < len(shape) else shape[-1] if shape else 1
    if role == "label":
        return given, 0, classes
    if role == "label rows":  # what is negative or NaN ends a row
        return given[given >= 0], -math.inf, classes
    if role in ("row label", "index"):
        return given, 0, layer.blob_shapes[0][0] if layer.blob_shapes else prod(shape[1:])
    if role == "row index":
        return given, 0, shape[0]
    if role == "switches" and layer.places:
        return given, 0, layer.places
    if role == "lengths":
        return given, 0, shape[0] + 1
    if role == "regions" and shape != given.shape and given.shape[1:2] == (5,):
        return given[:, 0], 0, shape[0]
    return given[:0], 0, 0


def pairs(graph: Graph, plan: Sequence[tuple[Step, Layer]]) -> frozenset[int]:
    """Places in the plan of layers whose one top is read by the next layer alone, and is nothing that the net gives."""
    readers = Counter(slot for step, _ in plan for slot in step.reads)
    given = {*graph.outputs, *(slot for slot, _ in graph.losses)}
    places = range(len(plan) - 1)
    return frozenset(
        i
        for i in places
        if plan[i][0].writes == plan[i + 1][0].reads
        and len(plan[i][0].writes) == 1
        and readers[plan[i][0].writes[0]] == 1
        and plan[i][0].writes[0] not in given
        and not any(plan[i + 1][0].stops)
    )


class Net(nn.Module):
    """The executor: a loop over the graph's steps. Call it with the graph's inputs in order, get its outputs.

    >>> import torch, netspec
    >>> net = netspec.make_net('''
    ...     layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
    ...     layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 4 } }''')
    >>> (y,) = net(torch.zeros(2, 3))
    >>> tuple(y.shape), [tuple(param.value.shape) for param in net.params]
    ((2, 4), [(4, 3), (4,)])
    """

    def __init__(self, graph: Graph, layers: Sequence[Layer], shapes: Sequence[Shape]):
        super().__init__()
        self.graph = graph
        self.layers = nn.ModuleList(layers)
        self.made = list(layers)
        """The layers as a typed list, one per step."""
        self.shapes = tuple(shapes)
        """Shape of every slot."""
        self.params: list[Param] = []
        self._plan = [
            (step, layer) for step, layer in zip(graph.steps, layers, strict=True) if not step.kind.is_source
        ]
        self._blocks = Walker(graph, self.made)
        self._pairs = pairs(graph, self._plan)
        self.short_products = False
        """Whether `forward` computes the products of convolutions and inner products in bfloat16."""

    # Walking

    def run(
        self, call: Call, *inputs: Tensor, again: bool = False, joined: bool = False
    ) -> tuple[Tensor, ...]:
        """Walk the steps with `call` in place of each layer's forward; returns outputs, then losses, in graph order.

        again: keep no blob inside of layers with `checkpoint`; backward calls them again.
        joined: a layer and the only one that reads it may be computed in one piece of work, without the blob between.
        """
        if len(inputs) != len(self.graph.inputs):
            raise ValueError(
                f"{len(inputs)} inputs given, the net takes {len(self.graph.inputs)}: {self.input_names}"
            )
        slots: list[Any] = [None] * len(self.graph.slots)
        for slot, value in zip(self.graph.inputs, inputs, strict=True):
            slots[slot] = value
        if again:
            self._blocks.run(partial(walk, call), slots)
        else:
            walk(call, self._plan, slots, self._pairs if joined else frozenset())
        return tuple(slots[slot] for slot in (*self.graph.outputs, *(slot for slot, _ in self.graph.losses)))

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The net's outputs (blobs that no layer reads, by name), then its loss blobs."""
        call = plain if torch.compiler.is_compiling() else explained
        if self.short_products:
            call = mixed(call)
        again = bool(self._blocks.blocks) and torch.is_grad_enabled()
        return self.run(call, *inputs, again=again, joined=not self.short_products)

    def _repr_html_(self) -> str:
        from netspec.net.summary import as_html

        return as_html(self)

    def objective(self, tops: Sequence[Tensor], stage: str | None = None) -> Tensor:
        """The weighted sum of the loss blobs among `tops` (what `forward` returned): the scalar that is trained.

        stage: losses of layers that name another on_off_stage do not count.
        """
        losses = tops[len(self.graph.outputs) :]
        total = torch.zeros((), device=tops[0].device if tops else None)
        for value, (slot, weight) in zip(losses, self.graph.losses, strict=True):
            named = self.graph.steps[self.graph.slots[slot].maker].layer.message.on_off_stage
            if stage is None or named in ("", stage):
                # a sum over the rows of one part: what all parts sum up to is `parts` times their mean
                parts = ranks.current().parts if value.dim() else 1
                total = total + weight * parts * value.sum()
        return total

    def outputs(self, tops: Sequence[Tensor]) -> dict[str, Tensor]:
        """The named outputs among `tops` (what `forward` returned)."""
        return {self.graph.name(slot): top for slot, top in zip(self.graph.outputs, tops, strict=False)}

    def blobs(self, *inputs: Tensor, until: str | None = None) -> dict[str, Tensor]:
        """Every blob by name, with its final value, or its value after layer `until`."""
        return {self.graph.name(slot): value for slot, value in self.slots(*inputs, until=until).items()}

    def slots(self, *inputs: Tensor, until: str | None = None) -> dict[int, Tensor]:
        """Every slot's value; the walk ends after the layer called `until`."""
        values: dict[int, Tensor] = dict(zip(self.graph.inputs, inputs, strict=True))
        walk = iter(self._plan)

        def watching(layer: Layer, *bottoms: Tensor) -> tuple[Tensor, ...]:
            step, _ = next(walk)
            tops = explained(layer, *bottoms)
            values.update(zip(step.writes, tops, strict=True))
            if layer.spec.name == until:
                raise _Stop
            return tops

        try:
            self.run(watching, *inputs)
        except _Stop:
            return values
        if until is not None:
            raise KeyError(f"no layer is called {until!r}")
        return values

    @property
    def input_names(self) -> list[str]:
        return [self.graph.name(slot) for slot in self.graph.inputs]

    @property
    def output_names(self) -> list[str]:
        return [self.graph.name(slot) for slot in self.graph.outputs]

    def is_known(self, slot: int) -> bool:
        """Whether the shape of a slot is known: not behind a Python layer that was not imported (see `build`)."""
        shape: Shape | None = self.shapes[slot]
        return shape is not None

    def shape(self, blob: str) -> Shape:
        """The shape of the blob called `blob` (its last version); KeyError when there is none."""
        slot = self.graph.find(blob)
        if slot is None:
            raise KeyError(blob)
        return self.shapes[slot]

    def layer(self, name: str) -> Layer:
        """The first layer called `name`; KeyError when there is none."""
        for layer in self.made:
            if layer.spec.name == name:
                return layer
        raise KeyError(name)

    # Facts about blobs' values that compiled and exported code relies on

    def look(self) -> None:
        """Let every layer read from its blobs' values the facts on which its forward branches (`Layer.look`).

        Eager walks do this in each pass. Compiled code keeps the last facts, so call this after a change of values.
        """
        for layer in self.made:
            layer.look()

    def noted(self) -> dict[str, Any]:
        """The facts that layers read in `look`, by "<step>/<attribute>", as JSON values."""
        places = ((i, layer, name) for i, layer in enumerate(self.made) for name in layer.looks_for)
        return {f"{i}/{name}": getattr(layer, name) for i, layer, name in places}

    def recall(self, noted: Mapping[str, Any]) -> None:
        """Give the layers the facts that `noted` returned; they hold until the layers look again."""
        for i, layer in enumerate(self.made):
            layer.versions = ()
            for name in layer.looks_for:
                setattr(layer, name, noted.get(f"{i}/{name}", getattr(layer, name)))

    def compile(self, *args: Any, **options: Any) -> None:
        """`nn.Module.compile`, for the values that the blobs have now."""
        self.look()
        super().compile(*args, **options)

    # Weights

    def weights(self) -> dict[str, Tensor]:
        """Every owned blob, detached, by '<layer>/<index>'. A blob shared by name appears once, under its owner."""
        return {param.name: param.value.detach() for param in self.params}

    def load_weights(
        self, weights: Mapping[str, Tensor], source: str = "weights"
    ) -> tuple[list[str], list[str]]:
        """Copy blobs in by name; returns (our names that were not in the source, names of the source that were not
        used).

        Raises SpecError at the layer when a shape differs, naming both. Nothing is copied then.
        """
        problems, copies, missing = [], [], []
        used: set[str] = set()
        places_of = numbered(self.graph)
        for param in self.params:
            places = [f"{name}/{j}" for i, j in param.users for name, k in (places_of[i],) if k == 1]
            used.update((param.name, *places))
            name = next((name for name in (param.name, *places) if name in weights), None)
            if name is None:
                missing.append(param.name)
                continue
            theirs, ours = tuple(weights[name].shape), tuple(param.value.shape)
            if theirs != ours:
                layer = self.graph.steps[param.users[0][0]].layer
                problems.append(layer.problem(f"blob {param.name} has shape {ours}, {source} holds {theirs}"))
            else:
                copies.append((param.value, weights[name]))
        if problems:
            raise SpecError(problems)
        with torch.no_grad():
            for value, new in copies:
                value.copy_(new)
        self.look()
        return missing, [name for name in weights if name not in used]


def walk(
    call: Call, plan: Sequence[tuple[Step, Layer]], slots: list[Any], joined: Collection[int] = ()
) -> None:
    """Some steps of a net, over the values of its slots.

    joined: places in the plan from which on two layers may be computed in one piece of work.
    """
    done: Step | None = None
    for i, (step, layer) in enumerate(plan):
        if step is done:
            continue
        bottoms = [
            slots[slot].detach() if stop else slots[slot]
            for slot, stop in zip(step.reads, step.stops, strict=True)
        ]
        tops, done = None, step
        if i in joined:
            following, reader = plan[i + 1]
            tops = joint(layer, reader, bottoms)
            done = step if tops is None else following
        for slot, top in zip(done.writes, call(layer, *bottoms) if tops is None else tops, strict=True):
            slots[slot] = top
        for slot in step.drops if done is step else (*step.drops, *done.drops):
            slots[slot] = None


class _Stop(Exception):
    """Ends a walk early."""


def build(
    graph: Graph,
    *,
    seed: int | None = None,
    device: str | torch.device = "cpu",
    share: Net | None = None,
    input_shapes: Mapping[str, Shape] | None = None,
    history: int = 0,
    unknown: list[Problem] | None = None,
) -> Net:
    """Make a Net: layers, shapes (found on the meta device), memory check, then weights.

    seed: of the fillers; None takes one from torch's default generator.
    device: "meta" stops after the shapes, with nothing allocated.
    share: a net whose parameters are used for layers of the same name (TRAIN and TEST nets of one model).
    input_shapes: shapes of source blobs by name, in place of what their layers say.
    unknown: for a net on the meta device: a list that collects the Python layers that hide shapes, in place of an error
    (see `shape_pass`).
    history: tensors that a solver will keep beside each weight; the memory check counts them.
    Raises SpecError with every shape mistake, each at its layer; or when the blobs would not fit in memory.

    >>> import netspec
    >>> from netspec import schema
    >>> from netspec.net.graph import compile
    >>> text = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }'
    >>> net = netspec.build(compile(schema.spec.net(schema.parse_net(text), "TEST")), seed=1)
    >>> net.shapes
    ((2, 3),)
    """
    layers, shapes = shape_pass(graph, input_shapes or {}, unknown)
    others = {} if share is None else dict(zip(numbered(share.graph), share.made, strict=True))
    net = Net(graph, layers, shapes)
    net.params = params = share_by_name(graph, layers, others)
    if torch.device(device).type != "meta":
        new = [param for param in params if param.value.is_meta]
        check_memory(graph, shapes, new, torch.device(device), history)
        materialise(params, layers, seed)
        net.to(device)
    if graph.spec.phase == TRAIN:
        freeze(params, graph)
    return net
