"""ONNX models as modules of torch: sizes are bounded, constants are computed, and each node becomes a module."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from netspec.errors import NetspecError, Problem, SpecError
from netspec.interchange.onnx import need_onnx, quiet
from netspec.net.memory import available_bytes, gib
from netspec.schema.regular import read_regular, refuse_special

MOST_VALUES = 1 << 28
"""Values that one tensor of a graph may hold."""
COPIES = 4
"""How often each value is held at once: as computed, for the report, by onnxruntime, and by the net."""
SHORT = 256
"""Values of a constant that may be axes, shapes or other settings."""
SHORT_OF = {"Gather": 4096}
"""The same for operators that allow longer constants."""


class Refused(Exception):
    """A node that has no counterpart in Caffe; the text says why."""


def bounded(count: int) -> None:
    """Refused for more values than a tensor may hold."""
    if count > MOST_VALUES:
        raise Refused(f"would make {count} values")


@dataclass(frozen=True)
class Call:
    """A node as an operator sees it: its attributes, the constants among its inputs, and the version of the set."""

    kind: str
    attributes: Mapping[str, Any]
    constants: Mapping[int, Tensor]
    opset: int
    outputs: int = 1
    lists: Mapping[int, list[Any]] = field(default_factory=dict)
    """Short constants as numbers, since tensors have no values while torch traces a module."""

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute."""
        return self.attributes.get(name, default)

    def ints(self, i: int, name: str = "", default: Sequence[int] | None = None) -> list[int] | None:
        """Whole numbers that are input i, or in older versions the attribute `name`."""
        if i in self.lists:
            return [int(value) for value in self.lists[i]]
        stated = self.get(name) if name else None
        if stated is None:
            return None if default is None else list(default)
        return [int(value) for value in (stated if isinstance(stated, list) else [stated])]

    def number(self, i: int, name: str = "", default: float | None = None) -> float | None:
        """A number that is input i, or the attribute `name`."""
        if self.lists.get(i):
            return float(self.lists[i][0])
        value = self.get(name) if name else None
        return default if value is None else float(value)

    def only(self, name: str, *allowed: Any) -> None:
        """Refuse values of an attribute other than `allowed`, whose first is the default."""
        stated = self.get(name, allowed[0])
        if stated not in allowed:
            raise Refused(
                f"{name} {stated!r}; Caffe has {' or '.join(repr(value) for value in allowed)} only"
            )


Operator = Callable[..., Any]
OPERATORS: dict[str, Operator] = {}
"""What each type of node computes, in torch's operators: (Call, inputs) to a tensor or several."""


def computes(*names: str) -> Callable[[Operator], Operator]:
    """Decorator: an operator under its names."""

    def add(function: Operator) -> Operator:
        for name in names:
            OPERATORS[name] = function
        return function

    return add


