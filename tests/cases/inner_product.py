"""Cases of InnerProduct and Embed."""

from __future__ import annotations

import torch

from tests.cases import Case


def case(name: str, shape: str, param: str) -> Case:
    """One InnerProduct on a normal bottom x of the given sizes."""
    dims = " ".join(f"dim: {n}" for n in shape.split())
    return Case(
        f"inner_product_{name}",
        f'layer {{ name: "in" type: "Input" top: "x" input_param {{ shape {{ {dims} }} }} }}\n'
        'layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" '
        f'inner_product_param {{ num_output: 3 weight_filler {{ type: "xavier" }} {param} }} }}',
    )


def embed(name: str, param: str) -> Case:
    return Case(
        f"embed_{name}",
        'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 3 dim: 2 } } }\n'
        'layer { name: "e" type: "Embed" bottom: "x" top: "y" '
        f'embed_param {{ num_output: 4 input_dim: 5 weight_filler {{ type: "gaussian" }} {param} }} }}',
        inputs={"x": torch.tensor([[0.0, 4.0], [2.0, 2.0], [1.0, 0.0]])},
    )


CASES = [
    case("basic", "3 4 2 2", ""),
    case("axis", "2 3 2 4", "axis: 2 bias_term: false"),
    case("last_axis", "2 3 4", "axis: -1"),
    case("transpose", "3 6", "transpose: true"),
    embed("basic", 'bias_filler { type: "gaussian" }'),
    embed("without_bias", "bias_term: false"),
]
