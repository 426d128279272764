"""Section 6.2 of Sharir et al. 2018 on spoken digits: raw samples, half of them missing.

    python -m tools.results.speech [--quick] [--iterations N]

The paper's data (TIMIT phonemes, windows of 256 ms) is licensed; here windows of 256 ms of the Free Spoken
Digit Dataset (see tools/results/fsdd.py), its official split. Ours marginalises missing samples; the ConvNet sees whole
windows in training and imputed ones in the test: zeros, the mean, linear interpolation between the observed
neighbours, and our model's expected completion. Published on TIMIT: both 78 % clean; half missing: ConvNet 34 %
with mean, 48 % with inpainting, ours 63 %.
"""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from netspec.data.files.idx import Array
from netspec.lab import Direct, Imputed, Imputer, Method, circumstances, parse_all, plot, run
from netspec.lab.baselines import ByModel, Mean, Zero
from netspec.model import model
from tools.results.fsdd import write
from tools.results.reproduction import page, parser, trained

P = ("0.25", "0.5", "0.75", "0.9")
NETS = ("nets/ht_cac_fsdd.prototxt", "nets/convnet_fsdd.prototxt")


class Interpolated:
    """Missing samples lie on the line between their observed neighbours; beyond the ends, the nearest one."""

    def fill(self, pixels: Array, observed: Array) -> Array:
        """See `netspec.lab.methods.Imputer`."""
        whole = pixels.astype(np.float32).copy()
        places = np.arange(pixels.shape[-1])
        for row, seen in zip(whole.reshape(len(whole), -1), observed.reshape(len(whole), -1), strict=True):
            if seen.any():
                row[:] = np.interp(places, places[seen], row[seen])
        return whole


def half(name: str) -> tuple[Array, Array]:
    """Windows (N, 1, 1, 2048) and digits of "train" or "test"."""
    with h5py.File(f"runs/fsdd/{name}.h5") as file:
        return file["data"][:], file["label"][:].astype(np.int64)


def main() -> None:
    """Make the data, train what is missing, test, write."""
    options = parser(__doc__, "docs/results/speech")
    options.add_argument("--iterations", type=int, help="of each net, in place of the solver files'")
    args = options.parse_args()
    write(Path("runs/fsdd"))
    iterations = args.iterations or (30 if args.quick else None)
    suffix = f"_{iterations}" if iterations else ""
    folders = [
        trained(net, args.runs / (Path(net).stem + suffix), iterations, device=args.device) for net in NETS
    ]
    ours, convnet = (model.load(folder, device=args.device) for folder in folders)
    methods: list[Method] = [Direct(ours, "HT-CAC")]
    imputers: dict[str, Imputer] = {"zero": Zero(), "mean": Mean(half("train")[0]), "interpolation": Interpolated(),
                "HT-CAC's expectation": ByModel(ours, "expected")}  # fmt: skip
    methods += [Imputed(imputer, convnet, f"ConvNet, {name}") for name, imputer in imputers.items()]
    data, labels = half("test")
    table = run(methods, parse_all(P), data, labels, seed=args.seed, repeats=1 if args.quick else 10)
    table.facts = {
        "iterations": iterations or "as in the solver files",
        "seed": args.seed,
        **circumstances(args.device),
    }
    table.write(args.out.with_suffix(".json"))
    plot(table, args.out.with_suffix(".png"), "spoken digits")
    intro = (
        f"Accuracy in per cent on {len(labels)} test clips, 95 % intervals (Wilson, over clips; each clip with "
        "several masks). iid:p: each sample is missing with probability p.\n\nPublished on TIMIT phonemes: clean 78 "
        "for both; half missing: ConvNet with the mean 34, with inpainting 48, generative net 63."
    )
    page(args.out.with_suffix(".md"), "Speech with samples missing", [intro, table.markdown()], table.facts)
    print(table.text())


if __name__ == "__main__":
    main()
