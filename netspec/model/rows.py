"""Answers to rows of a table in its own units: completed cells, classes, likelihoods, new rows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from netspec.data.files.idx import Array
from netspec.data.sources.table import form_of, layout_of, open_source
from netspec.data.tables.cells import is_missing
from netspec.data.tables.columns import CATEGORY, DATE, NUMBER
from netspec.data.tables.reading import PARQUET, Cells, Form, Frame, Parquet, Piece, Rows, Text
from netspec.data.tables.table import Layout, Say
from netspec.data.tables.writing import kind_of, value_of, write_table
from netspec.data.transform import near
from netspec.errors import DataError, did_you_mean
from netspec.model.model import Model
from netspec.queries import likelihood

CLASSES = 3
"""Classes that a line names, the likeliest first."""
HOWS = ("expected", "most_probable", "sampled")
PROBABILITY = "log p: of a probability, in nats; -log2 p is the length of an ideal code in bits"
DENSITY = (
    "log p: of a density in the columns' own units, in nats; no code length: compare it with densities alone"
)


def refuse_source(source: str | Path, out: Path) -> None:
    """DataError where answers would be written over the table that is asked about."""
    if out.exists() and Path(source).exists() and out.samefile(source):
        raise DataError(f"{out}: is the table that is asked about, and would be lost; give -o another name")


@dataclass
class Asked:
    """A piece of a table as the model reads it."""

    piece: Piece
    places: list[int | None]
    """For each column of the layout, its place among the piece's columns."""
    x: Tensor
    labels: Array
    """(n,) class or standardised number of the target; NaN where missing."""
    names: list[str]
    """Of the columns of x."""

    @contextmanager
    def named(self) -> Iterator[None]:
        """Errors of a query name the line and the column, not the place in the batch."""
        try:
            yield
        except DataError as error:
            match = re.match(
                r"image (\d+)(?:, channel 0, row 0, column (\d+)|, position 0,(\d+) of)?", str(error)
            )
            if match is None or int(match[1]) >= len(self.piece):
                raise
            column = match[2] or match[3]
            where = f"line {self.piece.places[int(match[1])]}" + (
                f", column {self.names[int(column)]!r}" if column is not None else ""
            )
            rest = str(error)[match.end() :]
            raise DataError(where + (f" of{rest}" if match[3] else rest)) from error


