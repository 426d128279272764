"""Cases of Marginalize: both values, both phases."""

from __future__ import annotations

from tests.cases import Case


def net(options: str) -> str:
    return f"""
        layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ dim: 2 dim: 3 dim: 4 dim: 5 }} }} }}
        layer {{ name: "drop" type: "Marginalize" bottom: "x" top: "y" marginalize_param {{ {options} }} }}"""


CASES = [
    Case("marginalize_nan", net("keep_probability: 0.5"), random=True),
    Case("marginalize_zero", net("keep_probability: 0.75 value: ZERO"), random=True),
    Case("marginalize_test_phase", net("value: ZERO"), phase="TEST"),
]
