"""From run folders and names of baselines to the rows of a table, and the whole laboratory in one call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from netspec import schema
from netspec.data.files.idx import Array
from netspec.draw.canvas import SUFFIXES
from netspec.errors import DataError
from netspec.lab import imputing
from netspec.lab.baselines import Neighbours, RobustLinear
from netspec.lab.imputing import Imputations
from netspec.lab.methods import SHIFTED, Direct, Imputed, Method
from netspec.lab.plot import plot
from netspec.lab.run import SEED, circumstances, run
from netspec.lab.settings import parse_all
from netspec.lab.table import TABLES, Table
from netspec.model import model
from netspec.model.completing import is_other
from netspec.model.mixture import Mixture
from netspec.model.model import Model
from netspec.net.devices import choose_device

ROBUST = 6000
"""Training images of a robust linear classifier: its time grows with them, its accuracy hardly."""


def assemble(
    models: Sequence[Model],
    impute: Sequence[str] = (),
    *,
    shifts: bool = False,
    mixture: bool = False,
    neighbours: int = 0,
    robust: Sequence[tuple[int, float]] = (),
    seed: int = SEED,
) -> list[Method]:
    """The methods of a table: one per model that takes missing pixels; one per imputation for every other model.

    impute: see `netspec.lab.imputing`, default zero and mean; expected, most_probable and sampled come from the
    first generative model. shifts: average over the nine translations. mixture: a row more, all generative models as
    one (`netspec.model.mixture`). neighbours: k of a nearest-neighbour row (0: none). robust: (N, C) of rows of
    robust linear classifiers, which learn from the first 6,000 training images. Rows of nearest neighbours learn
    from all training images of the models' data set.
    Raises DataError when an imputation has no generative model to come from, or is unknown.
    """
    if not models:
        raise DataError("no run was given")
    for kind in impute:
        imputing.check(kind)
    for one in models:
        if is_other(one):
            raise DataError(
                f"{one.name} completes images and tells no classes; give it as --impute {one.name}"
            )
    names = distinct([short(one.name) for one in models])
    imputations = Imputations(next((one for one in models if one.generative), None), seed, models[0].device)
    methods: list[Method] = []
    for name, one in zip(names, models, strict=True):
        if one.takes_missing:
            methods.append(Direct(one, name + SHIFTED if shifts else name, shifts))
            continue
        for kind in dict.fromkeys(impute) or ("zero", "mean"):
            methods.append(Imputed(imputations.make(kind, one), one, f"{name}, {imputing.title(kind)}"))
    if mixture:
        parts = {name: one for name, one in zip(names, models, strict=True) if one.generative}
        if len(parts) == 1:
            raise DataError(f"a mixture needs two generative runs; there is one, {next(iter(parts))}")
        mixed = Mixture(list(parts.values()), " + ".join(parts))
        methods.append(Direct(mixed, mixed.name + SHIFTED if shifts else mixed.name, shifts))
    if neighbours:
        pixels, labels = models[0].images("whole_train")
        methods.append(Neighbours(pixels, labels, neighbours, device=models[0].device))
    for deleted, bound in dict.fromkeys(robust):
        pixels, labels = models[0].images("whole_train")
        methods.append(
            RobustLinear(pixels[:ROBUST], labels[:ROBUST], deleted, bound, device=models[0].device)
        )
    return methods


def short(name: str) -> str:
    """What a run or a net file is called in a table."""
    path = Path(name)
    return path.stem if path.suffix == ".prototxt" else path.resolve().name


def distinct(names: Sequence[str]) -> list[str]:
    """Each name once; repeated ones numbered."""
    return [
        f"{name} ({names[: i + 1].count(name)})" if names.count(name) > 1 else name
        for i, name in enumerate(names)
    ]


def missing(
    runs: Sequence[str | Path],
    *,
    iid: Sequence[str] = (),
    rects: Sequence[str] = (),
    others: Sequence[str] = (),
    split: str = "test",
    begin: int = 0,
    end: int | None = None,
    repeats: int = 1,
    seed: int = SEED,
    shifts: bool = False,
    mixture: bool = False,
    impute: Sequence[str] = (),
    neighbours: int = 0,
    robust: Sequence[tuple[int, float]] = (),
    out: Sequence[str | Path] = (),
    device: str | torch.device | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> Table:
    """The laboratory: runs (folders) and baselines in every setting, on images begin..end of a split.

    out: files to write, by suffix: .json, .csv, .md, .txt the table, .png, .svg, .pdf the plot.
    device: by default the GPU where there is one.
    All runs must be of one data set; raises DataError otherwise, or for an unknown setting, imputation or suffix.
    """
    for path in map(Path, out):
        if path.suffix not in (*TABLES, *SUFFIXES):
            raise DataError(f"{path}: results are written as {', '.join((*TABLES, *SUFFIXES))}")
    settings, chosen = parse_all(iid, rects, others), choose_device(schema.SolverParameter(), device)
    models = [model.load(folder, device=chosen) for folder in runs]
    methods = assemble(
        models, impute, shifts=shifts, mixture=mixture, neighbours=neighbours, robust=robust, seed=seed
    )
    pixels, labels = images(models, split, begin, end)
    table = run(methods, settings, pixels, labels, repeats=repeats, seed=seed, first=begin, progress=progress)
    table.facts = {"data": models[0].dataset, "split": split, "seed": seed, **circumstances(chosen)}
    for path in map(Path, out):
        if path.suffix in SUFFIXES:
            plot(table, path, title=f"{models[0].dataset}, {len(labels)} {split} images")
        else:
            table.write(path)
    return table


def images(models: Sequence[Model], split: str, begin: int, end: int | None) -> tuple[Array, Array]:
    """The images that all models are tested on."""
    sets = {one.dataset for one in models}
    if len(sets) > 1:
        raise DataError(f"the runs are of different data sets: {', '.join(sorted(sets))}")
    return models[0].images(split, begin, end)
