"""An ONNX model as prototxt and caffemodel, compared with the model node by node.

Its nodes become modules of torch (graph.py, operators), and these layers as any module's do (torch_modules).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from netspec.errors import NetspecError
from netspec.interchange.blobs import Array
from netspec.interchange.comparison import TOLERANCE, Report, Value, report, run_onnx, values_of
from netspec.interchange.onnx import first_line, quiet
from netspec.interchange.onnx_nets import operators  # noqa: F401 - fills OPERATORS
from netspec.interchange.onnx_nets.graph import Model, read
from netspec.interchange.torch_modules.base import Blob, Conversion, flat, handles, module_of
from netspec.interchange.torch_modules.convert import EXTENSIONS, Converted, made


@handles("lrn")
def response(c: Conversion, a: SimpleNamespace) -> Blob:
    settings = {"local_size": a.size, "alpha": a.alpha, "beta": a.beta, "k": a.k}
    return c.one("LRN", c.blob(a.x), lrn_param=settings)


class NodeConversion(Conversion):
    """The walk over the program of a graph, which notes what each node's results are."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.results: dict[str, list[Any]] = {}

    def convert(self, node: Any) -> Any:
        result = super().convert(node)
        path = module_of(node)[0]
        if path:
            # The parts of a node with several results come one after the other.
            parts = self.results.get(path, []) if str(node.name).startswith("getitem") else []
            self.results[path] = [*parts, *flat(result)]
        return result


def from_onnx(
    path: str | Path,
    shapes: Mapping[str, Sequence[int]] | None = None,
    tolerance: float = TOLERANCE,
    fork: bool = False,
) -> Converted:
    """Convert an ONNX model; see `from_torch`. The report compares each node's result with onnxruntime's.

    shapes: of inputs whose shape the file leaves open (an open first axis is 1).
    Raises SpecError that names each node without a layer, NetspecError for files that are no models.
    """
    path = Path(path)
    model = read(path, shapes)
    try:
        with torch.no_grad(), quiet():
            program = torch.export.export(model.graph, tuple(model.inputs))
    except Exception as error:  # torch raises errors of every kind here
        raise NetspecError(f"{path}: torch.export cannot follow it: {first_line(error)}") from error
    conversion = NodeConversion(model.name, {"ceil_mode": False} if fork else {"round_mode": 1})
    with torch.no_grad():
        conversion.walk(program, model.inputs, model.graph.inputs)
    arrays = tuple(tuple(blobs) for blobs in conversion.arrays)
    rename(conversion, model)
    compared = compare_nodes(conversion, arrays, model, path, tolerance)
    used = {layer.type for layer in conversion.message.layer}
    extensions = tuple(sorted(used.intersection(EXTENSIONS)))
    return Converted(conversion.message, arrays, compared, tuple(conversion.outputs), extensions)


def rename(conversion: NodeConversion, model: Model) -> None:
    """Give the net's outputs the names of the model's, where these are free."""
    layers = conversion.message.layer
    for i, (old, new) in enumerate(zip(conversion.outputs, model.graph.outputs, strict=True)):
        taken = {top for layer in layers for top in layer.top}
        if new in taken or old in conversion.inputs or conversion.outputs.count(old) > 1:
            continue
        for layer in layers:
            for names in (layer.top, layer.bottom):
                for k, name in enumerate(names):
                    names[k] = new if name == old else name
        conversion.outputs[i] = new
        for blobs in conversion.results.values():
            blobs[:] = [
                Blob(new, b.shape, b.pad) if isinstance(b, Blob) and b.name == old else b for b in blobs
            ]


def compare_nodes(
    conversion: NodeConversion,
    arrays: tuple[tuple[Array, ...], ...],
    model: Model,
    path: Path,
    tolerance: float,
) -> Report:
    """Every node's result in the model against the blob of the net."""
    pairs: dict[str, str] = {}
    for step in model.graph.steps:
        for name, blob in zip(step.writes, conversion.results.get(step.name, ()), strict=False):
            if (
                isinstance(blob, Blob)
                and not blob.pad
                and not blob.taken
                and blob.name not in model.graph.inputs
            ):
                pairs[blob.name] = name
    pairs.update(zip(conversion.outputs, model.graph.outputs, strict=True))
    theirs = outputs_of(model, list(pairs.values()), path)
    net = made(conversion.message, arrays)
    feeds = dict(zip(conversion.inputs, model.inputs, strict=True))
    of_net = {value.key[0]: value for value in values_of(net, feeds)}
    ours = [
        Value((blob, 0), of_net[blob].layer, of_net[blob].type, theirs[name])
        for blob, name in pairs.items()
        if blob in of_net
    ]
    kept = [of_net[value.key[0]] for value in ours]
    return report(ours, kept, (str(path), "the net"), tolerance)


def outputs_of(model: Model, names: Sequence[str], path: Path) -> dict[str, Array]:
    """Values inside the model, by onnxruntime where it is installed."""
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model.proto)
    known = {value.name for value in copy.graph.output}
    for name in names:
        if name not in known:
            copy.graph.output.append(onnx.ValueInfoProto(name=name))
    feeds = {name: value.numpy() for name, value in zip(model.graph.inputs, model.inputs, strict=True)}
    return run_onnx(copy.SerializeToString(), feeds, str(path))
