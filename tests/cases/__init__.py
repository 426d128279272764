"""One Case for each way a layer type is used: text, inputs, and which checks apply. A module a family."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Case:
    """A small net around one layer type, checked by tests/test_layers.py in every way that applies.

    text: prototxt of the net; Input layers give the shapes.
    inputs: values of some inputs by blob name; the rest are standard normal.
    gradient: names of inputs whose gradient is checked in float64 (None: all that are floating point and not listed
    in `inputs` as integers); () for none. Parameters with lr_mult != 0 are checked too.
    random: forward draws random numbers, so only shapes, compile and export are checked.
    """

    name: str
    text: str
    phase: str = "TRAIN"
    inputs: Mapping[str, Tensor] = field(default_factory=dict)
    gradient: tuple[str, ...] | None = None
    random: bool = False
    compiles: bool = True
    exports: bool = True
    atol: float = 1e-6


def all_cases() -> list[Case]:
    """The CASES of every module of this package."""
    cases: list[Case] = []
    for module in pkgutil.iter_modules(__path__):
        cases += importlib.import_module(f"{__name__}.{module.name}").CASES
    return cases
