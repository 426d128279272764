"""A golden vector: its file, nets made from its text, and the comparison of its arrays with ours.

Errors are relative to the largest magnitude in the array; NaN and infinities must stand in the same places. Vectors of
the SimNets fork are run with `strict: true`, which asks a layer for the fork's behaviour where it is known to differ.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Mapping
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

MOST = 1e-3
"""No element is granted more than this, whatever rounding explains."""

UNSTABLE = {
    "htcac_full": "the gradient of the last MEX is a sum over patches that cancels: both sides are off by 1.5e-4",
    "smorms3": "the first step goes as the cube of the gradient, so it triples the gradient's relative error",
}
"""Cases (text in the name) whose float32 value depends on the processor, each with its reason.

Their elements are granted what the float64 run shows for both sides: how far the original's value is from the exact
one, and how far ours is. The other cases are granted the original's rounding alone, and of gradients alone.
"""


def is_unstable(name: str) -> bool:
    return any(text in name for text in UNSTABLE)


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
    exact: dict[str, Array] = field(default_factory=dict)
    """Values of the float64 run, where there was one."""
    unstable: bool = False
    """Whether our own distance from the exact value counts as rounding too (see UNSTABLE)."""
    values: dict[str, Array] = field(default_factory=dict)
    """What was compared with the original."""
    granted: dict[str, float] = field(default_factory=dict)
    """For arrays that passed by what rounding explains: the largest tolerance that an element got."""
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
        mine, theirs = mine.reshape(theirs.shape), theirs.astype(np.float64)
        self.values[name] = mine
        error = self.errors[name] = relative_error(mine, theirs, scale)
        if np.isfinite(theirs).all() and np.abs(mine).max(initial=0) <= 1e-3 * np.abs(theirs).max(initial=0):
            self.vanishing.add(name)
        if not error <= tolerance and name in self.exact:
            excess, tolerance = self.beyond_rounding(name, mine, theirs, tolerance, scale)
            failed = not excess <= 0
        else:
            failed = not error <= tolerance
        if not error <= self.worst.get(kind, (0.0, 0.0))[0]:
            self.worst[kind] = (error, tolerance)
        if failed:
            self.failures.append(f"{name}: error {error:.3g} exceeds {tolerance:g}")

    def beyond_rounding(
        self, name: str, mine: Array, theirs: Array, tolerance: float, scale: float
    ) -> tuple[float, float]:
        """By how much the worst element exceeds its own tolerance, and the largest tolerance of an element.

        The tolerance of an element is `tolerance` and the distance of the original's value from the exact one; in an
        unstable case also our distance from it; at most MOST.
        """
        if not np.isfinite(relative_error(mine, theirs)):
            return float("inf"), tolerance
        finite = np.isfinite(theirs)
        ours, original, exact = mine[finite], theirs[finite], self.exact[name][finite]
        unit = max(scale, float(np.abs(original).max(initial=0)), 1e-30)
        off = np.abs(original - exact) / unit
        if self.unstable:
            off = off + np.abs(ours - exact) / unit
        elif not name.startswith("d ") or off.max(initial=0) > 2 * GRADIENT:
            off = np.zeros_like(off)  # outputs keep their tolerance, and so much is more than rounding
        allowed = np.minimum(tolerance + off, max(MOST, tolerance))
        largest = float(allowed.max(initial=tolerance))
        excess = float((np.abs(ours - original) / unit - allowed).max(initial=-1.0))
        if excess <= 0:
            self.granted[name] = largest
        return excess, largest

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
    random, blobs, digest = np.random.RandomState(meta["param_seed"]), {}, hashlib.sha256()
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
        blobs[key] = value.astype(np.float32)
        digest.update(blobs[key].tobytes())
    if digest.hexdigest() != meta["param_digest"]:
        warnings.warn("the parameters drawn by the recipe do not have the recorded digest", stacklevel=2)
    return {key: tensor(value) for key, value in blobs.items()}


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


def with_rounding(case: Case, check: Check, walk: Callable[[Case, Check, torch.dtype], None]) -> None:
    """Compare a walk in float32; where it misses a tolerance, once more with the values of the float64 run at hand."""
    check.unstable = is_unstable(case.name)
    walk(case, check, torch.float32)
    if check.failures:
        exact = Check()
        walk(case, exact, torch.float64)
        check.exact, check.cancelled = exact.values, exact.vanishing
        check.failures.clear()
        check.worst.clear()
        walk(case, check, torch.float32)
