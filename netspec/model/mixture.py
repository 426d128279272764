"""Mixture: several generative models of the same images as one."""

from __future__ import annotations

from collections.abc import Sequence
from math import log, prod

import numpy as np
import torch
from torch import Tensor

from netspec.data.files.idx import Array
from netspec.errors import DataError
from netspec.model.model import Model


class Mixture:
    """p(x|y) = mean over k of p_k(x|y): the tree whose root mixes those of `models`, each equally probable.

    x as for `Model`. Raises DataError for no model, one that is not generative, and models whose densities
    cannot be compared: other classes or images, another scale or mean of their inputs.
    """

    generative = takes_missing = True

    def __init__(self, models: Sequence[Model], name: str = ""):
        if not models:
            raise DataError("no model to mix was given")
        self.models, first = list(models), models[0]
        for model in models:
            if not model.generative:
                raise DataError(f"{model.name}: this net is no generative model; only those can be mixed")
            if model.tree.classes != first.tree.classes:
                raise DataError(f"{model.name} cannot be mixed with {first.name}: it has {model.tree.classes} classes, "
                                f"the other {first.tree.classes}")  # fmt: skip
            if not alike(model, first):
                raise DataError(f"{model.name} cannot be mixed with {first.name}: they differ in the size, the scale "
                                "or the mean of their images, so their densities cannot be compared")  # fmt: skip
        self.name = name or " + ".join(model.name for model in models)
        self.batched = first.batched

    def from_pixels(self, pixels: Array, observed: Array | None = None) -> Tensor:
        """As `Model.from_pixels`."""
        return self.models[0].from_pixels(pixels, observed)

    def scores(self, x: Tensor) -> Tensor:
        """log p(observed | y), (N, Y), nats."""
        return self.batched(self._scores, x)

    def _scores(self, x: Tensor) -> Tensor:
        each = torch.stack([model._scores(x) for model in self.models])
        return each.logsumexp(0) - log(len(self.models))


def alike(one: Model, other: Model) -> bool:
    """Whether both see the same pixels as the same x."""
    if one.image_shape != other.image_shape:
        return False
    ramp = np.arange(prod(one.image_shape)).reshape(1, *one.image_shape) % 256
    return torch.equal(one.from_pixels(ramp).cpu(), other.from_pixels(ramp).cpu())
