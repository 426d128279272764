"""Rendering models against exact oracles: gradients, enumerated paths and configurations, dense matrices."""

from __future__ import annotations

import itertools
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from netspec import schema
from netspec.errors import SpecError
from netspec.net.graph import compile
from netspec.net.make import make_net
from netspec.net.net import Net, build
from netspec.rendering import RenderingModel, activity, best_scale, factors, paths
from netspec.run import experiment
from netspec.run import fit as train
from netspec.schema import spec
from tools.generate import render_nets

DOUBLE = torch.float64


def net_of(text: str, phase: str = "TEST", seed: int = 1) -> Net:
    return make_net(schema.parse_net(text, "rendering.prototxt"), phase, seed=seed).double()


def small(
    levels: list[tuple[int, int, int, str]],
    channels: int = 1,
    side: int = 4,
    bias: bool = False,
    classes: int = 3,
) -> Net:
    """A bottom-up net: levels of (filters, kernel, pad, pooling) and classes on top."""
    lines = [
        'layer { name: "x" type: "Input" top: "I0" '
        f"input_param {{ shape {{ dim: 2 dim: {channels} dim: {side} dim: {side} }} }} }}"
    ]
    for n, (filters, kernel, pad, pool) in enumerate(levels, 1):
        lines.append(
            f'layer {{ name: "conv{n}" type: "Convolution" bottom: "I{n - 1}" top: "u{n}" convolution_param {{ '
            f"num_output: {filters} kernel_size: {kernel} pad: {pad} bias_term: {str(bias).lower()} "
            'weight_filler { type: "gaussian" std: 1 } bias_filler { type: "gaussian" std: 0.3 } } }'
        )
        lines.append(
            f'layer {{ name: "relu{n}" type: "ReLU" bottom: "u{n}" top: "{"r" if pool else "I"}{n}" }}'
        )
        if pool:
            lines.append(
                f'layer {{ name: "pool{n}" type: "Pooling" bottom: "r{n}" top: "I{n}" pooling_param {{ {pool} }} }}'
            )
    lines.append(
        f'layer {{ name: "scores" type: "InnerProduct" bottom: "I{len(levels)}" top: "scores" inner_product_param '
        f'{{ num_output: {classes} bias_term: false weight_filler {{ type: "gaussian" std: 1 }} }} }}'
    )
    return net_of("\n".join(lines))


MAX2 = "kernel_size: 2 stride: 2"
SHAPES = {
    "one level": small([(3, 3, 0, MAX2)], side=8),
    "two levels, padded and odd": small([(4, 3, 1, MAX2), (3, 2, 1, MAX2)], channels=2, side=7),
    "no pooling, then the mean": small([(4, 3, 0, ""), (3, 3, 2, "pool: AVE global_pooling: true")], side=6),
}
each_shape = pytest.mark.parametrize("shape", SHAPES)


