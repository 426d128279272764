"""A Python layer of a running net: the user's object works on the net's blobs themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch

from netspec.layers import consent
from netspec.layers.blob import BlobVec
from netspec.layers.python_layer import Python
from netspec.pycaffe.step import Step


@dataclass
class UserStep(Step):
    """Calls the four methods as Caffe does, with the blobs that the neighbouring layers use.

    What the object writes into `bottom[i].data` the other readers of that blob see, a diff that it leaves
    alone keeps its values, and `self.blobs[i].diff` is the sum so far, which it may add to or replace.
    """

    def __post_init__(self) -> None:
        self.python = cast(Python, self.layer)
        self.early = self.python.held
        """The blobs that setup saw, and may have kept."""
        self.own = BlobVec(self.blobs)

    def lend(self) -> None:
        """Let the object's blobs be the net's: its `blobs`, and those that it kept from setup."""
        self.python.user.blobs = self.own
        for early, blob in zip(self.early, self.blobs, strict=True):
            early.hold(blob.data, blob.diff)

    def reshape(self) -> None:
        """Let the object give its tops their shapes."""
        self.lend()
        user = self.python.user
        with self.python.running(user.reshape.__qualname__, not consent.commanded()):
            user.reshape(self.bottoms, self.tops)

    def forward(self, device: torch.device) -> float:
        """reshape and forward of the object; gives what the tops add to the loss."""
        self.reshape()
        user = self.python.user
        with self.python.running(user.forward.__qualname__, not consent.commanded()):
            user.forward(self.bottoms, self.tops)
        return self.loss(device)

    def backward(self, device: torch.device) -> None:
        """backward of the object, which leaves its gradients in the blobs."""
        if self.need:
            self.lend()
            user = self.python.user
            with self.python.running(user.backward.__qualname__, not consent.commanded()):
                user.backward(self.tops, list(self.down), self.bottoms)
