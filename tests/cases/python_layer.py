"""Cases of Python layers; their classes are in tests/python_layers.py."""

from __future__ import annotations

from netspec.layers.consent import allow_python
from tests.cases import Case
from tests.cases.pointwise import net
from tests.cases.shape import several

allow_python()


def python(layer: str, options: str = "") -> str:
    return f'python_param {{ module: "tests.python_layers" layer: "{layer}" {options} }}'


AFFINE = python("Affine", """param_str: '{"factor": 2, "first": 0.5}'""")

CASES = [
    Case(
        "python_loss",
        several("Python", "loss_weight: 1 " + python("SquaredDistance"), (3, 4), (3, 4)),
        compiles=False,
        exports=False,
    ),
    Case("python_blobs", net("Python", AFFINE), compiles=False, exports=False),
]
