"""Small NORB as HDF5 files for nets/*_norb.prototxt.

    python -m tools.results.norb --data FOLDER [--out runs/norb]
    python -m tools.results.norb --generate 200 [--out runs/norb]

FOLDER holds the six original files smallnorb-...-{dat,cat,info}.mat, also as .gz. Images are reduced from
96x96 to 32x32
by a cubic spline and divided by 255; `data` is (N, 2, 32, 32), one channel a camera. Validation is one toy
of each class
of the training half, drawn with a seed; train is the rest. --generate writes a made-up set in the original
format first.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from netspec.data.files.idx import Array
from netspec.data.sets import norb


def write(out: Path, folder: Path, seed: int = 1) -> None:
    """train, validation and test as .h5 with the list that HDF5Data reads."""
    out.mkdir(parents=True, exist_ok=True)
    images, classes, info = norb.load(folder, "train")
    held = norb.held_out(classes, info, seed)
    put(out, "train", images[~held], classes[~held])
    put(out, "validation", images[held], classes[held])
    images, classes, _ = norb.load(folder, "test")
    put(out, "test", images, classes)


def put(out: Path, name: str, images: Array, classes: Array) -> None:
    """One split."""
    import h5py

    with h5py.File(out / f"{name}.h5", "w") as file:
        file["data"], file["label"] = norb.small(images) / 255, classes.astype(np.float32)
    (out / f"{name}.txt").write_text(f"{out / name}.h5\n")


def main() -> None:
    """Write the files."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, help="folder of the original files")
    source.add_argument("--generate", type=int, metavar="N", help="a made-up set of N images a half")
    parser.add_argument("--out", type=Path, default=Path("runs/norb"))
    parser.add_argument("--seed", type=int, default=1, help="of the validation toys")
    args = parser.parse_args()
    if args.generate:
        args.data = args.out / "generated"
        norb.generate(args.data, args.generate, args.seed)
    write(args.out, args.data, args.seed)
    print(", ".join(f"{args.out}/{name}.txt" for name in ("train", "validation", "test")))


if __name__ == "__main__":
    main()
