"""netspec.pycaffe under another name: `caffe.io` is netspec.pycaffe.io itself, never a second copy of it."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

PACKAGE = __name__.rpartition(".")[0]


class Alias(MetaPathFinder, Loader):
    """Imports modules of this package under whatever other name the package stands in `sys.modules`.

    Without it, `sys.modules["caffe"] = netspec.pycaffe` and then `from caffe.net_spec import NetSpec` would
    run net_spec.py again, and its classes would not be those of `caffe.NetSpec`.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """A spec for `caffe.io` where `caffe` is this package, or a copy or link of its folder."""
        head, _, rest = fullname.partition(".")
        if not rest or head == PACKAGE.partition(".")[0] or not is_ours(sys.modules.get(head)):
            return None
        if importlib.util.find_spec(f"{PACKAGE}.{rest}") is None:
            return None
        return ModuleSpec(fullname, self, is_package=False)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The module of this package, which keeps its own spec."""
        module = importlib.import_module(f"{PACKAGE}.{spec.name.partition('.')[2]}")
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """It ran when it was imported; only its spec, which the import replaced, comes back."""
        spec = module.__spec__
        if spec is not None and spec.loader is self:
            module.__spec__ = spec.loader_state


def is_ours(module: ModuleType | None) -> bool:
    """Whether a module is this package, has taken over its names (`from netspec.pycaffe import *`), or was
    made from its folder (a link to it on PYTHONPATH).
    """
    ours = sys.modules[PACKAGE]
    if module is None or module is ours:
        return module is not None
    names = vars(module)  # not getattr: a module's own __getattr__ may import, and so come back here
    if names.get("Net") is ours.Net:
        return True
    folders = names.get("__path__") or ()
    return any(Path(folder).resolve() == Path(__file__).resolve().parent for folder in folders)


def register() -> None:
    """Let the import system ask Alias first."""
    if not any(isinstance(finder, Alias) for finder in sys.meta_path):
        sys.meta_path.insert(0, Alias())
