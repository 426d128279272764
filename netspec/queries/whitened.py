"""Trees whose leaves lie behind a whitening convolution: exact densities of patches with pixels missing.

Source: the NORB nets of Sharir et al. 2018: a convolution x -> z = A x + b of whole, not overlapping
patches, A square
and invertible, then Similarity over single positions. Component j is then a Gaussian of the pixels with full
covariance,

    x ~ N(A^-1 (t_j - b), A^-1 diag(1/w_j) A^-T),

and the density of the observed pixels of a patch is that of the marginal, one for each pattern of missing
pixels.
"""

from __future__ import annotations

from math import log, pi

import torch
from torch import Tensor

from netspec.errors import SpecError
from netspec.layers.base import Layer, as_tuple
from netspec.layers.basic.convolution import Convolution
from netspec.layers.simnets.similarity import Similarity
from netspec.net.net import Net
from netspec.queries.tree import Tree


class Whitened:
    """A tree that takes pixels (B, C, H, W) with NaN, in front of its whitening convolution."""

    def __init__(self, net: Net, tree: Tree, convolution: Convolution):
        self.tree, self.convolution = tree, convolution
        leaf = tree.leaf
        assert isinstance(leaf, Similarity)  # `find` looked
        self.kernel = tuple(convolution.window.kernel)
        self.image_shape = net.shapes[net.graph.inputs[0]][1:]
        a_KK = convolution.blob(0).detach().flatten(1).double()
        bias_K = (
            convolution.blob(1).detach().double() if len(convolution.blobs) > 1 else a_KK.new_zeros(len(a_KK))
        )
        inverse_KK = torch.linalg.inv(a_KK)
        t_MK, variance_MK = leaf.blob(0).detach().flatten(1).double(), 1 / leaf.precisions().detach().double()
        self.mean_MK = (t_MK - bias_K) @ inverse_KK.T
        """Means of the components in pixel space."""
        self.covariance_MKK = torch.einsum("kd,md,ld->mkl", inverse_KK, variance_MK, inverse_KK)

    def leaf_log_density(self, x: Tensor) -> Tensor:
        """log density of the observed pixels of each patch under each component: (B, M, h, w), nats; 0 for a patch
        without observed pixels.
        """
        height, width = self.kernel
        patches = torch.unflatten(torch.unflatten(x, 3, (-1, width)), 2, (-1, height))  # B C h kh w kw
        x_PK = patches.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(0, 2).double()
        found_PM = x_PK.new_zeros(len(x_PK), len(self.mean_MK))
        patterns, which = torch.unique(~x_PK.isnan(), dim=0, return_inverse=True)
        for i, seen in enumerate(patterns):
            if seen.any():
                rows = which == i
                found_PM[rows] = self.marginal(x_PK[rows][:, seen], seen)
        batch, h, w = x.shape[0], x.shape[2] // height, x.shape[3] // width
        return found_PM.view(batch, h, w, -1).permute(0, 3, 1, 2).to(x.dtype)

    def marginal(self, x_PO: Tensor, seen_K: Tensor) -> Tensor:
        """log N(x; mean_m, covariance_m) of the coordinates that are seen: (P, M)."""
        factor_MOO = torch.linalg.cholesky(self.covariance_MKK[:, seen_K][:, :, seen_K])
        apart_MOP = (x_PO.unsqueeze(0) - self.mean_MK[:, seen_K].unsqueeze(1)).mT
        solved = torch.linalg.solve_triangular(factor_MOO, apart_MOP, upper=False)
        log_det_M = 2 * factor_MOO.diagonal(dim1=1, dim2=2).log().sum(1)
        density: Tensor = -0.5 * (solved.square().sum(1).T + log_det_M + x_PO.shape[1] * log(2 * pi))
        return density

    def scores(self, x: Tensor) -> Tensor:
        """log p(observed pixels | y) for every class: (B, Y), nats."""

        def call(layer: Layer, value: Tensor) -> Tensor:
            return self.leaf_log_density(value) if layer is self.tree.leaf else as_tuple(layer(value))[0]

        return self.tree.up(x, call)[-1].flatten(1)


def find(net: Net) -> Whitened | None:
    """The net as a tree behind a whitening convolution; None when it is none."""
    steps = net.graph.steps
    leaves = [i for i, step in enumerate(steps) if step.kind is Similarity]
    if len(leaves) != 1:
        return None
    below = [i for i, step in enumerate(steps) if steps[leaves[0]].reads[0] in step.writes]
    maker, leaf = net.made[below[0]], net.made[leaves[0]]
    if not isinstance(maker, Convolution) or not isinstance(leaf, Similarity):
        return None
    if steps[below[0]].reads[0] not in net.graph.inputs or leaf.block.size[1:] != (1, 1):
        return None
    if not whitens(maker):
        return None
    try:
        tree = Tree(net)
    except SpecError:  # a net of Similarity layers that is no probability model
        return None
    return Whitened(net, tree, maker)


def whitens(layer: Convolution) -> bool:
    """Whether a convolution maps whole patches that do not overlap, one to one."""
    window, (filters, *patch) = layer.window, layer.blob_shapes[0]
    plain = all(d == 1 for d in window.dilation) and not any(window.pad)
    return plain and window.kernel == window.stride and filters == torch.Size(patch).numel()


def from_other_camera(x: Tensor) -> Tensor:
    """Stereo pairs (B, 2, H, W): a pixel missing in one picture is taken from the other, as the
    original does.
    """
    return torch.where(x.isnan(), x.flip(1), x)
