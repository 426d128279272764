"""Facts that data layers learn from their data, written into the net before a run, so that the trained model knows its
units without the data.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from netspec.layers.base import registry
from netspec.layers.data import DataLayer
from netspec.schema.spec import NetSpec


def settle(specs: Iterable[NetSpec], given: Collection[str] = ()) -> list[str]:
    """Let the data layers of the nets, in order, write what they learn from their data into their messages; returns
    remarks for the user.

    given: names of layers whose data come from elsewhere. A layer takes over the facts of a layer of the same name and
    type in an earlier net, so that the test net counts in the units of the training net.
    """
    known: dict[tuple[str, str], Any] = {}
    notes: list[str] = []
    for spec in specs:
        for layer in spec.layers:
            kind = registry.get(layer.type)
            if kind is None or not issubclass(kind, DataLayer) or layer.name in given:
                continue
            own = kind(layer, layer.phase(spec.phase))
            notes += own.settle(known.get((layer.name, layer.type)))
            known.setdefault((layer.name, layer.type), layer.message)
    return list(dict.fromkeys(notes))
