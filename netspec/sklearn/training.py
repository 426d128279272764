"""Training for the estimators: rows of an array are the batches of a net; the result is text and bytes."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load as read_weights
from safetensors.torch import save as weights_bytes
from torch import Tensor

from netspec import schema
from netspec.data.files.idx import Array
from netspec.data.source import Order, Stream
from netspec.data.tables.arranging import mutual_information, order
from netspec.data.tables.columns import NUMBER, Column
from netspec.errors import DataError, did_you_mean
from netspec.layers import registry
from netspec.model.model import Model, load
from netspec.run.fit import fit
from netspec.schema import shipped
from netspec.schema.document import Document
from netspec.schema.printer import print_text
from netspec.schema.templates import render

SOLVER = """
net: "rows.prototxt" type: "Nadam" momentum: 0.9 momentum2: 0.999 delta: 1e-8 base_lr: {rate:.9g} lr_policy: "fixed"
max_iter: {iterations} display: {iterations} snapshot: {iterations} random_seed: 1
"""
"""The solver of a net without a solver of its own."""
TREES = ("chow_liu", "pairs")
"""Over the columns of a table."""


class Rows(Stream):
    """data (N, ...) and label (N,), `batch` of them at a time; where that is not all, each epoch has a new order."""

    def __init__(
        self, data: Array, labels: Array, batch: int | None = None, seed: int = 1, masks: bool = False
    ):
        batch = min(batch or len(data), len(data))
        super().__init__(batch)
        self.samples = len(data)
        self.data = torch.from_numpy(np.ascontiguousarray(data, np.float32))
        self.labels = torch.from_numpy(np.ascontiguousarray(labels, np.float32))
        self.masks = masks
        self.shapes = [(batch, *self.data.shape[1:]), (batch,), (batch, *self.data.shape[1:])][: 2 + masks]
        self.order = Order(len(data), batch < len(data), seed)

    def make(self, positions: Array) -> tuple[Tensor, ...]:
        places = torch.from_numpy(self.order(positions))
        data = self.data[places]
        tops = (data, self.labels[places])
        return (*tops, (~data.isnan()).float()) if self.masks else tops


@dataclass(frozen=True)
class Net:
    """A net and its solver as texts, and what its input is."""

    text: str
    solver: str
    shape: tuple[int, ...]
    """Of one row."""
    batch: int | None = None
    """Rows of a batch; None: all."""
    data: str = "data"
    """The name of its data layer."""
    masks: bool = False
    """Whether the data layer also gives what is observed."""


# The nets that there are


def columns_of(values: Array) -> list[Column]:
    """A column of numbers for each of the values' (n, D), by the mean and deviation of what is observed."""
    columns = []
    for i, cells in enumerate(values.T):
        seen = cells[~np.isnan(cells)]
        mean = float(seen.mean()) if len(seen) else 0.0
        deviation = float(np.sqrt(np.square(seen - mean).mean())) if len(seen) else 0.0
        columns.append(Column(f"x{i}", NUMBER, mean, deviation or 1.0))
    return columns


def of_table(scaled: Array, classes: int, settings: Mapping[str, Any], tuned: bool = False) -> Net:
    """The tree for a table, scaled (n, D): standardised, NaN where missing. tuned: as it goes on by gradients, without
    first values.
    """
    if (tree := settings.get("tree", TREES[0])) not in TREES:
        raise DataError(f"no tree is called {tree!r}{did_you_mean(str(tree), TREES, ', '.join(TREES))}")
    columns = [Column(f"x{i}", NUMBER, 0.0, 1.0) for i in range(scaled.shape[1])]
    p = schema.TableParameter(column=[column.message() for column in columns])
    values = {
        "name": "rows", "net": "rows.prototxt", "data": print_text(p).strip(), "test": 0, "batch": len(scaled),
        "kinds": [{"kind": "gaussian"}] * len(columns), "classes": classes,
        "order": order(mutual_information(scaled)) if tree == "pairs" else list(range(len(columns))),
        "begin": not tuned, **settings,
    }  # fmt: skip
    text, solver = (render(shipped.folder() / f"table{end}.prototmp", values) for end in ("", "_solver"))
    return Net(text, solver, (1, 1, scaled.shape[1]))


def of_pictures(
    shape: tuple[int, ...], classes: int, batch: int, iterations: int, settings: Mapping[str, Any]
) -> Net:
    """The tree for pictures (C, H, W) with values from -0.5 to 0.5."""
    given = f"shape {{ dim: {batch} {' '.join(f'dim: {n}' for n in shape)} }} shape {{ dim: {batch} }}"
    values = {
        "name": "rows", "net": "rows.prototxt", "given": given, "test": 0, "size": list(shape[1:]), "classes": classes,
        "iterations": iterations, **settings,
    }  # fmt: skip
    text, solver = (render(shipped.folder() / f"pictures{end}.prototmp", values) for end in ("", "_solver"))
    return Net(text, solver, shape, batch)


