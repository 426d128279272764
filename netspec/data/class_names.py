"""Names of the classes of a data layer."""

from __future__ import annotations

from collections.abc import Sequence

from netspec.data.sets.catalogue import KNOWN
from netspec.errors import NetspecError, did_you_mean
from netspec.schema.spec import LayerSpec


def class_names(data: LayerSpec) -> tuple[str, ...]:
    """Names of the classes in the order of their numbers; () where the data layer does not tell."""
    if data.message.HasField("pictures_param"):
        return tuple(data.message.pictures_param.class_name)
    if data.message.HasField("table_param"):
        p = data.message.table_param
        return next((tuple(column.value) for column in p.column if column.name == p.target), ())
    name = data.message.dataset_param.name if data.message.HasField("dataset_param") else ""
    return KNOWN[name].classes if name in KNOWN else ()


def class_number(text: str, names: Sequence[str], count: int) -> int:
    """The number of a class that is given by its name, or by its number; NetspecError where there is none such.

    names: of the classes, () where they have none. count: how many there are.
    """
    if text in names:
        return names.index(text)
    if text.strip().isdecimal() and int(text) < count:
        return int(text)
    if not names:
        raise NetspecError(f"no class {text}: the net has classes 0 to {count - 1}")
    shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    raise NetspecError(f"no class {text!r}{did_you_mean(text, names, f'the net has {shown}')}")
