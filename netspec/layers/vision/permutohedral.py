"""Gaussian filters of high dimension on the permutohedral lattice: linear in the number of points.

Shape suffixes: N = points, D = features of a point, M = places of the lattice in use, C = channels.
Source: Adams, Baek and Davis 2010, Fast high-dimensional filtering using the permutohedral lattice.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Features = NDArray[np.float64]
Whole = NDArray[np.int64]


class Lattice:
    """The lattice of points (N, D), whose features are divided by their deviations."""

    def __init__(self, features_ND: Features):
        points, d = features_ND.shape
        corner_NK, rank_NK, weight_NK = enclosing(features_ND)
        canonical = np.array([[i if j <= d - i else i - (d + 1) for j in range(d + 1)] for i in range(d + 1)])
        # The corners of a point's simplex; the last coordinate follows from the others.
        keys = np.stack([corner_NK + canonical[r][rank_NK] for r in range(d + 1)], 1)[..., :d]
        codes, place, step = numbered(keys.reshape(-1, d).astype(np.int64), d)
        self.places = len(codes)
        self.place_NK = torch.from_numpy(place.reshape(points, d + 1))
        self.weight_NK = torch.from_numpy(weight_NK)
        self.beside = [
            tuple(torch.from_numpy(find(codes, codes + s)) for s in (-side, side)) for side in step
        ]
        self.share = 1 / (1 + 2.0**-d)

    def filter(self, values_NC: Tensor) -> Tensor:
        """Sums of the values of all points (N, C), weighed by exp(-|f_i - f_j|^2 / 2), about; differentiable."""
        place, weight = self.place_NK.to(values_NC.device), self.weight_NK.to(values_NC)
        spread = (weight.unsqueeze(2) * values_NC.unsqueeze(1)).flatten(0, 1)
        # The last row stands for places that no point is near.
        lattice = values_NC.new_zeros(self.places + 1, values_NC.shape[1]).index_add(
            0, place.flatten(), spread
        )
        for below, above in self.beside:
            around = lattice[below.to(place.device)] + lattice[above.to(place.device)]
            lattice = torch.cat((lattice[:-1] + 0.5 * around, lattice[-1:]))
        sums: Tensor = self.share * (weight.unsqueeze(2) * lattice[place]).sum(1)
        return sums


def enclosing(features_ND: Features) -> tuple[Whole, Whole, Features]:
    """(the lattice point of remainder 0 next to each point, the order of its differences, the weights of the corners)
    of the simplex that encloses it, in the D + 1 coordinates of the plane in which the lattice lies.
    """
    points, d = features_ND.shape
    axes = np.arange(1, d + 1)
    scaled = features_ND * (np.sqrt(2 / 3) * (d + 1) / np.sqrt(axes * (axes + 1)))
    behind = np.cumsum(scaled[:, ::-1], 1)[:, ::-1]
    nothing = np.zeros((points, 1))
    at = np.concatenate([behind[:, :1], np.concatenate([behind[:, 1:], nothing], 1) - axes * scaled], 1)
    down, up = np.floor(at / (d + 1)) * (d + 1), np.ceil(at / (d + 1)) * (d + 1)
    near = np.where(up - at < at - down, up, down)
    off = np.rint(near.sum(1) / (d + 1)).astype(np.int64)
    difference = at - near
    order = np.zeros((points, d + 1), np.int64)
    for i in range(d):
        for j in range(i + 1, d + 1):
            less = difference[:, i] < difference[:, j]
            order[:, i] += less
            order[:, j] += ~less
    order += off[:, None]
    low, high = order < 0, order > d
    order += (d + 1) * low.astype(np.int64) - (d + 1) * high.astype(np.int64)
    near += (d + 1) * low - (d + 1) * high.astype(np.float64)
    share = np.zeros((points, d + 2))
    row = np.arange(points)
    for i in range(d + 1):
        delta = (at[:, i] - near[:, i]) / (d + 1)
        np.add.at(share, (row, d - order[:, i]), delta)
        np.add.at(share, (row, d - order[:, i] + 1), -delta)
    share[:, 0] += 1 + share[:, d + 1]
    return near.astype(np.int64), order, share[:, : d + 1]


def numbered(keys: Whole, d: int) -> tuple[Whole, Whole, list[int]]:
    """(codes of the places in use, ascending; the place of each key; by how much a code changes to the neighbour along
    each of the D + 1 axes). A key is a number in a mixed base, with room for the neighbours.
    """
    low = keys.min(0) - d - 1
    base = (keys.max(0) - low + d + 2).tolist()
    factors = np.ones(d, np.int64)
    for i in range(d - 2, -1, -1):
        factors[i] = factors[i + 1] * base[i + 1]
    if float(factors[0]) * base[0] > 2.0**62:
        raise ValueError("the features of the points reach too far for their deviations")
    codes, place = np.unique((keys - low) @ factors, return_inverse=True)
    # To the neighbour along axis j every coordinate goes by 1, and coordinate j back by d.
    steps = [int(factors.sum() - (d + 1) * factors[j]) for j in range(d)] + [int(factors.sum())]
    return codes, place.reshape(-1), steps


def find(codes: Whole, wanted: Whole) -> Whole:
    """The place of each wanted code; behind the last where it is not in use."""
    place = np.searchsorted(codes, wanted)
    place[place == len(codes)] = 0
    return np.where(codes[place] == wanted, place, len(codes))
