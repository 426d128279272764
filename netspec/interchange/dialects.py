"""Tells dialects from weights: a layer type that several forks define differently is recognised by its blobs in a
weight file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from netspec.interchange import hdf5, safetensors, snapshot_files
from netspec.interchange.caffemodel import Caffemodel, parse_caffemodel, read_file
from netspec.interchange.solverstate import SUFFIXES, read_solverstate
from netspec.interchange.weights import kind_of
from netspec.layers.base import Shape
from netspec.layers.basic.batch_norm import dialect_of, is_open
from netspec.schema.spec import NetSpec

Source = str | Path | Mapping[str, Tensor] | Caffemodel
"""A weight file, run folder or solver state, blobs by '<layer>/<index>', or a parsed caffemodel."""


def told(net: NetSpec, *weights: Source) -> NetSpec:
    """The net with a dialect for each BN layer whose text leaves it open, from its blobs in the first weights that hold
    any.

    A layer that no file holds gets the dialect of the others, where these agree. Files are read only where a layer is
    open; raises SnapshotError for damaged ones.
    """
    names = {layer.name for layer in net.layers if is_open(layer)}
    if not names:
        return net
    dialects: dict[str, str] = {}
    for source in weights:
        for name, shapes in blob_shapes(source).items():
            if name in names and (dialect := dialect_of(shapes)):
                dialects.setdefault(name, dialect)
    common = set(dialects.values())
    rest = common.pop() if len(common) == 1 else ""
    layers = (
        dataclasses.replace(layer, dialect=dialects.get(layer.name, rest)) if layer.name in names else layer
        for layer in net.layers
    )
    return dataclasses.replace(net, layers=tuple(layers))


def common_dialect(net: NetSpec) -> str:
    """The dialect of all layers that need one; "" where they disagree, or no layer needs one."""
    dialects = {layer.dialect for layer in net.layers if layer.type == "BN" and layer.dialect}
    return dialects.pop() if len(dialects) == 1 else ""


def blob_shapes(source: Source) -> dict[str, list[Shape]]:
    """Shapes of the blobs of each layer, by its name; the first layer counts where several share a name."""
    if isinstance(source, Mapping):
        return _grouped(source)
    if not isinstance(source, Caffemodel):
        state = str(source).endswith(SUFFIXES)
        path = read_solverstate(source).weights() if state else snapshot_files.weights_file(Path(source))
        kind = kind_of(path)
        if kind == "safetensors":
            return _grouped(safetensors.load(path)[0])
        if kind == "hdf5":
            layers = hdf5.read_weights(path).items()
            return {name: [tuple(b.shape) for b in blobs.values()] for name, blobs in layers}
        source = parse_caffemodel(read_file(path), str(path))
    shapes: dict[str, list[Shape]] = {}
    for layer in source.layers:
        if layer.blobs:
            shapes.setdefault(layer.name, [tuple(blob.shape) for blob in layer.blobs])
    return shapes


def _grouped(blobs: Mapping[str, Tensor]) -> dict[str, list[Shape]]:
    shapes: dict[str, list[Shape]] = {}
    for name in sorted(blobs):
        shapes.setdefault(name.rpartition("/")[0], []).append(tuple(blobs[name].shape))
    return shapes
