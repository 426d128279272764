"""One Case for each way a layer type is used: text, inputs, and which checks apply. A module a family."""

from __future__ import annotations

import importlib
import pkgutil

from netspec import schema
from netspec.layers import registry
from netspec.layers.base import Layer
from netspec.testing import Case

__all__ = ["Case", "all_cases", "kind_of"]


def kind_of(case: Case) -> type[Layer]:
    """The class of the case's first layer that computes something."""
    kinds = [registry[layer.type] for layer in schema.parse_net(case.text, case.name).message.layer]
    return next((kind for kind in kinds if not kind.is_source), kinds[0])


def all_cases() -> list[Case]:
    """The CASES of every module of this package."""
    cases: list[Case] = []
    for module in pkgutil.iter_modules(__path__):
        cases += importlib.import_module(f"{__name__}.{module.name}").CASES
    return cases
