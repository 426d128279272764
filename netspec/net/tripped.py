"""Turns an exception that a layer raises while it is made into an error at the layer and at the field that is likely to
blame.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from netspec.errors import NetspecError, Problem, SpecError, one_line
from netspec.schema.descriptors import is_repeated
from netspec.schema.spec import LayerSpec

LARGE = 1 << 24
"""Larger numbers are probably mistakes."""
LONG = 1000
"""Longer lists are probably mistakes."""

Path = tuple[str | int, ...]


@contextmanager
def at_layer(layer: LayerSpec, what: str, bottoms: Sequence[Sequence[int]] = ()) -> Iterator[None]:
    """Within, an exception that is not ours becomes a SpecError with the layer `what`, the reason and the field.

    bottoms: shapes, one of which may have too few axes. An exception that carries its place in a note, as those of
    Python layers do, is left unchanged.
    """
    try:
        yield
    except NetspecError:
        raise
    except Exception as error:  # a layer checks what it can think of; its values come from anybody
        if getattr(error, "__notes__", None):
            raise
        raise SpecError([tripped(layer, what, error, bottoms)]) from error


def tripped(layer: LayerSpec, what: str, error: Exception, bottoms: Sequence[Sequence[int]] = ()) -> Problem:
    """The problem of a layer that raised `error`: at its first odd field, or, where it asked for an axis that is
    missing, at the bottom with the fewest axes.
    """
    if isinstance(error, IndexError) and bottoms:
        i = min(range(len(bottoms)), key=lambda i: len(bottoms[i]))
        return layer.problem(f"{what}: bottom {layer.bottoms[i]!r} has too few axes", "bottom", i)
    text = f"{what}: {type(error).__name__}: {one_line(error)}"
    path, value = next(odd_fields(layer.message), ((), None))
    if path:
        written = f"{len(value)} values" if isinstance(value, list) else f"{value:g}"
        text += f"; {'.'.join(str(part) for part in path if isinstance(part, str))} is {written}"
    return layer.problem(text, *path)


def odd_fields(message: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """(path, value) of the fields that are not finite, negative, or very large, and of very long lists."""
    for field, value in message.ListFields():
        own = (*path, field.name)
        if field.name == "blobs":
            continue
        values = list(value) if is_repeated(field) else [value]
        if len(values) > LONG:
            yield own, values
        for i, number in enumerate(values[:LONG]):
            place = (*own, i) if is_repeated(field) else own
            if field.message_type is not None:
                yield from odd_fields(number, place)
            elif isinstance(number, int | float) and not (math.isfinite(number) and 0 <= number < LARGE):
                yield place, number
