"""Theorem 1 in numbers: ranks and tensors against slow definitions and against nets."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from netspec.net.make import make_net
from tools.results import depth
from tools.results.reproduction import Results


@pytest.mark.parametrize("wanted", [1, 3, 7])
def test_rank(wanted: int) -> None:
    draws = np.random.default_rng(wanted)
    matrix = draws.integers(-4, 5, (9, wanted)) @ draws.integers(-4, 5, (wanted, 7))
    assert depth.rank(matrix) == np.linalg.matrix_rank(matrix)


def test_rank_of_nothing_and_of_everything() -> None:
    assert depth.rank(np.zeros((3, 4), int)) == 0
    assert depth.rank(np.eye(5, dtype=int)[::-1] * 3) == 5


def test_weights_lie_on_the_simplex() -> None:
    vectors = depth.simplex(np.random.default_rng(0))(5, 3)
    assert (vectors.sum(-1) % depth.PRIME == 1).all()
    assert (vectors > 0).all()


class Counted:
    """Small whole weights, kept in the order in which they are asked for."""

    def __init__(self) -> None:
        self.draws, self.given = np.random.default_rng(3), list[np.ndarray]()

    def __call__(self, *shape: int) -> np.ndarray:
        self.given.append(self.draws.integers(1, 5, shape))
        return self.given[-1]


def test_the_deep_tensor_is_that_of_the_definition() -> None:
    draw = Counted()
    tensor = depth.deep(4, 2, 3, draw).reshape(2, 2, 2, 2)  # d1, d3; d2, d4
    leaves, level, top = draw.given
    pairs = [np.einsum("ca,cb,dc->dab", leaves[2 * j], leaves[2 * j + 1], level[j]) for j in range(2)]
    wanted = np.einsum("c,cab,cde->abde", top[0, 0], *pairs)
    np.testing.assert_array_equal(tensor.transpose(0, 2, 1, 3), wanted)


def test_the_shallow_tensor_is_that_of_the_definition() -> None:
    draw = Counted()
    tensor = depth.shallow(4, 2, 3, draw).reshape(2, 2, 2, 2)
    vectors, weights = draw.given
    wanted = np.einsum("z,za,zb,zc,zd->abcd", weights, *vectors)
    np.testing.assert_array_equal(tensor.transpose(0, 2, 1, 3), wanted)


MEX = """layer {{ name: "{name}" type: "MEX" bottom: "{bottom}" top: "{name}"
  param {{ lr_mult: 0 }} param {{ is_logspace: true }}
  mex_param {{
    num_instances: {states} block_param {{ block_size: 1 }} shared_offsets_region_size: 1 softmax_mode: true
    normalize_offsets: true epsilon_filler {{ type: "constant" value: 1 }}
    offsets_filler {{ type: "dirichlet" primal_dim: {below} to_log: true }}
  }}
}}
"""
INPUT = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 16 dim: 2 dim: 1 dim: 4 } } }\n'
SUM = 'layer {{ name: "{0}" type: "Pooling" bottom: "{1}" top: "{0}" pooling_param {{ pool: SUM {2} }} }}\n'


@pytest.mark.parametrize(("deep", "wanted"), [(True, 4), (False, 2)])
def test_the_tensor_of_a_net_has_that_rank(deep: bool, wanted: int) -> None:
    """HT-CAC and CP-CAC of two channels over four positions of two components, asked for every assignment."""
    pairs = "kernel_h: 1 kernel_w: 2 stride_h: 1 stride_w: 2"
    text = INPUT + MEX.format(name="leaf", bottom="data", states=2, below=2)
    if deep:
        text += SUM.format("pair", "leaf", pairs) + MEX.format(name="level", bottom="pair", states=2, below=2)
        text += SUM.format("all", "level", pairs)
    else:
        text += SUM.format("all", "leaf", "global_pooling: true")
    net = make_net(text + MEX.format(name="top", bottom="all", states=1, below=2), seed=1).double()
    assignments = list(product((0, 1), repeat=4))
    x = torch.full((16, 2, 1, 4), -1e4, dtype=torch.float64)
    for k, states in enumerate(assignments):
        for place, state in enumerate(states):
            x[k, state, 0, place] = 0
    with torch.no_grad():
        tensor = net(x)[0].exp().reshape(2, 2, 2, 2).numpy()
    assert tensor.sum() == pytest.approx(1)
    assert np.linalg.matrix_rank(tensor.transpose(0, 2, 1, 3).reshape(4, 4), tol=1e-9) == wanted


def test_the_page_says_where_the_bound_fails(tmp_path: Path) -> None:
    results = Results(tmp_path / "depth.json", {"draws": 2, "seed": 1})
    results.values = {
        "4, 2": {"bound": 4, "weights": 26, "deep": [4, 4], "deep, shared": [4, 4], "shallow, 2": [2, 2]}
    }
    assert "The bound holds for every draw." in depth.report(tmp_path / "depth", results).read_text()
    results.values["4, 2"]["deep"] = [3, 4]
    said = depth.report(tmp_path / "depth", results).read_text()
    assert "not reached by every draw of 4, 2" in said
    assert "3 to 4" in said


def test_one_case() -> None:
    ranks = depth.case(4, 3, 2, 1)
    assert ranks["deep"] == [9, 9]
    assert ranks["shallow, 3"] == [3, 3]
