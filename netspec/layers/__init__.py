"""Layer types, a room per family; importing this package registers all of them."""

from __future__ import annotations

import importlib
import pkgutil

from netspec.layers.base import Layer, register, registry

for _module in pkgutil.walk_packages(__path__, f"{__name__}."):
    importlib.import_module(_module.name)

__all__ = ["Layer", "register", "registry"]
