"""Fig. 4 (c) and (d) of Sharir et al. 2018: blind classification of small NORB with pixels missing.

    python -m tools.results.norb --data FOLDER      (or --generate 200: a made-up set of the same format)
    python -m tools.results.norb_nets [--quick] [--iterations N]

Each camera has its own mask. HT-CAC marginalises missing pixels exactly behind its whitening; "stereo" first
takes a pixel
that one camera misses from the other, as the authors' released code does (the paper does not say so). The
ConvNet sees zeros
or the mean of the training pixels.
"""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from netspec.data.files.idx import Array
from netspec.lab import FIG_4, Direct, Imputed, Method, circumstances, parse, plot, run
from netspec.lab.baselines import Mean, Zero
from netspec.model import model
from tools.results.reproduction import page, parser, trained

FITS = ("white.convolution_param.unsupervised_init", "gaussians.similarity_param.unsupervised_init")
QUICK = {
    "nets/ht_cac_norb.prototxt": ["test_iter=1", *(f"{fit}.type=none" for fit in FITS)],
    "nets/convnet_norb.prototxt": ["test_iter=1"],
}
"""The nets, each with what --quick changes in it."""


def half(name: str) -> tuple[Array, Array]:
    """Images (N, 2, 32, 32) and classes of a split."""
    with h5py.File(f"runs/norb/{name}.h5") as file:
        return file["data"][:], file["label"][:].astype(np.int64)


def main() -> None:
    """Train what is missing, test, write."""
    options = parser(__doc__, "docs/results/norb")
    options.add_argument("--iterations", type=int, help="of each net, in place of the solver files'")
    args = options.parse_args()
    iterations = args.iterations or (10 if args.quick else None)
    suffix = f"_{iterations}" if iterations else ""
    folders = [
        trained(
            net, args.runs / (Path(net).stem + suffix), iterations, changed if args.quick else (), args.device
        )
        for net, changed in QUICK.items()
    ]
    ours, convnet = (model.load(folder, device=args.device) for folder in folders)
    methods: list[Method] = [
        Direct(ours, "HT-CAC"),
        Direct(ours, "HT-CAC, stereo", stereo=True),
        Imputed(Zero(), convnet, "ConvNet, zero"),
        Imputed(Mean(half("train")[0]), convnet, "ConvNet, mean"),
    ]
    images, classes = half("test")
    columns = [parse(setting.name, per_channel=True) for setting in FIG_4]
    table = run(methods, columns[:3] if args.quick else columns, images, classes, seed=args.seed)
    table.facts = {
        "iterations": iterations or "as in the solver files",
        "seed": args.seed,
        **circumstances(args.device),
    }
    table.write(args.out.with_suffix(".json"))
    plot(table, args.out.with_suffix(".png"), "small NORB")
    intro = f"Accuracy in per cent on {len(classes)} test images, 95 % intervals (Wilson); one mask a camera."
    page(
        args.out.with_suffix(".md"), "Small NORB with pixels missing", [intro, table.markdown()], table.facts
    )
    print(table.text())


if __name__ == "__main__":
    main()
