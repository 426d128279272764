"""Values of layers that golden vectors do not reach, random ones among them, and errors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.ndimage import affine_transform
from torch import Tensor

from netspec import schema
from netspec.errors import SpecError
from netspec.layers.rendering.random_affine import RandomAffine
from netspec.net.make import make_net
from netspec.net.net import Net

nan = float("nan")


def net(kind: str, options: str, *shapes: Sequence[int], phase: str = "TRAIN", tops: str = "y") -> Net:
    """Inputs a, b, ... of the given shapes through one layer."""
    names = "abcdef"[: len(shapes)]
    text = ""
    for name, shape in zip(names, shapes, strict=True):
        dims = " ".join(f"dim: {size}" for size in shape)
        text += (
            f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ {dims} }} }} }}\n'
        )
    ends = " ".join(f'bottom: "{name}"' for name in names) + " ".join(f' top: "{top}"' for top in tops)
    text += f'layer {{ name: "layer" type: "{kind}" {ends} {options} }}'
    return make_net(schema.parse_net(text, "test.prototxt"), phase, seed=1)


def apply(kind: str, options: str, *bottoms: Tensor, phase: str = "TRAIN") -> Tensor:
    (top,) = net(kind, options, *(tuple(bottom.shape) for bottom in bottoms), phase=phase)(*bottoms)
    assert isinstance(top, Tensor)
    return top


def made(filler: str, shape: str = "dim: 100 dim: 100") -> Net:
    return net("DummyData", f"dummy_data_param {{ data_filler {{ {filler} }} shape {{ {shape} }} }}")


def arange(*shape: int) -> Tensor:
    return torch.arange(float(torch.tensor(shape).prod())).view(shape)


def test_random_affine_is_a_linear_map_of_places() -> None:
    """Against scipy, for the maps that were drawn; NaN where asked comes in from outside."""
    options = "rotation: 20 scale: 0.3 shear: 0.2 shift_x: 2 shift_y: 1 out_of_bounds_value: -3"
    made = net("RandomAffine", f"random_affine_param {{ {options} }}", (5, 2, 9, 12))
    layer = made.made[-1]
    assert isinstance(layer, RandomAffine)
    x = torch.randn(5, 2, 9, 12)
    torch.manual_seed(3)
    y = made(x)[0]
    torch.manual_seed(3)
    size = np.array([9, 12])
    for image, moved, map_ in zip(x, y, layer.draws(x).double().numpy(), strict=True):
        matrix = map_[::-1, 1::-1] * size[:, None] / size  # of rows and columns, in pixels
        shift = map_[::-1, 2] * size / 2
        middle = (size - 1) / 2
        for channel, of_layer in zip(image, moved, strict=True):
            padded = np.pad(channel, 6, constant_values=-3)  # scipy's own border is half as wide
            expected = affine_transform(
                padded, matrix, middle + 6 - matrix @ middle + shift, (9, 12), order=1, cval=-3
            )
            np.testing.assert_allclose(of_layer, expected, atol=1e-4)


def test_random_affine_draws_what_its_options_say() -> None:
    def maps(options: str) -> Tensor:
        layer = net("RandomAffine", f"random_affine_param {{ {options} }}", (4000, 1, 6, 6)).made[-1]
        assert isinstance(layer, RandomAffine)
        return layer.draws(torch.zeros(4000, 1, 6, 6))

    turned = maps("rotation: 30")
    angles = torch.atan2(turned[:, 1, 0], turned[:, 0, 0]).rad2deg()
    assert stats.kstest(angles, stats.uniform(-30, 60).cdf).pvalue > 1e-3
    torch.testing.assert_close(torch.linalg.det(turned[:, :, :2]), torch.ones(4000))
    sizes = maps("scale: 0.5")[:, 0, 0].log()
    assert stats.kstest(sizes, stats.uniform(-np.log(1.5), 2 * np.log(1.5)).cdf).pvalue > 1e-3
    sheared = maps("shear: 0.4")
    assert stats.kstest(sheared[:, 0, 1], stats.uniform(-0.4, 0.8).cdf).pvalue > 1e-3
    assert (sheared[:, 1, 0] == 0).all()
    moved = maps("shift_x: 3 shift_y: 1")[:, :, 2] * 3
    for axis, most in ((0, 3), (1, 1)):
        assert stats.kstest(moved[:, axis], stats.uniform(-most, 2 * most).cdf).pvalue > 1e-3


def test_random_affine_turns_images_that_are_not_square() -> None:
    """In pixels a turn keeps lengths and angles, whatever the sides."""
    layer = net("RandomAffine", "random_affine_param { rotation: 40 }", (50, 1, 6, 10)).made[-1]
    assert isinstance(layer, RandomAffine)
    sides = torch.tensor([10.0, 6.0])
    turns = layer.draws(torch.zeros(50, 1, 6, 10))[:, :, :2] * sides[:, None] / sides
    torch.testing.assert_close(turns @ turns.mT, torch.eye(2).expand(50, 2, 2))


@pytest.mark.parametrize("wrong", ["rotation: -1", "scale: -0.1", "shear: inf", "shift_y: nan"])
def test_random_affine_needs_sizes(wrong: str) -> None:
    with pytest.raises(SpecError, match=f"{wrong.split(':')[0]} must be 0 or more"):
        net("RandomAffine", f"random_affine_param {{ {wrong} }}", (1, 1, 3, 3))


# Random layers


@pytest.mark.parametrize(
    ("filler", "mean", "std", "least", "most"),
    [
        ('type: "uniform" min: -1 max: 3', 1, 4 / 12**0.5, -1, 3),
        ('type: "gaussian" mean: 2 std: 0.5', 2, 0.5, -1, 5),
        ('type: "bernoulli" non_zero_probability: 0.8', 0.8, 0.4, 0, 1),
        ('type: "bernoulli" non_zero_probability: 0.8 to_log: true fudge_factor: -100', -20, 40, -100, 0),
        ('type: "constant" value: 3', 3, 0, 3, 3),
    ],
)
def test_dummy_data_has_the_fillers_distribution(
    filler: str, mean: float, std: float, least: float, most: float
) -> None:
    torch.manual_seed(0)
    (y,) = made(filler)()
    assert float(y.mean()) == pytest.approx(mean, abs=5 * std / 100 + 1e-6)
    assert float(y.std()) == pytest.approx(std, rel=0.05, abs=1e-6)
    assert least <= float(y.min())
    assert float(y.max()) <= most


@pytest.mark.parametrize("kind", ["uniform", "gaussian", "bernoulli", "xavier", "dirichlet"])
@pytest.mark.parametrize("compiled", [False, True])
def test_dummy_data_is_drawn_anew_and_can_be_seeded(kind: str, compiled: bool) -> None:
    made_net = made(f'type: "{kind}"')
    torch.compiler.reset()
    call = torch.compile(made_net, backend="aot_eager", fullgraph=True) if compiled else made_net
    torch.manual_seed(5)
    first, second = call()[0].clone(), call()[0].clone()
    assert not torch.equal(first, second)
    torch.manual_seed(5)
    assert torch.equal(call()[0], first)


def test_equal_draws_of_two_tops_differ_under_a_compiler() -> None:
    options = (
        'dummy_data_param { data_filler { type: "rects" min_rects: 1 max_rects: 1 min_width: 3 max_width: 3 }'
    )
    both = net("DummyData", options + " shape { dim: 1 dim: 1 dim: 64 dim: 64 } }", tops="yz")
    torch.compiler.reset()
    y, z = torch.compile(both, backend="aot_eager", fullgraph=True)()
    assert float(y.sum()) == 9
    assert not torch.equal(y, z)


def test_bernoulli_range_draws_one_probability_a_forward() -> None:
    torch.manual_seed(0)
    made_net = made('type: "bernoulli" use_range: true min: 0.2 max: 0.6')
    rates = torch.stack([made_net()[0].mean() for _ in range(50)])
    assert 0.18 < float(rates.min()) < 0.3
    assert 0.5 < float(rates.max()) < 0.62


def test_made_blobs_follow_the_nets_dtype() -> None:
    assert made('type: "gaussian"').double()()[0].dtype == torch.float64


def test_noise_has_the_mean_that_test_uses() -> None:
    torch.manual_seed(0)
    options = (
        'noise_param { mul_noise_filler { type: "bernoulli" non_zero_probability: 0.3 }'
        ' add_noise_filler { type: "uniform" min: 1 max: 2 } }'
    )
    x = torch.ones(200, 200)
    (train,) = net("Noise", options, (200, 200))(x)
    (test,) = net("Noise", options, (200, 200), phase="TEST")(x)
    assert torch.allclose(test, torch.tensor(1.8))
    assert float(train.mean()) == pytest.approx(1.8, abs=0.02)


def test_noise_strict_means_of_logarithms() -> None:
    filler = "noise_param { mul_noise_filler { value: 1 } add_noise_filler { value: 0.5 to_log: true } }"
    x = torch.zeros(3)
    assert torch.allclose(apply("Noise", filler, x, phase="TEST"), torch.tensor(0.5))
    assert torch.allclose(apply("Noise", f"strict: true {filler}", x, phase="TEST"), torch.tensor(0.5).log())


def test_dropout_keeps_the_mean_and_what_is_missing() -> None:
    torch.manual_seed(0)
    x = torch.ones(200, 200)
    x[0] = nan
    y = apply("Dropout", "dropout_param { dropout_ratio: 0.2 }", x)
    assert y[0].isnan().all()
    assert float(y[1:].mean()) == pytest.approx(1, abs=0.02)
    assert set(y[1:].unique().tolist()) == {0.0, 1.25}


def test_random_translation_is_one_shift_for_all_bottoms() -> None:
    torch.manual_seed(0)
    a, b = torch.zeros(2, 1, 7, 7), torch.zeros(3, 2, 7, 7)
    a[:, :, 3, 3] = 1
    b[:, :, 3, 3] = 1
    shifting = net(
        "Translation", "translation_param { random: true shift_x: 2 shift_y: 1 }", a.shape, b.shape, tops="yz"
    )
    seen = set()
    for _ in range(200):
        y, z = shifting(a, b)
        places = {tuple(place) for top in (y, z) for place in top.nonzero()[:, 2:].tolist()}
        assert len(places) == 1
        seen |= places
    assert seen == {(h, w) for h in (2, 3, 4) for w in (1, 2, 3, 4, 5)}


# Values


def test_translation_equals_its_definition() -> None:
    x = torch.randn(2, 3, 4, 5)
    y = apply("Translation", "translation_param { shift_x: -2 shift_y: 1 out_of_bounds_value: 9 }", x)
    for h in range(4):
        for w in range(5):
            inside = h - 1 >= 0 and w + 2 < 5
            assert torch.equal(y[:, :, h, w], x[:, :, h - 1, w + 2] if inside else torch.full((2, 3), 9.0))


def darknet_reorg(x: Tensor, s: int) -> Tensor:
    """Darknet's loop over flat indices."""
    n, c, h, w = x.shape
    flat, out = x.flatten(), torch.empty(x.numel())
    small = c // (s * s)
    for b in range(n):
        for k in range(c):
            for j in range(h):
                for i in range(w):
                    inner, offset = k % small, k // small
                    column, row = i * s + offset % s, j * s + offset // s
                    out[i + w * (j + h * (k + c * b))] = flat[
                        column + w * s * (row + h * s * (inner + small * b))
                    ]
    return out.view(n, c * s * s, h // s, w // s)


def test_reorg_equals_darknets_loop_and_is_undone_by_reverse() -> None:
    x = arange(2, 8, 4, 6)
    y = apply("Reorg", "reorg_param { stride: 2 }", x)
    assert torch.equal(y, darknet_reorg(x, 2))
    back = apply("Reorg", "reorg_param { stride: 2 reverse: true }", arange(1, 8, 2, 3))
    assert back.shape == (1, 2, 4, 6)
    assert back.flatten().unique().numel() == 48


def test_shuffle_channel_equals_its_definition() -> None:
    x = arange(1, 6, 1, 2)
    y = apply("ShuffleChannel", "shuffle_channel_param { group: 2 }", x)
    assert y[0, :, 0, 0].tolist() == [x[0, c, 0, 0] for c in (0, 3, 1, 4, 2, 5)]


def bilinear(image: Tensor, row: float, column: float) -> float:
    """The image between pixels, 0 outside."""
    total = 0.0
    for m in range(image.shape[0]):
        for n in range(image.shape[1]):
            weight = max(0.0, 1 - abs(row - m)) * max(0.0, 1 - abs(column - n))
            total += weight * float(image[m, n])
    return total


def test_spatial_transformer_equals_its_definition() -> None:
    torch.manual_seed(0)
    x, theta = torch.randn(2, 1, 4, 5), torch.randn(2, 6) * 0.3 + torch.tensor([1.0, 0, 0, 0, 1, 0])
    y = apply("SpatialTransformer", "st_param { output_H: 3 output_W: 4 }", x, theta)
    for b in range(2):
        a = theta[b].tolist()
        for i in range(3):
            for j in range(4):
                p, q = 2 * i / 3 - 1, 2 * j / 4 - 1
                row = (a[0] * p + a[1] * q + a[2] + 1) / 2 * 4
                column = (a[3] * p + a[4] * q + a[5] + 1) / 2 * 5
                assert float(y[b, 0, i, j]) == pytest.approx(bilinear(x[b, 0], row, column), abs=1e-5)


def test_identity_transform_gives_the_image_back() -> None:
    x = torch.randn(1, 2, 4, 5)
    y = apply("SpatialTransformer", "", x, torch.tensor([[1.0, 0, 0, 0, 1, 0]]))
    torch.testing.assert_close(y, x)


def test_interp_puts_corners_on_corners() -> None:
    x = torch.randn(1, 1, 3, 4)
    y = apply("Interp", "interp_param { zoom_factor: 2 }", x)
    assert y.shape == (1, 1, 5, 7)
    torch.testing.assert_close(y[:, :, ::2, ::2], x)
    torch.testing.assert_close(y[0, 0, 0, 1], (x[0, 0, 0, 0] + x[0, 0, 0, 1]) / 2)


def test_upsample_repeats_pixels_or_puts_them_back() -> None:
    x = arange(1, 1, 2, 2)
    assert apply("Upsample", "", x).tolist() == [[[[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]]]
    pooled, mask = torch.nn.functional.max_pool2d(torch.randn(2, 3, 4, 6), 2, return_indices=True)
    torch.testing.assert_close(
        apply("Upsample", "", pooled, mask.float()), torch.nn.functional.max_unpool2d(pooled, mask, 2)
    )


def test_the_factor_of_upsample_goes_with_blocks_and_masks() -> None:
    pooled, mask = torch.nn.functional.max_pool2d(torch.randn(2, 3, 4, 6), 2, return_indices=True)
    for bottoms in ((pooled,), (pooled, mask.float())):
        once, thrice = (
            apply("Upsample", f"upsample_param {{ stride: 2 {scale} }}", *bottoms)
            for scale in ("", "scale: 3")
        )
        torch.testing.assert_close(thrice, 3 * once)


def test_filter_drops_items_and_their_gradient() -> None:
    x = torch.randn(4, 2, requires_grad=True)
    filtering = net("Filter", "", (4, 2), (4, 1))
    (y,) = filtering(x, torch.tensor([[0.0], [2.0], [nan], [0.0]]))
    assert torch.equal(y, x[1:3])
    y.sum().backward()
    assert x.grad is not None
    assert x.grad[:, 0].tolist() == [0, 1, 1, 0]


def test_maximum_gives_ties_to_one_bottom() -> None:
    bottoms = [torch.ones(3, requires_grad=True) for _ in range(3)]
    (y,) = net("Eltwise", "eltwise_param { operation: MAX }", (3,), (3,), (3,))(*bottoms)
    y.sum().backward()
    assert [None if b.grad is None else float(b.grad.sum()) for b in bottoms] == [0, 3, 0]


def test_arg_max_gives_the_larger_index_first() -> None:
    x = torch.tensor([[1.0, 3, 3, 0, 1], [2, 2, 2, 2, 2]])
    y = apply("ArgMax", "argmax_param { top_k: 3 out_max_val: true }", x)
    assert y.tolist() == [[[2, 1, 4], [3, 3, 1]], [[4, 3, 2], [2, 2, 2]]]


def test_one_hot_of_missing_and_impossible_indices() -> None:
    y = apply("OneHot", "one_hot_param { input_dim: 2 }", torch.tensor([[nan], [5.0], [-0.4], [0.5]]))
    assert y[0].isnan().all()
    assert y[1:].tolist() == [[0, 0], [1, 0], [0, 1]]


@pytest.mark.parametrize(
    "kind", ["ReLU", "ReLU6", "PReLU", "ELU", "Sigmoid", "TanH", "BNLL", "AbsVal", "Swish"]
)
def test_missing_values_stay_missing(kind: str) -> None:
    x = torch.tensor([[nan, 1.0, -1.0]])
    assert apply(kind, "", x).isnan().tolist() == [[True, False, False]]


def test_power_makes_missing_values_of_a_mask() -> None:
    y = apply("Power", "power_param { power: 0.5 shift: -1 }", torch.tensor([0.0, 1.0]))
    assert y.isnan().tolist() == [True, False]
    assert float(y[1]) == 0


# Errors

SHAPE = (2, 3, 4)
ERRORS = [
    ("PReLU", "", [(3,)], "needs a bottom with a channel axis"),
    ("Clip", "clip_param { min: 2 max: 1 }", [SHAPE], "min 2.0 exceeds max 1.0"),
    ("Dropout", "dropout_param { dropout_ratio: 1 }", [SHAPE], "outside [0, 1)"),
    ("Softmax", "softmax_param { axis: 3 }", [SHAPE], "axis 3 is outside a blob of 3 axes"),
    ("Exp", "exp_param { base: 0 }", [SHAPE], "base 0.0 is not positive"),
    ("Log", "log_param { base: 1 }", [SHAPE], "base 1.0 is not a base of logarithms"),
    ("Concat", "", [(2, 3), (3, 3)], "bottoms (2, 3) and (3, 3) differ elsewhere"),
    ("Concat", "concat_param { axis: 0 concat_dim: 0 }", [SHAPE], "has both axis and concat_dim"),
    ("Slice", "slice_param { slice_point: 1 }", [SHAPE], "1 slice_point values for 1 tops"),
    ("Flatten", "flatten_param { axis: 2 end_axis: 1 }", [SHAPE], "end_axis 1 comes before axis 2"),
    (
        "Reshape",
        "reshape_param { shape { dim: 5 } }",
        [SHAPE],
        "cannot give a bottom of shape (2, 3, 4) the shape (5,)",
    ),
    ("Reshape", "reshape_param { shape { dim: -1 dim: -1 } }", [SHAPE], "may hold one -1"),
    ("Reshape", "reshape_param { shape { dim: 0 dim: 0 dim: 0 dim: 0 } }", [SHAPE], "0 copies axis 3"),
    ("Tile", "", [SHAPE], "needs tiles > 0"),
    ("Crop", "crop_param { axis: 1 offset: 2 }", [SHAPE, SHAPE], "cannot take 3 values from offset 2"),
    ("Permute", "permute_param { order: 1 order: 1 }", [SHAPE], "names an axis twice"),
    ("ShuffleChannel", "shuffle_channel_param { group: 2 }", [SHAPE], "group 2 does not divide the channels"),
    ("Reorg", "reorg_param { stride: 2 }", [(1, 3, 4, 4)], "square of stride 2 does not divide"),
    ("Translation", "translation_param { random: true shift_x: -1 }", [(1, 1, 2, 2)], "needs shift_x >= 0"),
    (
        "Permutation",
        'permutation_param { type: GEN permute_string: "0,1,1,x" }',
        [(1, 1, 2, 2)],
        "no list of the pixels",
    ),
    ("OneHot", "one_hot_param { input_dim: 2 }", [SHAPE], "needs a bottom (N, 1, ...), found (2, 3, 4)"),
    ("Eltwise", "", [SHAPE, (2, 3)], "needs bottoms of one shape, found (2, 3, 4) and (2, 3)"),
    ("Eltwise", "eltwise_param { coeff: 1 }", [SHAPE, SHAPE], "1 coeff values for 2 bottoms"),
    (
        "Eltwise",
        "eltwise_param { operation: MAX coeff: 1 coeff: 1 }",
        [SHAPE, SHAPE],
        "goes with operation SUM",
    ),
    ("Axpy", "", [(2, 4), SHAPE, SHAPE], "needs a scale for each channel of (2, 3, 4)"),
    ("ArgMax", "argmax_param { top_k: 13 }", [SHAPE], "top_k 13 is outside 1..12"),
    ("BatchReindex", "", [SHAPE, (2, 1)], "needs a list of indices"),
    ("Filter", "", [SHAPE, (3,)], "another number of items than the selector"),
    ("Interp", "", [(1, 1, 2, 2)], "needs shrink_factor, zoom_factor, height and width"),
    ("Interp", "interp_param { pad_beg: 1 zoom_factor: 2 }", [(1, 1, 2, 2)], "can only crop"),
    ("Upsample", "upsample_param { pad_out_h: true }", [(1, 1, 2, 2)], "goes with a mask"),
    ("SpatialTransformer", "", [(1, 1, 2, 2), (1, 5)], "needs a theta of shape (1, 6), found (1, 5)"),
    ("Noise", "", [SHAPE], "needs exactly one noise_param, found 0"),
    ("Noise", 'noise_param { add_noise_filler { type: "xavier" } }', [SHAPE], "takes fillers constant"),
    ("Noise", "noise_param { offset_mul_mean: true }", [SHAPE], "which is 0"),
    ("DummyData", "dummy_data_param { shape { dim: 1 } shape { dim: 1 } }", [], "2 shape entries for 1 tops"),
    (
        "DummyData",
        'dummy_data_param { data_filler { type: "unifrom" } shape { dim: 1 } }',
        [],
        "did you mean 'uniform'",
    ),
    ("Input", "", [], "0 shape entries for 1 tops"),
    ("Parameter", "", [], "needs a shape"),
]


@pytest.mark.parametrize(("kind", "options", "shapes", "text"), ERRORS)
def test_errors_name_place_layer_and_cause(
    kind: str, options: str, shapes: list[Sequence[int]], text: str
) -> None:
    with pytest.raises(SpecError) as caught:
        net(kind, options, *shapes)
    message = str(caught.value)
    assert text in message
    assert message.startswith(f"test.prototxt:{len(shapes) + 1}:")
    assert f"layer 'layer' ({kind})" in message


def test_a_scale_without_a_filler_begins_with_one() -> None:
    x = torch.randn(2, 3, 4)
    assert torch.equal(apply("Scale", "", x), x)


def test_argmax_of_a_blob_of_five_axes_keeps_their_number() -> None:
    """Caffe: (N, 1, top_k) with 1 for each further axis, (N, 2, top_k) with values."""
    x = torch.randn(2, 3, 4, 5, 2)
    y = apply("ArgMax", "argmax_param { top_k: 2 out_max_val: true }", x)
    assert y.shape == (2, 2, 2, 1, 1)
    values, places = x.flatten(1).topk(2)
    assert torch.equal(y[:, 0, :, 0, 0], places.to(x.dtype))
    assert torch.equal(y[:, 1, :, 0, 0], values)


def test_the_mask_of_windows_beside_the_image_is_minus_one() -> None:
    """Stride above the kernel: the last window lies in the padding, and holds no cell."""
    options = "pooling_param { pool: MAX kernel_size: 1 stride: 3 pad: 0 }"
    made_net = net("Pooling", options, (1, 1, 2, 2), tops="ym")
    mask, top = made_net(arange(1, 1, 2, 2))
    lowest = torch.finfo(torch.float32).min
    assert top.flatten().tolist() == [0.0, *[lowest] * (top.numel() - 1)]
    assert mask.flatten().tolist() == [0.0, *[-1.0] * (mask.numel() - 1)]


def test_rectangles_are_as_many_as_asked_for() -> None:
    """One pixel each, on a canvas so wide that they seldom meet: the number is drawn once, 3 to 5."""
    counts = set()
    for seed in range(12):
        torch.manual_seed(seed)
        text = (
            'layer { name: "l" type: "DummyData" top: "y" dummy_data_param { shape { dim: 2 dim: 1 dim: 200 dim: 200 } '
            'data_filler { type: "rects" min_rects: 3 max_rects: 5 min_width: 1 max_width: 1 } } }'
        )
        (y,) = make_net(text, "TRAIN")()
        counts.update(int(n) for n in y.flatten(1).sum(1))
    assert counts == {3, 4, 5}
