"""The latent tree inside a net: how it is found, checked, and walked up and down."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from netspec.errors import DataError, NetspecError, Problem, SpecError, did_you_mean
from netspec.layers.base import Layer, as_tuple
from netspec.layers.simnets.logsumexp import may_look
from netspec.layers.tree import Choose, Inner, Leaf
from netspec.net.graph import Step
from netspec.net.net import Net
from netspec.queries.precision import DOUBLE, SINGLE, doubled, refuse_illegal, size, versions
from netspec.queries.recognise import chain
from netspec.schema.spec import TEST

Call = Callable[[Layer, Tensor], Tensor]
Given = Mapping[int, Tensor]
"""States (h, w) of blobs by their number, as `Tree.up` numbers them; -1 at positions that are free."""


class Tree:
    """A generative net seen as a probability model p(x, latents, y), y uniform over the classes, or with the shares of
    a ClassPrior at the top.

    Made from a TEST net. When the net is no such tree, SpecError names the layer, its line and the remedy.
    x is the bottom of the leaf (Similarity) layer: (B, C, H, W), NaN where missing. Helper layers of the original's
    nets are left out of the walk: see `recognise`.

    >>> import netspec
    >>> tree = netspec.Tree(netspec.make_net("ht_cac_digits"))
    >>> tree.classes
    10
    """

    def __init__(self, net: Net):
        self.net = net
        numbers, self.pixels = chain(net)
        steps, layers = [net.graph.steps[i] for i in numbers], [net.made[i] for i in numbers]
        problems = [problem for layer in layers if (problem := _problem(layer)) is not None]
        problems += _top_problems(net, steps[-1])
        problems += [
            layer.spec.problem("gives shares of classes, and is not the last of the latent tree", "top", 0)
            for layer in layers[:-1]
            if isinstance(layer, Inner) and layer.joint
        ]
        if problems:
            raise SpecError(problems)
        leaf, *inner = layers
        assert isinstance(leaf, Leaf)  # narrows the type; `chain` starts at a leaf
        self.leaf: Leaf = leaf
        self.inner: list[Inner] = [layer for layer in inner if isinstance(layer, Inner)]
        self.image_shape = net.shapes[steps[0].reads[0]][1:]
        """(C, H, W) of x."""
        self.sizes = [tuple(net.shapes[step.writes[0]][1:]) for step in steps]
        """(states, h, w) of each blob from the leaf's top to the classes."""
        self.grid = net.shapes[steps[0].writes[0]][2:]
        """(h, w): positions of the leaf."""
        self.classes = net.shapes[steps[-1].writes[0]][1]
        self.joint = bool(self.inner) and self.inner[-1].joint
        """Whether the last activations are log p(observed, class), not log p(observed | class)."""
        self._twin: tuple[object, Tree] | None = None

    # Evidence and precision

    @property
    def dtype(self) -> torch.dtype:
        """Of the blobs."""
        blobs = [blob for layer in (self.leaf, *self.inner) for blob in layer.blobs]
        return blobs[0].dtype if blobs else torch.get_default_dtype()

    def ready(self, x: Tensor, exact: bool = True) -> tuple[Tree, Tensor]:
        """(the tree in the precision that x needs, x in that precision).

        exact: differences of log p of 1e-3 count (False for log p itself).
        DataError for a value that cannot be, evidence of probability 0, and evidence so far from all components that
        double precision cannot tell states apart. Compiled code cannot look at values, and takes x as it is.
        """
        x = x.to(self.dtype) if x.is_floating_point() else x.to(torch.get_default_dtype())
        if not may_look(x):
            return self, x
        refuse_illegal(self.leaf, x)
        nats = size(self.leaf, _forward(self.leaf, x))
        tree: Tree = self
        if self.dtype != torch.float64 and not bool((nats <= SINGLE).all()):  # not: NaN and infinity too
            tree, x = self.double(), x.double()
            nats = size(tree.leaf, _forward(tree.leaf, x))
        if exact and not bool((nats <= DOUBLE).all()):
            image = int((~(nats <= DOUBLE)).nonzero()[0])
            raise DataError(
                f"image {image} lies so far from all components (log p about -{float(nats[image]):.1e}) that what is "
                "hidden cannot be told from it, even in double precision"
            )
        return tree, x

    def double(self) -> Tree:
        """The same tree in double precision; made once, and again when weights change."""
        if self.dtype == torch.float64:
            return self
        now = versions([self.leaf, *self.inner])
        if self._twin is None or self._twin[0] != now:
            twin = copy.copy(self)
            leaf, *inner = (doubled(layer) for layer in (self.leaf, *self.inner))
            assert isinstance(leaf, Leaf)  # narrows the type: a copy is of the same class
            twin.leaf, twin.inner = leaf, [layer for layer in inner if isinstance(layer, Inner)]
            self._twin = (now, twin)
        return self._twin[1]

    @property
    def names(self) -> list[str]:
        """Names of the layers from the leaf up."""
        return [layer.spec.name for layer in (self.leaf, *self.inner)]

    def up(self, x: Tensor, call: Call | None = None, given: Given | None = None) -> list[Tensor]:
        """Activations from the leaf's top to the class scores (B, Y, 1, 1): log p(seen below | state), in nats; the
        last are log p(seen, class) in a `joint` tree.

        "Seen" means the observed pixels and the states `given`; where a state is given, the activation of every other
        state is -inf.
        """
        call, given = call or _forward, given or {}
        values: list[Tensor] = []
        for i, layer in enumerate((self.leaf, *self.inner)):
            value = call(layer, values[-1] if values else x)
            values.append(only(value, given[i]) if i in given else value)
        return values

    def given(self, places: Iterable[tuple[str, int, int, int]]) -> Given:
        """Known states of latent variables, as the queries take them in `given`.

        places: (layer, row, column, state) of each known state.
        Raises NetspecError for a layer that the tree does not have, for a position or a state that the layer does not
        have, and for two states of one position.
        """
        conditions: dict[int, Tensor] = {}
        for name, row, column, state in places:
            if name not in self.names:
                raise NetspecError(f"no layer {name!r} in the latent tree{did_you_mean(name, self.names)}")
            i = self.names.index(name)
            states, height, width = self.sizes[i]
            if not (0 <= row < height and 0 <= column < width and 0 <= state < states):
                raise NetspecError(
                    f"{name} has no state {state} at {row},{column}: it has states 0 to {states - 1} at "
                    f"rows 0 to {height - 1} and columns 0 to {width - 1}"
                )
            known = conditions.setdefault(i, torch.full((height, width), -1))
            if int(known[row, column]) not in (-1, state):
                raise NetspecError(
                    f"{name} cannot have two states at {row},{column}: {known[row, column]}, {state}"
                )
            known[row, column] = state
        return conditions

    def up_max(self, x: Tensor) -> list[Tensor]:
        """As `up`, with every sum over states and every missing pixel replaced by its maximum."""
        values = [self.leaf.upward_max(x)]
        for layer in self.inner:
            values.append(layer.upward_max(values[-1]))
        return values

    def down(
        self,
        values: list[Tensor],
        state: Tensor,
        choose: Choose,
        start: int | None = None,
        best: bool = False,
    ) -> list[Tensor]:
        """The states of every blob from the leaf's top to the root, chosen downwards from the root's `state`.

        values: the result of `up`, or of `up_max` together with `best`. state: (B, h, w) at blob number `start`
        (default the last: the class).
        """
        start = len(self.inner) if start is None else start
        states = [state]
        for i in reversed(range(start)):
            states.insert(0, self.inner[i].downward(states[0], values[i], choose, best))
        return states

    def one_hot(self, states: Tensor) -> Tensor:
        """Leaf states (B, h, w) as weights (B, M, h, w)."""
        return torch.nn.functional.one_hot(states, self.leaf.components).movedim(-1, 1).to(self.dtype)


def only(values: Tensor, states: Tensor) -> Tensor:
    """Activations (B, M, h, w), -inf where another of the M states is given."""
    every = torch.arange(values.shape[1], device=values.device).view(-1, 1, 1)
    states = states.to(values.device)
    return values.masked_fill((states >= 0) & (states != every), -torch.inf)


def _forward(layer: Layer, x: Tensor) -> Tensor:
    return as_tuple(layer(x))[0]


def _problem(layer: Layer) -> Problem | None:
    if isinstance(layer, (Inner, Leaf)):
        return layer.tree_problem()
    return None


def _top_problems(net: Net, step: Step) -> list[Problem]:
    shape = net.shapes[step.writes[0]]
    problems = []
    if len(shape) != 4 or shape[2:] != (1, 1):
        problems.append(
            step.layer.problem(
                f"ends the tree with shape {shape}; class scores need one position (N, classes, 1, 1)"
            )
        )
    if net.graph.spec.phase != TEST:
        problems.append(
            step.layer.problem("queries need the TEST net (in TRAIN positions are dropped at random)")
        )
    return problems
