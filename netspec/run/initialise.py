"""Unsupervised initialisation: templates and whitening fitted to patches of the data, before training starts.

`initialise` walks the layers that carry `unsupervised_init`, feeds each with mini-batches of what reaches it, and
writes the result into its blobs. Formulas: the SimNets fork (kmeans, gmm of Similarity; pca of Convolution). Where the
fork is wrong, a layer with `strict` repeats its behaviour; every other layer does what was meant.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from math import isnan, log
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import unfold

from netspec.errors import DataError
from netspec.layers import ranks
from netspec.layers.base import Layer, as_tuple
from netspec.layers.basic.convolution import Convolution
from netspec.layers.simnets.block import normalise
from netspec.layers.simnets.latent_tree import LatentTree
from netspec.layers.simnets.leaves import Leaves
from netspec.layers.simnets.marginalize import Marginalize
from netspec.layers.simnets.mex import MEX
from netspec.layers.simnets.similarity import UNKNOWN, Similarity
from netspec.net.net import Net
from netspec.run.clusters import Patches, kmeans, mixture, spread
from netspec.run.leaf_learning import learn_leaves

PATIENCE = 100
"""Most mini-batches that are read in search of a usable patch."""


def initialise(
    net: Net,
    batches: Callable[[], tuple[Tensor, ...]],
    *,
    seed: int = 0,
    skip: Collection[str] = (),
    progress: Callable[[str], None] | None = None,
) -> list[str]:
    """Fit every layer that asks for it, in net order; gives their names.

    batches: the next mini-batch, one tensor for each input of the net.
    seed: of the random starts. skip: names of layers that have their weights already.
    progress: told in a few words what is being fitted.
    Random marginalisation is off meanwhile. Similarity and Leaves also learn from the observed values of incomplete
    patches (with NaN). A value that is missing in all patches is reported, and its completions will be unknown (NaN).
    PCA, and layers with `strict`, leave incomplete patches out. `progress` hears how many patches were used.
    """
    done = []
    generator = torch.Generator().manual_seed(seed)
    for layer in net.made:
        wanted = getattr(layer.param, "unsupervised_init", None)
        if wanted is None or wanted.type == "none" or layer.spec.name in skip or layer.spec.name in done:
            continue
        if progress:
            progress(f"{layer.spec}: {wanted.type} initialisation")
        stream = Stream(_bottoms(net, layer, batches), layer)
        with torch.no_grad():
            if isinstance(layer, Leaves):
                above = next_tree(net, layer, skip)
                told = learn_leaves(layer, stream_of_patches(net, layer, batches), generator, above)
                for line in (told.report(), *told.warnings()):
                    if progress:
                        progress(f"{layer.spec}: {line}")
                if above is not None:
                    done.append(above.spec.name)
                    weigh_root(net, above, told.root, skip)
            elif isinstance(layer, LatentTree):
                layer.fail("learns its tree from the Leaves right below, which need an unsupervised_init too",
                           "latent_tree_param", "unsupervised_init")  # fmt: skip
            elif isinstance(layer, Similarity):
                fit_similarity(layer, wanted, stream, generator)
                stream.tell(progress)
            elif wanted.type == "pca":
                fit_convolution(layer, wanted, stream)
                stream.tell(progress)
            else:
                layer.fail(f"knows no unsupervised_init of type {wanted.type!r}", str(layer.param_field))
            clip(net, layer)
        done.append(layer.spec.name)
    return done


def next_tree(net: Net, leaf: Leaves, skip: Collection[str]) -> LatentTree | None:
    """The LatentTree that reads the leaf's top, if it has no weights already."""
    steps = net.graph.steps
    top = steps[net.made.index(leaf)].writes[0]
    for step, layer in zip(steps, net.made, strict=True):
        if isinstance(layer, LatentTree) and step.reads == (top,) and layer.spec.name not in skip:
            return layer
    return None


def weigh_root(net: Net, tree: LatentTree, counts: Tensor | None, skip: Collection[str]) -> None:
    """Where a single mixture over the root's states reads the tree, set its weights to the shares of those states."""
    top = net.graph.steps[net.made.index(tree)].writes[0]
    readers = [layer for step, layer in zip(net.graph.steps, net.made, strict=True) if top in step.reads]
    if len(readers) != 1 or not isinstance(readers[0], MEX) or readers[0].spec.name in skip or counts is None:
        return
    (mixture_layer,) = readers
    log_share = ((counts + 1) / (counts + 1).sum()).log()
    if mixture_layer.blob(1).numel() == len(log_share) and mixture_layer.param.use_log_space_parameters:
        mixture_layer.blob(1).copy_(log_share.view(mixture_layer.blob_shapes[1]))


class _Reached(Exception):
    """Ends a walk at a layer and carries that layer's bottoms."""

    def __init__(self, bottoms: tuple[Tensor, ...]):
        super().__init__()
        self.bottoms = bottoms


