"""Cases of the functions of single values, and of Softmax."""

from __future__ import annotations

import torch

from tests.cases import Case

nan = float("nan")


def net(kind: str, options: str = "", shape: tuple[int, ...] = (2, 3, 4)) -> str:
    """Input x through one layer to y."""
    dims = " ".join(f"dim: {n}" for n in shape)
    return f"""
        layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ {dims} }} }} }}
        layer {{ name: "layer" type: "{kind}" bottom: "x" top: "y" {options} }}"""


HOLES = {"x": torch.tensor([[nan, 0.0, -1.5, 2.5]])}
"""A missing value, zero, and one value on each side."""

CASES = [
    Case("relu", net("ReLU")),
    Case("relu_leaky", net("ReLU", "relu_param { negative_slope: 0.1 }")),
    Case(
        "relu_missing", net("ReLU", "relu_param { negative_slope: 0.1 }", (1, 4)), inputs=HOLES, gradient=()
    ),
    Case("relu6", net("ReLU6"), inputs={"x": torch.linspace(-4, 9, 24).view(2, 3, 4)}, gradient=("x",)),
    Case("prelu", net("PReLU")),
    Case("prelu_shared", net("PReLU", "prelu_param { channel_shared: true filler { value: -0.3 } }", (2, 3))),
    Case("elu", net("ELU", "elu_param { alpha: 0.5 }")),
    Case("sigmoid", net("Sigmoid")),
    Case("tanh", net("TanH")),
    Case("bnll", net("BNLL")),
    Case(
        "bnll_large", net("BNLL"), inputs={"x": torch.linspace(-200, 200, 24).view(2, 3, 4)}, gradient=("x",)
    ),
    Case("absval", net("AbsVal")),
    Case("threshold", net("Threshold", "threshold_param { threshold: 0.2 }"), gradient=()),
    Case("clip", net("Clip", "clip_param { min: -0.5 max: 0.7 }")),
    Case("clip_missing", net("Clip", "clip_param { min: -0.5 max: 0.7 }", (1, 4)), inputs=HOLES, gradient=()),
    Case("swish", net("Swish", "swish_param { beta: 1.5 }")),
    Case("spatial_dropout_train", net("SpatialDropout"), random=True),
    Case("spatial_dropout_test", net("SpatialDropout"), phase="TEST"),
    Case("dropout_train", net("Dropout", "dropout_param { dropout_ratio: 0.3 }"), random=True),
    Case("dropout_test", net("Dropout"), phase="TEST"),
    Case("dropout_unscaled_train", net("Dropout", "dropout_param { scale_train: false }"), random=True),
    Case("dropout_unscaled_test", net("Dropout", "dropout_param { scale_train: false }"), phase="TEST"),
    Case(
        "dropout_sampled_test",
        net("Dropout", "dropout_param { sample_weights_test: true }"),
        "TEST",
        random=True,
    ),
    Case("softmax", net("Softmax", shape=(2, 5))),
    Case("softmax_axis", net("Softmax", "softmax_param { axis: -1 }", (2, 3, 2, 4))),
]
