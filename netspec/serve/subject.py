"""What is served: a net with the tensors that it takes and gives, and the answers to many requests at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import log
from typing import Any

import numpy as np
import torch
from torch import Tensor

from netspec.errors import did_you_mean
from netspec.model.model import Model
from netspec.serve.tensors import Array, Refusal

OBSERVED = "observed"
MOST_ROWS = 256
LARGEST = 1e9
"""Values beyond this are refused: their squares would not be finite, and neither would any answer."""


@dataclass(frozen=True)
class Tensors:
    """A tensor as the protocol's metadata describes it; -1 is a size that the request chooses."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    def as_json(self) -> dict[str, Any]:
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}


@dataclass(frozen=True)
class Ask:
    """A request as the net sees it."""

    x: Tensor
    """Input of the net, a row per example, NaN where a value is missing."""
    outputs: frozenset[str]
    label: int | None = None
    """Class that completions are conditioned on."""
    seed: int | None = None
    """Seed of the draws; None draws anew each time."""


class Subject(ABC):
    """A net that is served under a name."""

    platform = "netspec_prototxt"

    def __init__(self, name: str, version: str):
        self.name, self.version = name, version
        self.inputs: list[Tensors] = []
        self.outputs: list[Tensors] = []

    @property
    def output_names(self) -> list[str]:
        """Names of the outputs, in the order in which they are given."""
        return [one.name for one in self.outputs]

    def metadata(self) -> dict[str, Any]:
        """The protocol's $metadata_model_response."""
        return {
            "name": self.name,
            "versions": [self.version],
            "platform": self.platform,
            "inputs": [one.as_json() for one in self.inputs],
            "outputs": [one.as_json() for one in self.outputs],
        }

    @abstractmethod
    def read(
        self, inputs: Mapping[str, Array], parameters: Mapping[str, Any], outputs: frozenset[str]
    ) -> Ask:
        """The request with these inputs; Refusal that says what is wrong with them."""

    @abstractmethod
    def answer(self, asks: Sequence[Ask]) -> list[dict[str, Array]]:
        """The outputs that each of `asks` wants. Blocking; one call at a time."""

    @abstractmethod
    def about(self) -> dict[str, Any]:
        """What the page needs to know to show this net."""


