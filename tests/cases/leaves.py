"""Cases of Leaves and LatentTree: every kind, mixed kinds, patches, shared components, missing values."""

from __future__ import annotations

import torch

from tests.cases import Case

nan = float("nan")


def net(leaves: str, shape: tuple[int, ...] = (3, 1, 2, 2)) -> str:
    dims = " ".join(f"dim: {n}" for n in shape)
    return f"""
        layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ {dims} }} }} }}
        layer {{ name: "leaf" type: "Leaves" bottom: "x" top: "y" leaves_param {{ num_instances: 2 {leaves} }} }}"""


def kind(name: str, more: str = "") -> str:
    return f'distribution {{ kind: "{name}" {more} }}'


def tree(parents: str = "") -> str:
    return f"""
        layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ dim: 2 dim: 3 dim: 2 dim: 2 }} }} }}
        layer {{ name: "tree" type: "LatentTree" bottom: "x" top: "y" latent_tree_param {{ {parents} }} }}"""


COUNTS = torch.tensor([[0, 1, 3, 2], [2, nan, 1, 0], [nan, nan, nan, nan]]).view(3, 1, 2, 2)
REALS = torch.tensor([[0.2, -1, 3, 2], [2, nan, 1, 0], [nan, nan, nan, nan]]).view(3, 1, 2, 2)
BLOCK = "block_param { block_size: 2 stride: 2 pad: 1 out_of_bounds_value: nan }"
MIXED = " ".join([
    kind("categorical", "levels: 4 column: 0 column: 3"), kind("poisson", "column: 2"), kind("gaussian"),
])  # fmt: skip

CAT = kind("categorical", "levels: 4")

PRIOR = """
        layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 1 dim: 1 } } }
        layer { name: "prior" type: "ClassPrior" bottom: "x" top: "y"
          class_prior_param { logit_filler { type: "gaussian" std: 1 } } }"""

CASES = [
    Case("leaves_gaussian", net(kind("gaussian"))),
    Case("leaves_gaussian_missing", net(kind("gaussian")), inputs={"x": REALS}, gradient=()),
    Case("leaves_gaussian_patches", net(kind("gaussian") + BLOCK, (2, 3, 4, 2))),
    Case("leaves_gaussian_shared", net(kind("gaussian") + "shared: true")),
    Case("leaves_student_t", net(kind("student_t", "degrees_of_freedom: 5"))),
    Case("leaves_logistic", net(kind("discretised_logistic", "levels: 4")), inputs={"x": COUNTS}, gradient=()),
    Case("leaves_categorical", net(CAT), inputs={"x": COUNTS}, gradient=()),
    Case("leaves_categorical_patches", net(CAT + BLOCK), inputs={"x": COUNTS}, gradient=()),
    Case("leaves_categorical_shared", net(CAT + "shared: true"), inputs={"x": COUNTS},
         gradient=()),
    Case("leaves_binomial", net(kind("binomial", "levels: 4")), inputs={"x": COUNTS}, gradient=()),
    Case("leaves_bernoulli", net(kind("bernoulli")), inputs={"x": (COUNTS > 1) * COUNTS.sign()}, gradient=()),
    Case("leaves_poisson", net(kind("poisson")), inputs={"x": COUNTS}, gradient=()),
    Case("leaves_mixed", net(MIXED), inputs={"x": COUNTS}, gradient=()),
    Case("latent_tree", tree("parent: 1 parent: -1 parent: 1 parent: 0")),
    Case("latent_tree_by_default", tree()),
    Case("class_prior", PRIOR),
    Case("latent_root_alone", tree().replace("dim: 2 dim: 2 }", "dim: 1 dim: 1 }")),
]  # fmt: skip
