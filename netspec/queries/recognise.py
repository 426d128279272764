"""Finds the latent tree in a net: its chain of layers, seen through the helper layers of the original's nets.

Those nets keep activations near 0: n = logsumexp(x) over the channels is taken off below each MEX and pooled beside it,
then added back (CP-CAC) or carried to the top as `total_norm` (HT-CAC). Random masks of ones multiply activations, or
make pixels NaN. All of it changes activations only by a term that is common to the states of a position, and a
normalised MEX and SUM pooling hand such a term on; so the activations of the bare chain Similarity, MEX, SUM pooling,
... say the same of states and classes, and are the log densities. The search labels each blob with what it equals, up
to such a term.
"""

from __future__ import annotations

from collections.abc import Sequence

from netspec.errors import Problem, SpecError
from netspec.layers.traits import Chain, Other, Value
from netspec.layers.tree import Leaf
from netspec.net.graph import Step
from netspec.net.net import Net


def chain(net: Net) -> tuple[list[int], int]:
    """(the indices of the tree's steps from the leaf up, the slot of the blob that the leaf takes for pixels).

    Raises SpecError where the tree branches, where a layer changes activations in any other way, and where there is no
    tree.
    """
    values: dict[int, Value] = {}
    pixels: dict[int, int] = {}
    for i, (step, layer) in enumerate(zip(net.graph.steps, net.made, strict=True)):
        below = [values.get(slot, Other(slot)) for slot in step.reads]
        if isinstance(layer, Leaf) and layer.is_leaf:
            if pixels:
                first = net.graph.steps[next(iter(pixels))].layer
                raise SpecError([step.layer.problem(f"a second leaf beside {first}; a tree has one")])
            pixels[i] = below[0].slot if isinstance(below[0], Other) else step.reads[0]
            values[step.writes[0]] = Chain((i,))
            continue
        held = layer.tree_value(i, below)
        if held is not None:
            values[step.writes[0]] = held
        elif not reads_scores(step, below):
            touched = next((value for value in below if isinstance(value, Chain)), None)
            if touched is not None:
                raise SpecError([stranger(step, net.graph.steps[touched.steps[-1]])])
    if not pixels:
        raise SpecError([leafless(net)])
    return only(
        [value.steps for value in values.values() if isinstance(value, Chain)], net.graph.steps
    ), next(iter(pixels.values()))


def leafless(net: Net) -> Problem:
    """The problem that the first layer over the input is no leaf."""
    pixels = set(net.graph.inputs)
    for step, layer in zip(net.graph.steps, net.made, strict=True):
        if not pixels.intersection(step.reads):
            continue
        if not layer.passes:
            return step.layer.problem(
                f"reads {step.layer.bottoms[0]!r}, but log densities of pixels come from Similarity or Leaves, and the "
                "net has none: it is no generative model; begin with Similarity, then MEX and SUM pooling in turn, "
                "as in nets/ht_cac_mnist.prototxt",
                "type",
            )
        pixels.update(step.writes)
    return Problem("the net has no Similarity or Leaves layer, so it is no generative model over its input")


def only(chains: Sequence[tuple[int, ...]], steps: Sequence[Step]) -> list[int]:
    """The longest chain; SpecError when another leaves it on the way."""
    longest = max(chains, key=len)
    for other in chains:
        if other != longest[: len(other)]:
            i = next(i for i, (a, b) in enumerate(zip(longest, other, strict=False)) if a != b)
            raise SpecError([stranger(steps[max(longest[i], other[i])], steps[longest[i - 1]])])
    return list(longest)


def reads_scores(step: Step, below: Sequence[Value]) -> bool:
    """Whether a layer outside the tree may read activations: it reads them as class scores, or it has no readers
    itself.
    """
    count = len(below)
    roles = [step.kind.role(i, count) for i, value in enumerate(below) if isinstance(value, Chain)]
    return not step.writes or all(role == "scores" for role in roles)


def stranger(step: Step, below: Step) -> Problem:
    """The problem that `step` reads an activation and is no part of a tree."""
    return step.layer.problem(
        f"reads {below.layer.tops[0]!r} of {below.layer} and is no part of a latent tree; a tree is Similarity, then "
        "MEX and SUM pooling in turn, as in nets/ht_cac_mnist.prototxt (MEX normalises activations itself; of helper "
        "layers only those are seen through that add a term common to all channels, or multiply by a mask of ones)",
        "bottom", 0,
    )  # fmt: skip
