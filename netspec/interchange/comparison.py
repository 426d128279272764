"""Compares two models: the difference of every blob, layer by layer, and the first blob that departs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from netspec.errors import NetspecError, SpecError
from netspec.interchange.blobs import Array
from netspec.interchange.dialects import told
from netspec.interchange.onnx import Outward, quiet, to_onnx
from netspec.interchange.weights import load_weights
from netspec.net import reading
from netspec.net.make import make_net
from netspec.net.net import Net
from netspec.schema import spec
from netspec.schema.regular import read_regular
from netspec.schema.spec import TEST

TOLERANCE = 1e-4
"""Relative difference from which a layer counts as departing: some hundred roundings of float32."""


@dataclass(frozen=True)
class Row:
    """The difference of one blob between two models."""

    layer: str
    type: str
    blob: str
    shape: tuple[int, ...]
    error: float
    """Largest absolute difference; infinite where shapes, NaN or infinities disagree."""
    relative: float
    """The same over the largest magnitude of the first model's values."""
    note: str = ""


@dataclass(frozen=True)
class Report:
    """Differences in the order of execution; printed as a table."""

    rows: tuple[Row, ...]
    names: tuple[str, str]
    tolerance: float = TOLERANCE
    unmatched: tuple[str, ...] = ()
    """Blobs that only one of the models has."""

    @property
    def largest(self) -> float:
        """The largest relative difference."""
        return max((row.relative for row in self.rows), default=0.0)

    @property
    def departs(self) -> Row | None:
        """The first blob whose relative difference exceeds the tolerance."""
        return next((row for row in self.rows if not row.relative <= self.tolerance), None)

    @property
    def equal(self) -> bool:
        """Whether nothing departs (and something was compared)."""
        return bool(self.rows) and self.departs is None

    def __str__(self) -> str:
        lines = [f"{'layer':24} {'type':18} {'blob':24} {'shape':20} {'largest error':>13} {'relative':>9}"]
        for row in self.rows:
            mark = "" if row.relative <= self.tolerance else " *"
            lines.append(
                f"{row.layer:24} {row.type:18} {row.blob:24} {'x'.join(map(str, row.shape)) or 'one':20} "
                f"{row.error:13.3g} {row.relative:9.2g}{mark}{f'  {row.note}' if row.note else ''}"
            )
        if self.unmatched:
            lines.append(f"in one of them only: {', '.join(self.unmatched)}")
        lines.append(self.verdict())
        return "\n".join(lines)

    def verdict(self) -> str:
        """The result in one line."""
        a, b = self.names
        if not self.rows:
            return f"{a} and {b} have no blob in common"
        if self.departs is None:
            return (
                f"{a} and {b} agree: largest relative difference {self.largest:.2g} in {len(self.rows)} blobs"
            )
        row = self.departs
        return (
            f"{b} departs from {a} in layer {row.layer!r} ({row.type}), blob {row.blob!r}: {row.relative:.2g}"
        )


@dataclass(frozen=True)
class Value:
    """A blob's values in a model. `key` is its name and how many later versions it has (by in-place layers)."""

    key: tuple[str, int]
    layer: str
    type: str
    values: Array


def difference(a: Array, b: Array) -> tuple[float, float, str]:
    """Largest absolute and relative difference of two arrays, and a note where they cannot be compared."""
    if np.squeeze(a).shape != np.squeeze(b).shape:
        return np.inf, np.inf, f"shape {a.shape} against {b.shape}"
    a, b = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    finite = np.isfinite(a)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return np.inf, np.inf, "NaN or infinities in other places"
    if not np.isfinite(b[finite]).all():
        return np.inf, np.inf, "NaN or infinities in other places"
    error = float(np.abs(a[finite] - b[finite]).max(initial=0.0))
    scale = float(np.abs(a[finite]).max(initial=0.0))
    return error, error / scale if scale > 1e-30 else error, ""


def compare(
    a: Net | str | Path,
    b: Net | str | Path,
    inputs: Sequence[Tensor] | None = None,
    tolerance: float = TOLERANCE,
) -> Report:
    """Run two models on the same inputs and compare the blobs that bear the same name.

    a, b: nets, or ONNX files, whose outputs are compared by name. One of them must be a net; it says what the
    inputs are (by default `sample_inputs`). Raises NetspecError when the models take different inputs.
    """
    net = next((model for model in (a, b) if isinstance(model, Net)), None)
    if net is None:
        raise NetspecError("one of the models compared must be a net")
    values = list(inputs) if inputs is not None else sample_inputs(net)
    feeds = dict(zip(net.input_names, values, strict=True))
    blobs = [values_of(model, feeds) for model in (a, b)]
    return report(blobs[0], blobs[1], (name_of(a), name_of(b)), tolerance)


def report(
    a: Sequence[Value], b: Sequence[Value], names: tuple[str, str], tolerance: float = TOLERANCE
) -> Report:
    """The differences of the values that both models have."""
    theirs = {value.key: value for value in b}
    ours = {value.key for value in a}
    rows = tuple(
        Row(
            value.layer,
            value.type,
            value.key[0],
            value.values.shape,
            *difference(value.values, theirs[value.key].values),
        )
        for value in a
        if value.key in theirs
    )
    only = [key for key in (*ours, *theirs) if not (key in ours and key in theirs)]
    return Report(rows, names, tolerance, tuple(sorted({name for name, _ in only})))


