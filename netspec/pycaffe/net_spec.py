"""Nets written in Python: `layers` makes layers, `params` names enum values, `NetSpec` names the blobs.

n = NetSpec()
n.data = layers.Input(shape=dict(dim=[1, 1, 28, 28]))
n.conv = layers.Convolution(n.data, num_output=20, kernel_size=5)
n.pool = layers.Pooling(n.conv, pool=params.Pooling.MAX, kernel_size=2, stride=2)
print(n.to_proto())
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from netspec import schema
from netspec.schema.descriptors import is_repeated

SUFFIX, MESSAGE_SUFFIX = "_param", "Parameter"


@cache
def param_name_dict() -> dict[str, str]:
    """Layer type to the stem of its field: {"Convolution": "convolution", "ReLU": "relu", ...}."""
    fields = [f for f in schema.descriptor("LayerParameter").fields if f.name.endswith(SUFFIX)]
    return {
        field.message_type.name.removesuffix(MESSAGE_SUFFIX): field.name.removesuffix(SUFFIX)
        for field in fields
        if field.message_type is not None
    }


def assign_proto(proto: Any, name: str, value: Any) -> None:
    """Set a field from plain Python: a dict for a message, a list (or one entry) for a repeated field.

    Raises AttributeError for an unknown field, TypeError for a value of the wrong type.
    """
    field = proto.DESCRIPTOR.fields_by_name.get(name)
    if field is None:
        raise AttributeError(f"{proto.DESCRIPTOR.name} has no field {name!r}")
    target = getattr(proto, name)
    if is_repeated(field):
        entries = list(value) if isinstance(value, list | tuple) else [value]
        for entry in entries:
            if field.message_type is None:
                target.append(entry)
            elif isinstance(entry, Mapping):
                fill(target.add(), entry)
            else:
                target.add().CopyFrom(entry)
    elif field.message_type is None:
        setattr(proto, name, value)
    elif isinstance(value, Mapping):
        target.SetInParent()
        fill(target, value)
    else:
        target.CopyFrom(value)


def fill(message: Any, values: Mapping[str, Any]) -> None:
    """Set the fields of a message."""
    for name, value in values.items():
        assign_proto(message, name, value)


class Top:
    """A blob that a layer makes."""

    def __init__(self, fn: Function, n: int):
        self.fn, self.n = fn, n

    def to_proto(self) -> Any:
        """The NetParameter that makes this blob; names are made up."""
        return to_proto(self)


class Function:
    """A layer: its type, the blobs it reads, and the fields of its parameter.

    `ntop` says how many blobs it makes, `in_place` that its top is its bottom, `name` how it is called.
    """

    def __init__(self, type_name: str, inputs: Iterable[Any], params: Mapping[str, Any]):
        self.type_name, self.inputs, self.params = type_name, tuple(inputs), dict(params)
        for i, given in enumerate(self.inputs):
            if not isinstance(given, Top):
                raise TypeError(f"{type_name} input {i} is not a Top (type is {type(given)})")
        self.ntop = int(self.params.pop("ntop", 1))
        self.in_place = bool(self.params.pop("in_place", False))
        self.tops = tuple(Top(self, n) for n in range(self.ntop))

    def message(self, names: _Names) -> Any:
        """The LayerParameter."""
        bottoms = [names.blob(top) for top in self.inputs]
        layer = schema.LayerParameter(type=self.type_name, bottom=bottoms)
        layer.top.extend(bottoms if self.in_place else [names.blob(top) for top in self.tops])
        layer.name = names.layer(self)
        for name, value in self.params.items():
            self.assign(layer, name, value)
        return layer

    def assign(self, layer: Any, name: str, value: Any) -> None:
        """Set a field of the layer's own message where it has it, else of the LayerParameter."""
        stem = param_name_dict().get(self.type_name)
        if not name.endswith("param") and stem is not None:
            target = getattr(layer, stem + SUFFIX)
            own = target.add() if hasattr(target, "add") and not len(target) else target
            own = own[0] if hasattr(own, "add") else own
            if name in own.DESCRIPTOR.fields_by_name:
                assign_proto(own, name, value)
                return
        assign_proto(layer, name, value)


