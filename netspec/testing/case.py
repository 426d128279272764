"""Case: a small net around a layer type, from which its checks follow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from netspec import schema
from netspec.net.make import make_net
from netspec.net.net import Net


@dataclass(frozen=True)
class Case:
    """A small net around one layer type, and which checks apply to it.

    name: appears in messages.
    text: prototxt of the net; Input layers give the shapes.
    phase: "TRAIN" or "TEST".
    inputs: values of some inputs by blob name; the rest are standard normal, drawn with a fixed seed.
    gradient: names of the inputs whose gradient is checked in float64; None: those not listed in `inputs`; () for
    none. Parameters that learn (lr_mult not 0) are checked too, unless it is ().
    random: `forward` draws random numbers, so values are not compared.
    compiles, exports: False where the layer cannot be by its nature; say why beside it.
    atol: the tolerance of the gradient check.
    """

    name: str
    text: str
    phase: str = "TRAIN"
    inputs: Mapping[str, Tensor] = field(default_factory=dict)
    gradient: tuple[str, ...] | None = None
    random: bool = False
    compiles: bool = True
    exports: bool = True
    atol: float = 1e-6

    def net(self, device: str = "cpu") -> Net:
        """The case's net, filled with seed 1; on the meta device it has shapes alone."""
        document = schema.parse_net(self.text, f"{self.name}.prototxt")
        return make_net(document, self.phase, seed=1, device=device)

    def values(self, net: Net, dtype: torch.dtype = torch.float32) -> list[Tensor]:
        """The inputs of `net`, in its order; the same in each call."""
        generator = torch.Generator().manual_seed(2)
        return [
            self.inputs[name].to(dtype)
            if name in self.inputs
            else torch.randn(net.shape(name), generator=generator).to(dtype)
            for name in net.input_names
        ]

    def to_differentiate(self, net: Net) -> list[str]:
        """Names of the inputs whose gradient is checked."""
        if self.gradient is not None:
            return list(self.gradient)
        return [name for name in net.input_names if name not in self.inputs]
