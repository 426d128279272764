"""A PyTorch module as prototxt and caffemodel, for the operators that Caffe has.

The module is read by torch.export, so that Python in its forward is no hindrance; each operator of the program
becomes one layer or a few (torch_ops.py and its neighbours). The result is run and compared with the module.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from netspec import schema
from netspec.data.files import whole
from netspec.errors import NetspecError
from netspec.interchange.blobs import Array
from netspec.interchange.caffemodel import encode_net
from netspec.interchange.comparison import TOLERANCE, Report, Value, report, values_of
from netspec.interchange.onnx import first_line, quiet
from netspec.interchange.torch_modules import arithmetic, ops, planes, shapes  # noqa: F401 - these fill OPERATORS
from netspec.interchange.torch_modules.base import Conversion
from netspec.net.make import make_net
from netspec.net.net import Net

EXTENSIONS = ("Interp", "Permute")
"""Layers that BVLC's Caffe lacks, but the forks that most hardware tools are made from have."""


@dataclass(frozen=True)
class Converted:
    """A module as a net of Caffe's."""

    message: Any
    """The NetParameter."""
    arrays: tuple[tuple[Array, ...], ...]
    """For each layer its blobs."""
    report: Report
    """The net against the module."""
    outputs: tuple[str, ...] = ()
    """The blobs that the module returns, in its order."""
    extensions: tuple[str, ...] = ()
    """Types used that BVLC's Caffe does not have."""

    def text(self) -> str:
        """The net as prototxt."""
        return schema.print_text(self.message)

    def net(self) -> Net:
        """The net with its weights."""
        return made(self.message, self.arrays)

    def save(self, caffemodel: str | Path, prototxt: str | Path | None = None) -> None:
        """Write the weights, and the net beside them (same name, .prototxt) or where `prototxt` says."""
        path = Path(caffemodel)
        whole.write_whole(
            Path(prototxt) if prototxt is not None else path.with_suffix(".prototxt"), self.text().encode()
        )
        whole.write_whole(path, encode_net(self.message, [list(arrays) for arrays in self.arrays]))


def from_torch(
    module: nn.Module,
    inputs: Tensor | Sequence[Tensor],
    name: str = "",
    input_names: Sequence[str] = (),
    tolerance: float = TOLERANCE,
    fork: bool = False,
) -> Converted:
    """Convert a module, as it is in eval mode on inputs of these shapes.

    fork: write pooling that rounds down as `ceil_mode: false`, which OpenCV and many forks read, and not as
    `round_mode: FLOOR`, which BVLC's Caffe does.

    Layers bear the names of submodules. Dropout goes; ReLU and others are not done in place. The report compares
    every operator's result with the net's on `inputs`.
    Raises SpecError that names each operator without a layer, with the line of the module's code it comes from.
    """
    values = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    training = module.training
    module.eval()
    try:
        with torch.no_grad(), quiet():
            program = torch.export.export(module, values)
    except Exception as error:  # torch raises errors of every kind here
        raise NetspecError(
            f"torch.export cannot follow {type(module).__name__}: {first_line(error)}"
        ) from error
    finally:
        module.train(training)
    return from_program(program, values, name or type(module).__name__, input_names, tolerance, fork)


def from_program(
    program: torch.export.ExportedProgram,
    inputs: Sequence[Tensor],
    name: str,
    input_names: Sequence[str] = (),
    tolerance: float = TOLERANCE,
    fork: bool = False,
) -> Converted:
    """Convert a torch.export program; see `from_torch`."""
    conversion = Conversion(name, {"ceil_mode": False} if fork else {"round_mode": 1})
    with torch.no_grad():
        conversion.walk(program, inputs, input_names)
    arrays = tuple(tuple(blobs) for blobs in conversion.arrays)
    net = made(conversion.message, arrays)
    feeds = dict(zip(conversion.inputs, inputs, strict=True))
    ours = [
        Value((blob, 0), layer, kind, value.detach().cpu().numpy())
        for blob, (layer, kind, value) in conversion.reference.items()
    ]
    theirs = values_of(net, feeds)
    compared = report(
        ours, [v for v in theirs if v.key[0] in conversion.reference], (name, "the net"), tolerance
    )
    used = {layer.type for layer in conversion.message.layer}
    extensions = tuple(sorted(used.intersection(EXTENSIONS)))
    return Converted(conversion.message, arrays, compared, tuple(conversion.outputs), extensions)


def made(message: Any, arrays: Sequence[Sequence[Array]]) -> Net:
    """The net of a message and its blobs."""
    document = schema.parse_net(schema.print_text(message), f"{message.name}.prototxt")
    net = make_net(document)
    with torch.no_grad():
        for layer, blobs in zip(net.made, arrays, strict=True):
            for ours, theirs in zip(layer.blobs, blobs, strict=True):
                ours.copy_(torch.from_numpy(np.array(theirs)).reshape(ours.shape))
    return net
