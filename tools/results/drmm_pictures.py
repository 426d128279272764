"""Pictures of a trained rendering model, and its probes and trees, for docs/results/drmm.md.

python -m tools.results.drmm_pictures pictures runs/drmm/drmm2_mnist_supervised_all_seed1 docs/results/drmm
python -m tools.results.drmm_pictures probe RUN OUT        class and nuisances by layer, as JSON and a plot
python -m tools.results.drmm_pictures paths RUN OUT        the paths that render one pixel, of a small net
python -m tools.results.drmm_pictures curves OUT.png RUN RUN     errors of runs against epochs (Fig. 2, middle)
python -m tools.results.drmm_pictures trees --images 10000 the evolutionary DRMM beside scikit-learn's trees
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import typer
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from netspec import draw
from netspec.data.sets.datasets import load as load_data
from netspec.rendering import RenderingModel, Switches, activity, paths, sampling
from netspec.rendering.levels import best_scale
from netspec.rendering.probe import probe as probe_layers
from netspec.rendering.probe import transform
from netspec.rendering.trees import ClassTrees, Forest, grow
from netspec.run.folder import parse_lines
from tools.results.drmm import model_of, test_images

SEED = 1
app = typer.Typer(add_completion=False)


def generator(seed: int = SEED) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mnist(split: str, count: int) -> tuple[Tensor, Tensor]:
    """The first `count` images (N, 1, 28, 28) in [0, 1) and their labels."""
    data = load_data("mnist", split, "digits")
    return torch.from_numpy(data.images[:count] / 256).float(), torch.from_numpy(
        data.labels[:count].astype(np.int64)
    )


@app.command()
@torch.no_grad()
def pictures(run: Path, out: Path) -> None:
    """Filters, reconstructions, samples, and the images that each class likes best."""
    out.mkdir(parents=True, exist_ok=True)
    model, _ = model_of(run)
    draw.filters(model.levels[0].weight, out / "filters.png", title="filters of level 1")
    x = test_images(model, 20)
    image = model.reconstruct(x)
    both = torch.stack((x, image * best_scale(image, x)), 1).flatten(0, 1)
    draw.grid(
        both, out / "reconstructions.png", columns=10, limits=(0.0, 1.0), title="images and reconstructions"
    )
    train, labels = mnist("train", 5000)
    c = torch.arange(10).repeat_interleave(6)
    bank = sampling.Bank(model, train, labels).sample(c, generator())
    draw.grid(bank, out / "samples_bank.png", columns=6, limits="each", title="switches of a training image")
    if model.by_class:
        shares = sampling.frequencies(model, torch.split(train, 500))
        drawn = sampling.draw_switches(model, shares, len(c), generator())
        images = sampling.sample(model, c, drawn)
        draw.grid(
            images,
            out / "samples_independent.png",
            columns=6,
            limits="each",
            title="switches drawn one by one",
        )
    print(json.dumps(maximise(model, out)))


def maximise(model: RenderingModel, out: Path) -> dict[str, Any]:
    """Activity maximisation of every class in both ways: scores of the unit-norm images, and their cosine."""
    closed, ascended = [], []
    for c in range(10):
        closed.append(activity.closed_form(model, c, (1, 28, 28), 7, generator=generator(c)).image)
        with torch.enable_grad():
            ascended.append(activity.gradient_ascent(model, c, (1, 28, 28), generator=generator(c)).image)
    one, other = (activity.unit(torch.stack(images)) for images in (closed, ascended))
    draw.grid(torch.cat((one, other)), out / "activity.png", columns=10, limits="each",
              row_labels=["closed form", "gradient"], column_labels=[str(c) for c in range(10)])  # fmt: skip
    scores = [model.scores(model.up(x)[0][-1]).diagonal().tolist() for x in (one, other)]
    cosine = (one * other).flatten(1).sum(1).tolist()
    return {"closed_form": rounded(scores[0]), "gradient": rounded(scores[1]), "cosine": rounded(cosine)}


def rounded(values: list[float]) -> list[float]:
    return [round(value, 3) for value in values]


@app.command()
def probe(run: Path, out: Path, images: int = 4000) -> None:
    """Fig. 2 (left): what is linearly decodable from each level of test images moved in known ways."""
    model, _ = model_of(run)
    x, labels = mnist("test", images)
    measures = probe_layers(model, transform(x, generator()), labels)
    print(json.dumps({name: rounded(values) for name, values in measures.items()}))
    out.mkdir(parents=True, exist_ok=True)
    draw_probe(measures, out / "probe.png")


def draw_probe(measures: dict[str, list[float]], path: Path) -> None:
    """A line for the class and for each nuisance, from the image up."""
    figure = Figure(figsize=(6, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, values in measures.items():
        axes.plot(range(len(values)), values, marker="o", label=name)
    levels = range(1, len(measures["class"]))
    axes.set_xticks(range(len(measures["class"])), ["image", *(f"level {i}" for i in levels)])
    axes.set_ylabel("accuracy (class), R² (nuisances)")
    figure.legend(loc="outside right center", fontsize=7)
    figure.savefig(path, dpi=120)


@app.command()
def trees(images: int = 10000, forest: int = 20, depth: int = 10) -> None:
    """Test errors (%) of the evolutionary DRMM and of scikit-learn's trees on as many MNIST images."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.tree import DecisionTreeClassifier

    (x, y), (x_test, y_test) = mnist("train", images), mnist("test", 10000)
    x, x_test = x.flatten(1), x_test.flatten(1)

    def error(scores: Tensor) -> float:
        return round(100 * float((scores.argmax(1) != y_test).float().mean()), 2)

    row = {"images": images, "tree": error(grow(x, y, 10, depth, generator=generator()).posterior(x_test))}
    grown = Forest.grow(x, y, 10, forest, depth, generator=generator())
    row["forest"] = error(grown.posterior(x_test))
    row["class_trees"] = error(ClassTrees.grow(x, y, 10, 6, generator()).scores(x_test))
    for name, kind in (
        ("sklearn_tree", DecisionTreeClassifier(random_state=SEED)),
        ("sklearn_forest", RandomForestClassifier(forest, random_state=SEED)),
    ):
        score = kind.fit(x.numpy(), y.numpy()).score(x_test.numpy(), y_test.numpy())
        row[name] = round(100 * (1 - float(score)), 2)
    print(json.dumps(row))


