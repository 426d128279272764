"""Pictures a second that data layers decode, with 1 to N workers, beside torch's DataLoader with Pillow.

    python -m tools.bench.input [--workers 1 2 4] [--pictures 512] [--side 256] [--batch 32] [--rounds 7]
                                [--out docs/results/input.json]

A list of JPEG files (ImageData) and an LMDB of encoded Datums (Data), crop and mirror, float32 batches. The DataLoader
has as many workers (processes), opens the same files with Pillow and crops and mirrors them alike. A round takes all
pictures once through each way, in turns; the first batch is waited for before the clock starts, so that starting
workers is not counted. `decode` is the rate of one thread that does nothing but decode the same files. Goals: workers
decode at 0.9 of (processors in use) times that rate, and no slower than DataLoader with as many workers.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from netspec.data import Feeder, feeder
from netspec.data.files.images import decode, encode
from netspec.data.source import usable_processors
from netspec.data.writing import convert, databases
from netspec.net.make import make_net
from tools.bench.timing import machine

GOAL_DECODE, GOAL_LOADER = 0.9, 1.0


def picture(i: int, side: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Smooth colours with some noise, which a JPEG file stores as it does a photograph."""
    rng = np.random.default_rng(i)
    coarse = rng.integers(0, 256, (3, side // 16, side // 16)).repeat(16, 1).repeat(16, 2)
    return (coarse + rng.integers(-12, 13, coarse.shape)).clip(0, 255).astype(np.uint8)


def write(folder: Path, count: int, side: int) -> None:
    """The pictures as files with a list, and as an LMDB."""

    def examples() -> Iterator[convert.Example]:
        for i in range(count):
            image = picture(i, side)
            content = encode(image, "jpg", "a picture")
            (folder / f"{i}.jpg").write_bytes(content)
            yield convert.Example(f"{i:08}", image, i % 10, content)

    databases.write_database(examples(), folder / "db", "LMDB")
    (folder / "list.txt").write_text("".join(f"{i}.jpg {i % 10}\n" for i in range(count)))


def layer(folder: Path, kind: str, batch: int, crop: int) -> str:
    if kind == "ImageData":
        field = (
            f'image_data_param {{ source: "{folder}/list.txt" root_folder: "{folder}/" batch_size: {batch} }}'
        )
    else:
        field = f'data_param {{ source: "{folder}/db" backend: LMDB batch_size: {batch} }}'
    transform = f"transform_param {{ crop_size: {crop} mirror: true mean_value: 110 }}"
    return f'layer {{ name: "d" type: "{kind}" top: "data" top: "label" {transform} {field} }}'


class Files(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """The same pictures for a DataLoader: Pillow, a random crop, a mirror with probability 1/2, float32."""

    def __init__(self, folder: Path, count: int, crop: int):
        self.folder, self.count, self.crop = folder, count, crop

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        from PIL import Image

        with Image.open(self.folder / f"{i}.jpg") as file:
            image = np.asarray(file.convert("RGB"))
        y, x = (int(torch.randint(size - self.crop + 1, ())) for size in image.shape[:2])
        image = image[y : y + self.crop, x : x + self.crop].transpose(2, 0, 1)
        image = image[:, :, ::-1] if torch.rand(()) < 0.5 else image
        return torch.from_numpy(image.astype(np.float32) - 110), i % 10


def drained(data: Feeder, batches: int) -> None:
    for _ in range(batches):
        data.next()


def rates(
    folder: Path, workers: list[int], count: int, batch: int, crop: int, number: int
) -> dict[str, list[float]]:
    """Pictures a second of every way, round after round."""
    batches = count // batch
    taken: dict[str, list[float]] = {}
    nets = {kind: make_net(layer(folder, kind, batch, crop), "TRAIN") for kind in ("ImageData", "Data")}

    def timed(name: str, run: Callable[[], object], pictures: int) -> None:
        started = time.perf_counter()
        run()
        taken.setdefault(name, []).append(pictures / (time.perf_counter() - started))

    for _ in range(number):
        names = [folder / f"{i}.jpg" for i in range(count // 4)]
        timed("decode", lambda: [decode(name, True, "a picture") for name in names], len(names))  # noqa: B023
        for n in workers:
            for kind, net in nets.items():
                with feeder(net, seed=1, workers=n) as data:
                    data.next()
                    timed(f"{kind}/{n}", lambda: drained(data, batches), count)
            loader = torch.utils.data.DataLoader(Files(folder, count + batch, crop), batch, num_workers=n)
            stream = iter(loader)
            next(stream)
            timed(f"DataLoader/{n}", lambda: list(stream), count)  # noqa: B023
    return taken


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument("--pictures", type=int, default=512)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, help="write the numbers to this JSON file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, Any] = {
        "machine": machine(),
        "usable_processors": usable_processors(),
        "rounds": options.rounds,
    }
    results |= {"pictures": options.pictures, "side": options.side, "batch": options.batch}
    with tempfile.TemporaryDirectory() as name:
        folder, crop = Path(name), options.side * 7 // 8
        write(folder, options.pictures + options.batch, options.side)
        taken = rates(folder, options.workers, options.pictures, options.batch, crop, options.rounds)
    results["pictures_a_second"] = {key: round(statistics.median(values), 1) for key, values in taken.items()}
    for n in options.workers:
        cores = min(n, results["usable_processors"])
        for kind in ("ImageData", "Data"):
            mine = taken[f"{kind}/{n}"]
            over = [a / (cores * b) for a, b in zip(mine, taken["decode"], strict=True)]
            beside = [a / b for a, b in zip(mine, taken[f"DataLoader/{n}"], strict=True)]
            entry = {
                "of_decode": round(statistics.median(over), 3),
                "of_loader": round(statistics.median(beside), 3),
            }
            results.setdefault("ratios", {})[f"{kind}/{n}"] = entry
            print(
                f"{kind}, {n} workers: {results['pictures_a_second'][f'{kind}/{n}']:.0f} pictures a second, {entry}"
            )
    results["goals"] = {"of_decode": GOAL_DECODE, "of_loader": GOAL_LOADER}
    results["machine"]["load_average_after"] = round(os.getloadavg()[0], 2)
    if options.out:
        options.out.write_text(json.dumps(results, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