def of_file(
    path: str | Path,
    values: Mapping[str, Any],
    solver: str | Path | None,
    width: int,
    batch: int,
    iterations: int,
    rate: float,
    shape: Sequence[int] | None = None,
) -> Net:
    """A net file, or a template (.prototmp, filled with `values`), with an Input layer in place of its data layers.

    width: values of a row, which are put into `shape`, else that of the file's own Input layer, else (1, 1, width).
    solver: a file, else the one beside the net, else Nadam with this rate. DataError where the shape does not fit.
    """
    path = shipped.find(path)
    if path.suffix == ".prototmp":
        document = schema.parse_net(render(path, values), str(path))
    else:
        if values:
            raise DataError(f"{path}: is no template (.prototmp), which `values` are for")
        document = schema.read_net(path)
    message, data, inner, masks = with_input(document, width, batch, shape)
    if solver is None:
        beside = path.with_name(f"{path.stem}_solver.prototxt")
        own = schema.read_solver(beside).message if beside.is_file() else None
    else:
        own = schema.read_solver(solver).message
    return Net(print_text(message), solver_text(own, iterations, rate), inner, batch, data, masks)


def solver_text(own: Any, iterations: int, rate: float) -> str:
    """A solver file's text for the net rows.prototxt: its own fields, less the tests and the nets that it names."""
    if own is None:
        return SOLVER.format(rate=rate, iterations=iterations)
    for name in ("net", "train_net", "net_param", "train_net_param", "test_net", "test_net_param", "test_iter",
                 "test_interval", "test_state", "snapshot_prefix", "pretraining", "weights"):  # fmt: skip
        own.ClearField(name)
    own.net, own.max_iter, own.snapshot = "rows.prototxt", iterations, iterations
    return print_text(own)


def with_input(
    document: Document, width: int, batch: int, shape: Sequence[int] | None
) -> tuple[Any, str, tuple[int, ...], bool]:
    """(the net with one Input layer in place of what brings data in, that layer's name, the shape of a row, whether it
    gives masks).
    """
    message = document.message
    sources = [layer for layer in message.layer if layer.type in registry and registry[layer.type].is_source]
    if not sources:
        raise DataError(f"{document.file}: the net has no layer that brings data in, such as Input")
    first = sources[0]
    tops = list(first.top) if len(first.top) > 1 else [*first.top, *(layer.top[0] for layer in sources[1:2])]
    if len(tops) < 2:
        tops.append("label")
    if first.HasField("input_param") and not first.input_param.shape and shape is None:
        raise DataError(f"{document.file}: layer {first.name!r} has no shape; give it one, or image_shape")
    own = tuple(first.input_param.shape[0].dim)[1:] if first.input_param.shape else ()
    inner = tuple(int(n) for n in shape or own or (1, 1, width))
    if int(np.prod(inner)) != width:
        raise DataError(f"{document.file}: the net reads rows of {inner}, these have {width} values")
    input_layer = schema.LayerParameter(name=first.name, type="Input", top=tops)
    for size in ((batch, *inner), (batch,), (batch, *inner))[: len(tops)]:
        input_layer.input_param.shape.add().dim.extend(size)
    rest = [layer for layer in message.layer if not any(layer is source for source in sources)]
    kept = [type(layer).FromString(layer.SerializeToString()) for layer in (input_layer, *rest)]
    del message.layer[:]
    message.layer.extend(kept)
    return message, first.name, inner, len(tops) > 2


# Training, and what comes out of it


def learn(net: Net, data: Array, labels: Array, seed: int, weights: bytes | None = None) -> tuple[str, bytes]:
    """(the text of the trained net, its weights as safetensors); data (n, D), labels (n,), NaN where there is none."""
    rows = Rows(data.reshape(len(data), *net.shape), labels, net.batch, seed, net.masks)
    with tempfile.TemporaryDirectory(prefix="netspec-") as folder:
        (Path(folder) / "rows.prototxt").write_text(net.text, encoding="utf-8")
        (Path(folder) / "rows_solver.prototxt").write_text(net.solver, encoding="utf-8")
        run = fit(
            Path(folder) / "rows_solver.prototxt", given={net.data: rows}, seed=seed, device="cpu",
            weights=None if weights is None else read_weights(weights), out=Path(folder) / "run", progress=False,
            compiled=False, sigint="none", sighup="none",
        )  # fmt: skip
        text = (run.folder / "net.prototxt").read_text(encoding="utf-8")
        learnt = {
            name: value.detach().cpu().contiguous().clone() for name, value in run.net.weights().items()
        }
    return text, weights_bytes(learnt)


def model_of(text: str, weights: bytes) -> Model:
    """The model of a net's text and its weights, in double precision: rows are answered alike in any batch."""
    with tempfile.TemporaryDirectory(prefix="netspec-") as folder:
        path = Path(folder) / "rows.prototxt"
        path.write_text(text, encoding="utf-8")
        return load(path, read_weights(weights), dtype=torch.float64)
