"""Nets as ONNX and as torch.export programs.

torch's own exporter does the work. This module corrects what it gets wrong or lacks: statistics of a batch (it takes
running ones), the logarithm of a sigmoid (it overflows), stable sorting, and operators that only change gradients.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import math
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from netspec.errors import NetspecError, Problem, SpecError
from netspec.layers.base import Layer, as_tuple
from netspec.layers.basic.batch_norm import BN, BatchNorm
from netspec.net.net import Net

OPSET = 20
"""The first opset in which GridSample has its present names; it has every operator used."""


class ExportError(SpecError):
    """A net that cannot be written in another format; names the layer that prevents it."""


class Progress:
    """The running layer, which is to blame for an error. (torch.export resets plain attributes.)"""

    layer: Layer | None = None


class Outward(nn.Module):
    """A net in the form to export: inputs to outputs, or to every blob of every layer, each loss once."""

    def __init__(self, net: Net, every: bool = False):
        super().__init__()
        self.net, self.every = net, every
        self.progress = Progress()

    @property
    def names(self) -> list[str]:
        """A name for each output: the blob's, numbered where it is changed in place or is an input too."""
        graph = self.net.graph
        names: list[str] = list(self.net.input_names)
        for slot in self.slots():
            name, k = graph.name(slot), 1
            while name in names:
                k += 1
                name = f"{graph.name(slot)}_{k}"
            names.append(name)
        return names[len(self.net.input_names) :]

    def slots(self) -> list[int]:
        """The slots that are outputs."""
        graph = self.net.graph
        if self.every:
            return [slot for slot in range(len(graph.slots)) if slot not in graph.inputs]
        return list(dict.fromkeys((*graph.outputs, *(slot for slot, _ in graph.losses))))

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        values: dict[int, Tensor] = dict(zip(self.net.graph.inputs, inputs, strict=True))
        walk = (step for step in self.net.graph.steps if not step.kind.is_source)

        def call(layer: Layer, *bottoms: Tensor) -> tuple[Tensor, ...]:
            self.progress.layer = layer
            own = SUBSTITUTES.get(type(layer))
            tops = as_tuple(own(layer, *bottoms) if own else layer(*bottoms))
            values.update(zip(next(walk).writes, tops, strict=True))
            return tops

        self.net.run(call, *inputs)
        return tuple(values[slot] for slot in self.slots())


def by_batch(x: Tensor, eps: float, scale: Tensor | None, shift: Tensor | None) -> Tensor:
    """x (N, C, ...) normalised over its own values by channel, in operators that every exporter knows."""
    axes = [axis for axis in range(x.dim()) if axis != 1]
    tail = [1] * (x.dim() - 2)
    centred = x - x.mean(axes, keepdim=True)
    y = centred * torch.rsqrt((centred * centred).mean(axes, keepdim=True) + eps)
    if scale is not None and shift is not None:
        y = y * scale.reshape(-1, *tail) + shift.reshape(-1, *tail)
    return y


def batch_norm(layer: BatchNorm, x: Tensor) -> Tensor:
    """BatchNorm's forward, its running statistics left alone."""
    if layer.globally:
        return layer(x)  # type: ignore[no-any-return]
    rows = x if x.dim() > 1 else x[:, None]
    scale, shift = (layer.blob(3), layer.blob(4)) if layer.learns else (None, None)
    return by_batch(rows, layer.eps, scale, shift).reshape(x.shape)


def bn(layer: BN, x: Tensor) -> Tensor:
    """BN's forward, its running statistics left alone."""
    if layer.statistics != "batch":
        return layer(x)  # type: ignore[no-any-return]
    moved = x.transpose(1, layer.channel_axis)
    y = by_batch(moved, layer.eps, layer.blob(0).flatten(), layer.blob(1).flatten())
    return y.transpose(1, layer.channel_axis)


SUBSTITUTES: dict[type[Layer], Callable[..., Tensor]] = {BatchNorm: batch_norm, BN: bn}
"""Forwards to export in place of a layer's own."""


def program_of(
    net: Net, inputs: Sequence[Tensor] | None = None, every: bool = False, dynamic_batch: bool = False
) -> torch.export.ExportedProgram:
    """The net as a torch.export program; inputs default to zeros of the net's shapes.

    dynamic_batch: the first axis of every input may have any length; a net whose file says 1 is traced with 2, since
    torch assumes that a length of 1 never changes.
    Raises ExportError with the layer whose forward torch.export cannot follow, or that has its batch written in.
    """
    outward = Outward(net, every)
    values = tuple(inputs) if inputs is not None else zeros(net)
    shapes = None
    if dynamic_batch:
        shapes = (tuple({0: torch.export.Dim.DYNAMIC} for _ in values),)
        if inputs is None:
            values = tuple(x if len(x) > 1 else x.repeat(2, *(1,) * (x.dim() - 1)) for x in values)
        refuse_fixed_batch(outward, values)
    net.look()
    try:
        with torch.no_grad(), quiet():
            return torch.export.export(outward, values, dynamic_shapes=shapes)
    except NetspecError:
        raise
    except Exception as error:  # torch raises errors of every kind here
        reason = f"torch.export cannot follow it: {first_line(error)}"
        layer = outward.progress.layer
        raise ExportError([layer.spec.problem(reason)] if layer else f"the net: {reason}") from error


