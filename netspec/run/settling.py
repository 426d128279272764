"""What data say of themselves, written into the net before a run: so that its model needs no data to know its units."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from netspec.layers.base import registry
from netspec.layers.data import DataLayer
from netspec.schema.spec import NetSpec


def settle(specs: Iterable[NetSpec], given: Collection[str] = ()) -> list[str]:
    """Let the data layers of nets, in turn, write what is found of their data into their messages; gives what is to be
    said of it.

    given: names of layers whose data come from elsewhere. A layer takes over what one of its name and type in an
    earlier net has found: the test net counts in the units of the training net.
    """
    known: dict[tuple[str, str], Any] = {}
    notes: list[str] = []
    for spec in specs:
        for layer in spec.layers:
            kind = registry.get(layer.type)
            if kind is None or not issubclass(kind, DataLayer) or layer.name in given:
                continue
            made = kind(layer, layer.phase(spec.phase))
            notes += made.settle(known.get((layer.name, layer.type)))
            known.setdefault((layer.name, layer.type), layer.message)
    return list(dict.fromkeys(notes))
