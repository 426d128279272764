"""Cases of Scale and Bias."""

from __future__ import annotations

from tests.cases import Case


def case(name: str, kind: str, shape: str, param: str = "", second: str | None = None) -> Case:
    """One layer of type `kind` on a normal bottom x, and on w with the sizes `second`."""
    text = ""
    for blob, sizes in (("x", shape), ("w", second)):
        if sizes is not None:
            dims = " ".join(f"dim: {n}" for n in sizes.split())
            text += f'layer {{ name: "{blob}" type: "Input" top: "{blob}" '
            text += f"input_param {{ shape {{ {dims} }} }} }}\n"
    bottoms = 'bottom: "x"' + (' bottom: "w"' if second is not None else "")
    field = f"{kind.lower()}_param"
    return Case(name, f'{text}layer {{ name: "l" type: "{kind}" {bottoms} top: "y" {field} {{ {param} }} }}')


FILLER = 'filler { type: "gaussian" std: 1 }'

CASES = [
    case("scale_channel", "Scale", "2 4 3 2", FILLER),
    case("scale_bias", "Scale", "2 3 2 4", f"{FILLER} bias_term: true"),
    case("scale_scalar", "Scale", "2 3 4", f"{FILLER} num_axes: 0 bias_term: true"),
    case("scale_two_axes", "Scale", "2 3 4 2", f"{FILLER} num_axes: 2"),
    case("scale_to_the_end", "Scale", "2 3 2", f"{FILLER} axis: 0 num_axes: -1 bias_term: true"),
    case("scale_two_bottoms", "Scale", "2 3 4 2", "axis: 1 bias_term: true", "3 4"),
    case("scale_scalar_bottom", "Scale", "2 3", "", ""),
    case("scale_same_shape", "Scale", "2 3", "axis: 0", "2 3"),
    case("bias_channel", "Bias", "2 4 3 2", FILLER),
    case("bias_from_axis_0", "Bias", "3 2 4", f"{FILLER} axis: 0 num_axes: 2"),
    case("bias_last_axis", "Bias", "3 2 4", f"{FILLER} axis: -1"),
    case("bias_two_bottoms", "Bias", "2 3 4", "axis: 1", "3 4"),
]
