"""Layer types, one family a file; importing this package registers all of them."""

from __future__ import annotations

import importlib
import pkgutil

from netspec.layers.base import Layer, register, registry

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["Layer", "register", "registry"]