def stream_of_patches(net: Net, layer: Leaves, batches: Callable[[], tuple[Tensor, ...]]) -> Patches:
    """The leaf's patches (P, N, K) of the next mini-batch."""
    bottoms = _bottoms(net, layer, batches)
    return lambda: layer.patches(torch.cat(bottoms()))


def _bottoms(
    net: Net, layer: Layer, batches: Callable[[], tuple[Tensor, ...]]
) -> Callable[[], tuple[Tensor, ...]]:
    """Yields the bottoms of `layer` for the next mini-batch, of all ranks; random marginalisation is off."""

    def call(current: Layer, *bottoms: Tensor) -> tuple[Tensor, ...]:
        if current is layer:
            raise _Reached(bottoms)
        return bottoms if isinstance(current, Marginalize) else as_tuple(current(*bottoms))

    def following() -> tuple[Tensor, ...]:
        try:
            with torch.no_grad():
                net.run(call, *batches())
        except _Reached as reached:
            return tuple(map(ranks.gathered, reached.bottoms))
        raise KeyError(f"the walk never came to {layer.spec}")

    return following


class Stream:
    """Each call gives the patches (n, K) of the next mini-batch in float64, and counts them.

    Patches without any observed value are left out; for PCA and under `strict` all incomplete ones.
    """

    def __init__(self, bottoms: Callable[[], tuple[Tensor, ...]], layer: Layer):
        self.bottoms, self.layer = bottoms, layer
        self.whole = layer.strict or not isinstance(layer, Similarity)
        self.used = self.incomplete = self.left_out = 0
        self.origin: Tensor | None = None
        """Subtracted from all patches; see `centre`."""
        self.seen: Tensor | None = None
        """How often each value was observed (K,)."""
        self.waiting: list[Tensor] = []

    def __call__(self) -> Tensor:
        rows = self.waiting.pop() if self.waiting else self.read()
        return rows if self.origin is None else rows - self.origin

    def read(self) -> Tensor:
        """The next patches that can be used; DataError where PATIENCE mini-batches have none."""
        for _ in range(PATIENCE):
            rows = torch.cat([patches_of(self.layer, bottom) for bottom in self.bottoms()]).double()
            missing = rows.isnan()
            drop = missing.any(1) if self.whole else missing.all(1)
            rows, missing = rows[~drop], missing[~drop]
            self.left_out += int(drop.sum())
            if len(rows):
                break
        else:
            what = "complete patches" if self.whole else "patches with an observed value"
            raise DataError(
                f"{self.layer.spec}: unsupervised_init needs {what}; {self.left_out} in a row are none"
            )
        self.used += len(rows)
        self.incomplete += int(missing.any(1).sum())
        seen = (~missing).sum(0)
        self.seen = seen if self.seen is None else self.seen + seen
        return rows

    def centre(self) -> Tensor:
        """Make patches deviations from the mean (K,) of the first patches from now on, so that they stay precise far
        from 0.
        """
        first = self.read()
        self.waiting.append(first)
        self.origin = first.nanmean(0).nan_to_num(nan=0.0)
        return self.origin

    def unseen(self) -> Tensor:
        """Whether a value was missing in all patches (K,)."""
        assert self.seen is not None  # narrows the type: asked after patches were read
        return self.seen == 0

    def tell(self, progress: Callable[[str], None] | None) -> None:
        """Say how many patches were used, and which values were never observed."""
        if progress is None:
            return
        some = f", {self.incomplete} of them incomplete" if self.incomplete else ""
        rest = "incomplete" if self.whole else "without any observed value"
        out = f"; {self.left_out} {rest} left out" if self.left_out else ""
        progress(f"{self.layer.spec}: learned from {self.used} patches{some}{out}")
        unseen = self.unseen().nonzero().flatten().tolist()
        if unseen:
            more = f" and {len(unseen) - 10} more" if len(unseen) > 10 else ""
            progress(
                f"{self.layer.spec}: never observed: value {', '.join(map(str, unseen[:10]))}{more} of a patch; "
                "completions there are unknown (NaN)"
            )


def patches_of(layer: Layer, bottom: Tensor) -> Tensor:
    """The patches (n, K) that a layer compares or filters, normalised where it does so."""
    if isinstance(layer, Similarity):
        if layer.strict:  # the fork cuts patches at stride 1, and takes missing padding for 0
            bottom = bottom.nan_to_num(nan=0.0)
        return layer.patches(bottom).flatten(0, -2)
    p = layer.param
    if not isinstance(layer, Convolution) or len(layer.window.kernel) != 2:
        layer.fail("unsupervised_init needs filters of two spatial axes", str(layer.param_field))
    kernel, stride, dilation = (
        (axes[0], axes[1]) for axes in (layer.window.kernel, layer.window.stride, layer.window.dilation)
    )
    rows = unfold(bottom, kernel, dilation=dilation, stride=stride).transpose(1, 2).flatten(0, 1)
    if p.normalize_patches:
        return normalise(rows, p.normalize_variance, p.normalization_fudge_factor)
    return rows


