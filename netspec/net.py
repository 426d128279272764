"""Net: a graph with its layers made, its shapes known and its weights filled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from netspec.errors import Problem, SpecError
from netspec.graph import Graph, Step
from netspec.layers.base import Layer, Shape, as_tuple
from netspec.memory import check_memory
from netspec.spec import TRAIN

Call = Callable[..., tuple[Tensor, ...]]
"""How one layer is applied during a walk: (layer, *bottoms) -> tops."""


@dataclass
class Param:
    """A learnable blob with how the solver treats it; `users` are all (layer, blob) places it serves."""

    name: str
    """'<layer>/<blob index>' of its owner."""
    value: nn.Parameter
    lr_mult: float
    decay_mult: float
    min_value: float
    max_value: float
    is_logspace: bool
    regularization_types: tuple[str, ...]
    on_off_stage: str
    users: list[tuple[int, int]]


def plain(layer: Layer, *bottoms: Tensor) -> tuple[Tensor, ...]:
    """The ordinary call of a walk: the layer's forward."""
    return as_tuple(layer(*bottoms))


def explained(layer: Layer, *bottoms: Tensor) -> tuple[Tensor, ...]:
    """`plain`, and an error of the layer's forward gains a note with its place and its bottoms' shapes."""
    try:
        return as_tuple(layer(*bottoms))
    except Exception as error:
        place = layer.spec.at()
        shapes = ", ".join(str(tuple(bottom.shape)) for bottom in bottoms) or "none"
        error.add_note(f"{f'{place}: ' if place else ''}{layer.spec}, bottoms {shapes}")
        raise


