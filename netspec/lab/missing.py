"""`netspec missing`: runs and baselines in every setting, one table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from netspec import schema
from netspec.data.files.idx import Array
from netspec.draw.canvas import SUFFIXES
from netspec.errors import DataError
from netspec.lab.assemble import assemble
from netspec.lab.layout import ALONE, COMPLETE, Columns, Rows
from netspec.lab.plot import plot
from netspec.lab.run import circumstances, run
from netspec.lab.settings import parse_all
from netspec.lab.table import TABLES, Table
from netspec.model import model
from netspec.model.inputs import own
from netspec.model.model import Model
from netspec.net.devices import choose_device

SOURCES = ("pictures_param", "hdf5_data_param", "image_data_param", "data_param")
"""Fields that say where the images of a data layer lie."""


def missing(
    runs: Sequence[str | Path],
    columns: Columns = COMPLETE,
    rows: Rows = ALONE,
    *,
    split: str = "test",
    begin: int = 0,
    end: int | None = None,
    out: Sequence[str | Path] = (),
    device: str | torch.device | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> Table:
    """The laboratory: runs (folders) and baselines in every setting, on images begin to end - 1 of a split.

    out: files to write, by suffix: .json, .csv, .md, .txt the table, .png, .svg, .pdf the plot.
    device: by default the GPU where there is one.
    Returns the table of accuracies. Raises DataError where the runs are of different data sets, or a setting, an
    imputation or a suffix is unknown.

        lab.missing(["runs/ht", "runs/lenet"], Columns(iid=["0.5", "0.9"]), Rows(impute=["mean"]), end=1000)
    """
    for path in map(Path, out):
        if path.suffix not in (*TABLES, *SUFFIXES):
            raise DataError(f"{path}: results are written as {', '.join((*TABLES, *SUFFIXES))}")
    settings, chosen = (
        parse_all(columns.iid, columns.rects, columns.others),
        choose_device(schema.SolverParameter(), device),
    )
    models = [model.load(folder, device=chosen) for folder in runs]
    methods = assemble(models, rows, columns.seed)
    pixels, labels = images(models, split, begin, end)
    for setting in settings:
        if larger := setting.larger(pixels.shape[2:]):
            progress(f"warning: {larger}")
    table = run(
        methods, settings, pixels, labels,
        repeats=columns.repeats, seed=columns.seed, first=begin, progress=progress,
    )  # fmt: skip
    table.facts = {"data": data_of(models[0]), "split": split, "seed": columns.seed, **circumstances(chosen)}
    for path in map(Path, out):
        if path.suffix in SUFFIXES:
            plot(table, path, title=f"{data_of(models[0])}, {len(labels)} {split} images")
        else:
            table.write(path)
    return table


def images(models: Sequence[Model], split: str, begin: int, end: int | None) -> tuple[Array, Array]:
    """The images that all models are tested on."""
    sets = {data_of(tested) for tested in models}
    if len(sets) > 1:
        raise DataError(f"the runs are of different data sets: {', '.join(sorted(sets))}")
    first = models[0]
    if any(map(first.data.message.HasField, ("dataset_param", "pictures_param"))):
        pixels, labels = first.images(split, begin, end)
    else:
        if split != "test":
            raise DataError(f"{first.name}: {first.data} has no splits; leave out --split for its test data")
        asked = own(first, begin, end)
        pixels, labels = asked.pixels, np.array(asked.labels)
    known = labels >= 0
    if not known.any():
        raise DataError(f"{first.name}: the images of {data_of(first)} have no labels to compare with")
    return pixels[known], labels[known]


def data_of(tested: Model) -> str:
    """What a model's images are called: the name of the data set, or where they lie."""
    if tested.dataset:
        return tested.dataset
    message = tested.data.message
    fields = [getattr(message, name) for name in SOURCES if message.HasField(name)]
    return next((str(field.source) for field in fields), f"layer {tested.data.name!r}")
