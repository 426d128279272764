"""What tools/fuzz/run.py mutates of run folders, exported programs, templates, and the fields of layers."""

from __future__ import annotations

import io
import json
import random
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from netspec import interchange, schema
from netspec.draw.plots import read_metrics
from netspec.errors import NetspecError
from netspec.interchange import snapshot_files
from netspec.run import resume
from netspec.run.fit import fit
from netspec.run.folder import Folder, Metrics
from netspec.run.stopping import BEST, read_best
from netspec.schema import templates
from tests.cases import all_cases
from tests.layers.test_extremes import fields, put, values
from tests.mutations import BYTE_CHANGES, TEXT_CHANGES, Change
from tools.fuzz.arrays import header_word

RUN = """layer { name: "x" type: "DummyData" top: "x" top: "label" dummy_data_param { shape { dim: 4 dim: 3 }
  shape { dim: 4 } data_filler { type: "gaussian" } data_filler { value: 1 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 3 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "y" bottom: "label" top: "loss" }
"""
SOLVER = 'type: "Adam" base_lr: 0.1 lr_policy: "fixed" max_iter: 4 snapshot: 2 test_iter: 1 test_interval: 2 ' \
         'random_seed: 1 keep_best: "loss" display: 1'  # fmt: skip
FILES = (
    "metrics.jsonl", "run.json", "solver.prototxt", BEST, "snapshots/iter_4.safetensors",
    "snapshots/iter_4.state.safetensors",
)  # fmt: skip


def run_folder(place: Path) -> dict[str, bytes]:
    """A run with snapshots and a best one; its files."""
    (place / "run.prototxt").write_text(RUN)
    (place / "run_solver.prototxt").write_text(f'net: "{place}/run.prototxt" {SOLVER}')
    folder = fit(place / "run_solver.prototxt", out=place / "run", progress=False).folder
    return {name: (folder / name).read_bytes() for name in FILES}


def run_seeds(files: dict[str, bytes]) -> list[bytes]:
    """A byte that says which file it is, then the file."""
    return [bytes([i]) + files[name] for i, name in enumerate(FILES)]


def in_file(change: Change) -> Change:
    """A change of what stands behind the first byte."""

    def changed(data: bytes, chance: random.Random, others: Sequence[bytes]) -> bytes:
        return data[:1] + change(data[1:], chance, [other[1:] for other in others])

    return changed


RUN_CHANGES: tuple[Change, ...] = tuple(
    map(in_file, (*BYTE_CHANGES, *TEXT_CHANGES, header_word, header_word))
)


def run_reader(folder: Path, files: dict[str, bytes]) -> Callable[[bytes], None]:
    """Looks at the folder as a report, a list of runs and a resumed run do."""
    message = schema.read_solver(folder / "solver.prototxt").message

    def read(data: bytes) -> None:
        name = FILES[min(data[0], len(FILES) - 1)] if data else FILES[0]
        (folder / name).write_bytes(data[1:])
        try:
            look(folder, message)
        finally:
            (folder / name).write_bytes(files[name])

    return read


def look(folder: Path, message: Any) -> None:
    refused = []
    for use in (
        lambda: Metrics(folder / "metrics.jsonl").rewind(3),
        lambda: read_metrics(folder / "metrics.jsonl"),
        lambda: read_best(folder),
        lambda: facts(folder),
        lambda: resume.begin(folder, None, message).changes(message),
        lambda: snapshot_files.newest(folder),
    ):
        try:
            use()
        except NetspecError as error:
            refused.append(error)
    if refused:
        raise refused[0]


def facts(folder: Path) -> None:
    """What run.json says, as a new one is written."""
    run = Folder(folder)
    try:
        json.dumps(run.facts())
    finally:
        run.lock.release()


def programs() -> list[bytes]:
    """Archives as torch writes them, by their outer form."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("archive/version", "0")
        file.writestr("archive/data.pkl", b"cos\nsystem\n(S'true'\ntR.")
        file.writestr("archive/models/model.json", "{}")
    return [buffer.getvalue(), b"cos\nsystem\n(S'true'\ntR.", b"\x80\x04."]


def program_reader(folder: Path) -> Callable[[bytes], None]:
    """Gives them as weights and as nets, under names of all kinds."""
    names = (
        "a.pt2",
        "a.pt",
        "a.pth",
        "a.pkl",
        "a.caffemodel",
        "a.safetensors",
        "a.npz",
        "a.h5",
        "a.prototxt",
    )

    def read(data: bytes) -> None:
        path = folder / names[len(data) % len(names)]
        path.write_bytes(data)
        interchange.convert(path, folder / "out.caffemodel")

    return read


TEMPLATES = (
    'name: "{{ name }}" {% for i in range(n) %}layer { name: "r{{ i }}" type: "ReLU" bottom: "x" }{% endfor %}',
    "{% macro ip(n) %}num_output: {{ n|int * 2 }}{% endmacro %}{{ ip(n) }} {% if flag|bool %}a{% else %}b{% endif %}",
    'layer { name: "%(name)s" inner_product_param { num_output: %(n)d } }',
    'layer { name: "$name" inner_product_param { num_output: ${n} } }',
    '{% import "netspec/conv.prototmp" as c %}{{ c }}{% set x = [1, 2, 3]|sum %}{{ x }}',
)


def template_reader() -> Callable[[bytes], None]:
    def read(data: bytes) -> None:
        text = data.decode("utf-8", "replace")
        templates.fill(text, {"name": "a", "n": 3, "flag": True}, "a.prototmp", None, None)

    return read


def layers() -> list[bytes]:
    """The small nets of the layers' tests."""
    return [case.text.encode() for case in all_cases() if "tests.python_layers" not in case.text]


def random_field(data: bytes, chance: random.Random, others: Sequence[bytes]) -> bytes:
    """A numeric field of one of the layers, set to a number at the end of its range or drawn at random."""
    try:
        net = schema.parse_net(data.decode("utf-8", "replace")).message
    except NetspecError:
        return data
    if not net.layer:
        return data
    layer = chance.choice(net.layer)
    own = [(field.name, path, kind) for field, value in layer.ListFields() if hasattr(value, "DESCRIPTOR")
           for path, kind in fields(value)]  # fmt: skip
    if not own:
        return data
    first, path, kind = chance.choice(own)
    choices = values(kind)
    if not choices:
        return data
    value = chance.choice(choices)
    if isinstance(value, int) and chance.random() < 0.5:
        value = chance.choice((2, 3, 4, 5, 7, 16, 100, 1000, 65_536))
    try:
        put(layer, (first, *path), value)
    except (TypeError, ValueError):  # an enum has no such number
        return data
    return schema.print_text(net).encode()


FIELD_CHANGES: tuple[Change, ...] = (random_field, random_field, random_field, *TEXT_CHANGES[:6])
