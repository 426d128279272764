"""Hard EM: the M-step against least squares worked out in full, and training without a backward pass."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn.functional import conv_transpose2d

from netspec import schema
from netspec.errors import SpecError
from netspec.net.make import make_net
from netspec.rendering import RenderingModel, best_scale, relative_error
from netspec.rendering.hard_em import Batch, HardEM, spherical_k_means
from netspec.rendering.least_squares import Gram
from netspec.run import fit as train
from netspec.run.hard_em import Search
from tests.rendering.test_rendering import MAX2, SHAPES, images, small
from tools.generate import render_nets

DOUBLE = torch.float64


def problem(padding: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """h (6, 3, 5, 4) with many zeros, y (6, 2, ...) of the size that a 3 x 2 kernel renders."""
    generator = torch.Generator().manual_seed(seed)
    h = torch.randn((6, 3, 5, 4), generator=generator, dtype=DOUBLE)
    h = h * (torch.rand(h.shape, generator=generator) < 0.4)
    y = torch.randn((6, 2, 5 + 2 - 2 * padding, 4 + 1 - 2 * padding), generator=generator, dtype=DOUBLE)
    return h, y


def dense(h: Tensor, padding: int) -> Tensor:
    """The matrix from filters (3, 1, 3, 2), flat, to one channel of all rendered images, by unit filters."""
    unit = torch.eye(18, dtype=DOUBLE).view(18, 3, 1, 3, 2)
    return torch.stack([conv_transpose2d(h, w, padding=padding).flatten() for w in unit], 1)


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("weighted", [False, True])
def test_m_step_is_least_squares(padding: int, weighted: bool) -> None:
    h, y = problem(padding)
    weights = torch.rand(y.shape[2:], dtype=DOUBLE) + 0.1 if weighted else None
    gram = Gram(3, 2, (3, 2), padding)
    gram.add(h[:4], y[:4], weights)
    gram.add(h[4:], y[4:], weights)
    matrix = dense(h, padding)
    roots = torch.ones(y.shape[2:], dtype=DOUBLE) if weights is None else weights.sqrt()
    rows = roots.expand(6, 1, *roots.shape).flatten()
    filters = gram.solve()
    for channel in range(2):
        target = rows * y[:, channel].flatten()
        best, *_ = np.linalg.lstsq((rows[:, None] * matrix).numpy(), target.numpy(), rcond=None)
        torch.testing.assert_close(
            filters[:, channel].flatten(), torch.from_numpy(best), rtol=1e-9, atol=1e-10
        )
    rest = ((conv_transpose2d(h, filters, padding=padding) - y) * roots).square().sum()
    assert gram.objective(filters) == pytest.approx(float(rest), rel=1e-10)


def test_spectra_and_columns_give_one_gram() -> None:
    h, y = problem(0)
    short, long = Gram(3, 2, (3, 2)), Gram(3, 2, (3, 2))
    short.add(h, y)
    long.add(h, y, torch.ones(y.shape[2:], dtype=DOUBLE))
    torch.testing.assert_close(short.predictors, long.predictors)
    torch.testing.assert_close(short.targets, long.targets)
    assert short.square == pytest.approx(long.square)


def test_usage_counts_what_renders() -> None:
    h, y = problem(0)
    gram = Gram(3, 2, (3, 2))
    gram.add(h, y)
    torch.testing.assert_close(gram.usage, h.square().sum((0, 2, 3)))


def solver(text: str = "") -> object:
    return schema.parse_solver(f"hard_em_param {{ {text} }}").message.hard_em_param


def test_m_steps_never_raise_the_objective() -> None:
    net = small([(4, 3, 0, MAX2), (3, 3, 1, MAX2)], channels=2, side=10)
    model = RenderingModel(net)
    model.by_class = True
    em = HardEM(model, solver("ridge: 0 dead: 0"), torch.Generator().manual_seed(0))
    x = images(net, 40).abs()
    batches: list[Batch] = [(part, torch.arange(len(part)) % 3 + 0.0) for part in x.split(10)]
    em.initialise(batches)
    for _ in range(4):
        report = em.step(batches)
        assert all(after <= before + 1e-12 for before, after in zip(report.before, report.after, strict=True))


def test_labelled_images_are_rendered_from_their_label() -> None:
    net = small([(4, 3, 0, MAX2)], side=8)
    model = RenderingModel(net)
    model.by_class = True
    em = HardEM(model, solver(), torch.Generator().manual_seed(0))
    x, labels = images(net, 12).abs(), torch.arange(12) % 3 + 0.0
    with torch.no_grad():
        wanted = float(relative_error(model, x, c=labels.long()).mean())
        winners = float(relative_error(model, x).mean())
    assert abs(wanted - winners) > 5e-4
    assert em.error([(x, labels)]) == pytest.approx(wanted)
    labels_of_some = labels.where(torch.arange(12) > 5, torch.nan)
    assert em.error([(x, labels_of_some)]) == pytest.approx(winners)
    assert em.step([(x, labels)]).error == pytest.approx(wanted)


def test_templates_are_class_means() -> None:
    net = small([(4, 3, 0, MAX2)], side=8)
    em = HardEM(RenderingModel(net), solver(), torch.Generator().manual_seed(0))
    x, labels = images(net, 12), torch.arange(12) % 3 + 0.0
    top = em.model.up(x)[0][-1].detach()
    em.step([(x[:6], labels[:6]), (x[6:], labels[6:])])
    wanted = torch.stack([top[labels == c].mean(0).flatten() for c in range(3)])
    torch.testing.assert_close(em.model.classes.blobs[0].detach(), wanted)


def test_the_error_falls() -> None:
    """Bars and crossings: the filters that k-means finds explain less than those that EM makes of them."""
    generator = torch.Generator().manual_seed(3)
    strokes = torch.zeros(2, 1, 3, 3, dtype=DOUBLE)
    strokes[0, 0, 1], strokes[1, 0, :, 1] = 1, 1
    h = (torch.rand(60, 2, 10, 10, generator=generator, dtype=DOUBLE) < 0.05).double()
    x = conv_transpose2d(h, strokes)
    em = HardEM(RenderingModel(small([(4, 3, 0, MAX2)], side=12)), solver("patches: 2000"), generator)
    em.initialise([(x, None)])
    reports = [em.step([(x, None)]) for _ in range(6)]
    assert reports[-1].error < 0.8 * reports[0].error
    assert em.error([(x, None)]) < reports[0].error
    with torch.no_grad():
        scale = best_scale(em.model.reconstruct(x), x)
    assert float(scale.mean()) == pytest.approx(1, abs=0.1)  # filters are of a size that renders images' own


def test_dead_filters_are_made_anew() -> None:
    net = small([(3, 3, 0, MAX2)], side=8)
    em = HardEM(RenderingModel(net), solver(), torch.Generator().manual_seed(0))
    x = images(net, 8).abs()
    with torch.no_grad():
        em.model.levels[0].weight.abs_()
        em.model.levels[0].weight[1] = -1  # nothing positive comes of it
    report = em.step([(x[:4], None), (x[4:], None)])
    assert report.reseeded == 1
    assert em.step([(x, None)]).reseeded == 0


def test_filters_go_to_where_the_net_is() -> None:
    """The M-step's are in main memory; the meta device, too, takes no part in arithmetic with those."""
    net = small([(3, 3, 0, MAX2)], side=8).to("meta")
    em = HardEM(RenderingModel(net), solver(), torch.Generator())
    with torch.no_grad():
        em.set_filters(em.model.levels[0], torch.ones(3, 1, 3, 3, dtype=DOUBLE))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_finds_what_a_cpu_finds(tmp_path: Path) -> None:
    error = {}
    for device in ("cpu", "cuda"):
        train.fit(em_solver(tmp_path), out=tmp_path / device, progress=False, device=device)
        error[device] = [line["loss"] for line in train_lines(tmp_path / device) if line["kind"] == "train"][
            -1
        ]
    assert error["cuda"] == pytest.approx(error["cpu"], rel=0.05)


