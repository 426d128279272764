"""Cases of sums, products and maxima, and of choosing items of a batch."""

from __future__ import annotations

import torch

from tests.cases import Case
from tests.cases.pointwise import net
from tests.cases.shape import several

SAME = ((2, 3, 4),) * 3


def eltwise(options: str) -> str:
    return several("Eltwise", f"eltwise_param {{ {options} }}", *SAME)


def reduction(options: str) -> str:
    return net("Reduction", f"reduction_param {{ {options} }}", (2, 3, 4))


def argmax(options: str, shape: tuple[int, ...] = (2, 5, 3, 2)) -> str:
    return net("ArgMax", f"argmax_param {{ {options} }}", shape)


ITEMS = {"b": torch.tensor([2.0, 0.0, 0.0])}
TIES = {"x": torch.tensor([[1.0, 3.0, 3.0, 0.0, 1.0], [2.0, 2.0, 2.0, 2.0, 2.0]])}
FILTER = several("Filter", 'top: "z"', (3, 2), (3, 4, 1), (3,))

CASES = [
    Case("eltwise_sum", eltwise("")),
    Case("eltwise_sum_coeff", eltwise("coeff: 1 coeff: -2 coeff: 0.5")),
    Case("eltwise_prod", eltwise("operation: PROD")),
    Case("eltwise_prod_unstable", eltwise("operation: PROD stable_prod_grad: false")),
    Case("eltwise_max", eltwise("operation: MAX")),
    Case("eltwise_one", several("Eltwise", "eltwise_param { coeff: 0.25 }", (2, 3))),
    Case("eltwise_one_max", several("Eltwise", "eltwise_param { operation: MAX }", (2, 3))),
    Case("axpy", several("Axpy", "", (2, 3, 1, 1), (2, 3, 2, 4), (2, 3, 2, 4))),
    Case("axpy_flat_scale", several("Axpy", "", (2, 3), (2, 3, 2, 4), (2, 3, 2, 4))),
    Case("reduction_sum", reduction("")),
    Case("reduction_asum", reduction("operation: ASUM axis: 1 coeff: 2")),
    Case("reduction_sumsq", reduction("operation: SUMSQ axis: -1")),
    Case("reduction_mean", reduction("operation: MEAN axis: 1 coeff: -1")),
    Case("argmax", argmax(""), gradient=()),
    Case("argmax_top_k", argmax("top_k: 3", (2, 5)), gradient=()),
    Case("argmax_ties", argmax("top_k: 4", (2, 5)), inputs=TIES, gradient=()),
    Case("argmax_values", argmax("top_k: 2 out_max_val: true", (2, 5)), gradient=()),
    Case("argmax_axis", argmax("axis: 1 top_k: 2"), gradient=()),
    Case("argmax_axis_values", argmax("axis: -1 out_max_val: true"), gradient=()),
    Case("batch_reindex", several("BatchReindex", "", (4, 2, 3), (3,)), inputs=ITEMS, gradient=("a",)),
    Case("filter", FILTER, inputs={"c": torch.ones(3)}, gradient=("a", "b"), compiles=False, exports=False),
]