class ImageSubject(Subject):
    """A net over images (or any (N, C, H, W)), in the units of its data before transform_param."""

    def __init__(self, model: Model, name: str, version: str = "1"):
        super().__init__(name, version)
        self.model = model
        self.blob = model.deployed.data.tops[0]
        shape = (-1, *model.image_shape)
        self.inputs = [Tensors(self.blob, "FP32", shape)]
        if model.takes_missing:
            self.inputs.append(Tensors(OBSERVED, "BOOL", shape))
        empty = torch.zeros((1, *model.image_shape), device=model.device)
        self.classes = int(model.scores(empty).shape[1])
        per_class, images = (-1, self.classes), shape
        self.outputs = [Tensors("posterior", "FP32", per_class)]
        if model.generative:
            self.outputs += [Tensors(one, "FP32", images) for one in ("expected", "deviation", "sample")]
            self.outputs.append(Tensors("log_likelihood", "FP32", (-1,)))
        self.outputs.append(Tensors("scores", "FP32", per_class))

    def read(
        self, inputs: Mapping[str, Array], parameters: Mapping[str, Any], outputs: frozenset[str]
    ) -> Ask:
        for name in inputs:
            if name not in (names := [one.name for one in self.inputs]):
                if name == OBSERVED:
                    raise Refusal(
                        f"model {self.name!r} takes no missing values, so it has no input 'observed'"
                    )
                hint = did_you_mean(name, names, f"it takes {', '.join(names)}")
                raise Refusal(f"model {self.name!r} has no input {name!r}{hint}")
        if self.blob not in inputs:
            raise Refusal(f"input {self.blob!r} is missing; its shape is {list(self.inputs[0].shape)}")
        pixels = self._pixels(inputs[self.blob])
        observed = self._observed(inputs.get(OBSERVED), pixels)
        if not self.model.takes_missing and np.isnan(pixels).any():
            raise Refusal(f"input {self.blob!r} has missing values; model {self.name!r} takes none")
        x = self.model.from_pixels(pixels, observed)
        return Ask(x, outputs, self._label(parameters), self._seed(parameters))

    def _pixels(self, values: Array) -> Array:
        wanted = self.model.image_shape
        if values.dtype.kind == "b":
            raise Refusal(f"input {self.blob!r} must be numbers; its datatype is BOOL")
        if values.ndim != 4 or values.shape[1:] != wanted:
            raise Refusal(
                f"input {self.blob!r} has shape {list(values.shape)}; the net takes [N, {', '.join(map(str, wanted))}]"
            )
        check_rows(len(values), self.blob)
        with np.errstate(over="ignore"):
            pixels = values.astype(np.float32)
        if (np.abs(pixels) > LARGEST).any():
            raise Refusal(f"input {self.blob!r} has a value beyond {LARGEST:g}")
        return pixels

    def _observed(self, observed: Array | None, pixels: Array) -> Array | None:
        if observed is None:
            return None
        if observed.dtype.kind != "b":
            raise Refusal("input 'observed' must be BOOL")
        n, c, h, w = pixels.shape
        if observed.shape not in ((n, c, h, w), (n, 1, h, w)):
            raise Refusal(
                f"input 'observed' has shape {list(observed.shape)}; it must be that of {self.blob!r}, {[n, c, h, w]}"
            )
        return observed

    def _label(self, parameters: Mapping[str, Any]) -> int | None:
        label = parameters.get("class")
        if label is None:
            return None
        if type(label) is not int or not 0 <= label < self.classes:
            raise Refusal(f"parameter class must be a whole number from 0 to {self.classes - 1}")
        return label

    @staticmethod
    def _seed(parameters: Mapping[str, Any]) -> int | None:
        seed = parameters.get("seed")
        if seed is not None and (type(seed) is not int or not 0 <= seed < 2**63):
            raise Refusal("parameter seed must be a whole number from 0 to 2**63 - 1")
        return seed

    def answer(self, asks: Sequence[Ask]) -> list[dict[str, Array]]:
        found: list[dict[str, Array]] = [{} for _ in asks]
        self._each(asks, found, {"posterior", "log_likelihood", "scores"}, self._scores)
        self._each(asks, found, {"expected", "deviation"}, self._expected)
        seeded = [i for i, ask in enumerate(asks) if ask.seed is not None]
        for chosen in ([i for i in range(len(asks)) if i not in seeded], *([i] for i in seeded)):
            part = [found[i] for i in chosen]
            self._each([asks[i] for i in chosen], part, {"sample"}, self._sample)
        return [{name: values[name] for name in ask.outputs} for ask, values in zip(asks, found, strict=True)]

    def _each(
        self,
        asks: Sequence[Ask],
        found: Sequence[dict[str, Array]],
        names: set[str],
        query: Callable[[Sequence[Ask]], dict[str, Array]],
    ) -> None:
        """Run `query` once over the requests that want any of `names` (once per group with and without a class)."""
        for labelled in (False, True):
            chosen = [
                i for i, ask in enumerate(asks) if ask.outputs & names and (ask.label is not None) == labelled
            ]
            if not chosen:
                continue
            values = query([asks[i] for i in chosen])
            begin = 0
            for i in chosen:
                end = begin + len(asks[i].x)
                found[i].update({name: value[begin:end] for name, value in values.items()})
                begin = end

    def _scores(self, asks: Sequence[Ask]) -> dict[str, Array]:
        x = torch.cat([ask.x for ask in asks])
        scores = self.model.class_log_likelihood(x) if self.model.generative else self.model.scores(x)
        found = {"scores": scores, "posterior": scores.softmax(1)}
        if self.model.generative:
            found["log_likelihood"] = scores.logsumexp(1) - log(self.classes)
        return {name: as_array(value) for name, value in found.items()}

    def _expected(self, asks: Sequence[Ask]) -> dict[str, Array]:
        x, y = joined(asks)
        mean, deviation = self.model.expected_completion(x, y)
        return {
            "expected": self.model.to_pixels(mean),
            "deviation": as_array(deviation) / np.float32(self.model.unit),
        }

    def _sample(self, asks: Sequence[Ask]) -> dict[str, Array]:
        x, y = joined(asks)
        return {"sample": self.model.to_pixels(self.model.complete(x, y, asks[0].seed))}

    @cached_property
    def test_data(self) -> tuple[Array, Array]:
        """(pixels, labels) of the net's own test images; DataError where they cannot be had."""
        return self.model.images()

    def about(self) -> dict[str, Any]:
        c, h, w = self.model.image_shape
        return {
            "kind": "images",
            "name": self.name,
            "input": self.blob,
            "shape": [c, h, w],
            "classes": self.classes,
            "generative": self.model.generative,
            "missing": self.model.takes_missing,
            "dataset": self.model.dataset,
            "bgr": c == 3,
        }


def check_rows(rows: int, name: str) -> None:
    """Refusal for a request with no row or with more than MOST_ROWS."""
    if not 1 <= rows <= MOST_ROWS:
        raise Refusal(f"input {name!r} has {rows} rows; a request has 1 to {MOST_ROWS}")


def joined(asks: Sequence[Ask]) -> tuple[Tensor, Tensor | None]:
    """(rows of all, their classes where the requests name one)."""
    x = torch.cat([ask.x for ask in asks])
    if asks[0].label is None:
        return x, None
    labels = [ask.label for ask in asks for _ in range(len(ask.x)) if ask.label is not None]
    return x, torch.tensor(labels, device=x.device)


def as_array(values: Tensor) -> Array:
    """A tensor as a float32 array."""
    return values.detach().to("cpu", torch.float32).numpy()
