"""What each idea of the density nets does to bits per dimension of held-out images, on scikit-learn's 8x8 digits.

    python -m tools.results.density_ideas [--out docs/results/density_ideas.json]

Trained on the set's "train" split, measured on its "validation" split; every idea is taken away from, or
put in place of, one part of the whole. A few seconds each: MNIST itself takes hours.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from netspec.model.model import load
from netspec.run.fit import fit

NET = """name: "density_digits"
layer {{ name: "data" type: "Dataset" top: "data" top: "label" include {{ phase: TRAIN }}
  dataset_param {{ name: "digits" split: "train" batch_size: 100 shuffle: true }} }}
layer {{ name: "data" type: "Dataset" top: "data" top: "label" include {{ phase: TEST }}
  dataset_param {{ name: "digits" split: "validation" batch_size: 50 }} }}
layer {{ name: "levels" type: "Leaves" bottom: "data" top: "levels" leaves_param {{ num_instances: {states}
  radius: {radius} distribution {{ kind: "{kind}" levels: 256 }} {leaf_init} }} }}
layer {{ name: "tree" type: "LatentTree" bottom: "levels" top: "tree" latent_tree_param {{ {tree_init} }} }}
layer {{ name: "score" type: "MEX" bottom: "tree" top: "score" mex_param {{ num_instances: 1
  block_param {{ block_size: 1 }} softmax_mode: true normalize_offsets: true }} }}
layer {{ name: "loss" type: "LogLikelihoodLoss" bottom: "score" top: "loss" }}
"""
SOLVER = """net: "net.prototxt" {type} max_iter: {iterations} display: 0 random_seed: 1 iter_size: {iter_size}
snapshot_after_train: true test_iter: 1 test_interval: 100000 test_initialization: false
"""
INIT = 'unsupervised_init { type: "neighbourhood" max_iterations: 10 num_batches: 12 }'
NADAM = 'type: "Nadam" lr_policy: "fixed" momentum: 0.9 momentum2: 0.999 base_lr: '
STEPWISE = 'type: "EM" base_lr: 0.08 lr_policy: "inv" gamma: 0.02 power: 0.7'
PRIOR = "em_param { prior_states: 0.1 prior_values: 1 images: 1217 }"
WHOLE: dict[str, object] = {
    "states": 16, "radius": 2, "kind": "categorical", "leaf_init": INIT, "iterations": 200, "iter_size": 1,
    "tree_init": 'unsupervised_init { type: "chow_liu" }', "type": f"{STEPWISE} {PRIOR}",
}  # fmt: skip
IDEAS: dict[str, dict[str, object]] = {
    "all of it": {},
    "8 states": {"states": 8},
    "32 states": {"states": 32},
    "neighbourhoods of radius 1": {"radius": 1},
    "first states from the pixel alone (kmeans)": {"leaf_init": INIT.replace("neighbourhood", "kmeans")},
    "no first states: random": {"leaf_init": "", "tree_init": ""},
    "as random, gradient (Nadam) in place of EM": {
        "leaf_init": "", "tree_init": "", "type": NADAM + "0.03",
    },
    "all, then gradient (Nadam) in place of EM": {
        "type": NADAM + "0.01",
    },
    "full-batch EM, 15 updates": {
        "type": f'type: "EM" base_lr: 1 lr_policy: "fixed" {PRIOR}', "iterations": 15, "iter_size": 12,
    },
    "no prior": {"type": STEPWISE + " em_param { prior_states: 0 prior_values: 0.01 images: 1217 }"},
    "prior of 10 images of values": {"type": STEPWISE + PRIOR.replace("values: 1 ", "values: 10 ")},
    "discretised logistic leaves": {"kind": "discretised_logistic"},
}  # fmt: skip


def bits(changes: dict[str, object]) -> float:
    """Mean bits per dimension of the held-out images."""
    values = {**WHOLE, **changes}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "net.prototxt").write_text(NET.format(**values))
        (place / "net_solver.prototxt").write_text(SOLVER.format(**values))
        run = fit(place / "net_solver.prototxt", out=place / "run", progress=False, compiled=False)
        model = load(run.folder)
        pixels, _ = model.images()
        return float(model.bits_per_dimension(model.from_pixels(pixels)).mean())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    figures = {}
    for name, changes in IDEAS.items():
        figures[name] = round(bits(changes), 4)
        print(f"{figures[name]:.4f}  {name}", flush=True)
        if options.out:
            options.out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
