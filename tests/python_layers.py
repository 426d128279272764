"""Layers written in Python as a user of pycaffe writes them; tests name this module in their prototxt."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from netspec.layers.python_layer import PythonLayer


class SquaredDistance(PythonLayer):
    """sum (a - b)^2 / 2N, with the difference kept from forward to backward."""

    def setup(self, bottom: Any, top: Any) -> None:
        if len(bottom) != 2:
            raise ValueError(f"takes two bottoms, found {len(bottom)}")

    def reshape(self, bottom: Any, top: Any) -> None:
        if bottom[0].count != bottom[1].count:
            raise ValueError("bottoms of different sizes")
        self.difference = np.zeros_like(bottom[0].data)
        top[0].reshape(1)

    def forward(self, bottom: Any, top: Any) -> None:
        self.difference[...] = bottom[0].data - bottom[1].data
        top[0].data[...] = (self.difference**2).sum() / bottom[0].num / 2

    def backward(self, top: Any, propagate_down: Any, bottom: Any) -> None:
        for i, sign in enumerate((1, -1)):
            if propagate_down[i]:
                bottom[i].diff[...] = sign * self.difference * top[0].diff[0] / bottom[i].num


class Affine(PythonLayer):
    """y = factor * w * x + b with learned w, b; `factor` and the first w come in param_str as JSON."""

    def setup(self, bottom: Any, top: Any) -> None:
        self.options = json.loads(self.param_str)
        self.blobs.add_blob(bottom[0].channels)
        self.blobs.add_blob(1)
        self.blobs[0].data[...] = self.options["first"]

    def reshape(self, bottom: Any, top: Any) -> None:
        top[0].reshape(*bottom[0].data.shape)

    def weight(self) -> Any:
        return self.options["factor"] * self.blobs[0].data.reshape(1, -1, 1)

    def forward(self, bottom: Any, top: Any) -> None:
        top[0].data[...] = self.weight() * bottom[0].data + self.blobs[1].data

    def backward(self, top: Any, propagate_down: Any, bottom: Any) -> None:
        self.blobs[0].diff[...] += self.options["factor"] * (top[0].diff * bottom[0].data).sum((0, 2))
        self.blobs[1].diff[...] += top[0].diff.sum()
        if propagate_down[0]:
            bottom[0].diff[...] = self.weight() * top[0].diff


class Counter(PythonLayer):
    """No bottom; the top counts the forwards, 100 more in TEST. The count is kept in a blob."""

    def setup(self, bottom: Any, top: Any) -> None:
        self.blobs.add_blob(2)

    def reshape(self, bottom: Any, top: Any) -> None:
        top[0].reshape(2)

    def forward(self, bottom: Any, top: Any) -> None:
        self.blobs[0].data[...] += 1
        top[0].data[...] = self.blobs[0].data + 100 * self.phase

    def backward(self, top: Any, propagate_down: Any, bottom: Any) -> None:
        pass


class Watcher:
    """No top: notes what it sees. Not derived from anything."""

    seen: list[float] = []  # noqa: RUF012 (a note for the test)

    def setup(self, bottom: Any, top: Any) -> None:
        pass

    def reshape(self, bottom: Any, top: Any) -> None:
        pass

    def forward(self, bottom: Any, top: Any) -> None:
        self.seen.append(float(bottom[0].data.sum()))

    def backward(self, top: Any, propagate_down: Any, bottom: Any) -> None:
        pass


class Shapeless(PythonLayer):
    """Forgets to give its top a shape."""


class Half:
    """Lacks two of the four methods."""

    def setup(self, bottom: Any, top: Any) -> None:
        pass

    def forward(self, bottom: Any, top: Any) -> None:
        pass
