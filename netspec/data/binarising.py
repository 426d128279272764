"""Grey levels made black or white: by a threshold, or drawn with the level's brightness as probability."""

from __future__ import annotations

import numpy as np

from netspec.data.draws import derive, uniform
from netspec.data.files.idx import Array
from netspec.schema.spec import LayerSpec

KINDS = ("threshold", "static", "dynamic")
"""Of DatasetParameter.binarize."""


def binarised(raw: Array, kind: str, seed: int, examples: Array, positions: Array) -> Array:
    """`raw` (N, C, H, W), levels 0..255, with every level made 0 or 255, in its own dtype.

    kind: "threshold" gives 255 from 127.5 on; "static" 255 with probability level / 255, the same draw for an
    example in every epoch (it depends on `seed` and its number in `examples`); "dynamic" draws anew at each of
    the `positions` of the stream. Source: Salakhutdinov and Murray 2008; Burda et al. 2016 for "dynamic".
    """
    if kind == "threshold":
        white = raw >= 127.5
    else:
        keys = examples if kind == "static" else positions
        draws = uniform(derive(seed, "binarize", kind), keys, int(np.prod(raw.shape[1:])))
        white = draws.reshape(raw.shape) < raw / 255.0
    return np.where(white, 255, 0).astype(raw.dtype)


def binary_seed(layer: LayerSpec, seed: int) -> int:
    """The seed of a Dataset layer's binary draws; `seed` is the run's, where the layer gives none."""
    p = layer.message.dataset_param
    return derive(int(p.binarize_seed) if p.HasField("binarize_seed") else seed, p.name, p.split)
