"""convert: models from one kind of file to another, by their endings, each with a report of differences."""

from __future__ import annotations

import base64
import binascii
import importlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from netspec import schema
from netspec.data.files import whole
from netspec.errors import NetspecError, SnapshotError, SpecError
from netspec.interchange import hdf5, safetensors
from netspec.interchange.blobs import Array
from netspec.interchange.caffemodel import encode_net, fill, parse_caffemodel, read_file
from netspec.interchange.comparison import (
    Report,
    Row,
    Value,
    compare_onnx,
    difference,
    name_of,
    open_net,
    report,
    sample_inputs,
    values_of,
)
from netspec.interchange.dialects import told
from netspec.interchange.onnx import OPSET, Outward, encode_program, export_onnx, quiet
from netspec.interchange.targets import Target, as_read, target_called
from netspec.interchange.torch_modules.convert import from_torch
from netspec.interchange.weights import kind_of, load_weights, read_weights, save_weights, today
from netspec.net.make import make_net
from netspec.net.net import Net
from netspec.schema import spec
from netspec.schema.spec import TEST
from netspec.schema.wire import Dialect

WEIGHTS = (".caffemodel", ".h5", ".hdf5", ".safetensors")
TARGETS = (*WEIGHTS, ".prototxt", ".onnx", ".pt2")
PROGRAMS = (".pt2", ".pt", ".pth", ".pkl", ".pickle")
"""Endings of files that torch or Python would unpickle."""


def convert(
    source: str | Path,
    target: str | Path,
    *,
    net: str | Path | None = None,
    weights: str | Path | None = None,
    inputs: Sequence[Sequence[int]] = (),
    shapes: Mapping[str, Sequence[int]] | None = None,
    phase: str = TEST,
    dialect: Dialect | None = None,
    opset: int = OPSET,
    dynamic_batch: bool = False,
    fork: bool = False,
    reader: str = "",
) -> Report:
    """Write the model in `source` as the kind of file that the ending of `target` names; gives the differences.

    source: a prototxt (with `weights`), a run folder (its test net and newest snapshot), a weight file (with `net`, its
    prototxt, where the target needs one), an .onnx model, or "package.module:name" of a PyTorch module or of a function
    that makes one (with `inputs`, the shapes it takes), whose code is run. A torch.export program (.pt2) is refused.
    shapes: of inputs of the net whose data is not here, by name.
    fork: of a torch module or an ONNX model, write pooling that rounds down as `ceil_mode: false`, which OpenCV and
    many forks read, and not as BVLC's `round_mode: FLOOR`.
    reader: one of `targets.targets()`, such as "opencv": the prototxt is written as that program reads it, and what it
    would reject is a SpecError; of targets it goes with .prototxt and .caffemodel.
    target: .safetensors, .caffemodel (the prototxt is written beside it where the net is known), .h5, .onnx, .pt2, or
    .prototxt alone.
    Raises SpecError, SnapshotError or NetspecError that names what is missing, or what the target cannot express.
    """
    path = Path(target)
    if path.suffix not in TARGETS:
        raise NetspecError(f"{target}: cannot write {path.suffix or 'that'}; there are {', '.join(TARGETS)}")
    refuse_program(Path(source))
    own = target_called(reader) if reader else None
    if own is not None:
        check_places(path, own)
        fork = fork or own.floor == "ceil_mode"
    if ":" in str(source) and not Path(source).exists():
        return torch_to_caffe(str(source), path, inputs, fork, own)
    if Path(source).suffix.lower() == ".onnx":
        return onnx_to_caffe(Path(source), path, shapes or {}, inputs, fork, own)
    if own is None and Path(source).suffix in WEIGHTS and net is None and path.suffix in WEIGHTS:
        return weights_to_weights(Path(source), path, dialect)
    if own is None and Path(source).suffix in WEIGHTS and net is None and path.suffix == ".prototxt":
        return net_of_weights(Path(source), path)
    model = opened(Path(source), net, weights, phase, shapes or {})
    return write_net(model, path, dialect, opset, dynamic_batch, own)


def check_places(path: Path, own: Target) -> None:
    """NetspecError where a net for another reader cannot be written to `path`, or would not be beside its weights."""
    if path.suffix not in (".prototxt", ".caffemodel"):
        raise NetspecError(
            f"{path}: {own.title} reads a .prototxt, and a .caffemodel beside it; give one of these"
        )
    beside = path.with_suffix(".prototxt")
    if path.suffix == ".caffemodel" and beside.exists():
        raise NetspecError(
            f"{beside}: is there already; the net that {own.title} reads goes beside the weights, so give another name"
        )


def refuse_program(source: Path) -> None:
    """NetspecError for a program or pickle of torch: reading one may run any code in it."""
    if source.suffix.lower() in PROGRAMS:
        raise NetspecError(
            f"{source}: {source.suffix} files are written, never read: torch keeps pickles in them, and to load those "
            "may run any code; give the module it was made from (package.module:name, with --shape N,C,H,W), or its "
            "net's prototxt with weights as .safetensors or .caffemodel"
        )


