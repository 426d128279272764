"""Interchange: weights, solver states and nets of other programs, in and out.

load_weights(net, path)       .caffemodel (V0 to V2), .caffemodel.h5 or .safetensors into a net, by layer name
save_weights(net, path)       and back, by the name's ending
read_weights(path)            blobs by '<layer>/<index>'
read_solverstate, restore     solver states of Caffe, taken up by netspec.solver; write_solverstate for Caffe
convert(source, target)       one kind of file to another, with a report of differences
compare(a, b)                 two models, blob by blob
from_torch(module, inputs)    a PyTorch module as prototxt and caffemodel
export_onnx, save_program     a net as ONNX, as a torch.export program
read_net_from_caffe           OpenCV's calls
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from netspec.interchange.weights import load_weights, read_weights, save_weights

if TYPE_CHECKING:
    from netspec.interchange.comparison import compare, compare_files, compare_onnx
    from netspec.interchange.conversion import convert
    from netspec.interchange.onnx import export_onnx, save_program
    from netspec.interchange.readers import blob_from_image, read_net_from_caffe
    from netspec.interchange.solverstate import read_solverstate, restore, write_solverstate
    from netspec.interchange.torch_modules.convert import from_torch

_HOMES = {
    "blob_from_image": "readers",
    "compare": "comparison",
    "compare_files": "comparison",
    "compare_onnx": "comparison",
    "convert": "conversion",
    "export_onnx": "onnx",
    "from_torch": "torch_modules.convert",
    "read_net_from_caffe": "readers",
    "read_solverstate": "solverstate",
    "restore": "solverstate",
    "save_program": "onnx",
    "write_solverstate": "solverstate",
}
"""The modules of names that are imported on first use."""

__all__ = [
    "blob_from_image",
    "compare",
    "compare_files",
    "compare_onnx",
    "convert",
    "export_onnx",
    "from_torch",
    "load_weights",
    "read_net_from_caffe",
    "read_solverstate",
    "read_weights",
    "restore",
    "save_program",
    "save_weights",
    "write_solverstate",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
