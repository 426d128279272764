"""Tables with half of their cells missing: masks, baselines and MIWAE, as facts of the paper give the protocol.

Standardised with mean and deviation of the complete table; floor(rows * columns / 2) cells hidden, chosen
evenly without replacement; trained on and imputed in the same incomplete table; the error is the mean square
over hidden cells in standardised units (Mattei and Frellsen 2019).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from netspec import schema
from netspec.data.draws import derive
from netspec.data.files.idx import Array
from netspec.data.sets.datasets import folders
from netspec.errors import DataError
from netspec.model.model import load
from netspec.queries import latent
from netspec.queries.latent import Latent
from tools.results.reproduction import published, trained

TABLES = {
    "banknote": "banknote",
    "breast": "breast_cancer_wdbc",
    "concrete": "concrete",
    "red": "red_wine",
    "white": "white_wine",
    "yeast": "yeast",
}
"""The paper's name and the file's."""
PUBLISHED = published("uci")
"""Mean and standard deviation over five masks, in the order of TABLES."""
DRAWS = 10_000
"""Draws of the latent variable behind an imputed row."""
ROWS = 100
"""Rows that are imputed at once."""


@dataclass
class Holes:
    """A standardised table (rows, columns), complete and with half of its cells NaN."""

    whole: Array
    holed: Array

    def error(self, filled: Array) -> float:
        """Mean square over the hidden cells."""
        hidden = np.isnan(self.holed)
        return float(np.square(filled - self.whole)[hidden].mean())


def read(name: str) -> Array:
    """The features of a table, without its target column."""
    places = [folder / "uci" / f"{TABLES[name]}.csv" for folder in folders()]
    path = next((place for place in places if place.exists()), None)
    if path is None:
        raise DataError(f"no {TABLES[name]}.csv; looked for {', '.join(map(str, places))}")
    rows = [line.split(",")[:-1] for line in path.read_text().splitlines()[1:]]
    return np.array(rows, np.float64)


def holes(name: str, mask: int, rows: int | None = None) -> Holes:
    """Table `name` under mask number `mask`; `rows`: only so many of its rows, for a quick look."""
    x = read(name)[:rows]
    spread = x.std(0)
    x = (x - x.mean(0)) / np.where(spread > 0, spread, 1)  # a column may be constant in the first rows
    hidden = np.zeros(x.size, bool)
    generator = np.random.default_rng(derive(mask, "uci", name))
    hidden[generator.permutation(x.size)[: x.size // 2]] = True
    return Holes(x, np.where(hidden.reshape(x.shape), np.nan, x))


def write_inputs(table: Holes, folder: Path) -> Path:
    """The incomplete table as an HDF5 file, and the list that names it."""
    import h5py

    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(folder / "table.h5", "w") as file:
        file.create_dataset("data", data=table.holed.astype(np.float32))
    listed = folder / "table.txt"
    listed.write_text(f"{(folder / 'table.h5').resolve()}\n")
    return listed


def miwae(table: Holes, folder: Path, steps: int, samples: int = 20, seed: int = 1) -> Path:
    """The run folder of MIWAE (or with one sample MVAE) on the table: trained, gone on with, or found."""
    listed = write_inputs(table, folder)
    values = {
        "name": folder.name,
        "source": str(listed.resolve()),
        "columns": table.whole.shape[1],
        "samples": samples,
    }
    (folder / "net.prototxt").write_text(schema.render("nets/miwae_uci.prototmp", values))
    solver = (
        Path("nets/miwae_iris_solver.prototxt")
        .read_text()
        .replace("nets/miwae_iris.prototxt", "net.prototxt")
    )
    (folder / "solver.prototxt").write_text(solver)
    overrides = [
        "base_lr=0.002",
        "lr_policy=poly",
        "power=1",
        f"random_seed={seed}",
        "snapshot=1000",
        f"max_iter={steps}",
    ]
    return trained(str(folder / "solver.prototxt"), folder / "run", overrides=overrides)


def impute(run: Path, table: Holes, draws: int = DRAWS, seed: int = 1) -> Array:
    """Expected cells given the observed ones under a trained run."""
    model = Latent(load(run).net)
    torch.manual_seed(seed)
    filled = []
    with torch.no_grad():
        for begin in range(0, len(table.holed), ROWS):
            rows = torch.from_numpy(table.holed[begin : begin + ROWS].astype(np.float32))
            filled.append(latent.expected_completion(model, rows, draws))
    return torch.cat(filled).double().numpy()
