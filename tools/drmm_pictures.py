"""Pictures of a trained rendering model, and its probes and trees, for docs/results/drmm.md.

python tools/drmm_pictures.py pictures runs/drmm/drmm2_mnist_supervised_all_seed1 docs/results/drmm
python tools/drmm_pictures.py probe RUN OUT        class and nuisances by layer, as JSON and a plot
python tools/drmm_pictures.py trees --images 10000 the evolutionary DRMM beside scikit-learn's trees
python tools/drmm_pictures.py speed drmm2_mnist    the way top-down against the way bottom-up
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import typer
from torch import Tensor

from netspec import data, draw, schema, spec
from netspec.data.datasets import load as load_data
from netspec.graph import compile
from netspec.net import build
from netspec.rendering import RenderingModel, activity, sampling
from netspec.rendering.levels import best_scale
from netspec.rendering.probe import probe as probe_layers
from netspec.rendering.probe import transform
from netspec.rendering.trees import ClassTrees, Forest, grow
from tools import render_nets
from tools.reproduce_drmm import model_of, test_images

SEED = 1
app = typer.Typer(add_completion=False)


def generator(seed: int = SEED) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mnist(split: str, count: int) -> tuple[Tensor, Tensor]:
    """The first `count` images (N, 1, 28, 28) in [0, 1) and their labels."""
    found = load_data("mnist", split, "digits")
    return torch.from_numpy(found.images[:count] / 256).float(), torch.from_numpy(
        found.labels[:count].astype(np.int64)
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
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    model, _ = model_of(run)
    x, labels = mnist("test", images)
    found = probe_layers(model, transform(x, generator()), labels)
    print(json.dumps({name: rounded(values) for name, values in found.items()}))
    figure = Figure(figsize=(5, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, values in found.items():
        axes.plot(range(len(values)), values, marker="o", label=name)
    axes.set_xticks(
        range(len(model.levels) + 1), ["image", *(f"level {i + 1}" for i in range(len(model.levels)))]
    )
    axes.set_ylabel("accuracy (class), R² (nuisances)")
    axes.legend(fontsize=7)
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "probe.png", dpi=120)


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


@app.command()
def speed(name: str, rounds: int = 15) -> None:
    """Processor seconds of one thread for 100 images, the least of some rounds: up, down, training steps."""
    torch.set_num_threads(1)
    document = schema.parse_net(render_nets.rendered(name), f"{name}.prototxt")
    nets = {
        "dcn": build(compile(spec.net(document, "TRAIN", ("dcn",))), seed=1),
        "eg": build(compile(spec.net(document, "TRAIN")), seed=1),
    }
    batch = data.feeder(nets["eg"], 1).next()
    model = RenderingModel(nets["eg"])
    with torch.no_grad():
        messages, switches = model.up(batch[0])
        top = messages[-1]
        if model.by_class:
            top = model.template(model.scores(top).argmax(1), top.shape)
        row = {
            "net": name,
            "up": least(lambda: model.scores(model.up(batch[0])[0][-1]), rounds),
            "down": least(lambda: model.down(top, switches), rounds),
        }
    for kind, net in nets.items():
        row[f"step_{kind}"] = least(lambda net=net: net.objective(net(*batch)).backward(), rounds)  # type: ignore[misc]
    print(json.dumps(row))


def least(work: Callable[[], object], rounds: int) -> float:
    """The least processor time of some runs, in seconds: other programs on the machine hardly count."""
    found = []
    for _ in range(rounds):
        begin = time.process_time()
        work()
        found.append(time.process_time() - begin)
    return round(min(found), 5)


if __name__ == "__main__":
    app()