class Net(nn.Module):
    """The executor: a loop over the graph's steps. Call it with the graph's inputs in order, get its outputs."""

    def __init__(self, graph: Graph, layers: Sequence[Layer], shapes: Sequence[Shape]):
        super().__init__()
        self.graph = graph
        self.layers = nn.ModuleList(layers)
        self.made = list(layers)
        """The layers again, typed; one a step."""
        self.shapes = tuple(shapes)
        """Shape of every slot."""
        self.params: list[Param] = []
        self._plan = [
            (step, layer) for step, layer in zip(graph.steps, layers, strict=True) if not step.kind.is_source
        ]

    # Walking

    def run(self, call: Call, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Walk the steps with `call` in place of each layer's forward; gives outputs, then losses, in graph order."""
        if len(inputs) != len(self.graph.inputs):
            raise ValueError(
                f"{len(inputs)} inputs given, the net takes {len(self.graph.inputs)}: {self.input_names}"
            )
        slots: list[Any] = [None] * len(self.graph.slots)
        for slot, value in zip(self.graph.inputs, inputs, strict=True):
            slots[slot] = value
        for step, layer in self._plan:
            bottoms = [
                slots[slot].detach() if stop else slots[slot]
                for slot, stop in zip(step.reads, step.stops, strict=True)
            ]
            for slot, top in zip(step.writes, call(layer, *bottoms), strict=True):
                slots[slot] = top
            for slot in step.drops:
                slots[slot] = None
        return tuple(slots[slot] for slot in (*self.graph.outputs, *(slot for slot, _ in self.graph.losses)))

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The net's outputs (blobs that no layer reads, by name), then its loss blobs."""
        return self.run(plain if torch.compiler.is_compiling() else explained, *inputs)

    def objective(self, tops: Sequence[Tensor]) -> Tensor:
        """The weighted sum of the loss blobs among `tops` (what `forward` returned): the scalar that is trained."""
        losses = tops[len(self.graph.outputs) :]
        total = torch.zeros((), device=tops[0].device if tops else None)
        for value, (_, weight) in zip(losses, self.graph.losses, strict=True):
            total = total + weight * value.sum()
        return total

    def outputs(self, tops: Sequence[Tensor]) -> dict[str, Tensor]:
        """The named outputs among `tops` (what `forward` returned)."""
        return {self.graph.name(slot): top for slot, top in zip(self.graph.outputs, tops, strict=False)}

    def blobs(self, *inputs: Tensor, until: str | None = None) -> dict[str, Tensor]:
        """Every blob by name, as it stands at the end (or after layer `until`)."""
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

    # What layers note of their blobs' values, for compiled and exported code

    def look(self) -> None:
        """Let every layer note what its forward branches on in its blobs' values. Plain walks do so themselves;
        after a change of values this is for compiled code, which goes by what was noted last.
        """
        for layer in self.made:
            layer.look()

    def noted(self) -> dict[str, Any]:
        """What layers have noted, by "<step>/<attribute>", as JSON can hold it."""
        found = ((i, layer, name) for i, layer in enumerate(self.made) for name in layer.looks_for)
        return {f"{i}/{name}": getattr(layer, name) for i, layer, name in found}

    def recall(self, noted: Mapping[str, Any]) -> None:
        """Let layers go by what `noted` gave, until they look again."""
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
        """Copy blobs in by name; gives (names of ours not found, names of theirs not used).

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


def numbered(graph: Graph) -> list[tuple[str, int]]:
    """For each step the name of its layer, and which of that name it is, counted from 1."""
    seen: Counter[str] = Counter()
    found = []
    for step in graph.steps:
        seen[step.layer.name] += 1
        found.append((step.layer.name, seen[step.layer.name]))
    return found


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
) -> Net:
    """Make a Net: layers, shapes (found on the meta device), memory check, then weights.

    seed: of the fillers; None takes one from torch's default generator.
    device: "meta" stops after the shapes, with nothing allocated.
    share: a net whose parameters are used for layers of the same name (TRAIN and TEST nets of one model).
    input_shapes: shapes of source blobs by name, in place of what their layers say.
    history: tensors that a solver will keep beside each weight; the memory check counts them.
    Raises SpecError with every shape mistake, each at its layer; or when the blobs would not fit in memory.
    """
    layers, shapes = _shape_pass(graph, input_shapes or {})
    net = Net(graph, layers, shapes)
    _share_by_name(net, share)
    if torch.device(device).type != "meta":
        new = [p.value for p in net.params if p.value.is_meta]
        check_memory(graph, shapes, new, torch.device(device), history)
        _materialise(net, seed, torch.device(device))
    if graph.spec.phase == TRAIN:
        _freeze(net)
    return net


def _shape_pass(graph: Graph, given: Mapping[str, Shape]) -> tuple[list[Layer], list[Shape]]:
    shapes: list[Any] = [None] * len(graph.slots)
    layers: list[Layer] = []
    problems: list[Problem] = []
    for step in graph.steps:
        try:
            layer = step.kind(step.layer, step.layer.phase(graph.spec.phase))
            layers.append(layer)
            if any(shapes[slot] is None for slot in step.reads):
                continue  # a mistake above is reported already
            for slot, shape in zip(step.writes, top_shapes(layer, step, graph, shapes, given), strict=True):
                shapes[slot] = shape
        except SpecError as error:
            problems += error.problems
    if problems:
        raise SpecError(problems)
    return layers, shapes


def top_shapes(
    layer: Layer, step: Step, graph: Graph, shapes: list[Any], given: Mapping[str, Shape]
) -> Iterable[Shape]:
    names = [graph.name(slot) for slot in step.writes]
    if step.kind.is_source:
        if all(name in given for name in names):
            return [tuple(given[name]) for name in names]
        own = [
            tuple(given.get(name, shape)) for name, shape in zip(names, layer.source_shapes(), strict=True)
        ]
        for name, shape in zip(names, own, strict=True):
            if any(size < 0 for size in shape):
                raise SpecError([step.layer.problem(f"top {name!r} would have shape {shape}")])
        return own
    bottoms = [shapes[slot] for slot in step.reads]
    layer.setup(*bottoms)
    try:
        with torch.no_grad():
            tops = layer.infer(*(torch.empty(shape, device="meta") for shape in bottoms))
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        raise SpecError(
            [step.layer.problem(f"bottom shapes {bottoms} do not fit: {_first_line(error)}")]
        ) from error
    for name, top in zip(names, tops, strict=True):
        if any(size < 1 for size in top.shape):
            raise SpecError(
                [
                    step.layer.problem(
                        f"top {name!r} would have shape {tuple(top.shape)} from bottoms {bottoms}"
                    )
                ]
            )
    return [tuple(top.shape) for top in tops]


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _share_by_name(net: Net, share: Net | None) -> None:
    """Make Params: one for each blob, shared through `param { name }` and with the layers of `share`."""
    by_key: dict[str, Param] = {}
    others = {} if share is None else dict(zip(numbered(share.graph), share.made, strict=True))
    names = numbered(net.graph)
    problems: list[Problem] = []
    for i, (step, layer) in enumerate(zip(net.graph.steps, net.made, strict=True)):
        twin = others.get(names[i])
        specs = step.layer.message.param
        if len(specs) > len(layer.blobs):
            problems.append(
                step.layer.problem(
                    f"{len(specs)} param entries for {len(layer.blobs)} blobs", "param", len(layer.blobs)
                )
            )
        for j in range(len(layer.blobs)):
            spec = specs[j] if j < len(specs) else None
            key = spec.name if spec is not None and spec.name else f"{i}/{j}"
            owner = by_key.get(key)
            if owner is not None:
                problems += _join(net, owner, layer, i, j, spec)
                continue
            if twin is not None and j < len(twin.blobs):
                if twin.blob_shapes[j] != layer.blob_shapes[j]:
                    problems.append(
                        step.layer.problem(
                            f"blob {j} has shape {layer.blob_shapes[j]}, "
                            f"the net it shares weights with has {twin.blob_shapes[j]}"
                        )
                    )
                    continue
                layer.blobs[j] = twin.blobs[j]
            param = _param(net, layer, i, j, spec)
            by_key[key] = param
            net.params.append(param)
    if problems:
        raise SpecError(problems)


def _param(net: Net, layer: Layer, i: int, j: int, spec: Any) -> Param:
    name, taken = f"{layer.spec.name}/{j}", {param.name for param in net.params}
    if name in taken:  # layers may bear equal names; later owners get a number
        name = next(n for k in range(2, len(taken) + 3) if (n := f"{layer.spec.name}#{k}/{j}") not in taken)
    written = spec is not None
    return Param(
        name=name,
        value=layer.blobs[j],
        lr_mult=spec.lr_mult if written and spec.HasField("lr_mult") else layer.blob_lr_mults[j],
        decay_mult=spec.decay_mult if written else 1.0,
        min_value=spec.min_value if written else float("nan"),
        max_value=spec.max_value if written else float("nan"),
        is_logspace=bool(written and spec.is_logspace),
        regularization_types=tuple(spec.regularization_type) if written else (),
        on_off_stage=layer.spec.message.on_off_stage,
        users=[(i, j)],
    )


def _join(net: Net, owner: Param, layer: Layer, i: int, j: int, spec: Any) -> list[Problem]:
    """Let blob j of `layer` be the owner's; problems where shapes or multipliers disagree."""
    ours, theirs = layer.blob_shapes[j], tuple(owner.value.shape)
    permissive = spec.share_mode == spec.PERMISSIVE
    if ours != theirs and not (permissive and prod(ours) == prod(theirs)):
        return [
            layer.spec.problem(
                f"shares blob {j} as {spec.name!r} with {owner.name}, but has shape {ours} and not {theirs}",
                "param",
                j,
            )
        ]
    for name in ("lr_mult", "decay_mult"):
        if spec.HasField(name):
            mine, known = getattr(spec, name), getattr(owner, name)
            if mine != known and 0 not in (mine, known):
                return [
                    layer.spec.problem(
                        f"shares {spec.name!r} with {owner.name}, but {name} is {mine} here and {known} there",
                        "param",
                        j,
                        name,
                    )
                ]
            setattr(owner, name, mine or known)
    layer.blobs[j] = owner.value
    owner.users.append((i, j))
    return []


def _materialise(net: Net, seed: int | None, device: torch.device) -> None:
    """Allocate and fill what is still on the meta device, in file order, from one CPU generator."""
    generator = torch.Generator()
    generator.manual_seed(int(torch.randint(2**31, ())) if seed is None else seed)
    fresh: dict[int, nn.Parameter] = {}
    for layer in net.made:
        own = [j for j, blob in enumerate(layer.blobs) if blob.is_meta and id(blob) not in fresh]
        for blob in layer.blobs:
            if blob.is_meta:
                fresh.setdefault(id(blob), nn.Parameter(torch.empty(blob.shape)))
        metas = list(layer.blobs)
        for j, blob in enumerate(metas):
            layer.blobs[j] = fresh.get(id(blob), blob)
        if own:
            layer.fill(own, generator)
    for param in net.params:
        param.value = net.made[param.users[0][0]].blobs[param.users[0][1]]
    net.to(device)


def _freeze(net: Net) -> None:
    """Switch gradients off for parameters with lr_mult 0 and for those that reach no loss."""
    graph = net.graph
    wanted = {slot for slot, _ in graph.losses}
    useful: set[int] = set()
    for i in reversed(range(len(graph.steps))):
        step = graph.steps[i]
        if wanted.intersection(step.writes) and step.kind.differentiable:
            useful.add(i)
            wanted.update(slot for slot, stop in zip(step.reads, step.stops, strict=True) if not stop)
    for param in net.params:
        reaches = any(i in useful for i, _ in param.users)
        forced = graph.spec.force_backward
        param.value.requires_grad_(forced or (reaches and param.lr_mult != 0))
