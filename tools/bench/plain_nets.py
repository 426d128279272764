"""The nets of nets/caffe written by hand in plain PyTorch, for comparison: modules, and a loss from (x, label)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class WithinChannel(nn.Module):
    """Local response normalisation over 3 x 3 cells of a channel, which torch has no module for."""

    def __init__(self, size: int, alpha: float, beta: float):
        super().__init__()
        self.size, self.alpha, self.beta = size, alpha, beta

    def forward(self, x: Tensor) -> Tensor:
        mean = F.avg_pool2d(x * x, self.size, stride=1, padding=self.size // 2)
        return x / (1 + self.alpha * mean).pow(self.beta)


class Classifier(nn.Module):
    """Layers in a row, and the cross entropy of what they give."""

    def __init__(self, *layers: nn.Module):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        return F.cross_entropy(self.layers(x), label)


def lenet() -> nn.Module:
    return Classifier(
        nn.Conv2d(1, 20, 5), nn.MaxPool2d(2, 2), nn.Conv2d(20, 50, 5), nn.MaxPool2d(2, 2), nn.Flatten(),
        nn.Linear(800, 500), nn.ReLU(inplace=True), nn.Linear(500, 10),
    )  # fmt: skip


def cifar10_full() -> nn.Module:
    return Classifier(
        nn.Conv2d(3, 32, 5, padding=2), nn.MaxPool2d(3, 2, ceil_mode=True), nn.ReLU(inplace=True),
        WithinChannel(3, 5e-5, 0.75),
        nn.Conv2d(32, 32, 5, padding=2), nn.ReLU(inplace=True), nn.AvgPool2d(3, 2, ceil_mode=True),
        WithinChannel(3, 5e-5, 0.75),
        nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(inplace=True), nn.AvgPool2d(3, 2, ceil_mode=True),
        nn.Flatten(), nn.Linear(1024, 10),
    )  # fmt: skip


def caffenet() -> nn.Module:
    def conv(*sizes: int, **more: int) -> list[nn.Module]:
        return [nn.Conv2d(*sizes, **more), nn.ReLU(inplace=True)]  # type: ignore[arg-type]

    return Classifier(
        *conv(3, 96, 11, stride=4), nn.MaxPool2d(3, 2, ceil_mode=True), nn.LocalResponseNorm(5, 1e-4, 0.75),
        *conv(96, 256, 5, padding=2, groups=2), nn.MaxPool2d(3, 2, ceil_mode=True), nn.LocalResponseNorm(5, 1e-4, 0.75),
        *conv(256, 384, 3, padding=1), *conv(384, 384, 3, padding=1, groups=2), *conv(384, 256, 3, padding=1, groups=2),
        nn.MaxPool2d(3, 2, ceil_mode=True), nn.Flatten(),
        nn.Linear(9216, 4096), nn.ReLU(inplace=True), nn.Dropout(0.5),
        nn.Linear(4096, 4096), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(4096, 1000),
    )  # fmt: skip


def unit(inputs: int, outputs: int, kernel: int, padding: int = 0, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, padding), nn.ReLU(inplace=True))


class Inception(nn.Module):
    """Four ways side by side: 1x1; 1x1 and 3x3; 1x1 and 5x5; a maximum and 1x1."""

    def __init__(
        self, inputs: int, one: int, three_in: int, three: int, five_in: int, five: int, pooled: int
    ):
        super().__init__()
        self.one = unit(inputs, one, 1)
        self.three = nn.Sequential(unit(inputs, three_in, 1), unit(three_in, three, 3, 1))
        self.five = nn.Sequential(unit(inputs, five_in, 1), unit(five_in, five, 5, 2))
        self.pooled = nn.Sequential(nn.MaxPool2d(3, 1, 1), unit(inputs, pooled, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((self.one(x), self.three(x), self.five(x), self.pooled(x)), 1)


def side(inputs: int) -> nn.Sequential:
    """A classifier on the way; its pooling gives 4 x 4 positions."""
    return nn.Sequential(
        nn.AvgPool2d(5, 3, ceil_mode=True), unit(inputs, 128, 1), nn.Flatten(), nn.Linear(2048, 1024),
        nn.ReLU(inplace=True), nn.Dropout(0.7), nn.Linear(1024, 1000),
    )  # fmt: skip


class GoogLeNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Sequential(
            unit(3, 64, 7, 3, 2), nn.MaxPool2d(3, 2, ceil_mode=True), nn.LocalResponseNorm(5, 1e-4, 0.75),
            unit(64, 64, 1), unit(64, 192, 3, 1), nn.LocalResponseNorm(5, 1e-4, 0.75),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            Inception(192, 64, 96, 128, 16, 32, 32), Inception(256, 128, 128, 192, 32, 96, 64),
            nn.MaxPool2d(3, 2, ceil_mode=True), Inception(480, 192, 96, 208, 16, 48, 64),
        )  # fmt: skip
        self.side1 = side(512)
        self.middle = nn.Sequential(
            Inception(512, 160, 112, 224, 24, 64, 64), Inception(512, 128, 128, 256, 24, 64, 64),
            Inception(512, 112, 144, 288, 32, 64, 64),
        )  # fmt: skip
        self.side2 = side(528)
        self.end = nn.Sequential(
            Inception(528, 256, 160, 320, 32, 128, 128), nn.MaxPool2d(3, 2, ceil_mode=True),
            Inception(832, 256, 160, 320, 32, 128, 128), Inception(832, 384, 192, 384, 48, 128, 128),
            nn.AvgPool2d(7, 1), nn.Dropout(0.4), nn.Flatten(), nn.Linear(1024, 1000),
        )  # fmt: skip

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        first = self.start(x)
        second = self.middle(first)
        sides = F.cross_entropy(self.side1(first), label) + F.cross_entropy(self.side2(second), label)
        return F.cross_entropy(self.end(second), label) + 0.3 * sides


PLAIN: dict[str, Callable[[], nn.Module]] = {
    "lenet": lenet,
    "cifar10_full": cifar10_full,
    "caffenet": caffenet,
    "googlenet": GoogLeNet,
}


def take_weights(module: nn.Module, weights: list[Tensor]) -> None:
    """Copy blobs in file order into the module's parameters, which stand in the same order."""
    with torch.no_grad():
        for param, value in zip(module.parameters(), weights, strict=True):
            param.copy_(value)
