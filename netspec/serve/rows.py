"""A net over the rows of a table, served in the table's own units."""

from __future__ import annotations

from functools import cached_property
from math import log
from typing import Any

import numpy as np
import torch
from torch import Tensor

from netspec.data.tables.columns import CATEGORY
from netspec.model.model import Model
from netspec.model.rows import TableModel
from netspec.serve.subject import ModelSubject, as_array
from netspec.serve.tensors import Array, Refusal, to_json

MOST_EXAMPLES = 2000
"""Rows of the table that examples are taken from."""


class TableSubject(ModelSubject):
    """Rows (N, columns): numbers as in the table, dates in days since 1970, categories by their number from 0.

    `expected` of a category is the most probable one; its `deviation` is NaN.
    """

    def __init__(self, model: Model, name: str, version: str = "1"):
        self.table = TableModel(model)
        self.layout = self.table.layout
        super().__init__(model, name, version, (len(self.layout.inputs),))
        if not self.layout.classes:  # one class stands for all, or the target is a number: `scores` has it
            self.outputs = [output for output in self.outputs if output.name != "posterior"]

    def blob_of(self, values: Array, observed: Array | None) -> Tensor:
        values = values if observed is None else np.where(observed, values, np.nan)
        x = np.empty((len(values), self.layout.width), np.float32)
        for i, (column, span) in enumerate(self.layout.spans()):
            cells = values[:, i].astype(np.float64)
            if column.kind == CATEGORY:
                x[:, span] = self._categories(column.name, cells, len(column.values))
            elif self.layout.standardise:
                x[:, span] = ((cells - column.mean) / column.deviation)[:, None]
            else:
                x[:, span] = cells[:, None]
        return torch.from_numpy(x)[:, None, None].to(self.model.device)

    def _categories(self, name: str, cells: Array, count: int) -> Array:
        """Cells (n, 1 or count) of the numbers of categories."""
        seen = cells[~np.isnan(cells)]
        if (seen != np.floor(seen)).any() or (seen < 0).any() or (seen >= count).any():
            raise Refusal(f"column {name!r} holds categories: whole numbers from 0 to {count - 1}")
        if not self.layout.one_hot:
            return cells[:, None]
        hot: Array = np.where(np.isnan(cells)[:, None], np.nan, cells[:, None] == np.arange(count))
        return hot

    def values_of(self, x: Tensor) -> Array:
        rows = x[:, 0, 0].detach().cpu().numpy().astype(np.float64)
        columns = np.empty((len(rows), self.shape[0]))
        for i, (column, span) in enumerate(self.layout.spans()):
            cells = rows[:, span]
            if column.kind == CATEGORY:
                unknown = np.isnan(cells).any(1)
                number = np.nan_to_num(cells).argmax(1) if self.layout.one_hot else np.rint(cells[:, 0])
                known = np.clip(number, 0, len(column.values) - 1)  # a Gaussian leaf draws beyond them
                columns[:, i] = np.where(unknown, np.nan, known)
            else:
                scale, shift = (column.deviation, column.mean) if self.layout.standardise else (1.0, 0.0)
                columns[:, i] = cells[:, 0] * scale + shift
        return columns.astype(np.float32)

    def deviations_of(self, deviation: Tensor) -> Array:
        rows = as_array(deviation)[:, 0, 0]
        columns = np.full((len(rows), self.shape[0]), np.nan, np.float32)
        for i, (column, span) in enumerate(self.layout.spans()):
            if column.kind != CATEGORY:
                scale = column.deviation if self.layout.standardise else 1.0
                columns[:, i] = rows[:, span.start] * scale
        return columns

    def guess(self, x: Tensor, y: Tensor | None, mean: Tensor) -> Tensor:
        return self.table._fill(x, y, "expected", 0)

    def log_likelihood(self, x: Tensor, scores: Tensor) -> Tensor:
        """A density in the units of the table's columns."""
        density = super().log_likelihood(x, scores)
        if not self.layout.standardise:
            return density
        seen = ~x[:, 0, 0].isnan()
        for column, span in self.layout.spans():
            if column.kind != CATEGORY:
                density = density - seen[:, span.start] * log(column.deviation)
        return density

    @cached_property
    def examples(self) -> tuple[Array, list[int | None]]:
        """(the first rows of the table, their classes)."""
        source = self.model.data.message.table_param.source
        asked = next(iter(self.table.pieces(self.table.open(source), MOST_EXAMPLES)))
        labels = [None if value != value else int(value) for value in asked.labels.tolist()]
        return self.values_of(asked.x), labels

    def example(self, row: int) -> dict[str, Any]:
        rows, labels = self.examples
        row %= len(rows)
        label = labels[row] if self.layout.classes else None
        return {"values": to_json(rows[row]), "label": label, "row": row}

    def about(self) -> dict[str, Any]:
        columns = [
            {"name": column.name, "kind": column.kind, "values": list(column.values) or None}
            for column in self.layout.inputs
        ]
        names = list(self.layout.classes) or None
        return super().about() | {"kind": "table", "columns": columns, "class_names": names, "dataset": True,
                                  "target": self.layout.target}  # fmt: skip
