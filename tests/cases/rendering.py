"""Cases of the layers of rendering models."""

from __future__ import annotations

import torch

from tests.cases import Case

SWITCHES = torch.tensor([[0, 3, 5], [14, 22, 17]]).float().expand(2, 2, 2, 3)
"""Where a 2 x 2 pooling of a 4 x 6 plane might have found its maxima."""
ODD = torch.tensor([[0, 3, 4], [11, 12, 14], [20, 22, 24]]).float().expand(2, 2, 3, 3)
"""The same for a plane of 5 x 5, whose last windows are cut."""
CELLS = torch.arange(48.0).reshape(2, 2, 3, 4).sin() * 3


def inputs(**shapes: str) -> str:
    """An Input layer a blob."""
    return "".join(
        f'layer {{ name: "{name}" type: "Input" top: "{name}" '
        f"input_param {{ shape {{ {' '.join(f'dim: {n}' for n in shape.split())} }} }} }}\n"
        for name, shape in shapes.items()
    )


def layer(kind: str, bottoms: str, param: str = "", tops: str = "y") -> str:
    blobs = " ".join(f'bottom: "{name}"' for name in bottoms.split())
    blobs += "".join(f' top: "{name}"' for name in tops.split())
    return f'layer {{ name: "l" type: "{kind}" {blobs} {param} }}'


def unpooling(name: str, param: str, bottoms: str = "z", **more: object) -> Case:
    shapes = {"z": "2 2 2 3", "t": "2 2 2 3", "like": "2 1 5 7"}
    text = inputs(**{blob: shapes[blob] for blob in bottoms.split()})
    text += layer("Unpooling", bottoms, f"unpool_param {{ {param} }}")
    return Case(f"unpooling_{name}", text, gradient=("z",), **more)  # type: ignore[arg-type]


def scores(name: str, kind: str, param: str = "", shape: str = "3 4", **more: object) -> Case:
    return Case(f"{name}", inputs(x=shape) + layer(kind, "x", param), **more)  # type: ignore[arg-type]


CASES = [
    unpooling("switch", "", "z t", inputs={"t": SWITCHES}),
    unpooling("switch_like", "kernel_w: 3", "z t like", inputs={"t": SWITCHES}),
    Case(
        "unpooling_switch_cut",
        inputs(z="2 2 3 3", t="2 2 3 3", like="2 2 5 5") + layer("Unpooling", "z t like"),
        inputs={"t": ODD},
        gradient=("z",),
    ),
    unpooling("repeat", "mode: REPEAT kernel_size: 3"),
    unpooling("repeat_like", "mode: REPEAT", "z like"),
    unpooling("mean", "mode: MEAN kernel_h: 1"),
    unpooling("mean_like", "mode: MEAN", "z like"),
    Case(
        "unpooling_mean_cut",
        inputs(z="2 2 3 3", like="2 2 5 5") + layer("Unpooling", "z like", "unpool_param { mode: MEAN }"),
        gradient=("z",),
    ),
    scores("rendering_mask", "RenderingMask", gradient=()),
    scores(
        "rendering_mask_leak",
        "RenderingMask",
        "rendering_mask_param { threshold: 0.5 leak: 0.1 }",
        gradient=(),
    ),
    scores("argmax_one_hot", "ArgMaxOneHot", gradient=()),
    Case(
        "argmax_one_hot_labels",
        inputs(x="4 3 2", label="4 2")
        + layer(
            "ArgMaxOneHot", "x label", "argmax_one_hot_param { axis: 1 } loss_param { ignore_label: -1 }"
        ),
        inputs={"label": torch.tensor([[0, 1], [2, -1], [float("nan"), 2], [0, 0]])},
        gradient=(),
    ),
    scores("prior_kl", "PriorKLLoss"),
    scores("prior_kl_prior", "PriorKLLoss", "prior_kl_param { sign: 1 prior: 1 prior: 2 prior: 5 }", "2 3 2"),
    scores("non_negativity", "NonNegativityLoss", shape="2 3 2 2"),
    scores("non_negativity_cubed", "NonNegativityLoss", "non_negativity_param { power: 3 }"),
    Case(
        "signed_pooling",
        inputs(u="2 2 3 4", s="2 2 2 2") + layer("SignedPooling", "u s", tops="y t"),
        inputs={"u": CELLS},
        gradient=("u",),
    ),
    Case(
        "render_stats",
        inputs(a="2 2 4 6", t="2 2 2 3")
        + layer("RenderStats", "a t", "render_stats_param { momentum: 0.9 }", "pa pt pat"),
        inputs={"t": SWITCHES},
        gradient=(),
    ),
    Case(
        "render_stats_silent",
        inputs(a="2 2 4 6", t="2 2 2 3") + layer("RenderStats", "a t", tops="") + layer("ReLU", "a"),
        phase="TEST",
        inputs={"t": SWITCHES},
        gradient=(),
    ),
]