def test_k_means_finds_directions() -> None:
    generator = torch.Generator().manual_seed(0)
    axes = torch.eye(3, dtype=DOUBLE)
    rows = axes.repeat(50, 1) * 5 + 0.1 * torch.randn(150, 3, generator=generator, dtype=DOUBLE)
    centres = spherical_k_means(rows, 3, 20, generator)
    assert bool(((centres @ axes).amax(0) > 0.99).all())


def test_normalised_nets_are_refused() -> None:
    document = schema.parse_net(render_nets.rendered("drmm5_mnist"), "drmm5.prototxt")
    net = make_net(document)
    with pytest.raises(SpecError, match=r"drmm5.prototxt:\d+.*bn1.*no M-step"):
        HardEM(RenderingModel(net), solver(), torch.Generator())


def em_solver(folder: Path) -> Path:
    """Hard EM of a small net on small digits."""
    net = render_nets.rendered("rfm_mnist", widths=[8])
    for text in ('name: "mnist"', ' stand_in: "digits"'):
        net = net.replace(text, 'name: "digits"' if "mnist" in text else "")
    net = net.replace("kernel_size: 5", "kernel_size: 3")
    (folder / "net.prototxt").write_text(net)
    solver = folder / "net_solver.prototxt"
    solver.write_text(
        f'net: "{folder}/net.prototxt" type: "HardEM" base_lr: 0 lr_policy: "fixed" max_iter: 8 display: 1 '
        "test_iter: 1 test_interval: 100 random_seed: 1 hard_em_param { images: 300 patches: 3000 }"
    )
    return solver


