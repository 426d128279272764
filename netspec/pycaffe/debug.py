"""The lines that Caffe logs of a net with `debug_info`: mean absolute values, layer by layer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from netspec.pycaffe import glog, mode
from netspec.pycaffe.memory import Memory, NetBlob

NET = "net.cpp:1"
"""Where Caffe writes these lines."""


def write(text: str, level: int = 0) -> None:
    """One line; only the solver of rank 0 writes it."""
    if mode.solver_rank() == 0:
        glog.write(level, text, NET)


def mean(memory: Memory, device: torch.device) -> str:
    value = memory.tensor(device)
    return f"{float(value.abs().double().sum()) / value.numel():.6g}" if value.numel() else "nan"


def forward(step: Any, device: torch.device) -> None:
    """After the forward of a layer (netspec.pycaffe.step.Step): its tops and learnable blobs."""
    for blob in step.tops:
        write(f"    [Forward] Layer {step.name}, top blob {blob.name} data: {mean(blob.values, device)}")
    written = step.layer.spec.message.param
    for i, blob in enumerate(step.blobs):
        name = (written[i].name if i < len(written) else "") or i
        write(f"    [Forward] Layer {step.name}, param blob {name} data: {mean(blob.values, device)}")


def backward(step: Any, device: torch.device) -> None:
    """After the backward of a layer: the diffs of its bottoms and learnable blobs."""
    if not step.need:
        return
    for blob, down in zip(step.bottoms, step.down, strict=True):
        if down:
            size = mean(blob.gradient, device)
            write(f"    [Backward] Layer {step.name}, bottom blob {blob.name} diff: {size}")
    for i in step.learned:
        size = mean(step.blobs[i].gradient, device)
        write(f"    [Backward] Layer {step.name}, param blob {i} diff: {size}")


def total(blobs: Iterable[NetBlob], device: torch.device) -> None:
    """After a whole backward pass of a solver: norms over all parameters. Caffe logs it as an error."""
    pairs = [(blob.values.tensor(device), blob.gradient.tensor(device)) for blob in blobs]
    norms = [
        [sum(float(pair[i].double().norm(p) ** p) for pair in pairs) ** (1 / p) for i in (0, 1)]
        for p in (1, 2)
    ]
    (data1, diff1), (data2, diff2) = norms
    write(
        f"    [Backward] All net params (data, diff): L1 norm = ({data1:.6g}, {diff1:.6g}); "
        f"L2 norm = ({data2:.6g}, {diff2:.6g})",
        level=2,
    )
