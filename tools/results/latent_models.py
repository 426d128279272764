"""Pictures of deep latent-variable models: unbounded likelihood, the bound against K, two chains, sixteen imputations.

    python -m tools.results.latent_models [--steps 1000] [--quick]

unbounded   log likelihood of the family mu(z) = x_1, log sigma^2 = a tanh(a z) - a, by quadrature: it rises by a times
            the dimension at one point and stays above a bound at the others (Mattei and Frellsen 2018)
bound       nets/vae_mnist.prototxt after --steps: the mean bound of test images with K draws
chains      the same net: F1 of imputed pixels, half of them missing, along pseudo-Gibbs and Metropolis within Gibbs
grid        sixteen imputations of a digit whose lower half is missing
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from netspec import draw
from netspec.draw.canvas import figure, write
from netspec.model.model import Model, load
from netspec.queries import chains, latent
from netspec.queries.latent import Latent
from tools.results.reproduction import Results, markdown, page, parser, trained

DIMENSION, POINTS = 5, 50
ALPHAS = (1, 2, 4, 8, 16, 32)
DRAWS = (1, 2, 5, 10, 20, 50, 100, 200)


def main() -> None:
    """Command line."""
    command = parser(__doc__, "docs/results/latent_models")
    command.add_argument("--steps", type=int, default=6000)
    command.add_argument("--images", type=int, default=100)
    command.add_argument("--chain", type=int, default=200)
    options = command.parse_args()
    torch.set_num_threads(1)
    if options.quick:
        options.steps, options.images, options.chain = 10, 5, 5
    settings = {name: getattr(options, name) for name in ("steps", "images", "chain", "seed")}
    results = Results(options.out.with_suffix(".json"), settings)
    for alpha in ALPHAS:
        results.get(f"unbounded | {alpha}", partial(unbounded, float(alpha)))
    trained_net = load(trained("nets/vae_mnist_solver.prototxt", options.runs / "vae_mnist", options.steps))
    for k in DRAWS:
        results.get(f"bound | {k}", partial(bound, trained_net, options, k))
    results.get("chains", partial(both_chains, trained_net, options))
    imputations(trained_net, options)
    print(report(options.out, results).read_text())


def points() -> Tensor:
    """The data of `unbounded`: 50 draws of N(0, 1) in five dimensions."""
    return torch.randn(POINTS, DIMENSION, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def unbounded(alpha: float) -> dict[str, float]:
    """log p of the first point, of all points, and the sum that the others' log p stays above as alpha grows."""
    x = points()
    edges = torch.cat([torch.linspace(-9, 9, 8001), torch.linspace(-0.5, 0.5, 8001)]).double().sort().values
    z, width = (edges[1:] + edges[:-1]) / 2, edges.diff()
    log_variance = alpha * torch.tanh(alpha * z) - alpha
    log_prior = -0.5 * (z.square() + np.log(2 * np.pi)) + width.log()
    square = (x - x[0]).square().sum(1)
    terms = -0.5 * (square[:, None] / log_variance.exp() + DIMENSION * (log_variance + np.log(2 * np.pi)))
    logp = (terms + log_prior).logsumexp(1)
    below = np.log(0.5) - 0.5 * DIMENSION * np.log(2 * np.pi) - 0.5 * square[1:]
    return {"first": float(logp[0]), "all": float(logp.sum()), "below": float(below.sum())}


def images_of(trained_net: Model, options: argparse.Namespace) -> Tensor:
    """Test images, binary."""
    return trained_net.from_pixels(trained_net.images("test", 0, options.images)[0])


def bound(trained_net: Model, options: argparse.Namespace, k: int) -> list[float]:
    """The bound of each image with k draws, nats."""
    torch.manual_seed(options.seed)
    with torch.no_grad():
        return [
            float(one) for one in latent.bound(Latent(trained_net.net), images_of(trained_net, options), k)
        ]


def f1(predicted: Tensor, true: Tensor, missing: Tensor) -> float:
    """2 precision recall / (precision + recall) of white among missing pixels."""
    white, right = (predicted > 0.5) & missing, (true > 0.5) & missing
    hit = float((white & right).sum())
    return 2 * hit / max(float(white.sum() + right.sum()), 1.0)


