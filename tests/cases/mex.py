"""Cases of MEX: modes, limits of epsilon, regions, windows, parameter spaces."""

from __future__ import annotations

from tests.cases import Case

OFFSETS = 'offsets_filler { type: "gaussian" std: 1 }'
POSITIVE = 'offsets_filler { type: "uniform" min: 0.2 max: 1 } use_log_space_parameters: false'
PIXEL = "block_param { block_size: 1 }"


def net(options: str, eps: float | str = 1, shape: tuple[int, ...] = (2, 3, 4, 4), rate: float = 1) -> str:
    """`rate`: lr_mult of epsilon, which has no gradient where it stands for a limit."""
    dims = " ".join(f"dim: {n}" for n in shape)
    return f"""
        layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ {dims} }} }} }}
        layer {{ name: "mex" type: "MEX" bottom: "x" top: "y" param {{ lr_mult: {rate} }}
          mex_param {{ num_instances: 5 epsilon_filler {{ type: "constant" value: {eps} }} {options} }} }}"""


SOFT = f"softmax_mode: true {OFFSETS}"
MIXTURE = f"{SOFT} normalize_offsets: true {PIXEL}"

CASES = [
    Case("mex_mean", net(f"{OFFSETS} {PIXEL}")),
    Case("mex_mean_eps_negative", net(f"{OFFSETS} {PIXEL}", -1.5)),
    Case("mex_mean_eps_small", net(f"{OFFSETS} {PIXEL}", 0.05)),
    Case("mex_mean_eps_zero", net(f"{OFFSETS} {PIXEL} normalize_offsets: true", 0, rate=0)),
    Case("mex_sum", net(f"{SOFT} {PIXEL}", 2)),
    Case("mex_max", net(f"{SOFT} {PIXEL} normalize_offsets: true", "inf", rate=0)),
    Case("mex_min", net(f"{SOFT} {PIXEL}", "-inf", rate=0)),
    Case("mex_mixture", net(MIXTURE)),
    Case("mex_default_epsilon", net(MIXTURE).replace('epsilon_filler { type: "constant" value: 1 }', "")),
    Case("mex_own_offsets", net(f"{MIXTURE} shared_offsets_region_size: 1")),
    Case("mex_tiles", net(f"{MIXTURE} shared_offsets_region_h: 3 shared_offsets_region_w: 2")),
    Case("mex_pattern", net(f"{MIXTURE} use_unshared_regions: true unshared_offsets_region_size: 2")),
    Case("mex_pattern_uneven", net(f"{MIXTURE} use_unshared_regions: true unshared_offsets_region_size: 3")),
    Case("mex_windows", net(f"{SOFT} block_param {{ block_size: 3 stride: 2 pad: 1 round_down: false }}")),
    Case(
        "mex_window_depth",
        net(f"{SOFT} block_param {{ block_size: 1 block_c: 2 stride_c: 1 }} shared_offsets_region_c: 1"),
    ),
    Case(
        "mex_excluded_padding",
        net(f"{SOFT} block_param {{ block_size: 2 pad: 1 out_of_bounds_value: -inf }}"),
    ),
    Case("mex_normalised_patches", net(f"{SOFT} block_param {{ block_size: 2 }} normalize_patches: true")),
    Case("mex_linear", net(f"softmax_mode: true normalize_offsets: true {PIXEL} {POSITIVE}")),
    Case(
        "mex_projected",
        net(f"{MIXTURE} normalize_offsets_projected: true"),
        gradient=(),  # by definition not the derivative of the forward function
        exports=False,  # the forward writes its own parameter
    ),
    Case(
        "mex_entropy",
        net(f"{MIXTURE} maximum_entropy_regularization_coeff: 0.1"),
        gradient=(),  # the regulariser is a gradient without a value
    ),
    Case(
        "mex_two_bottoms",
        f"""
        layer {{ name: "a" type: "Input" top: "a" input_param {{ shape {{ dim: 1 dim: 3 dim: 2 dim: 2 }} }} }}
        layer {{ name: "b" type: "Input" top: "b" input_param {{ shape {{ dim: 1 dim: 3 dim: 2 dim: 2 }} }} }}
        layer {{ name: "mex" type: "MEX" bottom: "a" bottom: "b" top: "y" top: "z"
          mex_param {{ num_instances: 2 {MIXTURE} }} }}""",
    ),
]
