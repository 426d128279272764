"""Checks before a query: is the evidence possible, and is the precision enough for a right answer?

log p of an image is a sum over all its values; where it is large beside what single precision resolves, posteriors
would be rounding errors. So queries look at the leaves first, and work in double precision where it is needed.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from netspec.errors import DataError
from netspec.layers.base import Layer
from netspec.layers.simnets.logsumexp import may_look
from netspec.layers.tree import Leaf

SINGLE = 8192.0
"""Nats of leaves up to which float32 is precise enough: a sum's rounding, 2^-24 of it, stays below 1e-3."""
DOUBLE = 1e11
"""Nats of leaves beyond which even float64 cannot tell states apart to 1e-3."""


def doubled(layer: Layer) -> Layer:
    """A layer like `layer` with its blobs in double precision; the layer itself stays as it is."""
    twin = copy.copy(layer)
    twin.__dict__["_modules"] = dict(layer._modules)
    twin.blobs = nn.ParameterList(
        [nn.Parameter(blob.detach().double(), requires_grad=False) for blob in layer.blobs]
    )
    twin.versions = ()
    twin.look()
    return twin


def versions(layers: list[Layer]) -> tuple[tuple[int, int], ...]:
    """Numbers that change with every write to a blob."""
    return tuple((blob.data_ptr(), blob._version) for layer in layers for blob in layer.blobs)


def refuse_illegal(leaf: Leaf, x: Tensor) -> None:
    """Raise DataError for a value that no component can take: infinite, or between the levels of a discrete kind."""
    wrong = leaf.illegal(x)
    if not bool(wrong.any()):
        return
    image, channel, row, column = (int(i) for i in wrong.nonzero()[0])
    value = float(x[image, channel, row, column])
    raise DataError(
        f"{place(image, channel, row, column)}: the value {value:g} is impossible: {leaf.spec} takes "
        f"{leaf.range_at(channel, row, column)}, and nan where it is missing"
    )


def size(leaf: Leaf, densities: Tensor) -> Tensor:
    """Nats (B,) of the leaves' best components; DataError where no component of a position gives any probability."""
    best = densities.amax(1)
    if bool((best == -torch.inf).any()) and densities.dtype == torch.float64:
        image, row, column = (int(i) for i in (best == -torch.inf).nonzero()[0])
        raise DataError(
            f"image {image}, position {row},{column} of {leaf.spec}: the evidence is impossible, its probability is 0 "
            "under every component"
        )
    return best.double().abs().flatten(1).sum(1)


def place(image: int, channel: int, row: int, column: int) -> str:
    return f"image {image}, channel {channel}, row {row}, column {column}"


def refuse_impossible(top_BY: Tensor, y: Tensor | None, what: str = "the evidence") -> None:
    """Raise DataError where the observation has probability 0, overall or under the given class."""
    if not may_look(top_BY):
        return
    scores = top_BY.amax(1) if y is None else top_BY.gather(1, y.view(-1, 1)).squeeze(1)
    wrong = ~(scores > -torch.inf)
    if bool(wrong.any()):
        image = int(wrong.nonzero()[0])
        given = "" if y is None else f" given class {int(y[image])}"
        raise DataError(f"image {image}: {what} is impossible{given}: its probability is 0")
