"""Cases of Convolution, its depthwise forms, Deconvolution and Im2col."""

from __future__ import annotations

from tests.cases import Case


def case(name: str, kind: str, shape: str, param: str, *, two: bool = False) -> Case:
    """One layer of type `kind` on a normal bottom of the given sizes (or on two of them)."""
    dims = " ".join(f"dim: {n}" for n in shape.split())
    tops = 'top: "a" top: "b"' if two else 'top: "a"'
    ends = 'bottom: "a" bottom: "b" top: "ya" top: "yb"' if two else 'bottom: "a" top: "y"'
    filler = (
        "" if kind == "Im2col" else ' weight_filler { type: "gaussian" } bias_filler { type: "gaussian" }'
    )
    return Case(
        name,
        f'layer {{ name: "in" type: "Input" {tops} input_param {{ shape {{ {dims} }} }} }}\n'
        f'layer {{ name: "c" type: "{kind}" {ends} convolution_param {{ {param}{filler} }} }}',
    )


CASES = [
    case("convolution_basic", "Convolution", "2 3 7 6", "num_output: 4 kernel_size: 3"),
    case(
        "convolution_group_stride_pad",
        "Convolution",
        "2 4 6 5",
        "num_output: 4 kernel_size: 3 group: 2 stride: 2 pad: 1",
    ),
    case(
        "convolution_pairs",
        "Convolution",
        "1 2 6 7",
        "num_output: 3 kernel_h: 2 kernel_w: 4 stride_h: 2 stride_w: 1 pad_h: 0 pad_w: 2",
    ),
    case("convolution_dilated", "Convolution", "1 2 9 8", "num_output: 3 kernel_size: 3 dilation: 2 pad: 2"),
    case("convolution_0d", "Convolution", "2 3 4", "num_output: 2 axis: 2"),
    case("convolution_1d", "Convolution", "2 2 9", "num_output: 3 kernel_size: 3 stride: 2 pad: 1"),
    case(
        "convolution_3d",
        "Convolution",
        "1 2 4 5 4",
        "num_output: 2 kernel_size: 2 kernel_size: 3 kernel_size: 2 pad: 1",
    ),
    case(
        "convolution_4d",
        "Convolution",
        "1 2 3 3 4 3",
        "num_output: 2 kernel_size: 2 group: 2 pad: 1 stride: 2",
    ),
    case("convolution_axis0", "Convolution", "3 5 4", "num_output: 2 kernel_size: 2 axis: 0"),
    case("convolution_axis2", "Convolution", "2 3 2 5 4", "num_output: 3 kernel_size: 2 axis: 2"),
    case("convolution_two_bottoms", "Convolution", "2 2 5 6", "num_output: 3 kernel_size: 3", two=True),
    case(
        "convolution_normalized",
        "Convolution",
        "2 2 5 5",
        "num_output: 3 kernel_size: 3 pad: 1 normalize_patches: true",
    ),
    case(
        "convolution_normalized_mean_only",
        "Convolution",
        "1 3 4 4",
        "num_output: 2 kernel_size: 1 normalize_patches: true normalize_variance: false",
    ),
    case(
        "depthwise",
        "DepthwiseConvolution",
        "2 3 5 5",
        "kernel_size: 3 pad: 1 stride: 2 num_output: 6 group: 3",
    ),
    case(
        "depthwise_without_num_output", "ConvolutionDepthwise", "2 4 5 5", "kernel_size: 3 bias_term: false"
    ),
    case("deconvolution_basic", "Deconvolution", "2 3 4 3", "num_output: 2 kernel_size: 4 stride: 2 pad: 1"),
    case(
        "deconvolution_group_dilated",
        "Deconvolution",
        "1 4 4 3",
        "num_output: 2 kernel_size: 3 group: 2 dilation: 2",
    ),
    case(
        "deconvolution_round_up",
        "Deconvolution",
        "1 2 3 4",
        "num_output: 2 kernel_size: 3 stride: 2 pad: 1 round_up_output_dims: true",
    ),
    case("deconvolution_0d", "Deconvolution", "2 3 4", "num_output: 2 axis: 2"),
    case("deconvolution_1d", "Deconvolution", "2 2 5", "num_output: 3 kernel_size: 3 stride: 2"),
    case("deconvolution_3d", "Deconvolution", "1 2 3 3 2", "num_output: 2 kernel_size: 2 stride: 2"),
    case(
        "deconvolution_4d",
        "Deconvolution",
        "1 2 2 3 2 2",
        "num_output: 2 kernel_size: 2 stride: 2 group: 2 pad: 1 round_up_output_dims: true",
    ),
    case("im2col_basic", "Im2col", "2 2 5 6", "kernel_size: 3 stride: 2 pad: 1"),
    case("im2col_3d", "Im2col", "1 2 3 4 3", "kernel_size: 2 dilation: 1 pad: 1"),
]
