"""Cases of the layers that put axes, channels or pixels in another order."""

from __future__ import annotations

from tests.cases import Case
from tests.cases.pointwise import net

IMAGE = (2, 3, 4, 5)


def moved(options: str) -> str:
    return net("Translation", f"translation_param {{ {options} }}", IMAGE)


def affine(options: str) -> str:
    return net("RandomAffine", f"random_affine_param {{ {options} }}", IMAGE)


def permuted(options: str, shape: tuple[int, ...]) -> str:
    return net("Permutation", f"permutation_param {{ {options} }}", shape)


CASES = [
    Case("permute", net("Permute", "permute_param { order: 0 order: 2 order: 3 order: 1 }", IMAGE)),
    Case("permute_partial", net("Permute", "permute_param { order: 2 }", (2, 3, 4))),
    Case("transpose", net("Transpose", "transpose_param { dim: 3 dim: 2 dim: 0 dim: 1 }", IMAGE)),
    Case("reverse", net("Reverse", "", IMAGE)),
    Case("reverse_axis", net("Reverse", "reverse_param { axis: 2 }", IMAGE)),
    Case("shuffle_channel", net("ShuffleChannel", "shuffle_channel_param { group: 3 }", (2, 6, 2, 2))),
    Case("reorg", net("Reorg", "reorg_param { stride: 2 }", (2, 8, 4, 6))),
    Case("reorg_reverse", net("Reorg", "reorg_param { stride: 2 reverse: true }", (2, 8, 2, 3))),
    Case("translation", moved("shift_x: 2 shift_y: -1 out_of_bounds_value: 7")),
    Case("translation_far", moved("shift_x: 9 out_of_bounds_value: -1")),
    Case("translation_missing", moved("shift_x: 1 out_of_bounds_value: nan"), gradient=()),
    Case("translation_random", moved("shift_x: 2 shift_y: 1 random: true"), random=True),
    Case("translation_random_test", moved("shift_x: 2 shift_y: 1 random: true"), phase="TEST"),
    Case("random_affine", affine("rotation: 20 scale: 0.3 shear: 0.1 shift_x: 1 shift_y: 0.5"), random=True),
    Case("random_affine_test", affine("rotation: 20 shift_x: 1"), phase="TEST"),
    Case("permutation_quad2", net("Permutation", shape=IMAGE)),
    Case("permutation_list", permuted('type: GEN permute_string: "3, 0, 5, 1, 4, 2"', (2, 3, 2, 3))),
]
