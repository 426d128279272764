"""Training behind the estimators: rows of an array are the batches of a table's net; what stays is text and bytes."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load as read_weights
from safetensors.torch import save as weights_bytes
from torch import Tensor

from netspec import schema
from netspec.data.files.idx import Array
from netspec.data.source import Stream
from netspec.data.tables.arranging import mutual_information, order
from netspec.data.tables.columns import NUMBER, Column
from netspec.model.model import Model, load
from netspec.run.fit import fit
from netspec.schema import shipped
from netspec.schema.printer import print_text
from netspec.schema.templates import render


class Rows(Stream):
    """data (N, 1, 1, D) and label (N,), all of them in every batch."""

    def __init__(self, data: Array, labels: Array):
        super().__init__(len(data))
        self.samples = len(data)
        self.data = torch.from_numpy(np.ascontiguousarray(data, np.float32))[:, None, None]
        self.labels = torch.from_numpy(np.ascontiguousarray(labels, np.float32))
        self.shapes = [tuple(self.data.shape), (len(data),)]

    def make(self, positions: Array) -> tuple[Tensor, ...]:
        places = torch.from_numpy(positions % len(self.data))
        return self.data[places], self.labels[places]


def columns_of(values: Array) -> list[Column]:
    """A column of numbers for each of the values' (n, D), by the mean and deviation of what is observed."""
    columns = []
    for i, cells in enumerate(values.T):
        seen = cells[~np.isnan(cells)]
        mean = float(seen.mean()) if len(seen) else 0.0
        deviation = float(np.sqrt(np.square(seen - mean).mean())) if len(seen) else 0.0
        columns.append(Column(f"x{i}", NUMBER, mean, deviation or 1.0))
    return columns


def trained(
    scaled: Array, labels: Array, classes: int, columns: list[Column], settings: Mapping[str, Any], seed: int
) -> tuple[str, bytes]:
    """(the text of the trained net, its weights as safetensors) of the tree for a table.

    scaled (n, D): standardised, NaN where missing; labels (n,): NaN or a class below `classes`.
    """
    p = schema.TableParameter(column=[column.message() for column in columns])
    values = {
        "name": "rows", "net": "rows.prototxt", "data": print_text(p).strip(), "test": 0, "batch": len(scaled),
        "kinds": [{"kind": "gaussian"}] * len(columns), "order": order(mutual_information(scaled)),
        "classes": classes, **settings,
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="netspec-") as folder:
        for name in ("", "_solver"):
            text = render(shipped.folder() / f"table{name}.prototmp", values)
            (Path(folder) / f"rows{name}.prototxt").write_text(text, encoding="utf-8")
        run = fit(
            Path(folder) / "rows_solver.prototxt", given={"data": Rows(scaled, labels)}, seed=seed, device="cpu",
            out=Path(folder) / "run", progress=False, compiled=False, sigint="none", sighup="none",
        )  # fmt: skip
        text = (run.folder / "net.prototxt").read_text(encoding="utf-8")
        weights = {
            name: value.detach().cpu().contiguous().clone() for name, value in run.net.weights().items()
        }
    return text, weights_bytes(weights)


def model_of(text: str, weights: bytes) -> Model:
    """The model of a net's text and its weights, in double precision: rows are answered alike in any batch."""
    with tempfile.TemporaryDirectory(prefix="netspec-") as folder:
        path = Path(folder) / "rows.prototxt"
        path.write_text(text, encoding="utf-8")
        return load(path, read_weights(weights), dtype=torch.float64)
