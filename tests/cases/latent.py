"""Cases of the layers of latent-variable models, of imputation and of generative nets."""

from __future__ import annotations

import torch

from tests.cases import Case
from tests.cases.rendering import inputs, layer

NAN = float("nan")
POSITIVE = torch.tensor([[0.5, 1.0, 2.0, 0.7], [1.5, 0.3, 1.1, 0.9]])
DEGREES = torch.tensor([[3.5, 4.0, 6.0, 3.1], [5.0, 8.0, 3.3, 20.0]])
HOLES = torch.tensor([[0.3, NAN, -1.0, 0.8], [NAN, NAN, 0.1, 2.0]])
WEIGHTS = torch.tensor([[1.0, 0.0, 2.0, 0.5], [1.0, NAN, 0.0, 1.0]])
BITS = torch.tensor([[1.0, 0.0, NAN, 1.0], [0.0, 0.25, 1.0, NAN]])
SIX = torch.linspace(0.4, 2.0, 24).reshape(6, 4)
MANY = torch.linspace(3.2, 9.0, 24).reshape(6, 4)
PLANE = torch.tensor([[1, 0, 1, 0, 1], [1, 0, 0, 1, 1], [0, 0, 0, 1, 0], [1, 0, 0, 1, 1.0]]).expand(
    2, 1, 4, 5
)
VARIANCES = (torch.arange(160.0).reshape(2, 4, 4, 5).cos() + 1.5) / 2
SHARES = torch.tensor([[0.3, 0.7], [0.9, 0.1]])
FILTERS = 'num_output: 3 kernel_size: 3 weight_filler { type: "xavier" } bias_filler { type: "constant" value: 0.1 }'


def case(name: str, kind: str, shapes: str, param: str = "", tops: str = "y", **more: object) -> Case:
    """One layer over inputs; `shapes` as "x=2 4; d=2 4"."""
    sizes = dict(part.strip().split("=") for part in shapes.split(";"))
    text = inputs(**sizes) + layer(kind, " ".join(sizes), param, tops)
    return Case(name, text, **more)  # type: ignore[arg-type]


def sample(options: str) -> str:
    return f"latent_sample_param {{ {options} }}"


def observation(options: str) -> str:
    return f"observation_log_prob_param {{ {options} }}"


def low_rank(options: str, more: str = "") -> str:
    return f"low_rank_gaussian_param {{ {options} }} {more}"


def filters(options: str, more: str = "") -> str:
    return f"convolution_param {{ {FILTERS} {options} }} {more}"


SAMPLES = [
    case("gaussian_sample", "GaussianSample", "mu=2 4; v=2 4", sample("num_samples: 3"), "z q", random=True),
    case("gaussian_sample_one_top", "GaussianSample", "mu=2 4; v=2 4", "", "z", random=True),
    case(
        "gaussian_sample_deviation",
        "GaussianSample",
        "mu=2 4; v=2 4",
        sample("spread: DEVIATION"),
        "z q",
        inputs={"v": POSITIVE},
        random=True,
    ),
    case(
        "gaussian_sample_mean", "GaussianSample", "mu=2 4; v=2 4", sample("mode: MEAN num_samples: 2"), "z q"
    ),
    case(
        "gaussian_sample_test",
        "GaussianSample",
        "mu=2 3 2 2; v=2 3 2 2",
        sample("test_mode: MEAN spread: VARIANCE"),
        "z q",
        phase="TEST",
        inputs={"v": torch.full((2, 3, 2, 2), 0.7)},
    ),
    case(
        "student_t_sample",
        "StudentTSample",
        "l=2 4; s=2 4; df=2 4",
        sample("num_samples: 3"),
        "z q",
        inputs={"s": POSITIVE, "df": DEGREES},
        random=True,
    ),
    case(
        "student_t_sample_mean",
        "StudentTSample",
        "l=2 4; s=2 4; df=2 4",
        sample("mode: MEAN"),
        "z q",
        inputs={"s": POSITIVE, "df": DEGREES},
        gradient=("l", "s", "df"),
    ),
    case("prior_normal", "PriorLogProb", "z=6 4; q=3 2", gradient=("z",)),
    case("prior_samples", "PriorLogProb", "z=6 2 1 2", "prior_log_prob_param { num_samples: 2 }"),
    case("prior_logistic", "PriorLogProb", "z=6 4", "prior_log_prob_param { family: LOGISTIC }"),
    case(
        "prior_mixture",
        "PriorLogProb",
        "z=6 4; q=3 2",
        'prior_log_prob_param { family: MIXTURE components: 3 mean_filler { type: "uniform" min: -1 } }',
        gradient=("z",),
    ),
]