def images(net: Net, n: int = 5, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((n, *net.shape("I0")[1:]), generator=generator, dtype=DOUBLE)


def from_classes(net: Net) -> RenderingModel:
    model = RenderingModel(net)
    model.by_class = True
    return model


# A1: the reconstruction is the gradient of the winning score


@pytest.mark.parametrize("shape", ["one level", "two levels, padded and odd"])
def test_reconstruction_is_the_gradient_of_the_winning_score(shape: str) -> None:
    net = SHAPES[shape]
    model, x = from_classes(net), images(net).requires_grad_(True)
    score = model.scores(model.up(x)[0][-1]).amax(1)
    (gradient,) = torch.autograd.grad(score.sum(), x)
    image = model.reconstruct(x)
    assert float((image - gradient).detach().abs().max()) < 1e-12
    torch.testing.assert_close((image * x).flatten(1).sum(1), score, rtol=1e-12, atol=1e-12)


def test_a_mean_spreads_without_dividing() -> None:
    """Top-down a mean repeats (factor 1, as in the authors' code), so the gradient is the image / cells."""
    net = SHAPES["no pooling, then the mean"]
    model, x = from_classes(net), images(net).requires_grad_(True)
    (gradient,) = torch.autograd.grad(model.scores(model.up(x)[0][-1]).amax(1).sum(), x)
    torch.testing.assert_close(model.reconstruct(x), gradient * 36, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["rfm_mnist", "drfm2_mnist", "drmm2_mnist", "drmm5_mnist", "drmm9_cifar10"])
def test_the_nets_compute_what_the_model_infers(name: str) -> None:
    """Layers in the file and netspec.rendering agree, and the class scores' gradient where there is no bias."""
    narrow = {"rfm_mnist": [4], "drfm2_mnist": [4, 5], "drmm2_mnist": [4, 5], "drmm5_mnist": [2, 3, 4, 5, 6]}
    text = render_nets.rendered(name, **({"widths": narrow[name]} if name in narrow else {}))
    net = net_of(text.replace("batch_size: 100", "batch_size: 2"))
    x = torch.rand((2, *net.shape("data")[1:]), generator=torch.Generator().manual_seed(2), dtype=DOUBLE)
    blobs = net.blobs(x, torch.zeros(2, dtype=DOUBLE))
    model = RenderingModel(net)
    messages, switches, z = model.infer(x)
    assert len(model.levels) == len(switches) == sum(name.startswith("W") for name in weights_names(net))
    torch.testing.assert_close(blobs["z0"], z[0], rtol=1e-10, atol=1e-12)
    variance = net.layer("variance").blobs[0]
    torch.testing.assert_close(blobs["image"], variance * z[0], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(blobs["scores"], model.scores(messages[-1]), rtol=1e-10, atol=1e-12)


def weights_names(net: Net) -> set[str]:
    return {p.name for step in net.graph.steps for p in step.layer.message.param}


def test_nets_are_those_of_the_template() -> None:
    for name in render_nets.NETS:
        assert (render_nets.ROOT / "nets" / f"{name}.prototxt").read_text() == render_nets.rendered(name), (
            name
        )


@pytest.mark.parametrize(
    ("name", "widths"), [("rfm_mnist", [3]), ("drfm2_mnist", [3, 4]), ("drmm2_mnist", [3, 4])]
)
def test_gradients_reach_weights_through_the_way_down_only(name: str, widths: list[int]) -> None:
    """The E-step's result is a constant: the reconstruction's gradient is that for switches and z held fixed."""
    text = render_nets.rendered(name, widths=widths).replace("batch_size: 100", "batch_size: 2")
    net = net_of(text, "TRAIN")
    x = torch.rand((2, 1, 28, 28), generator=torch.Generator().manual_seed(2), dtype=DOUBLE)
    tops = net(x, torch.zeros(2, dtype=DOUBLE))
    names = [net.graph.name(slot) for slot, _ in net.graph.losses]
    loss = tops[len(net.graph.outputs) :][names.index("reconstruction")]
    weight = net.layer("conv1").blobs[0]
    (gradient,) = torch.autograd.grad(loss, weight)
    model = RenderingModel(net)
    with torch.no_grad():
        _, switches, z = model.infer(x)
    fixed = torch.nn.functional.conv_transpose2d(model.levels[0].spread(z[1], switches[0]), weight)
    fixed = fixed * net.layer("variance").blobs[0].detach()
    (wanted,) = torch.autograd.grad((fixed - x).square().sum() / 4, weight)
    torch.testing.assert_close(gradient, wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["rfm_mnist", "drmm5_mnist", "drmm9_cifar10"])
def test_losses_count_by_the_weights_asked_for(name: str) -> None:
    """rc weighs the mean square over pixels, kl and nn the means of their layers."""
    text = render_nets.rendered(name, rc=0.5, kl=0.3, nn=0.7, few=2)
    graph = compile(spec.net(schema.parse_net(text, "nets.prototxt"), "TRAIN", ("nnkl",)))
    weights = {graph.name(slot): weight for slot, weight in graph.losses}
    values = 3 * 32 * 32 if name == "drmm9_cifar10" else 28 * 28
    assert weights.pop("reconstruction") / 2 == pytest.approx(
        0.5 / values, rel=1e-5
    )  # EuclideanLoss: sum / 2n
    assert (weights.pop("kl"), weights.pop("loss")) == pytest.approx((0.3, 1))
    assert all(weight == pytest.approx(0.7) for weight in weights.values())
    assert len(weights) == {"rfm_mnist": 0, "drmm5_mnist": 5, "drmm9_cifar10": 9}[name]


# A2: sum over paths


@each_shape
def test_a_pixel_is_the_sum_over_its_active_paths(shape: str) -> None:
    net = SHAPES[shape]
    model, x = from_classes(net), images(net, 1)
    with torch.no_grad():
        _, switches, z = model.infer(x)
    for pixel in [(0, 0, 0), (0, 2, 3), (0, 5, 5)]:
        active = list(paths.paths(model, z[-1], switches, pixel))
        assert all(len(path.units) == len(model.levels) + 1 for path in active)
        assert sum(path.weight for path in active) == pytest.approx(float(z[0][(0, *pixel)]), abs=1e-10)


# A3: max over all nuisances by brute force


def every_template(model: RenderingModel, side: int, c: int) -> Tensor:
    """mu(c, g) for every t and a of two levels of 2 x 2 pooling, (configurations, C, H, W)."""

    def options(cells: list[tuple[int, int, int]], plane: int) -> list[list[tuple[int, int, int] | None]]:
        return [[None, *((k, 2 * y + i, 2 * x + j) for i in (0, 1) for j in (0, 1))] for k, y, x in cells]

    weights = [level.weight.detach() for level in model.levels]
    top = model.template(torch.tensor([c]), (1, weights[1].shape[0], 1, 1)).detach()[0, :, 0, 0]
    upper = []
    for places in itertools.product(*options([(k, 0, 0) for k in range(len(top))], 2)):
        h = torch.zeros((1, len(top), 2, 2), dtype=DOUBLE)
        for k, place in enumerate(places):
            if place is not None:
                h[(0, *place)] = top[k]
        upper.append(torch.nn.functional.conv_transpose2d(h, weights[1]))
    cells = [(k, y, x) for k in range(weights[0].shape[0]) for y in (0, 1) for x in (0, 1)]
    templates = []
    for places in itertools.product(*options(cells, 4)):
        spread = torch.zeros((len(cells), *weights[0].shape[:1], side, side), dtype=DOUBLE)
        for i, place in enumerate(places):
            if place is not None:
                spread[(i, *place)] = 1
        basis = torch.nn.functional.conv_transpose2d(spread, weights[0], padding=1).flatten(1)
        templates.append(torch.cat(upper).flatten(1) @ basis)
    return torch.cat(templates)


def made_nonnegative(net: Net) -> Net:
    """z >= 0 needs templates and upper filters >= 0; the lowest filters are free."""
    with torch.no_grad():
        for name in ("conv2", "scores"):
            net.layer(name).blobs[0].abs_()
    return net


@pytest.mark.parametrize("nonnegative", [True, False])
def test_the_score_is_the_best_of_all_nuisances(nonnegative: bool) -> None:
    net = small([(1, 3, 1, MAX2), (2, 1, 0, MAX2)], classes=2)
    model, x = from_classes(made_nonnegative(net) if nonnegative else net), images(net, 6, seed=4)
    scores = model.scores(model.up(x)[0][-1]).detach()
    for c in range(2):
        best = (every_template(model, 4, c) @ x.flatten(1).t()).amax(0)
        if nonnegative:
            torch.testing.assert_close(scores[:, c], best, rtol=1e-10, atol=1e-12)
        else:  # the nonnegative algorithm is not max-sum then: its rendering is one of all, so never above
            assert bool((scores[:, c] <= best + 1e-12).all())
            assert float((best - scores[:, c]).max()) > 0.1


# A4: the signed model


def signed(sign: Tensor, u: Tensor) -> tuple[Tensor, ...]:
    dims = " ".join(f"dim: {n}" for n in u.shape)
    small_dims = " ".join(f"dim: {n}" for n in sign.shape)
    net = net_of(
        f'layer {{ name: "u" type: "Input" top: "u" input_param {{ shape {{ {dims} }} }} }}\n'
        f'layer {{ name: "s" type: "Input" top: "s" input_param {{ shape {{ {small_dims} }} }} }}\n'
        'layer { name: "p" type: "SignedPooling" bottom: "u" bottom: "s" top: "I" top: "t" }'
    )
    return net(u, sign)


def test_positive_signs_make_the_nonnegative_model() -> None:
    u = torch.randn((3, 2, 6, 6), dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    message, t = signed(torch.ones((3, 2, 3, 3), dtype=DOUBLE), u)
    wanted, places = torch.nn.functional.max_pool2d(u.relu(), 2, return_indices=True)
    assert torch.equal(message, wanted)
    assert torch.equal(t.long()[wanted > 0], places[wanted > 0])


def test_signed_pooling_maximises_over_switches() -> None:
    """s a u(t) summed up to the best product z I over t and a, for z of both signs."""
    generator = torch.Generator().manual_seed(1)
    u = torch.randn((4, 2, 4, 4), dtype=DOUBLE, generator=generator)
    z = torch.randn((4, 2, 2, 2), dtype=DOUBLE, generator=generator)
    message, _ = signed(z, u)
    cells = u.unfold(2, 2, 2).unfold(3, 2, 2).flatten(4)
    best = (z[..., None] * cells).amax(-1).clamp(min=0)
    torch.testing.assert_close(z * message, best)


# A6: the KL term


def test_kl_term_lies_between_minus_log_classes_and_zero() -> None:
    text = (
        'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 4 dim: 10 } } }\n'
        'layer { name: "kl" type: "PriorKLLoss" bottom: "x" top: "kl" }'
    )
    net = net_of(text)
    confident = 1000 * torch.eye(10, dtype=DOUBLE)[:4]
    assert float(net(confident)[0]) == pytest.approx(-math.log(10))
    assert float(net(torch.zeros(4, 10, dtype=DOUBLE))[0]) == pytest.approx(0, abs=1e-12)
    x = torch.randn(4, 10, dtype=DOUBLE)
    q = torch.distributions.Categorical(logits=x)
    prior = torch.distributions.Categorical(logits=torch.zeros_like(x))
    wanted = torch.distributions.kl_divergence(q, prior).mean()
    torch.testing.assert_close(net(x)[0], -wanted)


# A8: activity maximisation


def test_activity_maximisation_never_lowers_a_score() -> None:
    model = RenderingModel(made_nonnegative(small([(4, 3, 1, MAX2), (3, 2, 1, MAX2)], channels=2, side=7)))
    for c in range(3):
        best = activity.closed_form(model, c, (2, 7, 7), 4, generator=torch.Generator().manual_seed(c))
        assert best.rounds.shape == (4, 11)
        assert bool((best.rounds.diff(dim=1) >= -1e-12).all())
        assert best.image.shape == (2, 7, 7)


def test_patches_cover_the_image_once() -> None:
    masks = activity.patches((3, 10, 7), 4)
    assert masks.shape == (6, 1, 10, 7)
    assert torch.equal(masks.sum(0), torch.ones(1, 10, 7))


def test_gradient_ascent_climbs() -> None:
    model = RenderingModel(SHAPES["one level"])
    best = activity.gradient_ascent(model, 1, (1, 8, 8), 30, generator=torch.Generator().manual_seed(0))
    assert float(best.rounds[-1]) > float(best.rounds[0])


# A9: factors


@pytest.mark.parametrize("variance", [0.5, 0.0])
def test_factors_solve_the_normal_equations(variance: float) -> None:
    net = SHAPES["two levels, padded and odd"]
    model, x = RenderingModel(net), images(net, 3)
    with torch.no_grad():
        messages, switches = model.up(x)
    z = factors.posterior_mean(model, x, switches, variance, rounds=400, tolerance=1e-12)
    for n in range(3):
        one = [s._replace(a=s.a[n : n + 1], t=None if s.t is None else s.t[n : n + 1]) for s in switches]
        shape = messages[-1].shape[1:]
        unit = torch.eye(math.prod(shape), dtype=DOUBLE).view(-1, *shape)
        wide = [
            s._replace(a=s.a.expand(len(unit), -1, -1, -1), t=s.t.expand(len(unit), -1, -1, -1)) for s in one
        ]
        matrix = model.down(unit, wide)[0].detach().flatten(1).t()  # Lambda, (pixels, factors)
        rest = matrix.t() @ (x[n].flatten() - matrix @ z[n].flatten()) - variance * z[n].flatten()
        assert float(rest.abs().max()) < 1e-8
        if variance == 0:
            best = np.linalg.lstsq(matrix.numpy(), x[n].flatten().numpy(), rcond=None)[0]
            torch.testing.assert_close(
                matrix @ z[n].flatten(), matrix @ torch.from_numpy(best), rtol=1e-6, atol=1e-7
            )


def test_best_scale_is_least_squares() -> None:
    x, image = torch.randn(3, 1, 4, 4, dtype=DOUBLE), torch.randn(3, 1, 4, 4, dtype=DOUBLE)
    image[2] = 0
    scale = best_scale(image, x)
    assert float(scale[2]) == 0
    rest = ((x - scale * image) * image).flatten(1).sum(1)
    assert float(rest.abs().max()) < 1e-12


# What is no rendering model


def test_nets_that_do_not_render_say_why() -> None:
    text = (
        'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 1 dim: 8 dim: 8 } } }\n'
        'layer { name: "c" type: "Convolution" bottom: "x" top: "u" '
        'convolution_param { num_output: 2 kernel_size: 3 stride: 2 weight_filler { type: "xavier" } } }'
    )
    with pytest.raises(SpecError, match=r"rendering.prototxt:2.*stride 1"):
        RenderingModel(net_of(text))
    with pytest.raises(SpecError, match="plain ReLU"):
        RenderingModel(net_of(text.replace("stride: 2", "")))


TWO_LEVELS = """layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 2 dim: 8 dim: 8 } } }
layer { name: "c1" type: "Convolution" bottom: "x" top: "u1" convolution_param { num_output: 4 kernel_size: 3 } }
layer { name: "r1" type: "ReLU" bottom: "u1" top: "u1" }
layer { name: "p1" type: "Pooling" bottom: "u1" top: "I1" pooling_param { kernel_size: 2 stride: 2 } }
layer { name: "d" type: "Dropout" bottom: "I1" top: "I1" }
layer { name: "c2" type: "Convolution" bottom: "I1" top: "u2" convolution_param { num_output: 4 kernel_size: 2 } }
layer { name: "r2" type: "ReLU" bottom: "u2" top: "I2" }
layer { name: "f" type: "Flatten" bottom: "I2" top: "f" }
layer { name: "scores" type: "InnerProduct" bottom: "f" top: "scores" inner_product_param { num_output: 3 } }
"""


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("kernel_size: 2 stride: 2", "kernel_size: 3 stride: 2", r"prototxt:4:.*'p1'.*side by side"),
        ("kernel_size: 2 stride: 2", "kernel_size: 2 stride: 2 pad: 1", r"prototxt:4:.*'p1'.*side by side"),
        (
            "num_output: 4 kernel_size: 2",
            "num_output: 4 kernel_size: 2 group: 2",
            r"prototxt:6:.*'c2'.*group",
        ),
        (
            '"d" type: "Dropout"',
            '"d" type: "LRN"',
            r"prototxt:6:.*'c2'.*'c1'.*layer 'd' \(LRN\)",
        ),
        ('"f" type: "Flatten"', '"f" type: "Softmax"', r"prototxt:9:.*'scores'.*'c2'.*layer 'f' \(Softmax\)"),
        ('bottom: "I1" top: "u2"', 'bottom: "x" top: "u2"', r"prototxt:6:.*'c2'.*'c1'.*layer 'x' \(Input\)"),
    ],
)
def test_what_does_not_follow_level_by_level_is_refused(old: str, new: str, says: str) -> None:
    """Passed over, such a layer would make every rendering wrong without a word."""
    assert len(RenderingModel(net_of(TWO_LEVELS)).levels) == 2
    with pytest.raises(SpecError, match=says):
        RenderingModel(net_of(TWO_LEVELS.replace(old, new)))


# Modes


@pytest.mark.parametrize(
    ("stages", "losses"),
    [
        ((), {"loss", "reconstruction"}),
        (("dcn",), {"loss"}),
        (("labelled", "stats"), {"loss", "reconstruction"}),
        (("semi", "nnkl"), {"loss", "reconstruction", "kl", "nn1", "nn2"}),
        (("semi", "shifted"), {"loss", "reconstruction"}),
        (("unsupervised", "nnkl"), {"reconstruction", "kl", "nn1", "nn2"}),
    ],
)
def test_each_mode_trains_every_weight(stages: tuple[str, ...], losses: set[str]) -> None:
    text = render_nets.rendered("drmm2_mnist", widths=[3, 4])
    for size in (100, 50):
        text = text.replace(f"batch_size: {size}", f"batch_size: {4 if size == 100 else 2}")
    graph = compile(spec.net(schema.parse_net(text, "drmm2.prototxt"), "TRAIN", stages))
    net = build(graph, seed=1)
    generator = torch.Generator().manual_seed(0)
    given = [
        torch.rand(net.shape(name), generator=generator)
        if len(net.shape(name)) > 1
        else torch.full(net.shape(name), torch.nan if name == "no_labels" else 1.0)
        for name in net.input_names
    ]
    tops = net(*given)
    assert {graph.name(slot) for slot, _ in graph.losses} == losses
    objective = net.objective(tops)
    objective.backward()
    assert math.isfinite(float(objective.detach()))
    for param in net.params:
        if param.name in ("conv1/0", "conv2/0", "scores/0"):
            assert param.value.grad is not None
            assert float(param.value.grad.abs().max()) > 0


def test_a_misspelt_mode_is_said_before_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A net without its stage trains on all labels: results that look too good."""
    net = render_nets.rendered("rfm_mnist", widths=[2]).replace('name: "mnist"', 'name: "digits"')
    net = net.replace(' stand_in: "digits"', "").replace("kernel_size: 5", "kernel_size: 3")
    (tmp_path / "net.prototxt").write_text(net)
    solver = tmp_path / "net_solver.prototxt"
    solver.write_text(
        f'net: "{tmp_path}/net.prototxt" base_lr: 0.01 lr_policy: "fixed" max_iter: 1\n'
        'train_state { stage: "labeled" }'
    )
    run = train.fit(solver, out=tmp_path / "run", compiled=False)
    said = "net_solver.prototxt:2:15: stage 'labeled' changes nothing, as no layer of the net names it; "
    assert said + "did you mean 'labelled'?" in capsys.readouterr().err.replace("\n", "")
    assert said in (run.folder / "run.json").read_text()


@pytest.mark.parametrize("name", ["rfm_mnist", "drmm5_mnist"])
def test_the_number_of_labels_leaves_the_tests_as_they_are(name: str) -> None:
    """What the fine-tuning solvers' heads say to set: test images, too, lost their labels by it."""
    path = render_nets.ROOT / "nets" / f"{name}_finetune_solver.prototxt"
    (setting,) = re.findall(r"--set (\S+labels=\d+)", path.read_text())
    for solver, many in (
        (path, setting),
        (path.with_name("drmm5_mnist_semi_solver.prototxt"), "few.dataset_param.labels=1000"),
    ):
        plan = experiment.load(solver, [many])
        asked = [layer.message.dataset_param for layer in plan.train.layers if layer.type == "Dataset"]
        assert [param.labels for param in asked if param.labelled_only] == [1000]
        (tested,) = [
            layer.message.dataset_param for layer in plan.tests[0].spec.layers if layer.type == "Dataset"
        ]
        assert not tested.HasField("labels")
