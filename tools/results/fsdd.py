"""Windows of spoken digits as HDF5 files for nets/*_fsdd.prototxt: train.h5, validation.h5, test.h5.

    python -m tools.results.fsdd [--data FOLDER] [--out runs/fsdd]

The Free Spoken Digit Dataset (fsdd.npz on $NETSPEC_DATA/fsdd, 3,000 clips of 8 kHz, its official split of
2,700 and 300; every ninth of the 2,700 is held out for validation): each clip is divided by 4 times its root
mean square, and windows of 2,048 samples (256 ms) are cut around its loudest part; 8 windows a training clip,
shifted by up to 64 ms, and 1 of any other. Clips that are shorter are padded with silence. `data` is
(N, 1, 1, 2048), `label` (N,).
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np

from netspec.data.files.idx import Array, Npz
from netspec.errors import DataError

WIDTH, SHIFT, COPIES = 2048, 512, 8
"""Samples of a window; most samples by which a training window is shifted; windows a training clip."""
HELD_OUT = 9
"""One of so many training clips is held out."""
SPLITS = ("train", "validation", "test")


def find(folder: Path | None) -> Path:
    """fsdd.npz in `folder` or on $NETSPEC_DATA; DataError that says where it was looked for."""
    places = (
        [folder]
        if folder
        else [Path(part) / "fsdd" for part in os.environ.get("NETSPEC_DATA", "").split(os.pathsep)]
    )
    for place in places:
        if (place / "fsdd.npz").is_file():
            return place / "fsdd.npz"
    raise DataError(f"fsdd.npz is not in {', '.join(map(str, places))}; set NETSPEC_DATA or give --data")


def centre(clip: Array) -> int:
    """The middle of the window of WIDTH samples with the most energy."""
    energy = np.convolve(clip.astype(np.float64) ** 2, np.ones(min(WIDTH, len(clip))), "same")
    return int(energy.argmax())


def window(clip: Array, middle: int) -> Array:
    """WIDTH samples around `middle`, in units of 4 times the clip's root mean square, silence
    beyond its ends.
    """
    padded = np.pad(clip.astype(np.float64), WIDTH)
    begin = middle + WIDTH - WIDTH // 2
    cut: Array = padded[begin : begin + WIDTH] / (
        4 * max(float(np.sqrt((clip.astype(np.float64) ** 2).mean())), 1.0)
    )
    return cut.astype(np.float32)


def clips(is_test: Array, split: str) -> Array:
    """Numbers of the clips of a split."""
    if split == "test":
        return np.flatnonzero(is_test)
    training: Array = np.flatnonzero(~is_test.astype(bool))
    held = np.arange(len(training)) % HELD_OUT == 0
    chosen: Array = training[held if split == "validation" else ~held]
    return chosen


def windows(path: Path, split: str, seed: int = 1) -> tuple[Array, Array]:
    """(N, 1, 1, WIDTH) windows and (N,) digits of a split."""
    file = Npz(path)
    samples, offsets, labels, is_test = (
        file.read(name) for name in ("samples", "offsets", "label", "is_test")
    )
    generator = np.random.default_rng(seed)
    parts, digits = [], []
    for i in clips(is_test, split):
        clip = samples[offsets[i] : offsets[i + 1]]
        middle = centre(clip)
        for shift in generator.integers(-SHIFT, SHIFT + 1, COPIES) if split == "train" else [0]:
            parts.append(window(clip, middle + int(shift)))
            digits.append(labels[i])
    return np.stack(parts)[:, None, None], np.array(digits, np.float32)


def write(out: Path, folder: Path | None = None) -> None:
    """A .h5 and the list that HDF5Data reads for each split; what is there stays."""
    import h5py

    out.mkdir(parents=True, exist_ok=True)
    for name in SPLITS:
        if (out / f"{name}.txt").exists():
            continue
        data, labels = windows(find(folder), name)
        with h5py.File(out / f"{name}.h5", "w") as file:
            file["data"], file["label"] = data, labels
        (out / f"{name}.txt").write_text(f"{out / name}.h5\n")


def main() -> None:
    """Write the files."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--data", type=Path, help="folder of fsdd.npz")
    parser.add_argument("--out", type=Path, default=Path("runs/fsdd"))
    args = parser.parse_args()
    write(args.out, args.data)
    print(", ".join(f"{args.out}/{name}.txt" for name in SPLITS))


if __name__ == "__main__":
    main()