OBSERVATIONS = [
    case("observation_bernoulli", "ObservationLogProb", "l=6 4; x=2 4", inputs={"x": BITS}),
    case(
        "observation_bernoulli_mask",
        "ObservationLogProb",
        "l=2 4; x=2 4; m=2 4",
        inputs={"x": BITS, "m": WEIGHTS},
    ),
    case(
        "observation_gaussian",
        "ObservationLogProb",
        "mu=6 4; s=6 4; x=2 4",
        observation("family: GAUSSIAN floor: 0.01"),
        inputs={"x": HOLES},
    ),
    case(
        "observation_gaussian_planes",
        "ObservationLogProb",
        "mu=4 2 2 2; s=4 8; x=2 2 2 2; m=2 1 2 2",
        observation("family: GAUSSIAN spread: DEVIATION"),
        inputs={
            "s": torch.full((4, 8), 0.7),
            "m": torch.tensor([1, 0, 1, 1, 0, 0, 1, 1.0]).reshape(2, 1, 2, 2),
        },
        gradient=("mu", "s", "x"),
    ),
    case(
        "observation_student_t",
        "ObservationLogProb",
        "l=6 4; s=6 4; df=6 4; x=2 4; m=2 4",
        observation("family: STUDENT_T floor: 0.001"),
        inputs={"s": SIX, "df": MANY, "x": HOLES, "m": WEIGHTS},
        gradient=("l", "s", "df"),
    ),
    case("importance_bound", "ImportanceBound", "w=3 4", tops="loss"),
    case("importance_bound_parts", "ImportanceBound", "l=3 4; p=3 4; q=3 4", tops="loss w b"),
    case("self_normalised_mean", "SelfNormalisedMean", "w=3 2; x=6 2 3"),
    case(
        "importance_resample",
        "ImportanceResample",
        "w=3 2; x=6 2 3",
        "importance_resample_param { num_samples: 4 }",
        random=True,
    ),
    case("learnable_fill", "LearnableFill", "x=2 4", inputs={"x": HOLES}),
    case(
        "learnable_fill_mask",
        "LearnableFill",
        "x=2 3 2 2; m=2 1 2 2",
        'learnable_fill_param { filler { type: "gaussian" } }',
        inputs={"m": torch.tensor([1, 0, 1, NAN, 0, 0, 1, 1.0]).reshape(2, 1, 2, 2)},
        gradient=("x",),
    ),
    case("kl_gaussian", "KLGaussian", "mu=3 4; v=3 4"),
    case("gaussian_kl_loss", "GaussianKLLoss", "m1=3 2 2; s1=3 2 2; m2=3 2 2; s2=3 1 1"),
    case(
        "gaussian_kl_loss_bits",
        "GaussianKLLoss",
        "m1=2 4; s1=2 4; m2=2 4; s2=2 4",
        "gaussian_kl_param { spread: DEVIATION unit: BITS per_value: true }",
        inputs={"s1": POSITIVE, "s2": POSITIVE.flip(0)},
        gradient=("m1", "s1", "m2", "s2"),
    ),
]

DENSITY = "x=2 2 4 5; m=2 1 4 5; mu=2 2 4 5; a=2 4 4 5; d=2 2 4 5"
MIXED = "x=2 2 4 5; m=2 1 4 5; mu=2 4 4 5; a=2 4 4 5; d=2 4 4 5; p=2 2"
KNOWN = {"m": PLANE, "d": VARIANCES[:, :2]}