def opened(
    source: Path,
    net: str | Path | None,
    weights: str | Path | None,
    phase: str,
    shapes: Mapping[str, Sequence[int]],
) -> Net:
    """The net of a source and its options."""
    if source.suffix not in WEIGHTS:
        return open_net(source, weights, phase, shapes)
    if net is not None:
        return open_net(net, source, phase, shapes)
    if kind_of(source) != "caffemodel":
        raise NetspecError(f"{source} holds weights alone; give the net's prototxt too")
    stored = parse_caffemodel(read_file(source), str(source))
    message = stored.message()
    document = schema.parse_net(schema.print_text(message), f"{source} (the net inside)")
    try:
        model = make_net(told(spec.net(document, phase), stored))
    except NetspecError as error:
        raise NetspecError(
            f"{source}: the net inside cannot be built; give its prototxt:\n{error}"
        ) from error
    load_weights(model, source)
    return model


def write_net(
    net: Net,
    path: Path,
    dialect: Dialect | None = None,
    opset: int = OPSET,
    dynamic_batch: bool = False,
    own: Target | None = None,
) -> Report:
    """Write a net with its weights; see `convert`. own: the reader that it is for."""
    if path.suffix == ".onnx":
        export_onnx(net, path, opset=opset, dynamic_batch=dynamic_batch)
        return compare_onnx(net)
    if path.suffix == ".pt2":
        data = encode_program(net, dynamic_batch)
        whole.write_whole(path, data)
        return compare_program(net, data, path)
    text = as_read(net, own) if own is not None else None
    if path.suffix == ".prototxt":
        write_text(net, path, text)
        return Report((), (name_of(net), str(path)))
    if path.suffix == ".caffemodel":
        from netspec.interchange.caffemodel import write_caffemodel

        write_caffemodel(net, path, dialect)
        beside = path.with_suffix(".prototxt")
        if not beside.exists():
            write_text(net, beside, text)
    else:
        save_weights(net, path)
    return compare_weights(net.weights(), read_weights(path), (name_of(net), str(path)), types_of(net))


def write_text(net: Net, path: Path, message: Any = None) -> None:
    """Write the layers of the net's phase as prototxt, or the NetParameter that is given in their place."""
    if message is None:
        message = schema.NetParameter(name=net.graph.spec.name)
        for step in net.graph.steps:
            message.layer.add().CopyFrom(step.layer.message)
    whole.write_whole(path, schema.print_text(message).encode())


def types_of(net: Net) -> dict[str, str]:
    """Type of each layer by name."""
    return {step.layer.name: step.layer.type for step in net.graph.steps}


def compare_weights(
    a: Mapping[str, Tensor], b: Mapping[str, Tensor], names: tuple[str, str], types: Mapping[str, str]
) -> Report:
    """Differences of blobs that bear the same name."""
    rows = []
    for name in (name for name in a if name in b):
        layer, _, _ = name.rpartition("/")
        ours, theirs = a[name].detach().cpu().numpy(), b[name].detach().cpu().numpy()
        errors = difference(ours, theirs)
        rows.append(Row(layer, types.get(layer.partition("#")[0], ""), name, tuple(ours.shape), *errors))
    unmatched = tuple(sorted(set(a) - set(b)))  # a shared blob stands in a file once for each of its layers
    return Report(tuple(rows), names, unmatched=unmatched)


def compare_program(net: Net, data: bytes, path: Path) -> Report:
    """Compare the outputs of the program just made for the .pt2 `path` with the net's; reads no file."""
    values = sample_inputs(net)
    with torch.no_grad(), quiet():
        outputs = torch.export.load(io.BytesIO(data)).module()(*values)
    ours = values_of(net, dict(zip(net.input_names, values, strict=True)))
    makers = {value.key[0]: value for value in ours}
    names = [net.graph.name(slot) for slot in Outward(net).slots()]
    theirs = [
        Value((name, 0), makers[name].layer, makers[name].type, output.numpy())
        for name, output in zip(names, outputs, strict=True)
        if name in makers
    ]
    kept = [value for value in ours if value.key in {other.key for other in theirs}]
    return report(kept, theirs, (name_of(net), str(path)))


# --- weights alone


def weights_to_weights(source: Path, path: Path, dialect: Dialect | None = None) -> Report:
    """Weights from one file to another, without the net. Facts of a caffemodel that safetensors cannot express (types,
    old sizes, the net inside) are kept as a note, so that converting back gives the same file.
    """
    values = read_weights(source)
    if kind_of(source) == "caffemodel":
        from_caffemodel(source, path, values, dialect)
    elif path.suffix == ".caffemodel":
        to_caffemodel(source, path, values)
    elif path.suffix == ".safetensors":
        safetensors.save(path, values, {})
    else:
        write_hdf5(path, values)
    return compare_weights(values, read_weights(path), (str(source), str(path)), {})


