"""Cases of Noise and of the layers that make blobs."""

from __future__ import annotations

from tests.cases import Case
from tests.cases.pointwise import net

SHAPE = "shape { dim: 2 dim: 3 dim: 4 dim: 5 }"


def made(filler: str, shape: str = SHAPE, tops: str = 'top: "y"') -> str:
    param = f"dummy_data_param {{ data_filler {{ {filler} }} {shape} }}"
    return f'layer {{ name: "made" type: "DummyData" {tops} {param} }}'


def noisy(options: str) -> str:
    return net("Noise", f"noise_param {{ {options} }}")


ONE = 'mul_noise_filler { type: "constant" value: 1 }'
KEEP = 'mul_noise_filler { type: "bernoulli" non_zero_probability: 0.8 }'
BLUR = 'add_noise_filler { type: "gaussian" mean: 0.5 std: 0.1 }'

CASES = [
    Case("dummy_constant", made('type: "constant" value: 2'), gradient=()),
    Case("dummy_missing", made('type: "constant" value: nan'), gradient=()),
    Case(
        "dummy_default",
        'layer { name: "z" type: "DummyData" top: "y" dummy_data_param { shape { dim: 3 } } }',
        gradient=(),
    ),
    Case("dummy_legacy_shape", made('type: "uniform"', "num: 2 channels: 3 height: 1 width: 2"), random=True),
    Case("dummy_uniform", made('type: "uniform" min: -1 max: 2'), random=True),
    Case("dummy_gaussian", made('type: "gaussian" mean: 1 std: 3'), random=True),
    Case("dummy_sparse", made('type: "gaussian" sparse: 1'), random=True),
    Case("dummy_bernoulli", made('type: "bernoulli" non_zero_probability: 0.7'), random=True),
    Case("dummy_bernoulli_range", made('type: "bernoulli" use_range: true min: 0.2 max: 0.6'), random=True),
    Case("dummy_bernoulli_log", made('type: "bernoulli" to_log: true fudge_factor: -1e6'), random=True),
    Case("dummy_xavier", made('type: "xavier"'), random=True),
    Case("dummy_dirichlet", made('type: "dirichlet" to_log: true'), random=True),
    Case(
        "dummy_rects", made('type: "rects" min_rects: 1 max_rects: 2 min_width: 1 max_width: 3'), random=True
    ),
    Case("dummy_two_tops", made('type: "uniform"', tops='top: "y" top: "z"'), random=True),
    Case(
        "dummy_mixed",
        """
        layer { name: "made" type: "DummyData" top: "y" top: "z"
          dummy_data_param { data_filler { type: "constant" value: 1 } data_filler { type: "gaussian" }
                             shape { dim: 2 } shape { dim: 3 dim: 1 } } }""",
        random=True,
    ),
    Case(
        "parameter",
        """
        layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
        layer { name: "p" type: "Parameter" top: "p" parameter_param { shape { dim: 2 dim: 3 } } }
        layer { name: "product" type: "Eltwise" bottom: "x" bottom: "p" top: "y"
          eltwise_param { operation: PROD } }""",
    ),
    Case("noise_train", noisy(f"{KEEP} {BLUR}"), random=True),
    Case(
        "noise_train_centred",
        noisy(f"{KEEP} {BLUR} offset_mul_mean: true offset_add_mean: true"),
        random=True,
    ),
    Case("noise_train_uniform", noisy(f'{ONE} add_noise_filler {{ type: "uniform" }}'), random=True),
    Case("noise_test", noisy(f"{KEEP} {BLUR}"), phase="TEST"),
    Case(
        "noise_test_centred",
        noisy(f"{KEEP} {BLUR} offset_mul_mean: true offset_add_mean: true"),
        phase="TEST",
    ),
    Case("noise_test_forced", noisy(f"{KEEP} {BLUR} force_random: true"), phase="TEST", random=True),
    Case("noise_constant", noisy(f'{ONE} add_noise_filler {{ type: "constant" value: 0.3 }}')),
]
