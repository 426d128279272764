"""The rows of a table: from models and names of baselines to methods."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from netspec.errors import DataError
from netspec.lab import imputing
from netspec.lab.baselines import Neighbours, RobustLinear
from netspec.lab.imputing import Imputations
from netspec.lab.layout import ALONE, SEED, Rows
from netspec.lab.methods import SHIFTED, Direct, Imputed, Method
from netspec.model.completing import is_other
from netspec.model.mixture import Mixture
from netspec.model.model import Model

ROBUST = 6000
"""Training images of a robust linear classifier; more would cost time and hardly improve its accuracy."""


def assemble(models: Sequence[Model], rows: Rows = ALONE, seed: int = SEED) -> list[Method]:
    """The methods of a table: one per model that takes missing pixels; one per imputation for every other model;
    then those of `rows`.

    seed: of imputations that are drawn.
    Raises DataError when an imputation has no generative model to come from, or is unknown.
    """
    if not models:
        raise DataError("no run was given")
    for kind in rows.impute:
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
            methods.append(Direct(one, name + SHIFTED if rows.shifts else name, rows.shifts))
            continue
        for kind in dict.fromkeys(rows.impute) or ("zero", "mean"):
            methods.append(Imputed(imputations.make(kind, one), one, f"{name}, {imputing.title(kind)}"))
    if rows.mixture:
        parts = {name: one for name, one in zip(names, models, strict=True) if one.generative}
        if len(parts) == 1:
            raise DataError(f"a mixture needs two generative runs; there is one, {next(iter(parts))}")
        mixed = Mixture(list(parts.values()), " + ".join(parts))
        methods.append(Direct(mixed, mixed.name + SHIFTED if rows.shifts else mixed.name, rows.shifts))
    if rows.neighbours:
        pixels, labels = models[0].images("whole_train")
        methods.append(Neighbours(pixels, labels, rows.neighbours, device=models[0].device))
    for deleted, bound in dict.fromkeys(rows.robust):
        pixels, labels = models[0].images("whole_train")
        methods.append(
            RobustLinear(pixels[:ROBUST], labels[:ROBUST], deleted, bound, device=models[0].device)
        )
    return methods


def short(name: str) -> str:
    """The name of a run or a net file in a table."""
    path = Path(name)
    return path.stem if path.suffix == ".prototxt" else path.resolve().name


def distinct(names: Sequence[str]) -> list[str]:
    """The names made unique: repeated ones are numbered."""
    return [
        f"{name} ({names[: i + 1].count(name)})" if names.count(name) > 1 else name
        for i, name in enumerate(names)
    ]
