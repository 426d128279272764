"""Cases of Similarity: every function and option."""

from __future__ import annotations

import torch

from tests.cases import Case

WEIGHTS = 'template_filler { type: "gaussian" std: 0.5 } weight_filler { type: "uniform" min: 0.5 max: 2 }'
nan = float("nan")


def net(options: str, shape: tuple[int, ...] = (2, 2, 4, 6), block: str = "block_size: 2 stride: 2") -> str:
    dims = " ".join(f"dim: {n}" for n in shape)
    return f"""
        layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ {dims} }} }} }}
        layer {{ name: "similarity" type: "Similarity" bottom: "x" top: "y"
          similarity_param {{ num_instances: 3 {WEIGHTS} {options} block_param {{ {block} }} }} }}"""


def holes(*shape: int) -> torch.Tensor:
    """Normal values with about a third missing, the first patch among them in full."""
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(shape, generator=generator)
    x[torch.rand(shape, generator=generator) < 0.3] = nan
    x[0, :, :2, :2] = nan
    return x


NORM = "normalization_term: true normalization_term_fudge: 1e-4"
LOG = "use_log_space_weight_param: true"

CASES = [
    Case("similarity_l2", net("")),
    Case("similarity_l2_bias", net('bias_term: true bias_filler { type: "uniform" max: 1 }')),
    Case("similarity_l2_log", net(LOG)),
    Case("similarity_l1", net("similarity_function: L1")),
    Case("similarity_convolution", net("similarity_function: CONVOLUTION")),
    Case("similarity_normalised_patches", net("normalize_patches: true")),
    Case("similarity_centred_patches", net("normalize_patches: true normalize_variance: false")),
    Case("similarity_density", net(NORM)),
    Case("similarity_density_log", net(f"{NORM} {LOG}")),
    Case(
        "similarity_density_missing",
        net(f"{NORM} ignore_nan_input: true"),
        inputs={"x": holes(2, 2, 4, 6)},
        gradient=(),
    ),
    Case(
        "similarity_density_padded",
        net(
            f"{NORM} ignore_nan_input: true", block="block_size: 2 stride: 2 pad: 2 out_of_bounds_value: nan"
        ),
    ),
    Case("similarity_overlapping", net("", block="block_h: 3 block_w: 2 stride: 1 pad_h: 1 pad_w: 0")),
    Case("similarity_block_channels", net("", (1, 5, 3, 3), "block_size: 1 block_c: 2 stride_c: 1 pad_c: 1")),
    Case("similarity_pixels", net(NORM, (2, 4, 3, 3), "block_size: 1")),
    Case("similarity_wide_patches", net(NORM, (2, 3, 8, 8), "block_size: 4 stride: 4")),
    Case(
        "similarity_two_bottoms",
        """
        layer { name: "a" type: "Input" top: "a" input_param { shape { dim: 1 dim: 2 dim: 4 dim: 4 } } }
        layer { name: "b" type: "Input" top: "b" input_param { shape { dim: 1 dim: 2 dim: 4 dim: 4 } } }
        layer { name: "similarity" type: "Similarity" bottom: "a" bottom: "b" top: "y" top: "z"
          similarity_param { num_instances: 3 """
        + WEIGHTS
        + " block_param { block_size: 2 stride: 2 } } }",
    ),
]
