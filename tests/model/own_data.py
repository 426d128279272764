"""Small nets over data made on the spot, trained in a second or two."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from netspec.data.files.images import encode
from netspec.run.fit import fit

LEAF = """
layer { name: "leaf" type: "Similarity" bottom: "data" top: "leaf"
  similarity_param { num_instances: 8 block_param { block_size: %(block)s stride: %(block)s }
    normalization_term: true use_log_space_weight_param: true ignore_nan_input: true
    template_filler { type: "gaussian" std: 1 } weight_filler { type: "constant" value: 1 } } }
layer { name: "mex" type: "MEX" bottom: "leaf" top: "mex" param { lr_mult: 0 } param { }
  mex_param { num_instances: 8 block_param { block_size: 1 } shared_offsets_region_size: 1 softmax_mode: true
    normalize_offsets: true epsilon_filler { type: "constant" value: 1 } offsets_filler { type: "gaussian" std: 1 } } }
layer { name: "sum" type: "Pooling" bottom: "mex" top: "sum" pooling_param { pool: SUM global_pooling: true } }
layer { name: "scores" type: "MEX" bottom: "sum" top: "scores" param { lr_mult: 0 } param { }
  mex_param { num_instances: %(classes)s block_param { block_size: 1 } shared_offsets_region_size: 1 softmax_mode: true
    normalize_offsets: true epsilon_filler { type: "constant" value: 1 } offsets_filler { type: "gaussian" std: 1 } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "scores" bottom: "label" top: "loss" }
layer { name: "nll" type: "LogLikelihoodLoss" bottom: "scores" bottom: "label" top: "nll" }
"""
SOLVER = """
net: "net.prototxt" type: "Nadam" momentum: 0.975 momentum2: 0.999 delta: 1e-16 base_lr: 0.03 lr_policy: "fixed"
max_iter: %d display: 1000 test_iter: 1 random_seed: 1
"""


def train(folder: Path, data: str, classes: int = 2, block: int = 1, iterations: int = 60) -> Path:
    """Train a small generative net on a data layer; gives the run folder."""
    text = f'name: "own" layer {{ name: "data" top: "data" top: "label" {data} }}'
    (folder / "net.prototxt").write_text(text + LEAF % {"block": block, "classes": classes})
    (folder / "solver.prototxt").write_text(SOLVER % iterations)
    return fit(folder / "solver.prototxt", out=folder / "run", progress=False, compiled=False).folder


def table_text(rows: int = 240, holes: float = 0.2) -> str:
    """A table with numbers far from 0, whole numbers, categories, dates, a text and a class that they depend on."""
    rng = np.random.default_rng(0)
    lines = ["weight,legs,colour,born,name,kind"]
    for i in range(rows):
        cat = bool(rng.random() < 0.5)
        cells = [
            f"{rng.normal(4000 if cat else 20000, 300):.1f}", str(rng.integers(8, 10) if cat else rng.integers(2, 4)),
            ("red", "green", "blue")[int(rng.integers(0, 2) if cat else 2)],
            f"20{10 if cat else 20}-{rng.integers(1, 13):02}-11", f"animal {i}", "cat" if cat else "dog",
        ]  # fmt: skip
        lines.append(
            ",".join("" if rng.random() < holes and k != 4 else cell for k, cell in enumerate(cells))
        )
    return "\n".join(lines) + "\n"


def pictures(folder: Path, count: int = 40) -> Path:
    """A folder of pictures 8x8 of two classes: bright above, or bright below."""
    rng = np.random.default_rng(0)
    for i in range(count):
        image = rng.integers(0, 60, (1, 8, 8), dtype=np.uint8)
        image[:, slice(0, 4) if i % 2 else slice(4, 8)] += 180
        path = folder / ("above" if i % 2 else "below") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(image, "png", str(path)))
    return folder