def refuse_fixed_batch(outward: Outward, values: tuple[Tensor, ...]) -> None:
    """ExportError with the first layer that does not take one example more."""
    more = tuple(torch.cat([x, x[:1]]) for x in values)
    try:
        with torch.no_grad(), quiet():
            outward(*more)
    except Exception as error:  # whatever a layer raises
        layer, batch = outward.progress.layer, len(values[0])
        reason = f"has the batch of {batch} written in, so --dynamic-batch cannot be: {first_line(error)}"
        raise ExportError([layer.spec.problem(reason)] if layer else f"the net {reason}") from error


def zeros(net: Net) -> tuple[Tensor, ...]:
    """An input of zeros for each of the net's inputs."""
    device = net.params[0].value.device if net.params else torch.device("cpu")
    return tuple(torch.zeros(net.shapes[slot], device=device) for slot in net.graph.inputs)


def first_line(error: BaseException) -> str:
    """What an error says first."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Within, the exporter's warnings about its own parts and its progress are silenced."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def save_program(net: Net, path: str | Path, dynamic_batch: bool = False) -> None:
    """Write the net as a torch.export program (.pt2): `torch.export.load(path).module()` runs it."""
    from netspec.data.files.whole import write_whole

    write_whole(Path(path), encode_program(net, dynamic_batch))


def encode_program(net: Net, dynamic_batch: bool = False) -> bytes:
    """The bytes of a .pt2 file of the net."""
    program = program_of(net, dynamic_batch=dynamic_batch)
    buffer = io.BytesIO()
    with quiet():
        torch.export.save(program, buffer)
    return buffer.getvalue()


def to_onnx(
    net: Net,
    inputs: Sequence[Tensor] | None = None,
    *,
    opset: int = OPSET,
    every: bool = False,
    dynamic_batch: bool = False,
) -> Any:
    """The net as a torch.onnx ONNXProgram (`.model_proto`, `.save(path)`), inputs and outputs named as blobs.

    every: all blobs are outputs. Raises ExportError with the layer and the operator that ONNX cannot express.
    """
    need_onnx()
    program = program_of(net, inputs, every, dynamic_batch)
    names = Outward(net, every).names
    return translated(program, net.input_names, names, opset, lambda target: blame(net, program, target))


def export_onnx(
    net: Net, path: str | Path, *, opset: int = OPSET, dynamic_batch: bool = False, every: bool = False
) -> None:
    """Write the net as ONNX; see `to_onnx`."""
    program = to_onnx(net, opset=opset, dynamic_batch=dynamic_batch, every=every)
    with quiet():
        program.save(str(path))


def translated(
    program: torch.export.ExportedProgram,
    input_names: Sequence[str],
    output_names: Sequence[str],
    opset: int,
    blame: Callable[[str], Problem | str],
    optimize: bool = True,
) -> Any:
    """An exported program in ONNX; `blame` says where an operator without a translation comes from.

    optimize: fold constants and merge operators, which takes most of the time.
    """
    try:
        with torch.no_grad(), quiet():
            onnx_program = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=opset,
                verbose=False,
                optimize=optimize,
                custom_translation_table=table(),
            )
    except Exception as error:  # its errors have no common base that is public
        reasons: list[BaseException] = [error]
        while reasons[-1].__cause__ is not None:
            reasons.append(reasons[-1].__cause__)
        for reason in reversed(reasons):
            if match := re.search(
                r"torch\.ops\.([\w.]+?)\]?\(|OpOverload\(op='([\w.]+)', overload='(\w+)'", str(reason)
            ):
                target = match[1] or f"{match[2]}.{match[3]}"
                raise ExportError(blame(target)) from error
        raise ExportError(f"the net cannot be written as ONNX: {first_line(reasons[-1])}") from error
    name_values(onnx_program.model.graph, input_names, output_names)  # type: ignore[union-attr]
    return onnx_program


def name_values(graph: Any, input_names: Sequence[str], output_names: Sequence[str]) -> None:
    """Give inputs and outputs their names; a value inside that has one of these gets another.

    (The exporter names values by their operator, and does not see that a blob may be called "add".)
    """
    import onnx_ir

    seen = {id(value) for value in graph.inputs}
    for i, value in enumerate(graph.outputs):
        if id(value) in seen:  # an input handed through, or one value twice: a value of its own
            copy = onnx_ir.node("Identity", [value])
            graph.append(copy)
            graph.outputs[i] = copy.outputs[0]
            copy.outputs[0].type, copy.outputs[0].shape = value.type, value.shape
        seen.add(id(graph.outputs[i]))
    outer = {id(value) for value in (*graph.inputs, *graph.outputs)}
    taken = {*input_names, *output_names}
    values = [value for node in graph for value in node.outputs] + list(graph.initializers.values())
    known = {value.name for value in values} | taken
    for value in values:
        if value.name in taken and id(value) not in outer:
            new = next(name for k in range(2, 10**9) if (name := f"{value.name}_{k}") not in known)
            known.add(new)
            value.name = new
    for value, name in zip((*graph.inputs, *graph.outputs), (*input_names, *output_names), strict=True):
        value.name = name


def blame(net: Net, program: torch.export.ExportedProgram, target: str) -> Problem | str:
    """The first layer that uses an operator, as a Problem at its place."""
    text = f"ONNX has no counterpart of its operator {target}"
    wanted = target.split(".")[1]
    for node in program.graph.nodes:
        parts = str(node.target).split(".")
        # The exporter may name what it made of an operator: linalg_cholesky_ex of linalg_cholesky.
        if node.op == "call_function" and len(parts) > 1 and wanted.removesuffix("_ex") == parts[1]:
            for path, _ in reversed(node.meta.get("nn_module_stack", {}).values()):
                if match := re.search(r"layers\.(\d+)$", path):
                    return net.made[int(match[1])].spec.problem(text)
    return f"{text} ({net.graph.spec.file})"


def need_onnx() -> None:
    """NetspecError with the remedy when the libraries for ONNX are not installed."""
    for name in ("onnx", "onnxscript"):
        if importlib.util.find_spec(name) is None:
            raise NetspecError(f"ONNX needs the library {name}: pip install onnx onnxscript")


def table() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Translations of our own, of operators that torch's exporter lacks or gets wrong."""
    import onnxscript

    op: Any = onnxscript.opset20

    def log_sigmoid(x: Any) -> Any:
        one = op.CastLike(op.Constant(value_float=1.0), x)
        return op.Sub(op.Neg(op.Relu(op.Neg(x))), op.Log(op.Add(one, op.Exp(op.Neg(op.Abs(x))))))

    def sort_stable(x: Any, stable: bool = True, dim: int = -1, descending: bool = False) -> Any:
        # TopK lists equal values in ascending order of their index, which is what stable asks for.
        length = op.Gather(op.Shape(x), op.Constant(value_ints=[dim]))
        return op.TopK(x, length, axis=dim, largest=int(descending), sorted=1)

    def with_pull(x: Any, pull: Any) -> Any:
        return op.Identity(x)

    def lgamma(x: Any) -> Any:
        # For x > 0: Stirling's series at x + 8, less the logarithm of the eight factors between.
        def number(value: float) -> Any:
            return op.CastLike(op.Constant(value_float=value), x)

        factors = x
        for k in range(1, 8):
            factors = op.Mul(factors, op.Add(x, number(float(k))))
        z = op.Add(x, number(8.0))
        inverse = op.Reciprocal(z)
        square = op.Mul(inverse, inverse)
        tail = op.Sub(
            number(1 / 12), op.Mul(square, op.Sub(number(1 / 360), op.Mul(square, number(1 / 1260))))
        )
        main = op.Sub(op.Mul(op.Sub(z, number(0.5)), op.Log(z)), z)
        whole = op.Add(op.Add(main, number(math.log(2 * math.pi) / 2)), op.Mul(inverse, tail))
        return op.Sub(whole, op.Log(factors))

    def hypot(x: Any, y: Any) -> Any:
        return op.Sqrt(op.Add(op.Mul(x, x), op.Mul(y, y)))

    translations: dict[Callable[..., Any], Callable[..., Any]] = {
        torch.ops.aten.hypot.default: hypot,
        torch.ops.prims.hypot.default: hypot,
        torch.ops.aten.lgamma.default: lgamma,
        torch.ops.prims.lgamma.default: lgamma,
        torch.ops.aten.log_sigmoid.default: log_sigmoid,
        torch.ops.aten.sort.stable: sort_stable,
    }
    if hasattr(torch.ops.netspec, "with_pull"):
        translations[torch.ops.netspec.with_pull.default] = with_pull
    return translations
