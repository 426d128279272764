"""The walk over a program of torch, and the table of operators that turns its nodes into layers."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from netspec import schema
from netspec.errors import Position, Problem, SpecError
from netspec.interchange.blobs import Array


class Unsupported(Exception):
    """An operator, or a use of one, for which Caffe has no layer; the text says why."""


@dataclass(frozen=True)
class Blob:
    """A value of the program that is a blob of the net."""

    name: str
    shape: tuple[int, ...]
    pad: tuple[int, ...] = ()
    """Zeros around the last axes that the reading layer must add: Caffe pads only inside layers."""
    taken: tuple[tuple[int, int], ...] = ()
    """(first, step) along the last two axes: every so many values of the blob of this name are meant."""


@dataclass
class Conversion:
    """The walk over a program: what each of its values is in the net."""

    name: str
    rounds_down: Mapping[str, Any]
    """How Pooling is told to round down."""
    arrays: list[list[Array]] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    reference: dict[str, tuple[str, str, Tensor]] = field(default_factory=dict)
    """Layer, type and the module's own value of blobs, by name."""
    values: dict[Any, Any] = field(default_factory=dict)
    """What a node is: a Blob, a list of them, or a constant; None for one that could not be converted."""
    real: dict[Any, Any] = field(default_factory=dict)
    """The module's own value of each node."""
    node: Any = None
    problems: list[Problem] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.message = schema.NetParameter(name=self.name)

    def walk(
        self, program: torch.export.ExportedProgram, inputs: Sequence[Tensor], names: Sequence[str]
    ) -> None:
        """Convert every node; raises one SpecError with all that has no layer."""
        state: Mapping[str, Any] = {**program.state_dict, **program.constants}
        signature = program.graph_signature
        held = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        held |= signature.inputs_to_lifted_tensor_constants
        given = iter(inputs)
        for node in program.graph.nodes:
            self.node = node
            if node.op == "placeholder":
                self.real[node] = state[held[node.name]] if node.name in held else next(given)
                self.values[node] = self.real[node] if node.name in held else self.input(node, names)
            elif node.op == "call_function":
                self.call(node)
            elif node.op == "output":
                outputs = torch.fx.node.map_arg(node.args[0], lambda n: self.values[n])
                if self.problems:
                    raise SpecError(self.problems)
                self.finish(flat(outputs))

    def input(self, node: Any, names: Sequence[str]) -> Blob:
        """An Input layer."""
        n = len(self.inputs)
        self.inputs.append(names[n] if n < len(names) else node.name)
        shape = tuple(self.real[node].shape)
        layer = self.message.layer.add(name=self.inputs[-1], type="Input", top=[self.inputs[-1]])
        layer.input_param.shape.add().dim[:] = shape
        self.arrays.append([])
        return Blob(self.inputs[-1], shape)

    def call(self, node: Any) -> None:
        """One operator: computed at once on constants, otherwise turned into layers."""
        look_up = torch.fx.node.map_arg
        self.real[node] = node.target(
            *look_up(node.args, lambda n: self.real[n]), **look_up(node.kwargs, lambda n: self.real[n])
        )
        inputs = [self.values[n] for n in node.all_input_nodes]
        if not any(value is None or holds_blob(value) for value in inputs):
            self.values[node] = self.real[node]
            return
        self.values[node] = None
        if any(value is None for value in inputs):
            return  # a mistake above is noted already
        try:
            self.values[node] = self.convert(node)
            if operator_name(node).endswith("_") and isinstance(node.args[0], torch.fx.Node):
                self.values[node.args[0]] = self.values[node]  # in place: its argument is now the result
        except Unsupported as reason:
            self.problems.append(Problem(f"{self.where(node)}: {reason}", place_of(node)))

    def convert(self, node: Any) -> Any:
        """The blobs of an operator's results."""
        args = torch.fx.node.map_arg(tuple(node.args), lambda n: self.values[n])
        kwargs = torch.fx.node.map_arg(dict(node.kwargs), lambda n: self.values[n])
        if node.target is operator.getitem:
            return args[0][args[1]]
        handler: Callable[..., Any] | None = OPERATORS.get(operator_name(node))
        if handler is None:
            raise Unsupported("Caffe has no layer for it")
        first = len(self.message.layer)
        result = handler(self, bound(node, args, kwargs))
        self.check(result, self.real[node])
        if len(self.message.layer) > first:
            layer = self.message.layer[-1]
            for blob, value in zip(flat(result), flat(self.real[node]), strict=True):
                if (
                    isinstance(blob, Blob) and not blob.pad and not blob.taken
                ):  # a copy: operators in place may follow
                    self.reference[blob.name] = (layer.name, layer.type, value.clone())
        return result

    def check(self, result: Any, real: Any) -> None:
        """Raise Unsupported unless the shapes of the new blobs are those of the program."""
        for blob, value in zip(flat(result), flat(real), strict=False):
            shape = tuple(value.shape)
            if isinstance(blob, Blob) and blob.shape != shape and not blob.pad:
                raise Unsupported(f"gives shape {shape}; the layers of Caffe for it give {blob.shape}")

    def where(self, node: Any) -> str:
        """An operator and the submodule it is in."""
        inside = module_of(node)[0]
        return f"operator {operator_name(node)}" + (f" in {inside!r}" if inside else "")

    # What operators use

    def blob(self, value: Any) -> Blob:
        """A value as a blob that is there as such."""
        if not isinstance(value, Blob):
            raise Unsupported("takes a constant where Caffe's layer takes a blob")
        if value.pad:
            raise Unsupported("reads zeros put around a blob, which Caffe does inside convolutions only")
        return self.every(value, [value.taken]) if value.taken else value

    def every(self, value: Blob, parts: Sequence[tuple[tuple[int, int], ...]]) -> Blob:
        """Every so many values of a blob, one selection behind the other in channels: a Convolution by a kernel with
        a single 1 for each channel (Darknet's Reorg puts channels in another order).
        """
        channels, places = value.shape[1], parts[0]
        kernel = [max(part[axis][0] for part in parts) + 1 for axis in (0, 1)]
        weight = np.zeros((len(parts) * channels, channels, *kernel), np.float32)
        for i, part in enumerate(parts):
            for k in range(channels):
                weight[i * channels + k, k, part[0][0], part[1][0]] = 1
        settings = {
            "num_output": len(weight), "bias_term": False, "kernel_h": kernel[0], "kernel_w": kernel[1],
            "stride_h": places[0][1], "stride_w": places[1][1],
        }  # fmt: skip
        shape = (value.shape[0], len(weight), *value.shape[2:])
        source = Blob(value.name, value.shape)
        return self.one("Convolution", source, shape=shape, blobs=[weight], convolution_param=settings)

    def constant(self, value: Any) -> Array:
        """A value as an array that does not depend on the input."""
        if not isinstance(value, Tensor):
            raise Unsupported("takes weights that depend on the input")
        return value.detach().cpu().float().numpy()

    def add(
        self,
        kind: str,
        bottoms: Sequence[Blob],
        shapes: Sequence[tuple[int, ...]] | None = None,
        blobs: Sequence[Array] = (),
        **params: Mapping[str, Any],
    ) -> list[Blob]:
        """A new layer; its tops have `shapes`, by default that of the first bottom. Gives the tops."""
        name = self.free_name(kind)
        shapes = [bottoms[0].shape] if shapes is None else shapes
        tops = [name] if len(shapes) == 1 else [f"{name}_{i}" for i in range(len(shapes))]
        layer = self.message.layer.add(name=name, type=kind, bottom=[b.name for b in bottoms], top=tops)
        for field_name, settings in params.items():
            target = getattr(layer, field_name)
            target.SetInParent()
            for key, value in settings.items():
                if isinstance(value, list | tuple):
                    getattr(target, key).extend(value)
                else:
                    setattr(target, key, value)
        self.arrays.append([np.ascontiguousarray(blob, np.float32) for blob in blobs])
        return [Blob(top, tuple(shape)) for top, shape in zip(tops, shapes, strict=True)]

    def one(self, kind: str, *bottoms: Blob, shape: Sequence[int] | None = None, **more: Any) -> Blob:
        """`add` for a layer with one top."""
        return self.add(kind, bottoms, None if shape is None else [tuple(shape)], **more)[0]

    def free_name(self, kind: str) -> str:
        """A name for a layer of the current node: its submodule's, with the type where that is taken."""
        inside, leaf = module_of(self.node)
        base = inside.replace(".", "_").replace("/", "_")
        own = operator_name(self.node).rstrip("_")
        taken = {layer.name for layer in self.message.layer} | {t for x in self.message.layer for t in x.top}
        tries = [base] if leaf and base else []
        tries += [f"{base}_{kind.lower()}" if leaf else "_".join(filter(None, (base, own)))]
        for candidate in [*tries, *(f"{tries[-1]}_{k}" for k in range(2, 100_000))]:
            if candidate not in taken:
                return candidate
        raise Unsupported("has too many layers of one name")

    def finish(self, results: list[Any]) -> None:
        """Make what the module returns the net's outputs: blobs that nothing reads, and no others."""
        read = {name for layer in self.message.layer for name in layer.bottom}
        for value in results:
            if isinstance(value, Blob) and value.taken:
                value = self.blob(value)
            if not isinstance(value, Blob) or value.pad:
                raise SpecError(
                    f"{self.name}: returns a value that is no blob: it does not depend on the input"
                )
            name = value.name
            if name in read:  # a blob that a layer reads is no output: a copy of it is
                name += "_out"
                if name not in self.outputs:
                    self.message.layer.add(name=name, type="Split", bottom=[value.name], top=[name])
                    self.arrays.append([])
            self.outputs.append(name)
        tops = [top for layer in self.message.layer for top in layer.top]
        if loose := [top for top in tops if top not in read and top not in self.outputs]:
            self.message.layer.add(name="unused", type="Silence", bottom=loose)
            self.arrays.append([])