def clip(net: Net, layer: Layer) -> None:
    """Clip the layer's blobs to their min_value and max_value."""
    for param in net.params:
        if any(net.made[i] is layer for i, _ in param.users):
            low = None if isnan(param.min_value) else param.min_value
            high = None if isnan(param.max_value) else param.max_value
            if low is not None or high is not None:
                param.value.clamp_(low, high)


# Similarity


def fit_similarity(layer: Similarity, p: Any, stream: Stream, generator: torch.Generator) -> None:
    """Set templates, and weights and bias where the fit includes them, from k-means or a Gaussian mixture."""
    instances = layer.param.num_instances
    origin: Tensor | float = 0.0 if layer.strict else stream.centre()
    if p.type == "kmeans":
        centres = kmeans(
            stream,
            instances,
            p.max_iterations,
            generator,
            p.use_kmeans_plus_plus,
            p.prob_choose_centroid,
            layer.strict,
        )
        var = None
        if layer.strict or p.use_centroids_variance:
            var = spread(stream, centres, p.num_batches, layer.strict) + p.fudge_factor
        layer.blob(0).copy_((origin + centres).view(layer.blob_shapes[0]))
        if var is not None and p.use_centroids_variance:
            write_weights(layer, var)
        forget(layer, stream.unseen())
        return
    gaussians = mixture(stream, instances, p, generator, layer.strict)
    layer.blob(0).copy_((origin + gaussians.means).view(layer.blob_shapes[0]))
    write_weights(layer, gaussians.variances)
    if layer.param.bias_term:
        bias = gaussians.weights.log()
        if not layer.param.normalization_term:  # then the bias carries the Gaussian's constant too
            bias = bias + gaussians.constants()
        layer.blob(2).copy_(bias.view(layer.blob_shapes[2]))
    forget(layer, stream.unseen())


def forget(layer: Similarity, unseen_K: Tensor) -> None:
    """Set values that were never observed to the weight that means "unknown", and to template 0."""
    if layer.strict or not layer.ignores_nan or not bool(unseen_K.any()):
        return
    weight = log(UNKNOWN) if layer.param.use_log_space_weight_param else UNKNOWN
    for blob, value in ((layer.blob(0), 0.0), (layer.blob(1), weight)):
        blob.flatten(1)[:, unseen_K] = value


def write_weights(layer: Similarity, variance: Tensor) -> None:
    """Weights from variances: 1 / var with normalization_term, 1 / (2 var) for bare L2, var for others."""
    p, weights = layer.param, variance
    if layer.kind == "L2":
        weights = (1.0 if p.normalization_term else 0.5) / variance
        if p.use_log_space_weight_param:
            weights = (weights + p.normalization_term_fudge).log()
    layer.blob(1).copy_(weights.view(layer.blob_shapes[1]))


# Convolution


def fit_convolution(layer: Layer, p: Any, stream: Patches) -> None:
    """Filters = principal components of the patches, whitening them where asked for; bias = -filters * mean.

    `num_batches` mini-batches for the mean, as many again for the covariance. The sign of a component is
    free: the entry of largest magnitude is made positive.
    """
    at = (str(layer.param_field), "unsupervised_init")
    filters, size = layer.blob_shapes[0][0], layer.blob(0)[0].numel()
    if len(layer.blobs) < 2 or layer.param.group != 1:
        layer.fail("unsupervised_init of type 'pca' needs bias_term and group 1", *at)
    if filters > size or (p.zca_whitening and filters != size):
        layer.fail(
            f"'pca' finds {'just' if p.zca_whitening else 'at most'} {size} filters, not {filters}", *at
        )
    count, total = 0, torch.zeros(size, dtype=torch.float64, device=layer.blob(0).device)
    for _ in range(p.num_batches):
        x = stream()
        count, total = count + len(x), total + x.sum(0)
    mean = total / count
    count, covariance = 0, torch.zeros(size, size, dtype=torch.float64, device=mean.device)
    for _ in range(p.num_batches):
        x = stream() - mean
        count, covariance = count + len(x), covariance + x.t() @ x
    values, vectors = torch.linalg.eigh(covariance / (count - 1))
    values, rows = values.flip(0)[:filters], vectors.t().flip(0)[:filters]
    rows = rows * rows.gather(1, rows.abs().argmax(1, keepdim=True)).sign()
    scale = (values + p.fudge_factor).rsqrt().unsqueeze(1)
    if p.zca_whitening:
        rows = rows.t() @ (scale * rows)
    elif p.apply_whitening:
        rows = scale * rows
    layer.blob(0).copy_(rows.view(layer.blob_shapes[0]))
    layer.blob(1).copy_(-(rows @ mean).view(layer.blob_shapes[1]))
