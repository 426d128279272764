"""Cases of LRN, DivNorm, MVN, Normalize, BatchNorm and BN."""

from __future__ import annotations

from tests.cases import Case


def case(name: str, kind: str, shape: str, param: str = "", **more: object) -> Case:
    """One layer of type `kind` on a normal bottom x of the given sizes."""
    dims = " ".join(f"dim: {n}" for n in shape.split())
    return Case(
        name,
        f'layer {{ name: "in" type: "Input" top: "x" input_param {{ shape {{ {dims} }} }} }}\n'
        f'layer {{ name: "n" type: "{kind}" bottom: "x" top: "y" {param} }}',
        **more,  # type: ignore[arg-type]
    )


FILLERS = 'slope_filler { type: "gaussian" std: 1 } bias_filler { type: "gaussian" std: 1 }'
OLD_FILLERS = 'scale_filler { type: "gaussian" std: 1 } shift_filler { type: "gaussian" std: 1 }'
NVIDIA = 'scale_filler { type: "gaussian" std: 1 } bias_filler { type: "gaussian" std: 1 } eps: 0.1'

CASES = [
    case("lrn_across", "LRN", "2 7 3 2", "lrn_param { local_size: 5 alpha: 0.5 beta: 0.75 }"),
    case("lrn_across_2d", "LRN", "3 4", "lrn_param { local_size: 3 alpha: 0.5 beta: 0.5 k: 2 }"),
    case("lrn_wider_than_bottom", "LRN", "2 3 2 2", "lrn_param { local_size: 9 alpha: 0.5 beta: 1 }"),
    case("lrn_other_power", "LRN", "2 4 2 2", "lrn_param { local_size: 3 alpha: 0.5 beta: 0.6 }"),
    case(
        "lrn_within", "LRN", "2 2 5 4", "lrn_param { local_size: 3 alpha: 0.7 norm_region: WITHIN_CHANNEL }"
    ),
    case("div_norm", "DivNorm", "2 3 4 3"),
    case(
        "div_norm_fillers",
        "DivNorm",
        "2 2 3 5",
        'div_norm_param { kernel_size: 5 alpha_filler { type: "constant" value: 0.3 } '
        'sigma_filler { type: "constant" value: 2 } bias_filler { type: "constant" value: -0.4 } }',
    ),
    case("mvn", "MVN", "2 3 3 4"),
    case("mvn_across", "MVN", "2 3 2 3", "mvn_param { across_channels: true }"),
    case("mvn_mean_only", "MVN", "2 3 4", "mvn_param { normalize_variance: false }"),
    case("normalize_across_spatial", "Normalize", "2 3 2 2"),
    case(
        "normalize_each_position",
        "Normalize",
        "2 3 2 2",
        "norm_param { across_spatial: false channel_shared: false }",
    ),
    case("batch_norm_train", "BatchNorm", "4 3 3 2"),
    case(
        "batch_norm_train_2d",
        "BatchNorm",
        "6 4",
        "batch_norm_param { moving_average_fraction: 0.9 eps: 0.1 }",
    ),
    case("batch_norm_train_1d", "BatchNorm", "6"),
    case("batch_norm_one_value", "BatchNorm", "1 3"),
    case("batch_norm_test", "BatchNorm", "4 3 3 2", phase="TEST"),
    case("batch_norm_global", "BatchNorm", "4 3 3 2", "batch_norm_param { use_global_stats: true }"),
    case("batch_norm_nvidia", "BatchNorm", "4 3 3 2", "batch_norm_param { scale_bias: true }"),
    case("batch_norm_nvidia_fillers", "BatchNorm", "4 3 2 2", f"batch_norm_param {{ {NVIDIA} }}"),
    case("batch_norm_nvidia_test", "BatchNorm", "4 3", f"batch_norm_param {{ {NVIDIA} }}", phase="TEST"),
    case("bn_segnet", "BN", "4 3 2 2", f"bn_param {{ {OLD_FILLERS} }}"),
    case(
        "bn_segnet_inference",
        "BN",
        "4 3 2 2",
        f"bn_param {{ {OLD_FILLERS} bn_mode: INFERENCE }}",
        phase="TEST",
    ),
    case("bn_pspnet", "BN", "4 3 2 2", f"bn_param {{ {FILLERS} momentum: 0.95 }}"),
    case("bn_pspnet_frozen", "BN", "4 3 2 2", f"bn_param {{ {FILLERS} frozen: true }}", gradient=("x",)),
    case("bn_pspnet_test", "BN", "4 3 2 2", f"bn_param {{ {FILLERS} eps: 1 }}", phase="TEST"),
    case("bn_yjxiong_parallel", "BN", "4 3 2 2", f"bn_param {{ {FILLERS} moving_average: true }}"),
    case("bn_yjxiong", "BN", "4 3 2 2", f"bn_param {{ {OLD_FILLERS} decay: 0.1 axis: 2 }}"),
]
