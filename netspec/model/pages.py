"""Pictures of a trained model: samples, completions, explanations, feature maps; and those of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from netspec import draw
from netspec.data.files.idx import Array
from netspec.data.files.images import decode, encode, resize
from netspec.errors import NetspecError, SpecError, did_you_mean
from netspec.model import completing, latents, model
from netspec.model.model import Model
from netspec.run.fit import Run

COLUMNS = 10
"""Samples of each class in a grid."""
GREY = (0, 255)
Page = tuple[float, float] | None
"""(width, height) in inches of the page that a picture is fitted to; None: the size that its panels need."""


def draw_run(run: Run) -> dict[str, Path]:
    """Draw the pictures of a run into its folder; returns the files by what they show. Training itself draws the loss
    plot.
    """
    files = {"graph": draw.graph(run.net, run.folder / "graph.svg").paths[0]}
    if (loss := run.folder / "loss.png").exists():
        files["loss plot"] = loss
    try:
        trained = model.load(run.folder)
    except NetspecError:  # such as a net without an image input: it has no samples to show
        return files
    if trained.generative and trained.is_table:
        from netspec.model.columns import draw_sampled
        from netspec.model.rows import TableModel

        files["samples"] = draw_sampled(TableModel(trained), run.folder / "samples.png")
    elif trained.generative or latents.find(trained) is not None:
        files["samples"] = sample_grid(trained, run.folder / "samples.png")
    return files


def check_classes(trained: Model, classes: Sequence[int]) -> None:
    """NetspecError where the net lacks one of `classes`."""
    if wrong := [c for c in classes if not 0 <= c < trained.tree.classes]:
        raise NetspecError(f"no class {wrong[0]}: the net has classes 0 to {trained.tree.classes - 1}")


def sample_grid(
    trained: Model,
    path: str | Path,
    columns: int = COLUMNS,
    classes: Sequence[int] = (),
    seed: int = 1,
    noise: bool = False,
    given: Sequence[tuple[str, int, int, int]] = (),
    page: Page = None,
) -> Path:
    """A page of ancestral samples, a row per class (Sharir et al. 2018, Fig. 5); gives its path.

    classes: default all of them. noise: draw pixels from the Gaussians of the leaves, instead of showing their means.
    given: states of latent variables that all samples have, (layer, row, column, state) each.
    """
    if (kind := latents.find(trained)) is not None:
        if classes or given:
            raise SpecError(f"{trained.name}: has no classes and no latent tree, so none can be given")
        return latents.sample_grid(trained, kind, path, columns, seed, noise, page)
    if completing.is_other(trained):
        drawn = completing.samples(trained, columns * columns, seed)
        return draw.grid(trained.to_pixels(drawn), path, columns=columns, limits=GREY, page=page)
    chosen = list(classes) or list(range(trained.tree.classes))
    check_classes(trained, chosen)
    y = torch.tensor(chosen).repeat_interleave(columns)
    pixels = trained.to_pixels(trained.sample(y, seed, noise, given))
    return draw.grid(
        pixels,
        path,
        columns=columns,
        row_labels=[trained.class_name(c) for c in chosen],
        limits=GREY,
        page=page,
    )


def completion_page(
    trained: Model,
    pixels: Array,
    observed: Array,
    path: str | Path,
    samples: int = 3,
    seed: int = 1,
    page: Page = None,
) -> Path:
    """Images, what is seen of them, expected completion and its deviation, samples, most probable completion.

    pixels: (N, C, H, W), 0..255. observed: (N, 1 or C, H, W), true where a pixel is seen. A latent-variable net has
    no deviation and no most probable completion.
    """
    x = trained.from_pixels(pixels, observed)
    if completing.is_other(trained):
        return filled_page(trained, x, trained.from_pixels(pixels), path, samples, seed, page)
    mean, deviation = trained.expected_completion(x)
    drawn = [trained.to_pixels(trained.complete(x, None, seed + i, noise=False)) for i in range(samples)]
    return draw.completion(
        path,
        trained.to_pixels(x),
        original=pixels,
        expected=trained.to_pixels(mean),
        deviation=deviation.cpu() / trained.unit,
        samples=drawn,
        most_probable=trained.to_pixels(trained.most_probable_completion(x)),
        limits=GREY,
        page=page,
    )


def filled_page(
    trained: Model, x: Tensor, whole: Tensor, path: str | Path, samples: int, seed: int, page: Page
) -> Path:
    """`completion_page` for a net that is no latent tree: its usual completion where that is deterministic, and
    draws.
    """
    ways = completing.completer(trained).ways
    drawn = "sampled" if "sampled" in ways else ways[0]
    mean = None if ways[0] == "sampled" else trained.to_pixels(completing.completed(trained, x, "", 0, seed))
    drawings = [completing.completed(trained, x, drawn, 0, seed + i) for i in range(samples)]
    return draw.completion(
        path,
        trained.to_pixels(x),
        original=trained.to_pixels(whole),
        expected=mean,
        samples=[trained.to_pixels(sample) for sample in drawings],
        limits=GREY,
        page=page,
    )


def completed_pictures(
    trained: Model,
    pixels: Array,
    observed: Array,
    names: Sequence[str],
    folder: Path,
    how: str = "",
    seed: int = 1,
) -> list[Path]:
    """Write each image with its missing pixels filled in as a .png of its name into a folder; gives their paths.

    how: a way that the kind of net offers (`netspec.model.completing`): "expected", "most_probable", "sampled", ...
    """
    x = trained.from_pixels(pixels, observed)
    filled = completing.completed(trained, x, how, 0, seed)
    whole = np.rint(trained.to_pixels(filled)).clip(0, 255).astype(np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    for image, name in zip(whole, names, strict=True):
        path = folder / f"{Path(name).stem}.png"
        path = path if path not in paths else folder / f"{Path(name).parent.name}_{path.name}"
        path.write_bytes(encode(image, "png", str(path)))
        paths.append(path)
    return paths


def explanation_page(
    trained: Model,
    pixels: Array,
    labels: Sequence[int],
    path: str | Path,
    size: int = 2,
    runners_up: int = 1,
    observed: Array | None = None,
    seed: int = 1,
    page: Page = None,
) -> Path:
    """For each image, what its patches contribute to its class and to the likeliest other classes.

    observed: (N, 1 or C, H, W), true where a pixel is seen, default everywhere. Where pixels are missing, one more map
    shows the expected fall of the class entropy from seeing each missing patch, estimated by draws from `seed`; the
    title names its largest value in nats, which has the colour at the end of the scale.
    """
    x = trained.from_pixels(pixels, observed)
    posterior = trained.posterior(x).cpu()
    order = posterior.argsort(1, descending=True)
    heat, titles = [], []
    for rank in range(min(1 + runners_up, order.shape[1])):
        y = order[:, rank]
        heat.append(spread(trained.contributions(x, y, size).cpu(), size, x.shape[2:]))
        titles.append(
            [
                f"class {trained.class_name(int(c))}, {per_cent(float(p[c]))}"
                for c, p in zip(y, posterior, strict=True)
            ]
        )
    if bool(x.isnan().any()):
        gain = trained.information_gain(x, size=size, seed=seed).cpu()
        most = gain.nan_to_num().abs().amax((1, 2), keepdim=True)
        full = max(float(torch.stack(heat).abs().max()), 1e-6)  # gains are small: each image's fill the scale
        heat.append(spread(gain / most.clamp_min(1e-12) * full, size, x.shape[2:]))
        titles.append([f"gain, up to {float(m):.2g}" for m in most])
    return draw.explain(
        path,
        trained.to_pixels(x),
        torch.stack(heat, 1),
        row_labels=[f"a {trained.class_name(label)}" if label >= 0 else "" for label in labels],
        titles=[list(row) for row in zip(*titles, strict=True)],
        limits=GREY,
        page=page,
    )


def spread(values: Tensor, size: int, shape: Sequence[int]) -> Tensor:
    """Repeat the value of each size x size patch (N, h, w) at its pixels (N, H, W)."""
    rows, columns = shape
    return values.repeat_interleave(size, 1).repeat_interleave(size, 2)[:, :rows, :columns]


def per_cent(p: float) -> str:
    """A probability in few signs: `99.8 %`, `< 0.1 %`."""
    return f"{100 * p:.1f} %" if p >= 0.001 else "< 0.1 %"


def activation_pages(
    trained: Model, folder: str | Path, image: str | Path | None = None, blobs: Sequence[str] = ()
) -> list[Path]:
    """Draw feature maps of blobs (default: all with a height and a width) for an image, and the filters of
    convolutions; returns the files.

    image: a picture file, resized to the net's input; default the first image of the net's test data.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    c, h, w = trained.image_shape
    if image is None:
        pixels = trained.images(begin=0, end=1)[0]
    else:
        pixels = resize(decode(Path(image), c == 3, str(image)), h, w)[None]
    inputs = [trained.from_pixels(pixels)]
    others = [trained.net.shapes[slot] for slot in trained.net.graph.inputs[1:]]
    inputs += [torch.zeros((1, *shape[1:]), device=trained.device) for shape in others]
    with torch.no_grad():
        values = trained.net.blobs(*inputs)
    if wrong := [name for name in blobs if name not in values]:
        raise NetspecError(f"no blob is called {wrong[0]!r}{did_you_mean(wrong[0], values)}")
    pages = []
    for name in blobs or [
        name for name, value in values.items() if value.dim() == 4 and value[0, 0].numel() > 1
    ]:
        pages.append(draw.feature_maps(values[name].cpu(), folder / f"{safe(name)}.png", title=name))
    for layer in trained.net.made:
        if "Convolution" in layer.spec.type and layer.blobs and layer.blobs[0].dim() == 4 and not blobs:
            name = layer.spec.name
            pages.append(draw.filters(layer.blobs[0].cpu(), folder / f"{safe(name)}_filters.png", title=name))
    return pages


def safe(name: str) -> str:
    """A blob's name as a file name."""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in name)