def values_of(model: Net | str | Path, feeds: Mapping[str, Tensor]) -> list[Value]:
    """Every blob of a net in order, or the outputs of an ONNX file."""
    if not isinstance(model, Net):
        outputs = run_onnx(
            read_regular(Path(model)), {name: np.asarray(v) for name, v in feeds.items()}, str(model)
        )
        return [Value((name, 0), name, "ONNX", values) for name, values in outputs.items()]
    missing = [name for name in model.input_names if name not in feeds]
    if missing:
        raise NetspecError(f"{name_of(model)} takes an input {missing[0]!r}; given are {', '.join(feeds)}")
    with torch.no_grad():
        slots = model.slots(*(feeds[name] for name in model.input_names))
    later: dict[str, int] = {}
    blobs = []
    for slot in sorted(set(slots) - set(model.graph.inputs), reverse=True):
        name = model.graph.name(slot)
        layer = model.graph.steps[model.graph.slots[slot].maker].layer
        blobs.append(Value((name, later.get(name, 0)), layer.name, layer.type, slots[slot].cpu().numpy()))
        later[name] = later.get(name, 0) + 1
    return blobs[::-1]


def sample_inputs(net: Net, seed: int = 0) -> list[Tensor]:
    """Normal numbers for each input of at least two axes, zeros (a valid label) for the others."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [net.shapes[slot] for slot in net.graph.inputs]
    return [torch.randn(s, generator=generator) if len(s) > 1 else torch.zeros(s) for s in shapes]


def name_of(model: Net | str | Path) -> str:
    """The name of a model in reports."""
    return (model.graph.spec.name or model.graph.spec.file or "net") if isinstance(model, Net) else str(model)


def run_onnx(data: bytes, feeds: Mapping[str, Array], file: str = "model") -> dict[str, Array]:
    """Outputs of an ONNX model by name: by onnxruntime where it is installed, else by onnx's reference evaluator."""
    try:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        names = [value.name for value in session.get_inputs()]
        outputs = [value.name for value in session.get_outputs()]

        def run(given: dict[str, Array]) -> Any:
            return session.run(None, given)
    except ImportError:
        import onnx.reference

        with quiet():
            evaluator = onnx.reference.ReferenceEvaluator(onnx.load_from_string(data))
        names, outputs = evaluator.input_names, evaluator.output_names

        def run(given: dict[str, Array]) -> Any:
            return evaluator.run(None, given)
    except Exception as error:  # onnxruntime's own errors have no public base
        raise NetspecError(f"{file}: cannot be read as ONNX: {error}") from error
    missing = [name for name in names if name not in feeds]
    if missing:
        raise NetspecError(f"{file}: takes an input {missing[0]!r}; given are {', '.join(feeds)}")
    with quiet():
        return dict(zip(outputs, map(np.asarray, run({name: feeds[name] for name in names})), strict=True))


def compare_onnx(net: Net, inputs: Sequence[Tensor] | None = None, tolerance: float = TOLERANCE) -> Report:
    """Compare the net with its own ONNX form, blob by blob: a second export makes every blob an output."""
    values = list(inputs) if inputs is not None else sample_inputs(net)
    model = to_onnx(net, values, every=True).model_proto
    feeds = dict(zip(net.input_names, values, strict=True))
    outward = Outward(net, every=True)
    outputs = run_onnx(model.SerializeToString(), {name: v.numpy() for name, v in feeds.items()})
    ours = values_of(net, feeds)
    theirs = [
        Value(value.key, value.layer, value.type, outputs[name])
        for value, name in zip(ours, outward.names, strict=True)
    ]
    return report(ours, theirs, (name_of(net), "its ONNX form"), tolerance)


def open_net(
    path: str | Path,
    weights: str | Path | None = None,
    phase: str = TEST,
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> Net:
    """A net from its prototxt and weights, built without its data; SpecError where a shape is known to data alone.

    path: a prototxt, or a run folder with its net in the phase and the weights of its newest good snapshot, unless
    others are given.
    shapes: of inputs whose data is not here, by name.
    """
    path = Path(path)
    if path.is_dir():
        path, weights = net_file(path, phase), path if weights is None else weights
    document = reading.read(path, "net")
    if not any(spec.keeps(layer, phase, (), 0) for layer in document.message.layer):
        raise SpecError(f"{path}: has no layer in phase {phase}")
    net_spec = spec.net(document, phase)
    given = {name: tuple(shape) for name, shape in (shapes or {}).items()}
    if weights is None:
        return make_net(net_spec, input_shapes=given)
    net = make_net(told(net_spec, weights), input_shapes=given)
    load_weights(net, weights)
    return net


def net_file(run: Path, phase: str = TEST) -> Path:
    """The prototxt of a run folder that holds its net in a phase: test nets may have a file of their own."""
    own = run / "test_net_1.prototxt"
    return own if phase == TEST and own.is_file() else run / "net.prototxt"


def compare_files(
    a: str | Path,
    b: str | Path,
    weights_a: str | Path | None = None,
    weights_b: str | Path | None = None,
    tolerance: float = TOLERANCE,
) -> Report:
    """Compare two models given by files; the inputs are `sample_inputs`.

    Each is a prototxt (with its weights), a run folder, or an .onnx.
    """
    models = [
        path if str(path).endswith(".onnx") else open_net(path, weights)
        for path, weights in ((a, weights_a), (b, weights_b))
    ]
    compared = compare(models[0], models[1], tolerance=tolerance)
    return Report(compared.rows, (str(a), str(b)), tolerance, compared.unmatched)
