"""Cases of the layers that join, cut and reshape, and of one-hot codes."""

from __future__ import annotations

import torch

from tests.cases import Case
from tests.cases.pointwise import net

nan = float("nan")


def several(kind: str, options: str, *shapes: tuple[int, ...]) -> str:
    """Inputs a, b, c... of the given shapes into one layer with top y."""
    names = "abcdef"[: len(shapes)]
    inputs = "".join(
        f'layer {{ name: "{n}" type: "Input" top: "{n}" input_param {{ shape {{ '
        f"{' '.join(f'dim: {size}' for size in shape)} }} }} }}\n"
        for n, shape in zip(names, shapes, strict=True)
    )
    bottoms = " ".join(f'bottom: "{n}"' for n in names)
    return f'{inputs}layer {{ name: "layer" type: "{kind}" {bottoms} top: "y" {options} }}'


def cut(options: str, tops: str, shape: tuple[int, ...] = (2, 6, 3)) -> str:
    return net("Slice", f"{tops} {options}", shape)


def reshape(options: str, shape: tuple[int, ...] = (2, 3, 4)) -> str:
    return net("Reshape", f"reshape_param {{ {options} }}", shape)


CODES = {"x": torch.tensor([0.5, 1.4, 2.5, -0.6, nan, 7.0]).view(2, 1, 3)}

CASES = [
    Case("concat", several("Concat", "", (2, 1, 3), (2, 4, 3), (2, 2, 3))),
    Case("concat_axis", several("Concat", "concat_param { axis: -1 }", (2, 3), (2, 1))),
    Case("concat_dim", several("Concat", "concat_param { concat_dim: 0 }", (2, 3), (1, 3))),
    Case("concat_one", several("Concat", "", (2, 3))),
    Case("slice_even", cut("", 'top: "z" top: "w"')),
    Case("slice_points", cut("slice_param { slice_point: 1 slice_point: 4 }", 'top: "z" top: "w"')),
    Case("slice_axis", cut("slice_param { axis: 2 slice_point: 2 }", 'top: "z"')),
    Case("slice_dim", cut("slice_param { slice_dim: 0 }", 'top: "z"')),
    Case("slice_one", cut("", "")),
    Case("split", net("Split", 'top: "z"')),
    Case(
        "silence",
        """
        layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
        layer { name: "y" type: "TanH" bottom: "x" top: "y" }
        layer { name: "z" type: "Sigmoid" bottom: "x" top: "z" }
        layer { name: "silence" type: "Silence" bottom: "z" }""",
    ),
    Case("flatten", net("Flatten", shape=(2, 3, 4, 2))),
    Case("flatten_axes", net("Flatten", "flatten_param { axis: 0 end_axis: -2 }", (2, 3, 4))),
    Case("reshape_infer", reshape("shape { dim: 0 dim: -1 dim: 2 dim: 1 }")),
    Case(
        "reshape_axis",
        reshape("shape { dim: 2 dim: 2 } axis: -1", (2, 3, 4)).replace("axis: -1", "axis: -2 num_axes: 1"),
    ),
    Case("reshape_insert", reshape("shape { dim: 1 } axis: -1 num_axes: 0")),
    Case("reshape_scalar", reshape("shape { }", (1, 1))),
    Case("tile", net("Tile", "tile_param { tiles: 3 }")),
    Case("tile_axis", net("Tile", "tile_param { axis: -1 tiles: 2 }")),
    Case(
        "crop",
        several("Crop", "crop_param { offset: 1 offset: 2 }", (2, 3, 5, 6), (1, 1, 3, 4)),
        gradient=("a",),
    ),
    Case(
        "crop_axis",
        several("Crop", "crop_param { axis: 1 offset: 1 }", (2, 3, 4), (1, 2, 3)),
        gradient=("a",),
    ),
    Case("crop_no_offset", several("Crop", "crop_param { axis: -1 }", (2, 3), (2, 2)), gradient=("a",)),
    Case("onehot", net("OneHot", "one_hot_param { input_dim: 4 }", (2, 1, 3)), inputs=CODES, gradient=()),
    Case(
        "onehot_log",
        net("OneHot", "one_hot_param { input_dim: 4 to_log: true }", (2, 1, 3)),
        inputs=CODES,
        gradient=(),
    ),
]