def from_caffemodel(source: Path, path: Path, values: Mapping[str, Tensor], dialect: Dialect | None) -> None:
    model = parse_caffemodel(read_file(source), str(source))
    if path.suffix == ".safetensors":
        note = base64.b64encode(model.skeleton()).decode()
        safetensors.save(path, values, {"net": model.name, "caffemodel": note})
    elif path.suffix == ".caffemodel":
        layers = [[today(layer.type, j, b) for j, b in enumerate(layer.blobs)] for layer in model.layers]
        message = model.message()
        if len(message.layer) != len(layers):  # upgrading folded padding layers of V0, or made an Input layer
            stored = {layer.name: arrays for layer, arrays in zip(model.layers, layers, strict=True)}
            layers = [stored.get(layer.name, []) for layer in message.layer]
        whole.write_whole(path, encode_net(message, layers, dialect))
    else:
        write_hdf5(path, values)


def to_caffemodel(source: Path, path: Path, values: Mapping[str, Tensor]) -> None:
    """A caffemodel from safetensors that came from one."""
    info: dict[str, Any] = safetensors.load(source)[1] if kind_of(source) == "safetensors" else {}
    if "caffemodel" not in info:
        raise SnapshotError(f"{source}: says nothing of the layers' types; give the net's prototxt too")
    try:
        skeleton = base64.b64decode(info["caffemodel"], validate=True)
    except (binascii.Error, ValueError, TypeError) as error:
        raise SnapshotError(f"{source}: its note of the caffemodel is damaged: {error}") from None
    model = parse_caffemodel(skeleton, str(source))
    arrays: list[Array] = []
    seen: dict[str, int] = {}
    for layer in model.layers:
        if not layer.blobs:
            continue
        seen[layer.name] = seen.get(layer.name, 0) + 1
        stem = layer.name if seen[layer.name] == 1 else f"{layer.name}#{seen[layer.name]}"
        for j in range(len(layer.blobs)):
            if f"{stem}/{j}" not in values:
                raise SnapshotError(f"{source}: has no blob {stem}/{j}")
            arrays.append(values[f"{stem}/{j}"].numpy())
    whole.write_whole(path, fill(skeleton, arrays))


def write_hdf5(path: Path, values: Mapping[str, Tensor]) -> None:
    layers: dict[str, dict[int, Array]] = {}
    for name, value in values.items():
        layer, _, index = name.rpartition("/")
        if not layer or not index.isdecimal():
            raise SnapshotError(f"{path}: {name!r} is no name of a blob (<layer>/<index>)")
        layers.setdefault(layer, {})[int(index)] = value.float().numpy()
    hdf5.write_weights(path, list(layers.items()))


def net_of_weights(source: Path, path: Path) -> Report:
    """The prototxt of the net that a caffemodel describes."""
    if kind_of(source) != "caffemodel":
        raise NetspecError(f"{source}: only a .caffemodel describes its net")
    message = parse_caffemodel(read_file(source), str(source)).message()
    for layer in message.layer:
        layer.ClearField("blobs")
    whole.write_whole(path, schema.print_text(message).encode())
    return Report((), (str(source), str(path)))


# --- from torch


def torch_to_caffe(
    source: str,
    path: Path,
    inputs: Sequence[Sequence[int]],
    fork: bool = False,
    own: Target | None = None,
) -> Report:
    """A PyTorch module as caffemodel and prototxt (or through these as any other kind)."""
    if not inputs:
        raise NetspecError(f"{source}: give the shapes of its inputs")
    conversion = from_torch(module_called(source), samples(inputs), source.rpartition(":")[2], fork=fork)
    if path.suffix == ".caffemodel" and own is None:
        conversion.save(path)
    else:
        write_net(conversion.net(), path, own=own)
    return conversion.report


def onnx_to_caffe(
    source: Path,
    path: Path,
    shapes: Mapping[str, Sequence[int]],
    inputs: Sequence[Sequence[int]],
    fork: bool = False,
    own: Target | None = None,
) -> Report:
    """An ONNX model as caffemodel and prototxt (or through these as any other kind)."""
    from netspec.interchange.onnx_nets.convert import from_onnx

    if inputs:
        raise NetspecError(f"{source}: give shapes with the names of its inputs: --shape NAME=N,C,H,W")
    conversion = from_onnx(source, shapes, fork=fork)
    if path.suffix == ".caffemodel" and own is None:
        conversion.save(path)
    else:
        write_net(conversion.net(), path, own=own)
    return conversion.report


def samples(shapes: Sequence[Sequence[int]]) -> list[Tensor]:
    """Normal numbers of these shapes."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(tuple(shape), generator=generator) for shape in shapes]


def module_called(name: str) -> nn.Module:
    """The module named "package.module:name", or the result of the function without arguments of that name."""
    home, _, attribute = name.rpartition(":")
    try:
        member = getattr(importlib.import_module(home), attribute)
    except (ImportError, AttributeError) as error:
        raise NetspecError(f"{name}: {error}") from error
    module = member if isinstance(member, nn.Module) else member()
    if not isinstance(module, nn.Module):
        raise SpecError(f"{name} is no PyTorch module and makes none, but {type(module).__name__}")
    return module
