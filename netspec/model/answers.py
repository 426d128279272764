"""What a generative model says of images in numbers: their likelihood, their class, with any pixels missing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from netspec.data.files.idx import Array
from netspec.model.model import Model
from netspec.queries.marginals import entropy

CLASSES = 3
"""Classes that a line names, the likeliest first."""

CODE = "log p: of a probability, in nats; bits: -log2 p for each observed value, the length of an ideal code"
DENSITY = (
    "log p: of a density, in nats (the leaves are continuous); density: -log2 (density x size of a grey level) for "
    "each observed value, no code length: compare it with densities alone"
)


@dataclass(frozen=True)
class Answer:
    """What a model says of one image. Logarithms are in nats. Bits are NaN where no pixel is observed.

    With discrete leaves log_likelihood is of a probability and bits_per_dimension a code length; else both are of a
    density, which has no bits to compare with.
    """

    image: int
    label: int
    observed: int
    """Pixels that are observed, of all channels."""
    log_likelihood: float
    """log p(observed pixels), in the units of the net's input."""
    bits_per_dimension: float
    """Bits for each observed pixel; of a density: that of whole grey levels, times a level's size."""
    posterior: tuple[float, ...]
    """p(class | observed pixels)."""
    entropy: float
    """Entropy of the posterior over classes, in nats."""
    kind: str = "density"
    """What log_likelihood is of: "probability" (discrete leaves) or "density"."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"bits_per_dimension": self.bits_per_dimension if self.observed else None}


class Answers(list[Answer]):
    """Answers in the order of their images; prints, and shows itself in a notebook, as a table."""

    def __str__(self) -> str:
        return table(self)

    def _repr_html_(self) -> str:
        return as_html(self)


def ask(
    trained: Model, pixels: Array, labels: Sequence[int], observed: Array | None = None, first: int = 0
) -> Answers:
    """An answer for each image, numbered from `first`. pixels (N, C, H, W) 0..255; observed (N, 1 or C, H, W)."""
    x = trained.from_pixels(pixels, observed)
    likelihood, bits = trained.log_likelihood(x).tolist(), trained.bits_per_dimension(x).tolist()
    posterior = trained.posterior(x)
    kind = "probability" if trained.discrete else "density"
    spread, seen = entropy(posterior).tolist(), (~x.isnan()).flatten(1).sum(1).tolist()
    return Answers(
        Answer(first + i, int(labels[i]), seen[i], likelihood[i], bits[i], tuple(p), spread[i], kind)
        for i, p in enumerate(posterior.tolist())
    )


def table(answers: Sequence[Answer], name: Callable[[int], str] = str) -> str:
    """One line per image under a head, then a note on what log p and bits mean. `name` names a class by its number."""
    rows, note = cells(answers, name)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    lines = [
        "  ".join([*(cell.rjust(w) for cell, w in zip(row[:-1], widths, strict=True)), row[-1]])
        for row in rows
    ]
    return "\n".join([*lines, note])


def as_html(answers: Sequence[Answer]) -> str:
    """The same table for notebooks."""
    (head, *rows), note = cells(answers)
    line = "".join(f"<th>{cell}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{line}</tr></thead><tbody>{body}</tbody></table><p>{note}</p>"


def cells(answers: Sequence[Answer], name: Callable[[int], str] = str) -> tuple[list[list[str]], str]:
    """(a head and a row per image, what log p and bits are)."""
    discrete = all(a.kind == "probability" for a in answers)
    bits_head = "bits" if discrete else "density"
    rows = [["image", "label", "observed", "log p", bits_head, "entropy", "classes"]]
    for a in answers:
        order = sorted(range(len(a.posterior)), key=lambda y: -a.posterior[y])[:CLASSES]
        classes = ", ".join(f"{name(y)} {100 * a.posterior[y]:.1f} %" for y in order)
        bits = f"{a.bits_per_dimension:.3f}" if a.observed else ""
        label = name(a.label) if a.label >= 0 else ""
        rows.append([str(a.image), label, str(a.observed), f"{a.log_likelihood:.2f}", bits, f"{a.entropy:.3f}",
                     classes])  # fmt: skip
    return rows, CODE if discrete else DENSITY
