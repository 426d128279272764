"""One layer as a net, fed by the shapes of its bottoms."""

from __future__ import annotations

import torch
from torch import Tensor

from netspec import schema
from netspec.net.make import make_net
from netspec.net.net import Net
from tests.cases.rendering import inputs, layer


def net_of(kind: str, param: str = "", tops: str = "y", phase: str = "TRAIN", **bottoms: Tensor) -> Net:
    """A net of one layer in float64, whose inputs have the shapes of `bottoms`."""
    sizes = {name: " ".join(map(str, value.shape)) for name, value in bottoms.items()}
    text = inputs(**sizes) + layer(kind, " ".join(bottoms), param, tops)
    return make_net(schema.parse_net(text, "one.prototxt"), phase, seed=1).double()


def tops_of(
    kind: str, param: str = "", tops: str = "y", phase: str = "TRAIN", **bottoms: Tensor
) -> list[Tensor]:
    """The layer's tops, in the order of `tops`."""
    net = net_of(kind, param, tops, phase, **bottoms)
    blobs = net.blobs(*(value.double() for value in bottoms.values()))
    return [blobs[name] for name in tops.split()]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