class TableModel:
    """A model whose data are rows of a table."""

    def __init__(self, trained: Model, say: Say | None = None):
        """say: called with a remark on every cell that is read otherwise than written, such as a category not seen in
        training.
        """
        if trained.data.type != "Table":
            raise DataError(
                f"{trained.name}: {trained.data} reads no table; ask it about --images, "
                "or train a net with a Table layer"
            )
        self.trained, self.say = trained, say
        p = trained.data.message.table_param
        self.layout: Layout = layout_of(p, near(trained.data, p.source))
        self.form: Form = form_of(p)

    def completed_frame(self, frame: Any, how: str, seed: int) -> Any:
        """A pandas frame with its missing cells filled in, each column of its type where that can hold the answers;
        else numbers as numbers, all else as text.
        """
        import pandas

        rows = Frame(frame, "the frame")
        pieces = list(self.completed(rows, how, seed))
        columns = {column.name: column for column in self.layout.columns}
        completed = {}
        for i, name in enumerate(rows.names):
            kind = kind_of(columns.get(name))
            cells = [cell for piece in pieces for cell in piece[i]]
            completed[name] = [value_of(cell, kind, columns.get(name)) for cell in cells]
        filled = pandas.DataFrame(completed, index=frame.index)
        filled.columns = frame.columns
        for place, kind in enumerate(frame.dtypes):
            name = frame.columns[place]
            if kind != filled[name].dtype and str(kind) != "object":
                filled[name] = as_type(filled[name], kind)
        return filled

    # Reading

    def open(self, source: str | Path) -> Rows:
        """The rows of a file or a named table; separator, quotes and so on are detected."""
        form = Form(None, self.form.encoding, self.form.header)
        return open_source(str(source), form, Path(source))

    def pieces(self, rows: Rows, size: int = 2000) -> Iterator[Asked]:
        """The rows as the model reads them, piece by piece."""
        places = self.layout.fit(rows.names, str(rows.path))
        for piece in rows.pieces(size):
            values, labels = self.layout.encode(piece, places, self.say)
            x = torch.from_numpy(values)[:, None, None].to(self.trained.device)
            yield Asked(piece, places, x, labels, self.layout.names)

    # Completion

    def completed(self, rows: Rows, how: str = "expected", seed: int = 1) -> Iterator[list[Cells]]:
        """The pieces of the table with its missing cells filled in, all other cells as they are written.

        how: "expected" (the mean, the most probable category of each cell by itself), "most_probable" (all missing
        cells together) or "sampled". A missing class is the most probable one; a known one is taken into account.
        """
        if how not in HOWS:
            hint = did_you_mean(how, HOWS, f"there are {', '.join(HOWS)}")
            raise DataError(f"no completion is called {how!r}{hint}")
        for number, asked in enumerate(self.pieces(rows)):
            with asked.named():
                filled, classes = self.fill(asked.x, asked.labels, how, seed + number)
            cells = self.layout.decode(filled[:, 0, 0].cpu().numpy())
            label = self.layout.label
            if label is not None:
                cells[label.name] = label.decode(classes)
            columns = [list(column) for column in asked.piece.columns]
            for column, place in zip(self.layout.columns, asked.places, strict=True):
                if place is None or column.name not in cells:
                    continue
                for i, cell in enumerate(columns[place]):
                    if is_missing(cell, self.layout.words):
                        columns[place][i] = cells[column.name][i]
            yield columns

    def fill(self, x: Tensor, labels: Array, how: str, seed: int) -> tuple[Tensor, Array]:
        """(x with its missing cells filled in, the class of each row: the known one, else the most probable)."""
        trained, known = self.trained, ~np.isnan(labels)
        filled, classes = x.clone(), labels.astype(np.float64)
        several = bool(self.layout.classes)
        for kind in (True, False) if several else (False,):
            rows = torch.from_numpy(np.flatnonzero((known == kind) if several else np.ones_like(known))).to(
                x.device
            )
            if not len(rows):
                continue
            part = x[rows]
            y = torch.from_numpy(labels[rows.cpu().numpy()].astype(np.int64)).to(x.device) if kind else None
            filled[rows] = self._fill(part, y, how, seed)
            if several and not kind:
                classes[rows.cpu().numpy()] = trained.posterior(part).argmax(1).cpu().numpy()
        return filled, classes

    def _fill(self, x: Tensor, y: Tensor | None, how: str, seed: int) -> Tensor:
        if how == "sampled":
            drawn: Tensor = self.trained.complete(x, y, seed)
            return drawn
        if how == "most_probable":
            likely: Tensor = self.trained.most_probable_completion(x, y)
            return likely
        mean: Tensor = self.trained.expected_completion(x, y)[0]
        if self.layout.one_hot:
            return mean  # the mean of a cell of 0 and 1 is its probability: `decode` takes the largest
        for column, span in self.layout.spans():
            if column.kind == CATEGORY and bool((gone := x[:, 0, 0, span.start].isnan()).any()):
                part = None if y is None else y[gone]
                chosen = self.categories(x[gone], part, span.start, len(column.values)).argmax(1)
                mean[gone, 0, 0, span.start] = chosen.to(mean.dtype)
        return mean

    def categories(self, x: Tensor, y: Tensor | None, cell: int, count: int) -> Tensor:
        """p(category | observed) (n, count) of a cell that is missing in all rows; by Bayes' rule, for any leaf."""
        scores = []
        for value in range(count):
            asked = x.clone()
            asked[:, 0, 0, cell] = value
            if y is None:
                scores.append(self.trained.log_likelihood(asked))
            else:
                scores.append(self.trained.class_log_likelihood(asked).gather(1, y[:, None])[:, 0])
        probabilities: Tensor = torch.stack(scores, 1).softmax(1)
        return probabilities

    def write_completed(self, source: str | Path, out: Path, how: str = "expected", seed: int = 1) -> int:
        """Write the completed table, in the form of the source; gives the number of rows."""
        refuse_source(source, out)
        rows = self.open(source)
        self.layout.fit(
            rows.names, str(rows.path)
        )  # a table of other columns is said before the target's name
        return write_table(
            out,
            rows.names,
            self.completed(rows, how, seed),
            columns=self.layout.columns,
            **form_for(rows, out),
        )

    # Classes and likelihoods

    def predicted(self, rows: Rows) -> Iterator[list[Cells]]:
        """For each row the class and the probability of each class; of a numeric target its value."""
        if self.layout.response:
            yield from self.foretold(rows)
            return
        label = self.layout.label
        if label is None:
            raise DataError(f"{self.trained.name}: its table has no target; complete the rows in its place")
        for asked in self.pieces(rows):
            if label.kind != CATEGORY:
                scores = self.trained.scores(asked.x)
                yield [label.decode(scores[:, 0].double().cpu().numpy())]
                continue
            with asked.named():
                probabilities = self.trained.log_probabilities(asked.x).double().exp().cpu().numpy()
            chosen = label.decode(probabilities.argmax(1).astype(float))
            shares: list[Cells] = [[f"{p:.6g}" for p in column] for column in probabilities.T]
            yield [chosen, *shares]

    def foretold(self, rows: Rows) -> Iterator[list[Cells]]:
        """For each row the mean and the deviation of the response given the row's other columns, in its own units."""
        column, span = next(pair for pair in self.layout.spans() if pair[0].name == self.layout.response)
        whole = column if column.kind == DATE else replace(column, kind=NUMBER)
        apart = replace(column, kind=NUMBER, mean=0.0)
        for asked in self.pieces(rows):
            x = asked.x.clone()
            x[..., span] = torch.nan
            with asked.named():
                mean, deviation = self.trained.expected_completion(x)
            cells = [one[:, 0, 0, span.start].double().cpu().numpy() for one in (mean, deviation)]
            yield [
                whole.decode(cells[0], self.layout.standardise),
                apart.decode(cells[1], self.layout.standardise),
            ]

    def predicted_names(self) -> list[str]:
        """Names of the columns of `predicted`."""
        if self.layout.response:
            days = " in days" if self.layout.kind_of(self.layout.response) == DATE else ""
            return [self.layout.response, f"deviation({self.layout.response}){days}"]
        name = self.layout.target
        return [name, *(f"p({name}={value})" for value in self.layout.classes)]

    def write_predicted(self, source: str | Path, out: Path) -> int:
        """Write the table with the predicted class (or value) of each row behind its columns."""
        refuse_source(source, out)
        rows = self.open(source)
        names = [
            *rows.names,
            *(f"predicted {name}" if i == 0 else name for i, name in enumerate(self.predicted_names())),
        ]
        # Two walks over the same rows, side by side: one as written, one as the model reads them.
        pieces = (
            [*asked.columns, *more]
            for asked, more in zip(rows.pieces(2000), self.predicted(rows), strict=True)
        )
        return write_table(out, names, pieces, columns=self.layout.columns, **form_for(rows, out))

    def log_likelihood(self, x: Tensor) -> Array:
        """log p of the observed cells of each row (n,), nats: a density in the units of the table's columns."""
        density = self.trained.log_likelihood(x).double() - self.trained.log_units(x)
        return density.cpu().numpy()

    @property
    def kind(self) -> str:
        """What log p is of: a "probability", or a "density" in the units of the columns of numbers."""
        return "probability" if self.trained.discrete else "density"

    def answers(self, rows: Rows) -> Iterator[dict[str, Any]]:
        """For each row its number, how many cells are observed, log p in nats, what it is of (a "probability" where all
        columns are discrete, else a "density"), and p(class) by the class's name.
        """
        number = 0
        for asked in self.pieces(rows):
            with asked.named():
                yield from self.answers_to(asked.x, numbers=range(number + 1, number + 1 + len(asked.piece)))
            number += len(asked.piece)

    def answers_to(
        self, x: Tensor, labels: Sequence[int] | None = None, numbers: Sequence[int] | None = None
    ) -> Iterator[dict[str, Any]]:
        """`answers` for rows as the model reads them (n, 1, 1, D).

        labels: their classes, -1 where unknown. numbers: of the rows, default from 1.
        """
        log_p = self.log_likelihood(x)
        posterior = self.trained._ask(likelihood.posterior, x).cpu().numpy()
        seen = (~x.isnan()).flatten(1).sum(1).tolist()
        names = self.layout.classes
        for i in range(len(x)):
            answer: dict[str, Any] = {
                "row": i + 1 if numbers is None else numbers[i],
                "observed": seen[i],
                "log_likelihood": float(log_p[i]),
                "kind": self.kind,
            }
            if names and labels is not None and labels[i] >= 0:
                answer["label"] = names[labels[i]]
            if names:
                answer["posterior"] = {name: float(p) for name, p in zip(names, posterior[i], strict=True)}
            yield answer

    # New rows

    def sampled(self, count: int, seed: int = 1, classes: Sequence[int] = ()) -> list[Cells]:
        """Rows drawn from the model, cells by column: of `classes` in turn, by default of all by their shares (in turn
        where the net has none).
        """
        y = torch.arange(count) % self.trained.tree.classes
        if classes:
            y = torch.tensor(list(classes))[torch.arange(count) % len(classes)]
        elif self.trained.joint:
            empty = torch.full((1, *self.trained.image_shape), torch.nan)
            shares = self.trained.posterior(empty)[0].cpu()
            y = torch.multinomial(shares, count, True, generator=torch.Generator().manual_seed(seed))
        x = self.trained.sample(y.to(self.trained.device), seed)
        cells = self.layout.decode(x[:, 0, 0].cpu().numpy())
        label = self.layout.label
        if label is not None and self.layout.classes:
            cells[label.name] = label.decode(y.numpy().astype(float))
        return [cells[name] for name in self.sampled_names()]

    def write_sampled(self, out: Path, count: int, seed: int = 1, classes: Sequence[int] = ()) -> Path:
        """Write rows drawn from the model (see `sampled`); gives the path."""
        write_table(
            out, self.sampled_names(), [self.sampled(count, seed, classes)], columns=self.layout.columns
        )
        return out

    def sampled_names(self) -> list[str]:
        """Names of the columns of `sampled`."""
        target = [self.layout.target] if self.layout.classes else []
        inputs = {column.name for column in self.layout.inputs}
        return [
            column.name for column in self.layout.columns if column.name in inputs or column.name in target
        ]


