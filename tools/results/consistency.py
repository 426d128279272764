"""A trained generative net contradicts itself nowhere: three checks of its probabilities on test images.

    python -m tools.results.consistency runs/ht_cac_mnist [--images 4] [--draws 1024] [--out docs/results/consistency]

1. log p of an image with pixels missing is the log-sum-exp over its completions. Half of the pixels are missing;
   of the observed ones two of one patch are taken away as well, and the plane of their values is cut
   into a square grid: log sum over the grid of p(half image with these two values) * spacing^2 tends to
   log p(half image without the two) as the spacing falls. Likewise one pixel of a half-missing image, and two
   pixels of two patches of a whole image, where the completions are whole images.
2. The mean of n sampled completions tends to the expected completion, with the error deviation / sqrt(n).
3. With everything missing log p = 0, for every class.

All in float64. The density's fudge makes each component's mass sqrt(1 + fudge / w) a coordinate in place of 1;
the limit that check 1 must reach counts it in.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from netspec import lab
from netspec.data.draws import derive
from netspec.layers.base import Layer, as_tuple
from netspec.layers.simnets.similarity import Similarity
from netspec.model import model
from netspec.queries.likelihood import class_log_likelihood, log_likelihood
from netspec.queries.marginals import expected_completion
from netspec.queries.sampling import complete
from netspec.queries.tree import Tree
from tools.results.reproduction import page, parser, write_record

BATCH = 500
TAIL = 6
"""Deviations of the outermost components that the grid reaches beyond their means."""
Place = tuple[int, int]


def edges(tree: Tree) -> tuple[float, float]:
    """Values beyond which no component has mass."""
    leaf = tree.leaf
    assert isinstance(leaf, Similarity)
    t, reach = leaf.blob(0).flatten(1), TAIL * leaf.precisions().rsqrt()
    return float((t - reach).min()), float((t + reach).max())


def completions(tree: Tree, x: Tensor, places: Sequence[Place], spacing: float) -> tuple[float, int]:
    """(log of the integral of p over the values at `places`, as a sum over a grid; its number of points).

    x (1, C, H, W); the first channel's values at `places` are replaced by every point of the grid.
    """
    low, high = edges(tree)
    axis = torch.arange(low, high + spacing, spacing, dtype=x.dtype)
    points = torch.cartesian_prod(*[axis] * len(places)).view(-1, len(places))
    rows, columns = ([place[i] for place in places] for i in (0, 1))
    terms = []
    for part in torch.split(points, BATCH):
        filled = x.repeat(len(part), 1, 1, 1)
        filled[:, 0, rows, columns] = part
        terms.append(log_likelihood(tree, filled))
    total = torch.logsumexp(torch.cat(terms), 0) + len(places) * np.log(spacing)
    return float(total), len(points)


def limit(tree: Tree, x: Tensor, places: Sequence[Place]) -> float:
    """What `completions` tends to: log p(x without `places`), each component counted with the mass it has."""
    leaf = tree.leaf
    assert isinstance(leaf, Similarity)
    without = x.clone()
    gone = torch.zeros_like(x)
    for row, column in places:
        without[:, 0, row, column], gone[:, 0, row, column] = torch.nan, 1.0
    w_MK = leaf.precisions()
    extra_MK = 0.5 * (leaf.log_weights(leaf.blob(1).flatten(1)) - w_MK.log())
    extra = (leaf.block.patches(gone).nan_to_num() @ extra_MK.T).permute(0, 4, 1, 2, 3).flatten(1, 2)

    def call(layer: Layer, value: Tensor) -> Tensor:
        top = as_tuple(layer(value))[0]
        return top + extra if layer is leaf else top

    scores = tree.up(without, call)[-1].flatten(1)
    return float(torch.logsumexp(scores, 1) - np.log(tree.classes))


def sampled_means(tree: Tree, x: Tensor, numbers: Sequence[int], seed: int) -> list[tuple[int, float, float]]:
    """(n, root mean square of mean of n completions - expectation, what is expected of it) over missing pixels.

    x (B, C, H, W). The draws of a smaller n are among those of a larger.
    """
    mean, deviation = expected_completion(tree, x)
    missing = x.isnan()
    wanted = float(deviation[missing].square().mean().sqrt())
    generator, total, drawn, means = torch.Generator().manual_seed(seed), torch.zeros_like(x), 0, []
    for n in numbers:
        for _ in range(n - drawn):
            total += complete(tree, x, None, generator)
        drawn = n
        error = float((total / n - mean)[missing].square().mean().sqrt())
        means.append((n, error, wanted / n**0.5))
    return means


def nothing_observed(tree: Tree) -> float:
    """Largest |log p(nothing | y)| of a class."""
    empty = torch.full((1, *tree.image_shape), torch.nan, dtype=tree.leaf.blobs[0].dtype)
    return float(class_log_likelihood(tree, empty).abs().max())


def inked(x: Tensor, apart: bool) -> list[Place]:
    """Two observed pixels near the middle of a window of the leaf's grid: of one patch, or of two patches."""
    seen, step = ~x[0, 0].isnan(), 2
    middle = x.shape[2] // 2
    for row in range(middle - middle % step, x.shape[2] - step, step):
        for column in range(middle - middle % step, x.shape[3] - step, step):
            other = (row + 1, column) if not apart else (row, column + step)
            if seen[row, column] and seen[other]:
                return [(row, column), other]
    raise ValueError("no two neighbouring pixels are observed")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, figures as they are written."""
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def quadratures(tree: Tree, whole: Tensor, half: Tensor, fine: float) -> list[list[str]]:
    """Rows of check 1."""
    cases = [("one pixel of a half-missing image", half, inked(half, False)[:1], (8, 4, 2, 1)),
             ("two pixels of one patch of a half-missing image", half, inked(half, False), (8, 4, 2)),
                  ("two pixels of two patches of a whole image", whole, inked(whole, True), (8, 4, 2))]  # fmt: skip
    rows = []
    for name, x, places, steps in cases:
        wanted = limit(tree, x, places)
        for step in steps:
            value, points = completions(tree, x, places, step * fine)
            rows.append([name, f"{step * fine:g}", f"{points}", f"{value:.9f}", f"{wanted:.9f}",
                         f"{abs(value - wanted):.1e}"])  # fmt: skip
            print(*rows[-1], flush=True)
    return rows


def check(args: argparse.Namespace) -> None:
    """Run the three checks and write the page."""
    net = model.load(args.run)
    net.net.double()
    pixels, _ = net.images("test", 0, args.images)
    seen = lab.parse("iid:0.5").observed(pixels, np.arange(args.images), args.seed)
    whole, half = net.from_pixels(pixels).double(), net.from_pixels(pixels, seen).double()
    tree = net.tree
    with torch.no_grad():
        rows = quadratures(tree, whole[:1], half[:1], args.fine)
        numbers = [4**k for k in range(20) if 4**k <= args.draws]
        means = sampled_means(tree, half, numbers, derive(args.seed, "completions"))
        empty = nothing_observed(tree)
    drawn = [[str(n), f"{e:.5f}", f"{w:.5f}", f"{e / w:.3f}"] for n, e, w in means]
    low, high = edges(tree)
    assert isinstance(tree.leaf, Similarity)
    narrowest = float(tree.leaf.precisions().max()) ** -0.5
    parts = [
        "Every figure is of one trained model, in float64, on the first test images; what is checked, and how, "
        "stands at the head of `tools/results/consistency.py`.",
        "## log p of what is observed is the log-sum-exp over completions",
        f"The grid reaches from {low:.2f} to {high:.2f}, in units of x (a grey level is {net.unit:.5f}), {TAIL} "
        f"deviations beyond every Gaussian's mean. The narrowest Gaussian has the deviation "
        f"{narrowest:.4f}; a Gaussian of deviation s summed at spacing h is off by a share of "
        "2 exp(-2 (pi s / h)^2) at most: 58 % at h = 4 s, 1.4 % at 2 s, 5e-9 at s. Nats.",
        table(("completed", "spacing", "completions", "log sum", "log p", "difference"), rows),
        "## The mean of sampled completions tends to the expected completion",
        f"Root mean square over all missing pixels of {args.images} half-missing images; the error that draws "
        "without fault have is the expected completion's deviation over sqrt(n).",
        table(("draws n", "error", "deviation / sqrt(n)", "ratio"), drawn),
        "## Everything missing",
        f"Largest |log p(nothing | y)| of a class: {empty:.1e} nats.",
    ]
    facts = {"run": args.run.name, "seed": args.seed, **lab.circumstances()}
    record = {"quadrature": rows, "sampled means": drawn, "everything missing": empty, "made": facts}
    write_record(args.out, record)
    print(page(args.out.with_suffix(".md"), f"Consistency of {args.run.name}", parts, facts))


def main() -> None:
    """Read the options and check."""
    options = parser(__doc__, "docs/results/consistency")
    options.add_argument("run", type=Path, help="run folder of a generative net")
    options.add_argument("--images", type=int, default=4, help="test images with half of the pixels missing")
    options.add_argument("--draws", type=int, default=1024, help="completions of each image, at most")
    options.add_argument("--fine", type=float, default=0.01, help="the finest spacing, in units of x")
    check(options.parse_args())


if __name__ == "__main__":
    main()
