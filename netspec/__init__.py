"""netspec: networks and solvers as prototxt, compiled, trained, drawn and asked on PyTorch.

    run = netspec.fit("nets/ht_cac_digits.prototxt")
    model = netspec.load(run.folder)
    model.posterior(model.from_pixels(images, observed))

Names are imported when first used, so that a program that only reads files does not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "fit": "netspec.run.fit",
    "Run": "netspec.run.fit",
    "load": "netspec.model.model",
    "Model": "netspec.model.model",
    "Tree": "netspec.queries.tree",
    "build": "netspec.net.net",
    "make_net": "netspec.net.make",
    "Net": "netspec.net.net",
    "Layer": "netspec.layers.base",
    "register": "netspec.layers.base",
    "allow_python": "netspec.layers.consent",
    "read_net_from_caffe": "netspec.interchange.readers",
    "blob_from_image": "netspec.interchange.readers",
    "SpecError": "netspec.errors",
    "DataError": "netspec.errors",
    "SnapshotError": "netspec.errors",
    "NetspecError": "netspec.errors",
}
"""Where each public name lives."""

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
