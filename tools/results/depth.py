"""Theorem 1 of Sharir et al. 2018 in numbers: how many channels a shallow net needs for what a deep one computes.

    python -m tools.results.depth [--draws 20] [--quick]

The coefficient tensor of a net over N patches of M components has M^N entries; its matricisation has the odd modes as
rows and the even ones as columns. Its rank is at most the tensor's CP rank, which is the number of channels that CP-CAC
needs. The theorem: with r = min(r_0, M) channels the rank of HT-CAC is at least r^(N/2), but for weights of measure
zero. Here weights are drawn from the simplex and ranks computed without rounding: weights are fractions, arithmetic is
modulo the prime 2^31 - 1, and a rank modulo a prime is at most the rank itself, so each rank below is a proof for its
weights.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from netspec.data.files.idx import Array
from tools.results.reproduction import Results, markdown, page, parser

PRIME = 2**31 - 1
GREATEST = 10_000
"""A weight is n / sum of n over its vector, n from 1 to this."""
CASES = ((2, 2), (4, 2), (8, 2), (16, 2), (4, 3), (8, 3), (4, 4), (8, 4), (4, 6), (4, 8))
"""(N, M); as many channels as components in each level."""

HEAD = (
    "N, M",
    "r^(N/2)",
    "HT-CAC: rank",
    "the same, shared weights",
    "its weights",
    "CP-CAC: channels: rank",
)
Vectors = Callable[..., Array]


def simplex(generator: np.random.Generator) -> Vectors:
    """A function of a shape that draws vectors (along the last axis) from the simplex, as residues."""

    def draw(*shape: int) -> Array:
        counts = generator.integers(1, GREATEST + 1, shape)
        inverse = np.vectorize(lambda total: pow(int(total), -1, PRIME), otypes=[np.int64])
        residues: Array = counts * inverse(counts.sum(-1, keepdims=True)) % PRIME
        return residues

    return draw


def deep(n: int, m: int, channels: int, draw: Vectors, shared: bool = False) -> Array:
    """The matricised tensor (M^(N/2), M^(N/2)) of HT-CAC, as residues; N is a power of two.

    shared: all positions of a level have the same weights.
    """
    leaves = draw(1 if shared else n, channels, m)
    leaves = np.broadcast_to(leaves, (n, channels, m))
    odd, even = leaves[0::2], leaves[1::2]  # (N/2, channels, M)
    below = odd[..., :, None] * even[..., None, :] % PRIME  # matrices of each pair and channel
    while len(below) > 1:
        weights = draw(1 if shared else len(below), channels, channels)
        mixed = mix(np.broadcast_to(weights, (len(below), channels, channels)), below)
        rows, columns = mixed.shape[2], mixed.shape[3]
        left, right = mixed[0::2], mixed[1::2]
        product = left[:, :, :, None, :, None] * right[:, :, None, :, None, :] % PRIME
        below = product.reshape(len(left), channels, rows * rows, columns * columns)
    top: Array = mix(draw(1, 1, channels), below)[0, 0]
    return top


def mix(weights: Array, matrices: Array) -> Array:
    """sum over c of weights[j, d, c] * matrices[j, c], residues."""
    total = np.zeros((len(matrices), weights.shape[1], *matrices.shape[2:]), np.int64)
    for c in range(weights.shape[2]):
        total = (total + weights[:, :, c, None, None] * matrices[:, None, c]) % PRIME
    return total


def shallow(n: int, m: int, channels: int, draw: Vectors) -> Array:
    """The matricised tensor of CP-CAC with so many channels, as residues."""
    vectors, weights = draw(n, channels, m), draw(channels)

    def products(chosen: Array) -> Array:
        combined = np.ones((channels, 1), np.int64)
        for one in chosen:
            combined = (combined[:, :, None] * one[:, None, :] % PRIME).reshape(channels, -1)
        return combined

    rows, columns = products(vectors[0::2]), products(vectors[1::2])
    total = np.zeros((rows.shape[1], columns.shape[1]), np.int64)
    for z in range(channels):
        total = (total + weights[z] * rows[z][:, None] % PRIME * columns[z][None, :]) % PRIME
    return total


def rank(matrix: Array) -> int:
    """The rank modulo the prime, by elimination."""
    rows, done = matrix.astype(np.int64) % PRIME, 0
    for column in range(rows.shape[1]):
        pivots = np.flatnonzero(rows[done:, column])
        if not len(pivots):
            continue
        pivot = done + int(pivots[0])
        rows[[done, pivot]] = rows[[pivot, done]]
        rows[done] = rows[done] * pow(int(rows[done, column]), -1, PRIME) % PRIME
        below = rows[done + 1 :]
        below -= below[:, column, None] * rows[done][None, :] % PRIME
        below %= PRIME
        done += 1
        if done == len(rows):
            break
    return done


def weights_of(n: int, m: int, channels: int) -> int:
    """Weights of HT-CAC with its own at each position: leaves, levels, top."""
    levels = n.bit_length() - 2
    inner = sum((n >> level) * channels**2 for level in range(1, levels + 1))
    return n * channels * m + inner + channels


def case(n: int, m: int, draws: int, seed: int) -> dict[str, Any]:
    """Ranks of HT-CAC and of CP-CAC with 1, r, r^2, ... channels over so many draws of the weights."""
    generator = np.random.default_rng([seed, n, m])
    draw = simplex(generator)
    ranks: dict[str, Any] = {"bound": m ** (n // 2), "weights": weights_of(n, m, m)}
    for name, shared in (("deep", False), ("deep, shared", True)):
        ranks[name] = [rank(deep(n, m, m, draw, shared)) for _ in range(draws)]
    for z in (m, 2 * m, m * m):
        ranks[f"shallow, {z}"] = [rank(shallow(n, m, z, draw)) for _ in range(draws)]
    return ranks


def least_and_most(values: list[int]) -> str:
    """One number, or the range."""
    return str(values[0]) if len(set(values)) == 1 else f"{min(values)} to {max(values)}"


def report(out: Path, results: Results) -> Path:
    """The page, from the record."""
    rows = []
    for key, ranks in results.values.items():
        shallows = [name for name in ranks if name.startswith("shallow")]
        rows.append([
            key, ranks["bound"], least_and_most(ranks["deep"]), least_and_most(ranks["deep, shared"]), ranks["weights"],
            "; ".join(f"{name.removeprefix('shallow, ')}: {least_and_most(ranks[name])}" for name in shallows),
        ])  # fmt: skip
    below = [
        key
        for key, ranks in results.values.items()
        if min(ranks["deep"] + ranks["deep, shared"]) < ranks["bound"]
    ]
    said = (
        f"The bound is not reached by every draw of {'; '.join(below)}: such weights, or the prime, are exceptions."
        if below
        else "The bound holds for every draw."
    )
    parts = [
        f"{said} Each of {results.settings['draws']} draws gives random weights from the simplex, as many channels "
        "as components (r = M). Ranks are of the matricised coefficient tensor, modulo the prime 2^31 - 1, so they are "
        "lower bounds of the ranks without rounding. CP-CAC with Z channels has at most rank Z: to compute what HT-CAC "
        "computes it needs at least as many channels as the third column says, exponentially many in N, while the "
        "weights of HT-CAC grow in proportion to N.",
        markdown(HEAD, rows),
        "For nets/ht_cac_mnist.prototxt N is 256 and r 32; its matrix of 32^128 rows cannot be written down.",
    ]  # fmt: skip
    facts = {**results.settings, **results.facts()}
    return page(out.with_suffix(".md"), "Depth efficiency (Theorem 1)", parts, facts)


def main() -> None:
    """Compute what is missing, print and write."""
    options = parser(__doc__, "docs/results/depth")
    options.add_argument("--draws", type=int, default=20)
    args = options.parse_args()
    draws = 2 if args.quick else args.draws
    results = Results(args.out.with_suffix(".json"), {"draws": draws, "seed": args.seed})
    for n, m in CASES[:5] if args.quick else CASES:
        results.get(f"{n}, {m}", lambda n=n, m=m: case(n, m, draws, args.seed))  # type: ignore[misc]
    print(report(args.out, results).read_text())


if __name__ == "__main__":
    main()