MISSING = [
    case(
        "misconv",
        "MisConv",
        DENSITY,
        filters("pad: 1", low_rank("factors: 2")),
        inputs=KNOWN,
        gradient=("x", "mu", "a", "d"),
    ),
    case(
        "misconv_mixture",
        "MisConv",
        MIXED,
        filters("stride: 2", low_rank("factors: 1 components: 2")),
        inputs={"m": PLANE, "d": VARIANCES, "p": SHARES},
        gradient=("mu", "a", "d", "p"),
    ),
    case(
        "misconv_legacy",
        "MisConv",
        DENSITY,
        filters("pad: 1", low_rank("factors: 2", "misconv_param { legacy: true }")),
        inputs=KNOWN,
        gradient=("x", "mu", "a", "d"),
    ),
    case(
        "partial_convolution",
        "PartialConvolution",
        "x=2 2 4 5; m=2 1 4 5",
        filters(""),
        "y n",
        inputs={"m": PLANE},
    ),
    case(
        "partial_convolution_channels",
        "PartialConvolution",
        "x=2 2 4 5; m=2 2 4 5",
        filters("pad: 1 stride: 2 bias_term: false"),
        inputs={"m": PLANE.expand(2, 2, 4, 5)},
    ),
    case(
        "low_rank_nll",
        "LowRankGaussianNLL",
        DENSITY,
        low_rank("factors: 2"),
        "loss n",
        inputs=KNOWN,
        gradient=("x", "mu", "a", "d"),
    ),
    case(
        "low_rank_nll_mixture",
        "LowRankGaussianNLL",
        MIXED,
        low_rank("factors: 1 components: 2"),
        "loss",
        inputs={"m": PLANE, "d": VARIANCES, "p": SHARES},
        gradient=("mu", "a", "d", "p"),
    ),
]

GENERATIVE = [
    case("dequantize", "Dequantize", "x=2 4", random=True),
    case("dequantize_centre", "Dequantize", "x=2 4", "dequantize_param { levels: 4 raw: true centre: true }"),
    case(
        "diagonal_scale",
        "DiagonalScale",
        "x=2 2 3",
        'diagonal_scale_param { filler { type: "gaussian" } }',
        "y d",
    ),
    case("diagonal_scale_one_top", "DiagonalScale", "x=2 4"),
    case("logistic_prior", "LogisticPriorLoss", "z=3 4; d=3; e=3", tops="loss l"),
    case("salt_pepper", "SaltPepper", "x=2 4", random=True),
    case("salt_pepper_test", "SaltPepper", "x=2 4", phase="TEST"),
    case(
        "salt_pepper_in_test",
        "SaltPepper",
        "x=2 4",
        "salt_and_pepper_param { in_test: true salt: 1 }",
        phase="TEST",
        random=True,
    ),
    case("bernoulli_sample", "BernoulliSample", "x=2 4", random=True),
    case(
        "bernoulli_sample_straight",
        "BernoulliSample",
        "x=2 4",
        "bernoulli_sample_param { logits: true straight_through: true }",
        random=True,
    ),
    case("orderless_mask", "OrderlessMask", "x=2 5", "", "m w", inputs={"x": torch.eye(2, 5)}, random=True),
    case(
        "orderless_mask_most",
        "OrderlessMask",
        "x=2 1 3 3",
        "orderless_mask_param { least: 2 most: 5 }",
        random=True,
    ),
    case(
        "diffusion_forward",
        "DiffusionForward",
        "x=3 1 2 2",
        "diffusion_forward_param { steps: 20 each_row: true }",
        "y m v t",
        random=True,
    ),
    case("diffusion_forward_batch", "DiffusionForward", "x=3 4", random=True),
    case(
        "diffusion_reverse",
        "DiffusionReverse",
        "x=2 4; m=2 4; b=2 4; t=2",
        "diffusion_forward_param { steps: 20 }",
        "mean variance",
        inputs={"t": torch.tensor([1.0, 19.0])},
    ),
    case(
        "temporal_readout",
        "TemporalReadout",
        "x=2 6 2; t=2",
        "temporal_readout_param { bumps: 3 steps: 20 }",
        inputs={"t": torch.tensor([0.0, 13.0])},
    ),
]

CASES = [*SAMPLES, *OBSERVATIONS, *MISSING, *GENERATIVE]
