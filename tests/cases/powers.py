"""Cases of Power, Exp and Log."""

from __future__ import annotations

import torch

from tests.cases import Case
from tests.cases.pointwise import net

MASK = {"x": torch.tensor([[0.0, 1.0, 1.0, 0.0]])}
POSITIVE = {"x": torch.linspace(0.2, 3, 24).view(2, 3, 4)}

CASES = [
    Case("power_default", net("Power")),
    Case("power_affine", net("Power", "power_param { scale: 2 shift: 0.5 }")),
    Case("power_square", net("Power", "power_param { power: 2 scale: -1.5 shift: 0.5 }")),
    Case(
        "power_half",
        net("Power", "power_param { power: 0.5 scale: 2 shift: 1 }"),
        inputs=POSITIVE,
        gradient=("x",),
    ),
    Case("power_cube", net("Power", "power_param { power: 3 }")),
    Case("power_negative", net("Power", "power_param { power: -1 }"), inputs=POSITIVE, gradient=("x",)),
    Case("power_zero", net("Power", "power_param { power: 0 }"), gradient=()),
    Case("power_scale_zero", net("Power", "power_param { power: 2 scale: 0 shift: 3 }"), gradient=()),
    Case(
        "power_mask_to_missing",
        net("Power", "power_param { power: 0.5 shift: -1 }", (1, 4)),
        inputs=MASK,
        gradient=(),
    ),
    Case("exp", net("Exp", "exp_param { scale: 0.5 shift: 1 }")),
    Case("exp_base", net("Exp", "exp_param { base: 2 }")),
    Case("log", net("Log", "log_param { scale: 2 shift: 1 }"), inputs=POSITIVE, gradient=("x",)),
    Case("log_base", net("Log", "log_param { base: 10 }"), inputs=POSITIVE, gradient=("x",)),
]