def holds_blob(value: Any) -> bool:
    """Whether a value is a blob, or a list with one in it."""
    return isinstance(value, Blob) or (isinstance(value, list | tuple) and any(map(holds_blob, value)))


def flat(value: Any) -> list[Any]:
    """The values inside tuples, lists and mappings."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [inner for item in value for inner in flat(item)]
    return [value]


def operator_name(node: Any) -> str:
    """ "conv2d" of aten.conv2d.default."""
    target = node.target
    signature = getattr(target, "_schema", None)
    return (
        str(signature.name).split("::")[-1]
        if signature is not None
        else getattr(target, "__name__", str(target))
    )


def bound(node: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> SimpleNamespace:
    """Arguments by the names of the operator's schema, defaults filled in."""
    arguments = {}
    for i, argument in enumerate(node.target._schema.arguments):
        default = argument.default_value if argument.has_default_value() else None
        arguments[argument.name] = args[i] if i < len(args) else kwargs.get(argument.name, default)
    return SimpleNamespace(**arguments)


def module_of(node: Any) -> tuple[str, bool]:
    """The path of the submodule that an operator is in, and whether that is one of torch's own."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    if not stack:
        return "", False
    path, kind = stack[-1]
    kind = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
    own = kind.startswith("torch.nn.modules") or kind.endswith("onnx_nets.graph.Node")
    return re.sub(r"@\d+$", "", path), own and bool(path)


def place_of(node: Any) -> Position | None:
    """The line of the module's own code that an operator comes from."""
    frames = re.findall(r'File "([^"]+)", line (\d+)', node.meta.get("stack_trace") or "")
    own = [frame for frame in frames if "/torch/nn/" not in frame[0]] or frames
    return Position(own[-1][0], int(own[-1][1])) if own else None


Handler = Callable[[Conversion, SimpleNamespace], Any]
OPERATORS: dict[str, Handler] = {}
"""Handler by the operator's name in aten, all overloads alike."""


def handles(*names: str) -> Callable[[Handler], Handler]:
    def add(handler: Handler) -> Handler:
        for name in names:
            OPERATORS[name] = handler
        return handler

    return add