class _Names:
    """Names of blobs and layers; what has none is called by its type and a running number."""

    def __init__(self, named: Mapping[Any, str]):
        self.blobs: dict[Top, str] = {top: name for top, name in named.items() if isinstance(top, Top)}
        self.layers: dict[Function, str] = {
            fn: name for fn, name in named.items() if isinstance(fn, Function)
        }
        self.made: Counter[str] = Counter()

    def fresh(self, type_name: str) -> str:
        self.made[type_name] += 1
        return f"{type_name}{self.made[type_name]}"

    def blob(self, top: Top) -> str:
        if top.fn.in_place:
            return self.blob(top.fn.inputs[top.n])
        if top not in self.blobs:
            self.blobs[top] = self.fresh(top.fn.type_name)
        return self.blobs[top]

    def layer(self, fn: Function) -> str:
        """By its parameter `name`, else by its first top."""
        if fn not in self.layers:
            first = fn.tops[0] if fn.tops else None
            if first is not None and (not fn.in_place or first in self.blobs):
                self.layers[fn] = self.blobs[first] if fn.in_place else self.blob(first)
            else:
                self.layers[fn] = self.fresh(fn.type_name)
        return self.layers[fn]


def ordered(ends: Iterable[Function]) -> Iterator[Function]:
    """Every layer that `ends` need, each after those it reads from, without recursion."""
    done: set[Function] = set()
    stack = [(fn, False) for fn in reversed(list(ends))]
    while stack:
        fn, ready = stack.pop()
        if fn in done:
            continue
        if ready:
            done.add(fn)
            yield fn
        else:
            stack.append((fn, True))
            stack += [(top.fn, False) for top in reversed(fn.inputs) if top.fn not in done]


def to_proto(*tops: Top | Function) -> Any:
    """The NetParameter that makes these blobs."""
    return _net([top.fn if isinstance(top, Top) else top for top in tops], {})


def _net(ends: Iterable[Function], named: Mapping[Any, str]) -> Any:
    names = _Names(named)
    net = schema.NetParameter()
    net.layer.extend(fn.message(names) for fn in ordered(ends))
    return net


class NetSpec:
    """A net whose blobs are attributes: `n.conv1 = layers.Convolution(n.data, ...)` names blob and layer."""

    tops: OrderedDict[str, Top | Function]

    def __init__(self) -> None:
        object.__setattr__(self, "tops", OrderedDict())

    def __setattr__(self, name: str, value: Top | Function) -> None:
        self.tops[name] = value

    def __getattr__(self, name: str) -> Any:
        if name == "tops" or name not in self.tops:
            raise AttributeError(f"the net has no blob {name!r}")
        return self.tops[name]

    def __setitem__(self, name: str, value: Top | Function) -> None:
        self.tops[name] = value

    def __getitem__(self, name: str) -> Any:
        return self.tops[name]

    def __delattr__(self, name: str) -> None:
        del self.tops[name]

    def __delitem__(self, name: str) -> None:
        del self.tops[name]

    def __contains__(self, name: str) -> bool:
        return name in self.tops

    def keys(self) -> list[str]:
        """Names of the blobs so far, in order (SSD's scripts)."""
        return list(self.tops)

    def vals(self) -> list[Top | Function]:
        """The blobs so far, in order (SSD's scripts)."""
        return list(self.tops.values())

    def update(self, name: str, params: Mapping[str, Any]) -> None:
        """Set fields of the layer that makes a blob (SSD's scripts)."""
        top = self.tops[name]
        (top.fn if isinstance(top, Top) else top).params.update(params)

    def to_proto(self) -> Any:
        """The NetParameter of all blobs."""
        named = {value: name for name, value in self.tops.items()}
        return _net([v.fn if isinstance(v, Top) else v for v in self.tops.values()], named)


class Layers:
    """`layers.Type(*bottoms, **fields)`: the top, a tuple of `ntop` tops, or for ntop=0 the layer itself."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def layer(*bottoms: Top, **fields: Any) -> Top | Function | tuple[Top, ...]:
            fn = Function(name, bottoms, fields)
            if fn.ntop == 0:
                return fn
            return fn.tops[0] if fn.ntop == 1 else fn.tops

        return layer


class Parameters:
    """`params.Pooling.MAX`: the enum values of a layer's message."""

    def __getattr__(self, name: str) -> Any:
        try:
            return schema.message_class(name + MESSAGE_SUFFIX)
        except KeyError:
            raise AttributeError(f"no layer has the message {name + MESSAGE_SUFFIX}") from None


layers = Layers()
params = Parameters()
