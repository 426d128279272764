"""PyTorch modules become prototxt and caffemodel that compute the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netspec import schema
from netspec.errors import NetspecError, SpecError
from netspec.interchange.comparison import open_net
from netspec.interchange.torch_modules.convert import Converted, from_torch


class Calls(nn.Module):
    """A module of one function."""

    def __init__(self, function: Callable[..., object], **parts: nn.Module):
        super().__init__()
        self.function = function
        self.parts = nn.ModuleDict(parts)

    def forward(self, *values: Tensor) -> object:
        return self.function(*values, **self.parts)


def settled(module: nn.Module) -> nn.Module:
    """The module with statistics and weights that are not those of the start."""
    generator = torch.Generator().manual_seed(1)
    for name, value in module.state_dict().items():
        if value.is_floating_point():
            low = 0.5 if "var" in name else -0.5
            value.copy_(torch.rand(value.shape, generator=generator) + low)
    return module


def convert(module: nn.Module, *shapes: tuple[int, ...]) -> Converted:
    generator = torch.Generator().manual_seed(2)
    return from_torch(settled(module), [torch.randn(shape, generator=generator) for shape in shapes])


IMAGE = (2, 4, 13, 10)
PARTS: dict[str, nn.Module] = {
    "conv": nn.Conv2d(4, 6, (3, 5), stride=(2, 1), padding=(1, 2)),
    "conv_same": nn.Conv2d(4, 6, 3, padding="same", dilation=2),
    "conv_group": nn.Conv2d(4, 8, 3, groups=2, bias=False),
    "conv_padded": nn.Sequential(nn.ZeroPad2d(2), nn.Conv2d(4, 6, 3, padding=1)),
    "deconv": nn.ConvTranspose2d(4, 6, 4, stride=2, padding=1),
    "deconv_group": nn.ConvTranspose2d(4, 6, 3, groups=2, bias=False),
    "batch_norm": nn.BatchNorm2d(4),
    "batch_norm_plain": nn.BatchNorm2d(4, affine=False),
    "pool_floor": nn.MaxPool2d(3, 2),
    "pool_ceil": nn.MaxPool2d(3, 2, ceil_mode=True),
    "pool_padded": nn.MaxPool2d((3, 2), (2, 3), (1, 1)),
    "pool_average": nn.AvgPool2d(3, 2, 1),
    "pool_average_ceil": nn.AvgPool2d(3, 2, ceil_mode=True),
    "pool_global": nn.AdaptiveAvgPool2d(1),
    "pool_global_max": nn.AdaptiveMaxPool2d(1),
    "pool_adaptive": nn.AdaptiveAvgPool2d((13, 5)),
    "relu": nn.ReLU(inplace=True),
    "relu6": nn.ReLU6(),
    "leaky": nn.LeakyReLU(0.1),
    "prelu": nn.PReLU(4),
    "prelu_shared": nn.PReLU(),
    "elu": nn.ELU(0.7),
    "sigmoid": nn.Sigmoid(),
    "tanh": nn.Tanh(),
    "softplus": nn.Softplus(),
    "instance_norm": nn.InstanceNorm2d(4, affine=True),
    "instance_norm_plain": nn.InstanceNorm2d(4),
    "group_norm": nn.GroupNorm(2, 4),
    "layer_norm": nn.LayerNorm([13, 10]),
    "selu": nn.SELU(),
    "silu": nn.SiLU(),
    "hardswish": nn.Hardswish(),
    "hardsigmoid": nn.Hardsigmoid(),
    "hardtanh": nn.Hardtanh(-0.3, 0.4),
    "softmax": nn.Softmax(dim=-1),
    "log_softmax": nn.LogSoftmax(1),
    "upsample": nn.Upsample(scale_factor=(2, 3)),
    "upsample_bilinear": nn.UpsamplingBilinear2d(scale_factor=2),
    "channel_shuffle": nn.ChannelShuffle(2),
    "flatten_linear": nn.Sequential(nn.Flatten(), nn.Linear(520, 3)),
    "linear_last_axis": nn.Linear(10, 3),
    "dropout": nn.Sequential(nn.Dropout(), nn.Sigmoid()),
}


@pytest.mark.parametrize("name", PARTS)
def test_modules(name: str) -> None:
    converted = convert(PARTS[name], IMAGE)
    assert converted.report.equal, str(converted.report)
    assert converted.report.largest < 1e-5


constant = torch.linspace(0.5, 2, 4).reshape(1, 4, 1, 1)
FUNCTIONS: dict[str, Callable[[Tensor], object]] = {
    "add": lambda x: x + x.relu(),
    "sub": lambda x: x - 2 * x.sigmoid(),
    "mul": lambda x: x * x.tanh(),
    "div": lambda x: x / (x.sigmoid() + 1),
    "numbers": lambda x: 3 - (2 * x + 1) / 4,
    "constant": lambda x: (x + constant) * constant - constant.squeeze(0),
    "constant_first": lambda x: constant - x,
    "constant_plane": lambda x: x * torch.arange(130.0).reshape(13, 10) / 130,
    "gate": lambda x: x * x.mean((2, 3), keepdim=True).sigmoid() + x.mean((2, 3), keepdim=True),
    "gate_first": lambda x: x.mean((2, 3), keepdim=True) - x,
    "maximum": lambda x: torch.maximum(x, -x),
    "clip": lambda x: x.clamp(-0.1, 0.2) + x.clamp(min=0) + x.clamp(max=0.3),
    "powers": lambda x: (x**2 + 1).sqrt() + (x.abs() + 1).reciprocal() + (x.square() + 1).rsqrt() + x.exp(),
    "cat": lambda x: torch.cat([x, x.relu()], 1),
    "cat_last": lambda x: torch.cat([x, x.relu()], -1),
    "chunk": lambda x: x.chunk(2, 1)[1],
    "split": lambda x: [part.relu() for part in x.split([1, 2, 1], 1)],
    "slices": lambda x: x[:, 1:3, 2:-2, :5],
    "select": lambda x: x[:, 2] + x.select(1, -1),
    "permute": lambda x: x.permute(0, 2, 3, 1).reshape(2, -1, 4),
    "transpose": lambda x: x.transpose(1, 3),
    "view": lambda x: x.view(x.size(0), 2, 2, -1).flatten(2).unsqueeze(1),
    "reduce": lambda x: (x.mean((2, 3)), x.sum(-1), x.mean((1, 2, 3))),
    "matmul": lambda x: x @ torch.linspace(-1, 1, 30).reshape(10, 3),
    "interpolate": lambda x: F.interpolate(x, scale_factor=2, mode="nearest"),
    "in_place": lambda x: (y := x * 2, y.add_(1), y.relu_(), y * 3)[-1],
    "read_and_returned": lambda x: (y := x.relu(), y + 1, y),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name: str) -> None:
    converted = convert(Calls(FUNCTIONS[name]), IMAGE)
    assert converted.report.equal, str(converted.report)


def test_outputs_are_the_modules() -> None:
    x = torch.randn(IMAGE)
    module = Calls(FUNCTIONS["read_and_returned"])
    converted = from_torch(module, x)
    net = converted.net()
    top = net.outputs(net(x))
    assert set(converted.outputs) == set(top)
    for name, value in zip(converted.outputs, module(x), strict=True):  # type: ignore[arg-type]
        torch.testing.assert_close(top[name], value)


class Block(nn.Module):
    def __init__(self, inner: int, outer: int, stride: int = 1):
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outer)
        self.conv2 = nn.Conv2d(outer, outer, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outer)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = nn.Sequential(nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        y += self.shortcut(x)
        return self.relu(y)  # type: ignore[no-any-return]


def test_a_residual_net_is_saved_and_read_back(tmp_path: Path) -> None:
    module = nn.Sequential(
        Block(3, 6),
        nn.MaxPool2d(3, 2, 1),
        Block(6, 8, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )
    converted = convert(module, (2, 3, 17, 14))
    assert converted.report.equal
    assert converted.extensions == ()
    converted.save(tmp_path / "net.caffemodel")
    net = open_net(tmp_path / "net.prototxt", tmp_path / "net.caffemodel")
    x = torch.randn(2, 3, 17, 14)
    torch.testing.assert_close(net(x)[0], module.eval()(x), rtol=1e-5, atol=1e-5)
    names = [layer.name for layer in schema.read_net(tmp_path / "net.prototxt").message.layer]
    assert names[:4] == ["input", "0_conv1", "0_bn1", "0_bn1_scale"]
    pool = next(layer for layer in net.made if layer.spec.type == "Pooling")
    assert pool.spec.message.pooling_param.HasField("round_mode")


def test_rounding_down_as_forks_write_it() -> None:
    module = nn.MaxPool2d(3, 2)
    assert "round_mode: FLOOR" in from_torch(module, torch.randn(IMAGE)).text()
    converted = from_torch(module, torch.randn(IMAGE), fork=True)
    assert "ceil_mode: false" in converted.text()
    assert converted.report.equal


def test_training_mode_is_left_as_it_was() -> None:
    module = nn.Sequential(nn.Dropout(), nn.ReLU()).train()
    assert [layer.type for layer in from_torch(module, torch.ones(2, 3)).message.layer] == ["Input", "ReLU"]
    assert module.training


def test_what_caffe_lacks_is_named_with_its_line() -> None:
    def function(x: Tensor) -> Tensor:
        y = F.gelu(x)
        return y.cumsum(1) + torch.special.i0(x)

    with pytest.raises(SpecError) as caught:
        from_torch(Calls(function), torch.randn(2, 3))
    lines = str(caught.value).splitlines()
    assert [line.split(": ", 1)[1] for line in lines] == [
        "operator gelu: Caffe has no layer for it",
        "operator special_i0: Caffe has no layer for it",
    ]
    assert all("test_from_torch.py:" in line for line in lines)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False), "counts it in"),
        (lambda x: F.max_pool2d(x, 3, dilation=2), "dilation"),
        (lambda x: F.interpolate(x, scale_factor=2.0, mode="bilinear"), "align_corners=False"),
        (lambda x: F.adaptive_avg_pool2d(x, 4), "unequal size"),
        (lambda x: F.pad(x, (1, 0)), "pads unequally"),
        (lambda x: F.relu(F.pad(x, (1, 1, 1, 1))), "inside convolutions only"),
        (lambda x: x[:, ::2], "every other"),
        (lambda x: x @ x.transpose(2, 3), "product of two blobs"),
        (lambda x: x.mean(1), "takes the last ones"),
        (lambda x: x * x.mean(1, keepdim=True), "takes the last ones"),
        (lambda x: F.batch_norm(x, None, None, training=True), "by the batch"),
        (
            lambda x: F.conv_transpose2d(x, torch.ones(4, 1, 3, 3), stride=2, output_padding=1),
            "output_padding",
        ),
    ],
)
def test_uses_that_caffe_lacks(function: Callable[[Tensor], Tensor], reason: str) -> None:
    with pytest.raises(SpecError, match=reason):
        from_torch(Calls(function), torch.randn(IMAGE))


def test_modules_that_cannot_be_followed() -> None:
    with pytest.raises(NetspecError, match=r"torch.export cannot follow Calls"):
        from_torch(Calls(lambda x: x if x.sum() > 0 else -x), torch.randn(2, 3))
    with pytest.raises(SpecError, match="no blob"):
        from_torch(Calls(lambda x: torch.ones(2)), torch.randn(2, 3))
