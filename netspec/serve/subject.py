"""A served net: the tensors that it takes and gives, and its answers to many requests at once."""

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
from netspec.serve.tensors import Array, Refusal, to_json

OBSERVED = "observed"
MOST_ROWS = 256
LARGEST = 1e9
"""Larger values are refused: their squares, and so all answers, would be infinite."""


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
        return [output.name for output in self.outputs]

    def metadata(self) -> dict[str, Any]:
        """The protocol's $metadata_model_response."""
        return {
            "name": self.name,
            "versions": [self.version],
            "platform": self.platform,
            "inputs": [tensor.as_json() for tensor in self.inputs],
            "outputs": [tensor.as_json() for tensor in self.outputs],
        }

    @abstractmethod
    def read(
        self, inputs: Mapping[str, Array], parameters: Mapping[str, Any], outputs: frozenset[str]
    ) -> Ask:
        """The request with these inputs; Refusal that says what is wrong with them."""

    @abstractmethod
    def answer(self, asks: Sequence[Ask]) -> list[dict[str, Array]]:
        """The outputs that each of `asks` wants. Blocks; only one call at a time."""

    @abstractmethod
    def about(self) -> dict[str, Any]:
        """Facts about the net for the page."""


class ModelSubject(Subject):
    """A net that answers with the model's own queries; subclasses know the units of its values."""

    def __init__(self, model: Model, name: str, version: str, shape: tuple[int, ...]):
        """shape: of a row of the input, as requests give it."""
        super().__init__(name, version)
        self.model, self.shape = model, shape
        self.blob = str(model.deployed.data.tops[0])
        whole = (-1, *shape)
        self.inputs = [Tensors(self.blob, "FP32", whole)]
        if model.takes_missing:
            self.inputs.append(Tensors(OBSERVED, "BOOL", whole))
        empty = torch.zeros((1, *model.image_shape), device=model.device)
        self.classes = int(model.scores(empty).shape[1])
        per_class = (-1, self.classes)
        self.outputs = [Tensors("posterior", "FP32", per_class)]
        if model.generative:
            self.outputs += [Tensors(answer, "FP32", whole) for answer in ("expected", "deviation", "sample")]
            self.outputs.append(Tensors("log_likelihood", "FP32", (-1,)))
        self.outputs.append(Tensors("scores", "FP32", per_class))

    @abstractmethod
    def blob_of(self, values: Array, observed: Array | None) -> Tensor:
        """The net's input of values (N, *shape), NaN where missing or not `observed`; Refusal for a wrong value."""

    @abstractmethod
    def values_of(self, x: Tensor) -> Array:
        """The inverse of `blob_of`, float32."""

    @abstractmethod
    def deviations_of(self, deviation: Tensor) -> Array:
        """Deviations of the net's input in the units of the values; NaN where they mean nothing."""

    def example(self, row: int) -> dict[str, Any]:
        """{values, label, row} of a row of the net's own data, counted around; Refusal where it names none."""
        raise Refusal(f"model {self.name!r} names no data set to take an example from", 404)

    # Reading

    def read(
        self, inputs: Mapping[str, Array], parameters: Mapping[str, Any], outputs: frozenset[str]
    ) -> Ask:
        names = [tensor.name for tensor in self.inputs]
        for name in inputs:
            if name not in names:
                if name == OBSERVED:
                    raise Refusal(
                        f"model {self.name!r} takes no missing values, so it has no input 'observed'"
                    )
                hint = did_you_mean(name, names, f"it takes {', '.join(names)}")
                raise Refusal(f"model {self.name!r} has no input {name!r}{hint}")
        if self.blob not in inputs:
            raise Refusal(f"input {self.blob!r} is missing; its shape is {list(self.inputs[0].shape)}")
        values = self._values(inputs[self.blob])
        observed = self._observed(inputs.get(OBSERVED), values)
        if not self.model.takes_missing and np.isnan(values).any():
            raise Refusal(f"input {self.blob!r} has missing values; model {self.name!r} takes none")
        return Ask(self.blob_of(values, observed), outputs, self._label(parameters), seed_of(parameters))

    def _values(self, values: Array) -> Array:
        if values.dtype.kind == "b":
            raise Refusal(f"input {self.blob!r} must be numbers; its datatype is BOOL")
        if values.ndim != 1 + len(self.shape) or values.shape[1:] != self.shape:
            raise Refusal(
                f"input {self.blob!r} has shape {list(values.shape)}; "
                f"the net takes [N, {', '.join(map(str, self.shape))}]"
            )
        check_rows(len(values), self.blob)
        with np.errstate(over="ignore"):
            numbers = values.astype(np.float32)
        if (np.abs(numbers) > LARGEST).any():
            raise Refusal(f"input {self.blob!r} has a value beyond {LARGEST:g}")
        return numbers

    def _observed(self, observed: Array | None, values: Array) -> Array | None:
        if observed is None:
            return None
        if observed.dtype.kind != "b":
            raise Refusal("input 'observed' must be BOOL")
        allowed = [values.shape]
        if values.ndim == 4:  # one mask for all channels
            allowed.append((len(values), 1, *values.shape[2:]))
        if observed.shape not in allowed:
            raise Refusal(
                f"input 'observed' has shape {list(observed.shape)}; "
                f"it must be that of {self.blob!r}, {list(values.shape)}"
            )
        return observed

    def _label(self, parameters: Mapping[str, Any]) -> int | None:
        label = parameters.get("class")
        if label is None:
            return None
        if type(label) is not int or not 0 <= label < self.classes:
            raise Refusal(f"parameter class must be a whole number from 0 to {self.classes - 1}")
        return label

    # Answering

    def answer(self, asks: Sequence[Ask]) -> list[dict[str, Array]]:
        answers: list[dict[str, Array]] = [{} for _ in asks]
        self._each(asks, answers, {"posterior", "log_likelihood", "scores"}, self._scores)
        self._each(asks, answers, {"expected", "deviation"}, self._expected)
        seeded = [i for i, ask in enumerate(asks) if ask.seed is not None]
        for chosen in ([i for i in range(len(asks)) if i not in seeded], *([i] for i in seeded)):
            part = [answers[i] for i in chosen]
            self._each([asks[i] for i in chosen], part, {"sample"}, self._sample)
        return [
            {name: values[name] for name in ask.outputs} for ask, values in zip(asks, answers, strict=True)
        ]

    def _each(
        self,
        asks: Sequence[Ask],
        answers: Sequence[dict[str, Array]],
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
                answers[i].update({name: value[begin:end] for name, value in values.items()})
                begin = end

    def _scores(self, asks: Sequence[Ask]) -> dict[str, Array]:
        x = torch.cat([ask.x for ask in asks])
        scores = self.model.class_log_likelihood(x) if self.model.generative else self.model.scores(x)
        posterior = self.model.posterior(x) if self.model.joint else scores.softmax(1)
        values = {"scores": scores, "posterior": posterior}
        if self.model.generative:
            values["log_likelihood"] = self.log_likelihood(x, scores)
        return {name: as_array(value) for name, value in values.items()}

    def log_likelihood(self, x: Tensor, scores: Tensor) -> Tensor:
        """log p(what is seen) (N,), nats, of the net's input."""
        return self.model.log_likelihood(x) if self.model.joint else scores.logsumexp(1) - log(self.classes)

    def _expected(self, asks: Sequence[Ask]) -> dict[str, Array]:
        x, y = joined(asks)
        mean, deviation = self.model.expected_completion(x, y)
        return {
            "expected": self.values_of(self.guess(x, y, mean)),
            "deviation": self.deviations_of(deviation),
        }

    def guess(self, x: Tensor, y: Tensor | None, mean: Tensor) -> Tensor:
        """The best guess of each value, where `mean` is its expectation."""
        return mean

    def _sample(self, asks: Sequence[Ask]) -> dict[str, Array]:
        x, y = joined(asks)
        return {"sample": self.values_of(self.model.complete(x, y, asks[0].seed))}

    def about(self) -> dict[str, Any]:
        names = list(self.model.class_names)
        return {
            "name": self.name,
            "input": self.blob,
            "shape": list(self.shape),
            "classes": self.classes,
            "class_names": names if len(names) == self.classes else None,
            "outputs": [name for name in self.output_names if name != "scores"],
            "generative": self.model.generative,
            "missing": self.model.takes_missing,
        }


class ImageSubject(ModelSubject):
    """A net over images (or any (N, C, H, W)), in the units of its data before transform_param."""

    def __init__(self, model: Model, name: str, version: str = "1"):
        super().__init__(model, name, version, model.image_shape)

    def blob_of(self, values: Array, observed: Array | None) -> Tensor:
        return self.model.from_pixels(values, observed)

    def values_of(self, x: Tensor) -> Array:
        return self.model.to_pixels(x)

    def deviations_of(self, deviation: Tensor) -> Array:
        return as_array(deviation) / np.float32(self.model.unit)

    @cached_property
    def test_data(self) -> tuple[Array, Array]:
        """(pixels, labels) of the net's own test images; DataError where they cannot be had."""
        return self.model.images()

    @property
    def has_data(self) -> bool:
        """Whether the net names data of its own."""
        return bool(self.model.dataset)

    def example(self, row: int) -> dict[str, Any]:
        if not self.has_data:
            return super().example(row)
        images, labels = self.test_data
        row %= len(images)
        return {"values": to_json(images[row].astype(np.float32)), "label": int(labels[row]), "row": row}

    def about(self) -> dict[str, Any]:
        colour = {"kind": "images", "bgr": self.shape[0] == 3, "dataset": self.has_data}
        return super().about() | colour


def seed_of(parameters: Mapping[str, Any]) -> int | None:
    """The parameter `seed` of a request."""
    seed = parameters.get("seed")
    if seed is not None and (type(seed) is not int or not 0 <= seed < 2**63):
        raise Refusal("parameter seed must be a whole number from 0 to 2**63 - 1")
    return seed


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
