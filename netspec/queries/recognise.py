"""Where in a net the latent tree is: its chain of layers, seen through the helper layers of the original's nets.

Those nets keep activations near 0: n = logsumexp(x) over the channels is taken off below each MEX and pooled beside
it, then added back (CP-CAC) or carried to the top as `total_norm` (HT-CAC). Random masks of ones multiply
activations, or make pixels NaN. All of it changes activations only by a term that is common to the states of a
position, and a normalised MEX and SUM pooling hand such a term on; so the activations of the bare chain Similarity,
MEX, SUM pooling, ... say the same of states and classes, and are the log densities. Each blob is followed by what it
is, up to such a term.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from netspec.errors import Problem, SpecError
from netspec.layers.base import Layer
from netspec.layers.basic.arithmetic import Eltwise
from netspec.layers.basic.noise import DummyData
from netspec.layers.basic.powers import Power
from netspec.layers.basic.shape import Tile
from netspec.layers.simnets.mex import MEX
from netspec.layers.tree import Inner, Leaf
from netspec.net.graph import Step
from netspec.net.net import Net

READERS = frozenset({"Accuracy", "ArgMax", "Silence", "Softmax", "SoftmaxWithLoss", "GeneralizedHingeLoss",
                     "LogLikelihoodLoss", "SumLoss", "HDF5Output"})  # fmt: skip
"""Layer types that may read the class scores without being part of the tree."""


@dataclass(frozen=True)
class Chain:
    """Activations at the top of these steps, from the leaf up, plus anything common to all states."""

    steps: tuple[int, ...]


@dataclass(frozen=True)
class Common:
    """A value for each position, the same in all channels."""


@dataclass(frozen=True)
class Constant:
    """One value everywhere: the masks, where they are not drawn."""

    value: float


@dataclass(frozen=True)
class Other:
    """The values of this slot; pixels among them."""

    slot: int


Value = Chain | Common | Constant | Other


def chain(net: Net) -> tuple[list[int], int]:
    """(the indices of the tree's steps from the leaf up, the slot of the blob that the leaf takes for pixels).

    SpecError where the tree branches, where a layer changes activations in another way, or where there is no tree.
    """
    values: dict[int, Value] = {}
    pixels: dict[int, int] = {}
    for i, (step, layer) in enumerate(zip(net.graph.steps, net.made, strict=True)):
        below = [values.get(slot, Other(slot)) for slot in step.reads]
        if isinstance(layer, Leaf):
            if pixels:
                first = net.graph.steps[next(iter(pixels))].layer
                raise SpecError([step.layer.problem(f"a second leaf beside {first}; a tree has one")])
            pixels[i] = below[0].slot if isinstance(below[0], Other) else step.reads[0]
            values[step.writes[0]] = Chain((i,))
            continue
        found = known(layer, i, below)
        if found is not None:
            values[step.writes[0]] = found
        elif step.layer.type not in READERS:
            touched = next((value for value in below if isinstance(value, Chain)), None)
            if touched is not None:
                raise SpecError([stranger(step, net.graph.steps[touched.steps[-1]])])
    if not pixels:
        raise SpecError([leafless(net)])
    return only(
        [value.steps for value in values.values() if isinstance(value, Chain)], net.graph.steps
    ), next(iter(pixels.values()))


def leafless(net: Net) -> Problem:
    """That the first layer over the input is no leaf."""
    pixels = set(net.graph.inputs)
    for step, layer in zip(net.graph.steps, net.made, strict=True):
        if not pixels.intersection(step.reads):
            continue
        if not layer.passes:
            return step.layer.problem(
                f"reads {step.layer.bottoms[0]!r}, but log densities of pixels come from Similarity alone, and the net "
                "has none: it is no generative model; begin with Similarity, then MEX and SUM pooling in turn, as in "
                "nets/ht_cac_mnist.prototxt",
                "type",
            )
        pixels.update(step.writes)
    return Problem("the net has no Similarity layer, so it is no generative model over its input")


def only(chains: Sequence[tuple[int, ...]], steps: Sequence[Step]) -> list[int]:
    """The longest chain; SpecError when another leaves it on the way."""
    longest = max(chains, key=len)
    for other in chains:
        if other != longest[: len(other)]:
            i = next(i for i, (a, b) in enumerate(zip(longest, other, strict=False)) if a != b)
            raise SpecError([stranger(steps[max(longest[i], other[i])], steps[longest[i - 1]])])
    return list(longest)


def known(layer: Layer, index: int, below: Sequence[Value]) -> Value | None:
    """What a layer other than the leaf makes of its bottoms; None where that is anything else."""
    first = below[0] if below else None
    if isinstance(layer, Inner) and len(below) == 1:
        if isinstance(first, Chain):
            return Common() if is_norm(layer) else Chain((*first.steps, index))
        return first if layer.passes or (isinstance(first, Common) and keeps_common(layer)) else None
    if layer.passes:
        return first
    if isinstance(layer, DummyData):
        return drawn(layer)
    if isinstance(layer, Tile):
        return first if isinstance(first, Common | Constant) else None
    if isinstance(layer, Power):
        return power(layer, first)
    if isinstance(layer, Eltwise):
        return combined(layer, below)
    return None


def is_norm(layer: Inner) -> bool:
    """Whether a MEX is logsumexp over the channels: one instance, not trained."""
    if not isinstance(layer, MEX) or layer.param.num_instances != 1:
        return False
    specs = layer.spec.message.param
    return len(specs) > 1 and specs[1].HasField("lr_mult") and specs[1].lr_mult == 0


def keeps_common(layer: Inner) -> bool:
    """Whether all channels of the top are equal where all of the bottom are: sums, and normalised mixtures."""
    return not isinstance(layer, MEX) or is_norm(layer) or layer.tree_problem() is None


def drawn(layer: DummyData) -> Value | None:
    """The one value that all cells get, where there is one."""
    fillers = layer.spec.message.dummy_data_param.data_filler
    values = set()
    for filler in fillers:
        if filler.type == "constant":
            values.add(float(filler.value))
        elif filler.type == "bernoulli" and filler.non_zero_probability == 1 and not filler.use_range:
            values.add(1.0)
        else:
            return None
    return Constant(values.pop() if values else 0.0) if len(values) < 2 else None


def power(layer: Power, bottom: Value | None) -> Value | None:
    """(shift + scale v) ^ power of a constant; anything else only where nothing changes."""
    p = layer.param
    if isinstance(bottom, Constant):
        base = p.shift + p.scale * bottom.value
        return Constant(base**p.power) if base > 0 or (base == 0 and p.power > 0) else None
    return bottom if (p.power, p.scale, p.shift) == (1, 1, 0) else None


def combined(layer: Eltwise, below: Sequence[Value]) -> Value | None:
    """Of a sum: one chain or other blob, plus common terms and constants. Of a product: times ones."""
    p = layer.param
    constants = [value for value in below if isinstance(value, Constant)]
    rest = [
        (value, factor)
        for value, factor in zip(below, layer.coefficients, strict=True)
        if not isinstance(value, Constant)
    ]
    if p.operation == p.PROD:
        return rest[0][0] if len(rest) == 1 and all(one.value == 1 for one in constants) else None
    if p.operation != p.SUM or not rest:
        return None
    chains = [(value, factor) for value, factor in rest if isinstance(value, Chain)]
    others = [(value, factor) for value, factor in rest if isinstance(value, Other)]
    if not chains and not others:
        return Common()
    if len(chains) == 1 and not others and chains[0][1] == 1:
        return chains[0][0]
    nothing_added = len(rest) == 1 and all(one.value == 0 for one in constants)
    return others[0][0] if others and nothing_added and others[0][1] == 1 else None


def stranger(step: Step, below: Step) -> Problem:
    """That `step` reads an activation and is no part of a tree."""
    return step.layer.problem(
        f"reads {below.layer.tops[0]!r} of {below.layer} and is no part of a latent tree; a tree is Similarity, then "
        "MEX and SUM pooling in turn, as in nets/ht_cac_mnist.prototxt (MEX normalises activations itself; of helper "
        "layers only those are seen through that add a term common to all channels, or multiply by a mask of ones)",
        "bottom", 0,
    )  # fmt: skip
