"""A golden vector: its file, nets made from its text, and the comparison of its arrays with ours.

Errors are relative to the largest magnitude in the array; NaN and infinities must stand in the same places. Vectors of
the SimNets fork are run with `strict: true`, which asks a layer for the fork's behaviour where it is known to differ.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from netspec import schema
from netspec.net.graph import Graph, compile
from netspec.net.net import Net, build
from netspec.schema import spec

Array = NDArray[Any]
FORWARD, GRADIENT, STEPS = 1e-5, 1e-4, 1e-5
"""Tolerances of outputs, gradients, and parameters after solver steps (golden/README.md)."""


@dataclass
class Check:
    """The comparisons of one case."""

    worst: dict[str, tuple[float, float]] = field(default_factory=dict)
    """For each kind of array: (largest error, its tolerance)."""
    failures: list[str] = field(default_factory=list)
    errors: dict[str, float] = field(default_factory=dict)
    """Error of every array."""
    vanishing: set[str] = field(default_factory=set)
    """Arrays that are nothing beside the original's."""
    rounding: dict[str, float] = field(default_factory=dict)
    """For arrays whose original is itself off by rounding: by how much, added to the tolerance."""
    cancelled: set[str] = field(default_factory=set)
    """Gradients that are 0 but for rounding: their scale is that of the case's largest gradient."""

    def compare(
        self, kind: str, name: str, ours: Any, theirs: Array, tolerance: float, scale: float = 0.0
    ) -> None:
        """Record the error of one array, relative to its largest magnitude or to `scale` if that is larger."""
        mine = np.asarray(ours.detach().numpy() if isinstance(ours, torch.Tensor) else ours, dtype=np.float64)
        if mine.size != theirs.size or np.squeeze(mine).shape != np.squeeze(theirs).shape:
            self.failures.append(f"{name}: shape {mine.shape} for {theirs.shape}")
            return
        error = self.errors[name] = relative_error(
            mine.reshape(theirs.shape), theirs.astype(np.float64), scale
        )
        if np.isfinite(theirs).all() and np.abs(mine).max(initial=0) <= 1e-3 * np.abs(theirs).max(initial=0):
            self.vanishing.add(name)
        tolerance += self.rounding.get(name, 0.0)
        if not error <= self.worst.get(kind, (0.0, 0.0))[0]:
            self.worst[kind] = (error, tolerance)
        if not error <= tolerance:
            self.failures.append(f"{name}: error {error:.3g} exceeds {tolerance:g}")

    def require(self, true: bool, message: str) -> None:
        if not true:
            self.failures.append(message)


def relative_error(mine: Array, theirs: Array, scale: float = 0.0) -> float:
    """Largest difference over the largest finite magnitude of `theirs`; infinite where NaN or inf disagree."""
    finite = np.isfinite(theirs)
    if (
        not np.array_equal(mine[~finite], theirs[~finite], equal_nan=True)
        or not np.isfinite(mine[finite]).all()
    ):
        return float("inf")
    if not finite.any():
        return 0.0
    scale = max(scale, float(np.abs(theirs[finite]).max()))
    return float(np.abs(mine[finite] - theirs[finite]).max() / (scale if scale > 1e-30 else 1.0))


class Case:
    """One .npz file: its arrays by prefix, and nets made from its text."""

    def __init__(self, path: Path):
        with np.load(path) as archive:
            self.arrays = {name: archive[name] for name in archive.files}
        self.meta: dict[str, Any] = json.loads(str(self.arrays["meta"]))
        self.kind = str(self.meta.get("kind", "layer"))
        self.name = path.stem
        self.strict = self.meta["engine"] == "simnets"

    def group(self, prefix: str) -> dict[str, Array]:
        """Arrays called prefix/..., without the prefix."""
        return {k[len(prefix) + 1 :]: v for k, v in self.arrays.items() if k.startswith(prefix + "/")}

    def graph(self, phase: str) -> Graph:
        document = schema.parse_net(str(self.arrays["prototxt"]), f"{self.name}.prototxt")
        for layer in document.message.layer:
            layer.strict = self.strict
        return compile(spec.net(document, phase))

    def net(self, phase: str | None = None, input_shapes: Mapping[str, tuple[int, ...]] | None = None) -> Net:
        return build(self.graph(phase or self.meta["phase"]), seed=1, input_shapes=input_shapes)

    def inputs(self) -> dict[str, torch.Tensor]:
        raw = {name: tensor(value) for name, value in self.group("in").items()}
        for name, value in self.group("in_u8").items():
            raw[name] = tensor(pixels(value) if name == "data" else value)
        return raw

    def parameters(self) -> dict[str, torch.Tensor]:
        if "param_recipe" in self.meta:
            return recipe(self.meta)
        return {name: tensor(value) for name, value in self.group("param").items()}


def tensor(value: Array) -> torch.Tensor:
    return torch.from_numpy(np.array(value, dtype=np.float32))


def pixels(value: Array) -> Array:
    """Raw pixels as the experiments scale them, in float32."""
    return (value.astype(np.float32) - np.float32(127.5)) * np.float32(1 / 255)


def recipe(meta: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Parameters that are drawn rather than stored (meta.param_recipe); the digest proves that they are the same."""
    random, found, digest = np.random.RandomState(meta["param_seed"]), {}, hashlib.sha256()
    for key in meta["params"]:
        shape = meta["param_shapes"][key]
        if key == "sim1/0":
            value = random.uniform(-0.5, 0.5, shape)
        elif key == "sim1/1":
            value = np.exp(random.uniform(np.log(2), np.log(50), shape))
        elif key.endswith("/0"):
            value = np.ones(shape)
        elif key.endswith("_mex/1"):
            gamma = random.standard_gamma(1.0, size=shape)
            value = np.log(gamma / gamma.sum(-1, keepdims=True) + 1e-8)
        else:
            value = np.zeros(shape)
        found[key] = value.astype(np.float32)
        digest.update(found[key].tobytes())
    if digest.hexdigest() != meta["param_digest"]:
        warnings.warn("the parameters drawn by the recipe do not have the recorded digest", stacklevel=2)
    return {key: tensor(value) for key, value in found.items()}


def set_parameters(net: Net, values: Mapping[str, torch.Tensor]) -> None:
    """Give every blob its value; values of shared blobs agree, so the order does not matter."""
    with torch.no_grad():
        for step, layer in zip(net.graph.steps, net.made, strict=True):
            for j, blob in enumerate(layer.blobs):
                if (key := f"{step.layer.name}/{j}") in values:
                    blob.copy_(values[key].reshape(blob.shape))


def blob_of(net: Net, key: str) -> torch.nn.Parameter:
    """The parameter '<layer>/<index>'."""
    name, _, index = key.rpartition("/")
    blob: torch.nn.Parameter = net.layer(name).blobs[int(index)]
    return blob
