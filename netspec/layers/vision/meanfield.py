"""Dense conditional random fields by mean field: CRF-RNN's MultiStageMeanfield and DeepLab's DenseCRF.

Shape suffixes: N = pixels of an image, C = classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod

import numpy as np
import torch
from torch import Tensor

from netspec.layers.base import Layer, Shape, between, exactly, register
from netspec.layers.vision.permutohedral import Lattice
from netspec.schema.spec import LayerSpec

TINY = 1e-20
FLT_MIN = float(np.finfo(np.float32).tiny)


class Kernel:
    """A filter of pixels over place, and colour where there is a picture; sums of weights are 1."""

    def __init__(
        self, size: tuple[int, int], across: float, picture_3HW: Tensor | None = None, colour: float = 1.0
    ):
        down, right = (plane.ravel() / across for plane in np.mgrid[: size[0], : size[1]].astype(np.float64))
        features = [right, down]
        if picture_3HW is not None:
            features += list((picture_3HW.detach().double() / colour).flatten(1).cpu().numpy())
        self.lattice = Lattice(np.stack(features, 1))
        self.total_N1 = self.lattice.filter(torch.ones(size[0] * size[1], 1, dtype=torch.float64)) + TINY

    def __call__(self, values_NC: Tensor) -> Tensor:
        return self.lattice.filter(values_NC) / self.total_N1.to(values_NC)


class Field(Layer):
    """What both layers share: a picture at the scores' size, and no meaning of its own on the meta device."""

    family, mixes = "other", True

    def check(self, shapes: tuple[Shape, ...], picture: int) -> None:
        if len(shapes[0]) != 4:
            self.fail(f"needs scores (N, C, H, W), found {shapes[0]}", "bottom", 0)
        shape = shapes[picture]
        if len(shape) != 4 or shape[1] != 3 or (shape[0], *shape[2:]) != (shapes[0][0], *shapes[0][2:]):
            self.fail(f"needs pictures (N, 3, H, W) of the scores' size, found {shape}", "bottom", picture)

    def infer(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        return (torch.empty_like(bottoms[0]),)

    def multiply_adds(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int | None:
        """Of each iteration: to the lattice and back by place (3 corners) and colour (6), and matrices of classes."""
        return prod(tops[0]) * self.rounds() * (2 * (3 + 6) + len(self.blob_shapes) * tops[0][1])

    def rounds(self) -> int:
        """How many iterations there are."""
        raise NotImplementedError


@register("MultiStageMeanfield")
class MultiStageMeanfield(Field):
    """y = scores of pixels after num_iterations of mean field in a dense conditional random field.

    Shapes: scores U (N, C, H, W), first estimate (the same), pictures (N, 3, H, W); top (N, C, H, W), not normalised.
    Each iteration: Q = softmax over classes, Y = U - M (S f(Q) + B g(Q)); f sums over pixels by exp(-d^2 / 2
    theta_gamma^2) of their distance d, g by distance (theta_alpha) and colour (theta_beta), each with weights that add
    up to 1. Blobs (1, 1, C, C): S = spatial_filter_weight I, B = bilateral_filter_weight I, M = -I. f and g are
    computed on the permutohedral lattice, which is about exact. Runs eagerly. NaN spreads. Raises SpecError for shapes
    that do not fit. Source: Zheng et al. 2015 (CRF as RNN), multi_stage_meanfield.cpp.
    """

    roles = ("scores", "scores", "image")
    bottoms = exactly(3)
    param_field = "multi_stage_meanfield_param"

    def setup(self, *shapes: Shape) -> None:
        self.check(shapes, 2)
        if shapes[1] != shapes[0]:
            self.fail(f"needs a first estimate of shape {shapes[0]}, found {shapes[1]}", "bottom", 1)
        p = self.param
        for name in ("num_iterations", "theta_alpha", "theta_beta", "theta_gamma"):
            self.require(getattr(p, name) > 0, name, f"{name} must be > 0")
        for _ in range(3):
            self.add_blob((1, 1, shapes[0][1], shapes[0][1]))

    def rounds(self) -> int:
        return int(self.param.num_iterations)

    def fill(self, blobs: Iterable[int], generator: torch.Generator) -> None:
        p = self.param
        for i in blobs:
            value = (p.spatial_filter_weight, p.bilateral_filter_weight, -1.0)[i]
            with torch.no_grad():
                self.blobs[i].copy_(torch.eye(self.blobs[i].shape[-1]).mul(value).view_as(self.blobs[i]))

    def forward(self, *bottoms: Tensor) -> Tensor:
        p, size = self.param, (bottoms[0].shape[2], bottoms[0].shape[3])
        spatial = Kernel(size, p.theta_gamma)
        weights = [self.blob(i)[0, 0].to(bottoms[0]) for i in range(3)]
        tops = []
        for scores_CHW, first_CHW, picture_3HW in zip(*bottoms, strict=True):
            near = Kernel(size, p.theta_alpha, picture_3HW, p.theta_beta)
            unary_NC, found_NC = (x.flatten(1).t() for x in (scores_CHW, first_CHW))
            for _ in range(p.num_iterations):
                q_NC = found_NC.softmax(1)
                message_NC = spatial(q_NC) @ weights[0].t() + near(q_NC) @ weights[1].t()
                found_NC = unary_NC - message_NC @ weights[2].t()
            tops.append(found_NC.t().reshape(scores_CHW.shape))
        return torch.stack(tops)


@register("DenseCRF")
class DenseCRF(Field):
    """y = probabilities of classes after max_iter of mean field in a dense conditional random field.

    Shapes: scores (N, C, H, W), sizes of the pictures (N, 2 values, height and width), pictures (N, 3, H, W), which may
    be absent; top (N, C, H, W), their logarithms with `output_probability: false`. Start: Q = softmax of the scores;
    each iteration Q = softmax(scores + sum of w f(Q)), a filter f by place for each pos_w, by place and colour for each
    bi_w, weights adding up to 1. Where a picture is smaller than the map, the pixels beyond are 0. No gradient, as in
    the original; runs eagerly. Raises SpecError for parameters of unequal number. Source: Krähenbühl and Koltun 2011;
    Chen et al. 2014 (DeepLab), dense_crf_layer.cpp.
    """

    roles = ("scores", "picture size", "image")
    bottoms, differentiable = between(2, 3), False
    param_field = "dense_crf_param"

    def rounds(self) -> int:
        return int(self.param.max_iter)

    @classmethod
    def needs(cls, spec: LayerSpec, i: int, known: Sequence[Shape | None], image: Shape) -> Shape | None:
        if i == 1 and known and known[0] is not None:
            return (known[0][0], 1, 1, 2)
        return None

    def setup(self, *shapes: Shape) -> None:
        p = self.param
        for names in (("pos_w", "pos_xy_std"), ("bi_w", "bi_xy_std", "bi_rgb_std")):
            counts = [len(getattr(p, name)) for name in names]
            self.require(
                len(set(counts)) == 1, names[0], f"needs as many {' and '.join(names)}, found {counts}"
            )
            for name in names[1:]:
                self.require(all(value > 0 for value in getattr(p, name)), name, f"{name} must be > 0")
        if len(shapes) == 3:
            self.check(shapes, 2)
            self.require(p.bi_w, "bi_w", "needs bi_w for the pictures")
        elif len(shapes[0]) != 4:
            self.fail(f"needs scores (N, C, H, W), found {shapes[0]}", "bottom", 0)
        if torch.Size(shapes[1]).numel() != 2 * shapes[0][0]:
            self.fail(f"needs height and width of each picture, found {shapes[1]}", "bottom", 1)

    def forward(self, *bottoms: Tensor) -> Tensor:
        scores = bottoms[0]
        sizes = bottoms[1].reshape(len(scores), 2).long().tolist()
        top = torch.zeros_like(scores)
        for n, (height, width) in enumerate(sizes):
            if height >= scores.shape[2] and width >= scores.shape[3]:
                height, width = scores.shape[2:]
            if height < 1 or width < 1:
                continue
            picture = bottoms[2][n, :, :height, :width] if len(bottoms) == 3 else None
            part = self.inferred(scores[n, :, :height, :width], picture)
            top[n, :, : part.shape[1], : part.shape[2]] = part
        return top

    def inferred(self, scores_CHW: Tensor, picture_3HW: Tensor | None) -> Tensor:
        p, size = self.param, (scores_CHW.shape[1], scores_CHW.shape[2])
        kernels = [(w, Kernel(size, across)) for w, across in zip(p.pos_w, p.pos_xy_std, strict=True)]
        if picture_3HW is not None:
            kernels += [
                (w, Kernel(size, across, picture_3HW, colour))
                for w, across, colour in zip(p.bi_w, p.bi_xy_std, p.bi_rgb_std, strict=True)
            ]
        unary_NC = scores_CHW.flatten(1).t()
        q_NC = unary_NC.softmax(1)
        for _ in range(p.max_iter):
            total_NC = unary_NC
            for weight, kernel in kernels:
                total_NC = total_NC + weight * kernel(q_NC)
            q_NC = total_NC.softmax(1)
        if not p.output_probability:
            q_NC = q_NC.clamp(min=FLT_MIN).log()
        return q_NC.t().reshape(scores_CHW.shape)