def as_type(column: Any, kind: Any) -> Any:
    """A pandas column as one of another type, where that can hold its values; else unchanged."""
    if "bool" in str(kind):
        words = {"true": True, "false": False, "1": True, "0": False}
        column = column.map(lambda cell: words.get(str(cell).lower(), cell), na_action="ignore")
    try:
        return column.astype(kind)
    except (TypeError, ValueError, OverflowError):  # such as a missing value among whole numbers of numpy
        return column


def form_for(rows: Rows, out: Path) -> dict[str, Any]:
    """The form in which an answer to `rows` is written: that of the rows, where both are text of the same kind, or
    Parquet.
    """
    if isinstance(rows, Parquet):
        return {"types": rows.types()} if out.suffix.lower() in PARQUET else {}
    if (
        not isinstance(rows, Text)
        or out.suffix.lower() != Path(str(rows.path).removesuffix(".gz")).suffix.lower()
    ):
        return {}
    return {"separator": rows.separator, "encoding": rows.encoding, "header": rows.header}


def beside(source: str, word: str) -> Path:
    """The file name of an answer to a table: in the table's folder, or for a named table in the working directory."""
    path = Path(source)
    stem, suffix = path.name.removesuffix(".gz"), Path(path.name.removesuffix(".gz")).suffix
    return path.with_name(f"{stem.removesuffix(suffix)}_{word}{suffix or '.csv'}")


def lines(answers: Iterable[dict[str, Any]]) -> Iterator[str]:
    """One line per row of the table under a head, then a note on what log p means."""
    kind = ""
    for i, answer in enumerate(answers):
        if i == 0:
            known = "label" in answer
            yield f"{'row':>6}  {'observed':>8}  {'log p':>12}  {'label  ' if known else ''}classes"
        of_classes = answer.get("posterior", {})
        best = sorted(of_classes, key=lambda name: -of_classes[name])[:CLASSES]
        told = ", ".join(f"{name} {100 * of_classes[name]:.1f} %" for name in best)
        told = f"{answer.get('label', '')}  {told}" if known else told
        yield f"{answer['row']:>6}  {answer['observed']:>8}  {answer['log_likelihood']:>12.4f}  {told}".rstrip()
        kind = answer["kind"]
    if kind:
        yield PROBABILITY if kind == "probability" else DENSITY


def shown(names: Sequence[str], piece: Sequence[Cells]) -> str:
    """Rows under a head, in columns."""
    columns = [
        [name, *("" if cell is None else cell for cell in cells)]
        for name, cells in zip(names, piece, strict=True)
    ]
    widths = [max(map(len, column)) for column in columns]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in zip(*columns, strict=True)
    )
