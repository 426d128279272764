"""What kind of layer a type is (its colour), and which of its options are worth showing in a box."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

from netspec.draw.text import number
from netspec.layers.base import registry
from netspec.schema.spec import LayerSpec

COLOURS = {
    "data": "#d9d9d9",
    "convolution, linear": "#a9d1f0",
    "recurrent": "#b9c4f2",
    "pooling": "#f6c9a0",
    "pointwise": "#fdf0b0",
    "normalisation": "#dcc9ee",
    "similarity, MEX": "#b4e0b4",
    "latent": "#cfe3a0",
    "rendering": "#e8d8b8",
    "shape": "#e9ecef",
    "detection": "#f3c6dd",
    "loss": "#f2aaaa",
    "accuracy": "#a5e0da",
    "other": "#ffffff",
}
"""Fill colour of each family, in the legend's order; light enough for black text."""

_SHORT = {
    "kernel_size": "kernel",
    "kernel": "kernel",
    "num_instances": "instances",
    "block_size": "block",
    "shared_offsets_region_size": "shared region",
    "unshared_offsets_region_size": "unshared region",
    "similarity_function": "function",
    "out_of_bounds_value": "outside",
    "dropout_ratio": "ratio",
    "bias_term": "bias",
    "batch_size": "batch",
    "name": "dataset",
    "unsupervised_init": "init",
    "use_unshared_regions": "",
    "normalize_offsets": "normalised",
    "softmax_mode": "softmax",
}
"""Shorter words for field names; an empty one hides a flag that another field implies."""
_HIDDEN = {"engine", "force_nd_im2col", "cudnn_conv_algo_seeker", "rand_skip", "prefetch", "backend"}
_ALWAYS = {
    "pooling_param": ("pool",),
    "eltwise_param": ("operation",),
    "similarity_param": ("similarity_function",),
}
"""Options that say what the layer computes, shown even when left at their default."""
_FIRST = (
    *("name", "source", "split", "batch_size", "pool", "operation", "num_output", "num_instances"),
    *("kernel_size", "kernel", "block_size", "stride", "pad"),
    *("shared_offsets_region_size", "unshared_offsets_region_size"),
)
_MOST = 7
"""Options shown of one layer."""


def family(layer: LayerSpec) -> str:
    """The family of a layer, as its class says; of a type that is not here, what its name suggests."""
    kind = registry.get(layer.type)
    if kind is not None:
        return kind.family
    if layer.type.lower().endswith("loss"):
        return "loss"
    return "data" if layer.type.lower().endswith("data") or not layer.bottoms else "other"


def options(layer: LayerSpec) -> list[str]:
    """The options of a layer as written in its file, short: ["num_output 20", "kernel 5", "stride 2"]."""
    kind = registry.get(layer.type)
    own = kind.param_field if kind is not None else None
    written: list[tuple[str, str, bool]] = []
    for field, value in layer.message.ListFields():
        if field.name.endswith("_param") and field.message_type is not None and not hasattr(value, "append"):
            written += _fields(value, field.name)
    if own is not None and own in _ALWAYS and not layer.message.HasField(own):
        written += _fields(getattr(layer.message, own), own)
    written.sort(key=lambda pair: _FIRST.index(pair[0]) if pair[0] in _FIRST else len(_FIRST))
    if len(written) > _MOST - 2:  # too many to be read: those that only repeat the default go first
        written = [(key, text, default) for key, text, default in written if key in _FIRST or not default]
    texts = [text for _, text, _ in written]
    return texts if len(texts) <= _MOST else [*texts[:_MOST], f"+ {len(texts) - _MOST} more"]


def _fields(message: Any, name: str) -> Iterator[tuple[str, str, bool]]:
    """(field, text, is its default) of what a message sets; kernel_h and kernel_w (and the like) as one."""
    values = {field.name: (field, value) for field, value in message.ListFields()}
    for always in _ALWAYS.get(name, ()):
        values.setdefault(always, (message.DESCRIPTOR.fields_by_name[always], getattr(message, always)))
    for key, (field, value) in values.items():
        stem = key[:-2]
        if key in _HIDDEN or "filler" in key or (key.endswith("_w") and f"{stem}_h" in values):
            continue
        if field.message_type is not None:
            if (nested := _nested(key, value)) is not None:
                yield key, nested, False
            elif key == "block_param":
                yield from _fields(value, key)
        elif key.endswith("_h") and f"{stem}_w" in values:
            yield stem, f"{_word(stem)} {number(value)}×{number(values[f'{stem}_w'][1])}", False
        elif (text := _text(field, key, value)) is not None:
            yield key, text, _is_default(field, value)


def _nested(key: str, value: Any) -> str | None:
    """A message inside a message in a few words: shapes, or the type of what it chooses."""
    if key == "shape":
        return "shape " + ", ".join("×".join(map(str, shape.dim)) for shape in _listed(value))
    chosen = getattr(value, "type", None)
    return f"{_word(key)} {chosen}" if isinstance(chosen, str) and chosen else None


def _is_default(field: Any, value: Any) -> bool:
    """Whether a single plain value is written out although it is the default anyway."""
    return field.message_type is None and not hasattr(value, "append") and bool(value == field.default_value)


def _listed(value: Any) -> list[Any]:
    return list(value) if hasattr(value, "append") or hasattr(value, "add") else [value]


def _word(key: str) -> str:
    return _SHORT.get(key, key.replace("_", " "))


def _text(field: Any, key: str, value: Any) -> str | None:
    if _SHORT.get(key) == "":
        return None
    many = hasattr(value, "append")
    shown = [_value(field, v) for v in (value if many else [value])]
    if field.type == field.TYPE_BOOL and not many:
        return _word(key) if value else f"no {_word(key)}"
    if key in ("pool", "operation"):
        return shown[0]
    if len(shown) > 6:
        shown = [*shown[:5], f"... ({len(shown)})"]
    joiner = "×" if key in ("kernel_size", "stride", "pad", "dilation") else ", "
    return f"{_word(key)} {joiner.join(shown)}"


def _value(field: Any, value: Any) -> str:
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return str(known.name) if known else str(value)
    if isinstance(value, float):
        return number(value)
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if isinstance(value, str) and field.name in ("source", "mean_file", "root_folder"):
        return "/".join(PurePath(value).parts[-2:])
    return str(value)