def test_fit_trains_without_a_backward_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_gradients(*arguments: object) -> None:
        raise RuntimeError("a backward pass")

    monkeypatch.setattr(torch.Tensor, "backward", no_gradients)
    run = train.fit(em_solver(tmp_path), out=tmp_path / "run", progress=False)
    lines = [line for line in train_lines(run.folder) if line["kind"] == "train"]
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert lines[-1]["loss"] < 0.2
    assert run.results[0]["accuracy"] > 0.5
    x = torch.from_numpy(load_digits().images) / 16
    energy = float(x.square().sum((1, 2)).mean()) / 2
    assert run.results[0]["reconstruction"] < 0.2 * energy  # the image that the net itself renders


@pytest.mark.parametrize("at", [2, 4])
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path, at: int) -> None:
    """Also in what ends it: the best filters so far, and the patience left."""
    solver, settings = em_solver(tmp_path), [f"snapshot={at}", "hard_em_param.tolerance=0.2"]
    whole = train.fit(solver, out=tmp_path / "whole", progress=False, overrides=settings)
    resumed = train.fit(
        solver,
        out=tmp_path / "resumed",
        resume=tmp_path / "whole" / "snapshots" / f"iter_{at}.state.safetensors",
        progress=False,
        overrides=settings,
    )
    assert resumed.iteration == whole.iteration > at
    for name, value in whole.net.weights().items():
        assert torch.equal(value, resumed.net.weights()[name]), name
    assert resumed.results == whole.results


def test_a_run_that_patience_ended_stays_ended(tmp_path: Path) -> None:
    settings = ["hard_em_param.tolerance=0.9", "max_iter=12"]
    whole = train.fit(em_solver(tmp_path), out=tmp_path / "run", progress=False, overrides=settings)
    assert whole.iteration < 12
    again = train.fit(em_solver(tmp_path), resume=tmp_path / "run", progress=False, overrides=settings)
    assert again.iteration == whole.iteration
    for name, value in whole.net.weights().items():
        assert torch.equal(value, again.net.weights()[name]), name


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (
            'name: "conv1" type: "Convolution" bottom: "data"',
            'name: "half" type: "Power" bottom: "data" top: "half" power_param { scale: 0.5 } }\n'
            'layer { name: "conv1" type: "Convolution" bottom: "half"',
            r"net.prototxt:\d+:\d+: layer 'half' \(Power\).*hard EM",
        ),
        (
            'type: "HardEM"',
            'type: "HardEM" train_state { stage: "semi" }',
            r"solver.prototxt:1:.*one data layer",
        ),
        (
            "images: 300",
            "images: 0",
            r"net_solver.prototxt:\d+.*hard_em_param.images must be at least 1, found 0",
        ),
        ("images: 300", "images: 300 ridge: -1", r"hard_em_param.ridge must be 0 or more, found -1"),
        ("images: 300", "images: 300 tolerance: 1", r"hard_em_param.tolerance must be below 1, found 1"),
        ("images: 300", "images: 300 dead: nan", r"hard_em_param.dead must be 0 or more, found nan"),
    ],
)
def test_what_hard_em_would_pass_over_is_refused(tmp_path: Path, old: str, new: str, says: str) -> None:
    solver = em_solver(tmp_path)
    for file in (solver, tmp_path / "net.prototxt"):
        file.write_text(file.read_text().replace(old, new))
    with pytest.raises(SpecError, match=says):
        train.fit(solver, out=tmp_path / "run", progress=False)


def test_fewer_patches_than_filters(tmp_path: Path) -> None:
    """Filters that k-means has no patch for start anywhere, and the first M-steps make them anew."""
    settings = ["hard_em_param.patches=1", "max_iter=3"]
    run = train.fit(em_solver(tmp_path), out=tmp_path / "run", progress=False, overrides=settings)
    assert all(bool(value.isfinite().all()) for value in run.net.weights().values())
    assert run.results[0]["accuracy"] > 0.3


def test_a_rising_error_halves_the_step() -> None:
    """From the best weights, towards their M-step's; after a fall of the error the step grows again, to 1 at most."""
    search = Search({"w": torch.zeros(1)})
    steps = []
    for error, at, aim in (
        (0.5, 0.0, 8.0),
        (0.9, 8.0, 9.0),
        (0.8, 4.0, 9.0),
        (0.4, 2.0, 10.0),
        (0.3, 5.0, 6.0),
    ):
        steps.append(
            float(search.look(error, {"w": torch.tensor([at])}, {"w": torch.tensor([aim])}, 0.01)["w"])
        )
    assert steps == [8.0, 4.0, 2.0, 2.0 + 8 * 0.375, 5.0 + 0.5625]
    copy = Search({"w": torch.zeros(1)})
    copy.load_state_dict(search.state_dict())
    assert (copy.error, copy.step, copy.patience, float(copy.weights["w"])) == (0.3, 0.5625, 3, 5.0)


def train_lines(folder: Path) -> list[dict]:
    from netspec.run.folder import parse_lines

    return parse_lines((folder / "metrics.jsonl").read_bytes())[0]


def test_shapes_of_the_oracle_nets() -> None:
    assert all(RenderingModel(net).levels for net in SHAPES.values())
