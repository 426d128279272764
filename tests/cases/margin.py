"""Cases of scores with a margin."""

from __future__ import annotations

from tests.cases import Case
from tests.cases.loss import FOUR, text


def margin(kind: str, tops: str = "y", shape: tuple[int, ...] = (4, 3)) -> str:
    """Weights are not learned: their gradient is the published one, not the derivative."""
    param = f'num_output: 5 type: {kind} base: 3 lambda_min: 0.5 weight_filler {{ type: "gaussian" std: 1 }}'
    return text(
        f"MarginInnerProduct param {{ lr_mult: 0 }} margin_inner_product_param {{ {param} }}",
        tops=tops, x=shape, label=(4,),
    )  # fmt: skip


CASES = [
    Case("margin_single", margin("SINGLE"), inputs={"label": FOUR}),
    Case("margin_double", margin("DOUBLE", "y mix"), inputs={"label": FOUR}, gradient=()),
    Case("margin_triple", margin("TRIPLE", "y mix"), inputs={"label": FOUR}, gradient=()),
    Case("margin_quadruple", margin("QUADRUPLE", "y mix", (4, 3, 2)), inputs={"label": FOUR}, gradient=()),
]