class Bounded(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Refuses every result of torch's operators that is too large."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor):
                bounded(value.numel())
        return result


class Node(nn.Module):
    """One node: its operator with its constants; the other inputs are given."""

    def __init__(self, call: Call, places: Sequence[int], count: int):
        super().__init__()
        self.call, self.places, self.count = call, list(places), count

    def forward(self, *given: Tensor) -> Any:
        inputs: list[Tensor | None] = [self.call.constants.get(i) for i in range(self.count)]
        for place, value in zip(self.places, given, strict=True):
            inputs[place] = value
        return OPERATORS[self.call.kind](self.call, *inputs)

    def measure(self, *given: Tensor) -> int:
        """Bytes of the results, whose sizes alone are worked out; Refused where a tensor would be too large."""
        constants = {i: value.to("meta") for i, value in self.call.constants.items()}
        bare = Node(replace(self.call, constants=constants), self.places, self.count)
        with torch.device("meta"), Bounded():  # type: ignore[no-untyped-call]
            results = bare(*(value.to("meta") for value in given))
        return sum(value.nbytes for value in tree_leaves(results) if isinstance(value, Tensor))


@dataclass
class Step:
    """A node that depends on the inputs."""

    name: str
    """Of its module."""
    reads: list[str]
    writes: list[str]
    origin: str
    """What messages call it."""


class Graph(nn.Module):
    """A model's graph: `forward` gives its outputs."""

    def __init__(self, inputs: Sequence[str], outputs: Sequence[str]):
        super().__init__()
        self.inputs, self.outputs = list(inputs), list(outputs)
        self.steps: list[Step] = []

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        values = dict(zip(self.inputs, given, strict=True))
        for step in self.steps:
            result = getattr(self, step.name)(*(values[name] for name in step.reads))
            values.update(
                zip(step.writes, result if isinstance(result, tuple | list) else (result,), strict=False)
            )
        return tuple(values[name] for name in self.outputs)


@dataclass
class Model:
    """The model that `read` returns."""

    graph: Graph
    inputs: list[Tensor]
    """Inputs with which the graph was computed."""
    proto: Any
    name: str
    problems: list[Problem] = field(default_factory=list)


def parse(path: Path) -> Any:
    """The ModelProto of a file, with data outside it read from beside it alone; NetspecError where it is none."""
    need_onnx()
    import onnx

    try:
        model = onnx.load_model_from_string(read_regular(path))
    except OSError as error:
        raise NetspecError(f"{path}: {error.strerror or error}") from error
    except Exception as error:  # protobuf's errors, of which implementations have several
        raise NetspecError(f"{path}: not an ONNX model ({error})") from error
    if not model.graph.node and not model.graph.input:
        raise NetspecError(f"{path}: not an ONNX model (its graph is empty)")
    for tensor in tensors(model.graph):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            load_outside(tensor, path)
    return model


def tensors(graph: Any) -> list[Any]:
    """The tensors of a graph: initializers, and attributes of nodes."""
    listed = list(graph.initializer)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                listed.append(attribute.t)
            listed.extend(attribute.tensors)
    return listed


def load_outside(tensor: Any, path: Path) -> None:
    """Read a tensor's data from a file beside the model; NetspecError for any other place."""
    import onnx

    given = {entry.key: entry.value for entry in tensor.external_data}
    location = given.get("location", "")
    file = path.parent / location
    if not location or Path(location).name != location or file.is_symlink() or not file.is_file():
        text = (
            f"tensor {tensor.name!r} lies in {location!r}; its data is read from a file beside the model only"
        )
        raise NetspecError(f"{path}: {text}")
    refuse_special(file)
    try:
        offset = int(given.get("offset", 0))
        length = int(given["length"]) if "length" in given else file.stat().st_size - offset
    except ValueError as error:
        raise NetspecError(f"{path}: tensor {tensor.name!r}: {error}") from error
    if offset < 0 or length < 0 or offset + length > file.stat().st_size:
        raise NetspecError(f"{path}: tensor {tensor.name!r} reaches beyond the end of {location}")
    with file.open("rb") as data:
        data.seek(offset)
        tensor.raw_data = data.read(length)
    tensor.data_location = onnx.TensorProto.DEFAULT
    del tensor.external_data[:]


def array(tensor: Any, path: Path) -> Tensor:
    """A tensor's values; NetspecError where its size does not fit them."""
    from onnx import numpy_helper

    try:
        if math.prod(tensor.dims) > MOST_VALUES:
            raise ValueError(f"{math.prod(tensor.dims)} values")
        values = np.array(numpy_helper.to_array(tensor))
        return torch.from_numpy(
            values.astype(np.float32) if values.dtype in (np.float16, np.float64) else values
        )
    except Exception as error:  # of onnx and numpy, where a file is damaged
        raise NetspecError(f"{path}: tensor {tensor.name!r} is damaged: {error}") from error


def shape_of(value: Any, path: Path, shapes: Mapping[str, Sequence[int]]) -> tuple[int, ...]:
    """The shape of an input: given, or of the file, an open first axis being 1."""
    if value.name in shapes:
        return tuple(int(n) for n in shapes[value.name])
    dims = value.type.tensor_type.shape.dim
    sizes = [dim.dim_value if dim.HasField("dim_value") else 0 for dim in dims]
    if sizes and sizes[0] < 1:
        sizes[0] = 1
    if not value.type.tensor_type.HasField("shape") or any(size < 1 for size in sizes):
        example = ",".join(str(size) if size > 0 else "?" for size in sizes) or "N,C,H,W"
        raise NetspecError(
            f"{path}: input {value.name!r} has no fixed shape; give it: --shape {value.name}={example}"
        )
    if math.prod(sizes) > MOST_VALUES:
        raise NetspecError(f"{path}: input {value.name!r} of {'x'.join(map(str, sizes))} values is too large")
    return tuple(sizes)


def read(path: Path, shapes: Mapping[str, Sequence[int]] | None = None) -> Model:
    """The model of a file as a module, each node worked out once on normal numbers.

    Raises SpecError with every node that has no counterpart, NetspecError where the file is no model or damaged.
    """
    proto = parse(path)
    graph, shapes = proto.graph, shapes or {}
    opset = max((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    known: dict[str, Tensor] = {tensor.name: array(tensor, path) for tensor in graph.initializer}
    entries = [value for value in graph.input if value.name not in known]
    if unknown := [name for name in shapes if name not in {value.name for value in entries}]:
        raise NetspecError(
            f"{path}: has no input {unknown[0]!r}; there are {', '.join(v.name for v in entries)}"
        )
    generator = torch.Generator().manual_seed(0)
    given = [torch.randn(shape_of(value, path, shapes), generator=generator) for value in entries]
    module = Graph([value.name for value in entries], [value.name for value in graph.output])
    live = dict(zip(module.inputs, given, strict=True))
    walk = Walk(module, known, live, opset, path)
    with torch.no_grad(), quiet():
        for number, node in enumerate(graph.node):
            walk.take(number, node)
    if walk.problems:
        raise SpecError(walk.problems)
    for name in module.outputs:
        if name not in live:
            raise NetspecError(f"{path}: its output {name!r} does not depend on its inputs")
    return Model(module.eval(), given, proto, graph.name or path.stem)


@dataclass
class Walk:
    """The nodes, taken in order: constants are worked out, the others become modules."""

    module: Graph
    known: dict[str, Tensor]
    live: dict[str, Tensor]
    opset: int
    path: Path
    problems: list[Problem] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)
    taken: int = 0
    """Bytes of the values so far."""
    free_bytes: int = field(default_factory=lambda: available_bytes(torch.device("cpu")))

    def take(self, number: int, node: Any) -> None:
        """One node."""
        label = f"{self.path}: node {node.name or number!r} ({node.op_type})"
        if any(name in self.broken for name in node.input):
            self.broken.update(node.output)
            return  # a mistake above is noted already
        try:
            self.run(number, node)
        except Refused as reason:
            self.fail(node, f"{label}: {reason}")
        except NetspecError:
            raise
        except Exception as error:  # of torch, where sizes do not fit
            self.fail(node, f"{label}: {first_words(error)}")

    def fail(self, node: Any, text: str) -> None:
        self.problems.append(Problem(text))
        self.broken.update(node.output)

    def run(self, number: int, node: Any) -> None:
        if node.domain not in ("", "ai.onnx"):
            raise Refused(f"is of the set {node.domain!r}, which is not read")
        if node.op_type not in OPERATORS and node.op_type not in ("Shape", "Size"):
            raise Refused("Caffe has no layer for it")
        missing = [name for name in node.input if name and name not in self.known and name not in self.live]
        if missing:
            raise Refused(f"reads {missing[0]!r}, which no node before it makes")
        constants = {i: self.known[name] for i, name in enumerate(node.input) if name in self.known}
        reads = [(i, name) for i, name in enumerate(node.input) if name in self.live]
        short = SHORT_OF.get(node.op_type, SHORT)
        lists = {i: value.flatten().tolist() for i, value in constants.items() if value.numel() <= short}
        call = Call(node.op_type, self.attributes(node), constants, self.opset, len(node.output), lists)
        if node.op_type in ("Shape", "Size"):
            self.sizes(node, call)
            return
        module = Node(call, [i for i, _ in reads], len(node.input))
        given = [self.live[name] for _, name in reads]
        self.make_room(module.measure(*given))
        result = module(*given)
        values = list(result) if isinstance(result, tuple | list) else [result]
        names = [name for name in node.output if name]
        target = self.live if reads else self.known
        target.update(zip(names, values, strict=False))
        if not reads:
            return
        step = Step(self.free(node, number), [name for _, name in reads], list(node.output), node.op_type)
        self.module.add_module(step.name, module)
        self.module.steps.append(step)

    def make_room(self, size: int) -> None:
        """Refused where the values of the graph would not fit in memory, before they are made."""
        self.taken += size
        if COPIES * self.taken > self.free_bytes:
            raise Refused(
                f"is where the values of the graph need {gib(COPIES * self.taken)}, {gib(self.free_bytes)} is free: "
                "each is kept, and compared with the net's; give a smaller --shape"
            )

    def sizes(self, node: Any, call: Call) -> None:
        """Shape and Size: of a blob too they are constants, as all sizes are fixed."""
        name = node.input[0]
        shape = list((self.live if name in self.live else self.known)[name].shape)
        if node.op_type == "Size":
            self.known[node.output[0]] = torch.tensor(math.prod(shape))
            return
        part = shape[call.get("start", 0) : call.get("end", len(shape))]
        self.known[node.output[0]] = torch.tensor(part, dtype=torch.int64)

    def attributes(self, node: Any) -> dict[str, Any]:
        from onnx import AttributeProto, helper

        values = {}
        for attribute in node.attribute:
            if attribute.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS):
                raise Refused("holds a graph of its own, which Caffe cannot")
            value = helper.get_attribute_value(attribute)
            if attribute.type == AttributeProto.TENSOR:
                value = array(value, self.path)
            values[attribute.name] = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        return {
            k: list(v) if hasattr(v, "__len__") and not isinstance(v, str | Tensor) else v
            for k, v in values.items()
        }

    def free(self, node: Any, number: int) -> str:
        """A name for a node's module: the node's own, or its first output's, made of letters and digits."""
        base = re.sub(r"\W+", "_", node.name or node.output[0]).strip("_") or f"{node.op_type}_{number}"
        base = f"n{base}" if base[0].isdigit() else base
        tries = [base, *(f"{base}_{k}" for k in range(2, number + 3))]
        return next(name for name in tries if not hasattr(self.module, name))


def first_words(error: BaseException) -> str:
    """What an error says first, on one line."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[
        :300
    ]