@app.command("paths")
@torch.no_grad()
def draw_paths(run: Path, out: Path, image: int = 0) -> None:
    """Sum over paths: every active path from the winning class's template to the brightest rendered pixel."""
    model, _ = model_of(run)
    x = test_images(model, image + 1)[image:]
    _, switches, z = model.infer(x)
    row, column = divmod(int(z[0][0, 0].argmax()), x.shape[3])
    active = list(paths.paths(model, z[-1], switches, (0, row, column)))
    everywhere = [Switches(torch.ones_like(a), t) for a, t in switches]
    on = len(active), sum(1 for _ in paths.paths(model, torch.ones_like(z[-1]), everywhere, (0, row, column)))
    total = sum(path.weight for path in active)
    fan = draw_fan(active, len(model.levels))
    x0, i0 = (picture[0, 0].numpy() for picture in (x, z[0]))
    for axes, pixels, title in zip(fan.axes[1:], (x0, i0), ("image", "rendered"), strict=True):
        axes.imshow(pixels, cmap="gray")
        axes.plot([column], [row], "s", mfc="none", mec="tab:red")
        axes.set_title(title, fontsize=8)
        axes.set_axis_off()
    fan.axes[0].set_title(
        f"{on[0]} active paths (of {on[1]} with all a = 1) sum to {total:.3f}; rendered {z[0][0, 0, row, column]:.3f}",
        fontsize=8,
    )
    out.mkdir(parents=True, exist_ok=True)
    fan.savefig(out / "paths.png", dpi=130)
    print(
        json.dumps({"paths": on[0], "all": on[1], "sum": total, "rendered": float(z[0][0, 0, row, column])})
    )


@app.command()
def curves(out: Path, runs: list[Path], aim: float = 1.5, epoch: int = 500) -> None:
    """Fig. 2 (middle): error (%) of each test of some runs, and when it first was at most `aim`."""
    figure = Figure(figsize=(5, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for run in runs:
        every, _ = parse_lines((run / "metrics.jsonl").read_bytes())
        lines = [line for line in every if line["kind"] == "test"]
        points = [(line["iteration"] / epoch, 100 * (1 - line["outputs"]["accuracy"])) for line in lines]
        axes.plot(*zip(*points, strict=True), marker=".", label=run.name)
        first = next((epochs for epochs, error in points if error < aim + 1e-4), None)
        print(json.dumps({"run": run.name, "first": first, "last": rounded([points[-1][1]])[0]}))
    axes.axhline(aim, color="grey", lw=0.8)
    axes.set_xlabel("epochs")
    axes.set_ylabel("error (%)")
    axes.legend(fontsize=7)
    figure.savefig(out, dpi=120)


def draw_fan(active: list[paths.Path], levels: int) -> Figure:
    """The paths as lines between the units of each level, units above, the pixel below; two axes are left free."""
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, 2, width_ratios=(4, 1))
    axes = figure.add_subplot(grid[:, 0])
    for i in range(2):
        figure.add_subplot(grid[i, 1])
    places = [sorted({path.units[levels - n] for path in active}) for n in range(levels + 1)]
    at = [{u: (i + 1) / (len(units) + 1) for i, u in enumerate(units)} for units in places]
    most = max(abs(path.weight) for path in active)
    for path in sorted(active, key=lambda path: abs(path.weight)):
        strength = abs(path.weight) / most
        line = [at[n][path.units[levels - n]] for n in range(levels + 1)]
        colour = "tab:red" if path.weight < 0 else "tab:blue"
        axes.plot(line, range(levels + 1), color=colour, lw=0.3 + 2 * strength, alpha=0.15 + 0.7 * strength)
    for n, units in enumerate(places):
        axes.plot([at[n][u] for u in units], [n] * len(units), "o", ms=4, color="black")
    names = ["pixel", *(f"level {n}: {len(places[n])} units" for n in range(1, levels + 1))]
    axes.set_yticks(range(levels + 1), names, fontsize=8)
    axes.set_xticks([])
    for side in ("top", "right", "bottom", "left"):
        axes.spines[side].set_visible(False)
    return figure


if __name__ == "__main__":
    app()