def both_chains(trained_net: Model, options: argparse.Namespace) -> dict[str, list[float]]:
    """F1 after each step of both chains, and the shares of proposals accepted; the same start for both."""
    model, true = Latent(trained_net.net), images_of(trained_net, options)
    missing = torch.rand(true.shape, generator=torch.Generator().manual_seed(options.seed)) < 0.5
    x, kept = torch.where(missing, torch.nan, true), dict[str, list[float]]()
    ways = {"pseudo-Gibbs": chains.pseudo_gibbs, "Metropolis within Gibbs": chains.metropolis_within_gibbs}
    with torch.no_grad():
        for name, way in ways.items():
            torch.manual_seed(options.seed)
            chain, scores = chains.pseudo_gibbs(model, chains.start(model, x), 10), list[float]()

            def look(_: int, now: Tensor, scores: list[float] = scores) -> None:
                scores.append(f1(now, true, missing))

            chain = way(model, chain, options.chain, look)
            kept[name] = scores
    return {**kept, "accepted": chain.accepted}


def imputations(trained_net: Model, options: argparse.Namespace) -> Path:
    """A page of one digit, what is seen of it, and sixteen draws of the rest."""
    x = images_of(trained_net, options)[:1].clone()
    x[:, :, 14:] = torch.nan
    torch.manual_seed(options.seed)
    with torch.no_grad():
        drawn = latent.complete(Latent(trained_net.net), x, copies=16, draws=1000)[:, 0]
    path: Path = options.out.with_name(f"{options.out.name}_imputations.png")
    return draw.grid(trained_net.to_pixels(torch.cat([x, drawn])), path, columns=17, limits=(0.0, 255.0))


def report(out: Path, results: Results) -> Path:
    """The page and its plots, from the record alone."""
    values, settings = results.values, results.settings
    rows = [
        [str(a), *(f"{values[f'unbounded | {a}'][name]:.1f}" for name in ("first", "all"))] for a in ALPHAS
    ]
    slope = (values["unbounded | 32"]["first"] - values["unbounded | 16"]["first"]) / 16
    bounds = [[str(k), f"{np.mean(values[f'bound | {k}']):.2f}"] for k in DRAWS]
    chain = values["chains"]
    last = {name: float(np.mean(scores[-50:])) for name, scores in chain.items()}
    picture = plots(out, results)
    parts = [
        "Likelihood without a bound. The first point's log likelihood rises with the family's parameter by "
        f"{slope:.2f} for each unit from 16 to 32 (dimension {DIMENSION}); that of all {POINTS} points follows.",
        markdown(["alpha", "first point", "all points"], rows),
        f"The bound against K, nats, mean of {settings['images']} test images: vae_mnist after {settings['steps']:,} "
        "steps of 100 images, briefly trained, so the figures say nothing of what such a net can reach.",
        markdown(["draws", "bound"], bounds),
        f"Chains of the same net, half of the pixels missing, F1 over the last 50 of {settings['chain']} steps: "
        + ", ".join(f"{name} {value:.3f}" for name, value in last.items() if name != "accepted")
        + f"; Metropolis accepts {100 * last['accepted']:.0f} % of its proposals.",
        f"![plots]({picture.name})",
        "One digit, its upper half as it is seen, and sixteen imputations:",
        f"![imputations]({out.name}_imputations.png)",
    ]
    return page(out.with_suffix(".md"), "Deep latent-variable models", parts, {**settings, **results.facts()})


def plots(out: Path, results: Results) -> Path:
    """Likelihood against alpha, bound against K, F1 along both chains."""
    values, fig = results.values, figure(12, 3.6)
    axes: Any = fig.subplots(1, 3)
    for name, label in (("first", "first point"), ("all", f"all {POINTS} points")):
        axes[0].plot(ALPHAS, [values[f"unbounded | {a}"][name] for a in ALPHAS], marker="o", label=label)
    axes[0].set_xlabel("alpha")
    axes[0].set_ylabel("log likelihood, nats")
    axes[0].legend(fontsize=8)
    axes[1].plot(DRAWS, [np.mean(values[f"bound | {k}"]) for k in DRAWS], marker="o")
    axes[1].set_xscale("log")
    axes[1].set_xlabel("draws K")
    axes[1].set_ylabel("bound, nats")
    for name in ("pseudo-Gibbs", "Metropolis within Gibbs"):
        axes[2].plot(values["chains"][name], label=name, linewidth=1)
    axes[2].set_xlabel("step")
    axes[2].set_ylabel("F1 of imputed pixels")
    axes[2].legend(fontsize=8)
    fig.tight_layout()
    return write(fig, out.with_name(f"{out.name}.png"))


if __name__ == "__main__":
    main()
