"""Fig. 5 and Fig. 6 of Sharir et al. 2018: samples of each digit, and what the neurons of each level stand for.

    python -m tools.results.fig5_6 runs/ht_cac_mnist [--out docs/results] [--pictures docs/pictures]
                                     [--kinds sample,mean,most_probable]

Fig. 5: a row per digit, ancestral samples (means of the drawn Gaussians, as printed there). Fig. 6: for every level the
receptive fields of some states at each position: samples, as its caption says. The most probable patches, of which
the paper's text speaks, are nearly black at the upper levels: what maximises a density are its narrow Gaussians, and
those of empty patches are the narrowest.
"""

from __future__ import annotations

import os
from pathlib import Path

from netspec.lab import circumstances
from netspec.model import model
from netspec.model.latent_pages import latent_blobs, neurons_page
from netspec.model.pages import sample_grid
from tools.results.reproduction import page, parser


def main() -> None:
    """Draw the pictures and the page that shows them."""
    options = parser(__doc__, "docs/results")
    options.add_argument("run", type=Path, help="run folder of a generative net")
    options.add_argument(
        "--pictures", type=Path, default=Path("docs/pictures"), help="folder of the pictures"
    )
    options.add_argument("--kinds", default="sample", help="of sample, mean and most_probable, with commas")
    options.add_argument("--name", default="", help="stem of the files, default the run's")
    args = options.parse_args()
    net = model.load(args.run, device=args.device)
    stem = args.name or args.run.name
    args.pictures.mkdir(parents=True, exist_ok=True)
    there = os.path.relpath(args.pictures, args.out)
    samples = sample_grid(net, args.pictures / f"{stem}_fig5.png", 10, seed=args.seed)
    parts = ["Samples of each class (Fig. 5).", f"![samples]({there}/{samples.name})"]
    for kind in args.kinds.split(","):
        for level in list(latent_blobs(net))[1:-1]:
            name = f"{stem}_fig6_{level}_{kind}.png"
            neurons_page(net, args.pictures / name, level, 4 if args.quick else 25, kind, args.seed)
            parts += [f"States of `{level}` at their positions, {kind.replace('_', ' ')} patches (Fig. 6).",
                      f"![{level}, {kind}]({there}/{name})"]  # fmt: skip
    facts = {"run": args.run.name, "seed": args.seed, **circumstances(args.device)}
    print(page(args.out / f"{stem}_fig5_6.md", f"Fig. 5 and Fig. 6: {stem}", parts, facts))


if __name__ == "__main__":
    main()
