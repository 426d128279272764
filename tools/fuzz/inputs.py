"""What tools/fuzz/run.py mutates, and the readers that it is given to: whole files, by the ways that users take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from netspec import interchange, schema
from netspec.data.files.protos import read_blob
from netspec.errors import NetspecError
from netspec.interchange import caffemodel, solverstate
from netspec.interchange.blobs import field, number_field
from netspec.net.make import make_net
from netspec.net.net import Net
from netspec.run import experiment
from netspec.schema import spec
from netspec.solver.policies import LearningRate
from netspec.solver.solver import Solver
from tests.mutations import BYTE_CHANGES, MESSAGE_CHANGES, TEXT_CHANGES, Change
from tools.fuzz import arrays, folders
from tools.fuzz.databases import (
    BOXES,
    DATA,
    PAGE_CHANGES,
    boxes,
    file_reader,
    files,
    record_reader,
    records,
)

ROOT = Path(__file__).parent.parent.parent
NET = """name: "small"
layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 6 dim: 6 } } }
layer { name: "conv" type: "Convolution" bottom: "x" top: "c" param { name: "w" lr_mult: 1 } param { lr_mult: 2 }
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "bn" type: "BatchNorm" bottom: "c" top: "b" }
layer { name: "sim" type: "Similarity" bottom: "b" top: "s" similarity_param { num_instances: 3
  block_param { block_size: 1 } template_filler { type: "gaussian" std: 0.1 } } }
layer { name: "pool" type: "Pooling" bottom: "s" top: "p" pooling_param { pool: MAX kernel_size: 3 stride: 2 } }
layer { name: "ip" type: "InnerProduct" bottom: "p" top: "y" inner_product_param { num_output: 5
  weight_filler { type: "xavier" } } }
layer { name: "sum" type: "Reduction" bottom: "y" top: "loss" loss_weight: 1 }
"""
OLD = """name: "old" input: "x" input_dim: 1 input_dim: 3 input_dim: 8 input_dim: 8
layers { name: "c" type: CONVOLUTION bottom: "x" top: "c" blobs_lr: 1 blobs_lr: 2 weight_decay: 1
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
layers { name: "r" type: RELU bottom: "c" top: "c" }
layers { name: "n" type: LRN bottom: "c" top: "n" lrn_param { local_size: 5 alpha: 0.0001 beta: 0.75 } }
layers { name: "i" type: INNER_PRODUCT bottom: "n" top: "i" inner_product_param { num_output: 10 } }
layers { name: "a" type: SOFTMAX bottom: "i" top: "a" }
"""
OLDEST = """input: "data" input_dim: 1 input_dim: 3 input_dim: 8 input_dim: 8
layers { layer { name: "pad1" type: "padding" pad: 2 } bottom: "data" top: "pad1" }
layers { layer { name: "conv1" type: "conv" num_output: 4 kernelsize: 3 blobs_lr: 1. weight_filler { type: "xavier" } }
  bottom: "pad1" top: "conv1" }
layers { layer { name: "pool1" type: "pool" kernelsize: 3 stride: 2 pool: MAX } bottom: "conv1" top: "pool1" }
"""
SOLVER = 'base_lr: 0.01 lr_policy: "inv" gamma: 0.0001 power: 0.75 momentum: 0.9 weight_decay: 0.0005 max_iter: 100 '
SOLVERS = (
    'net: "small.prototxt" test_iter: 10 test_interval: 5 ' + SOLVER + 'snapshot: 10 snapshot_prefix: "a/b"',
    'train_net: "small.prototxt" test_net: "old.prototxt" test_iter: 1 test_interval: 2 solver_type: ADAM base_lr: 1 '
    'lr_policy: "multistep" stepvalue: [10, 20] gamma: 0.1 max_iter: 30 train_state { stage: "a" level: 1 }',
    f"net_param {{ {NET} }} type: 'RMSProp' rms_decay: 0.9 max_iter: 9 base_lr: 0.1 lr_policy: 'step' stepsize: 3 "
    "gamma: 0.5 regularization_type: 'L1' iter_size: 2 clip_gradients: 5 random_seed: 7",
)


@dataclass(frozen=True)
class Kind:
    """One kind of input: its share of all, what it starts from, how it is changed, and what reads it."""

    name: str
    share: float
    seeds: Sequence[bytes]
    changes: Sequence[Change]
    read: Callable[[bytes], None]


def net_of(text: str, phase: str = "TRAIN") -> Net:
    return make_net(text, phase, seed=1)


def kinds(folder: Path) -> list[Kind]:
    """All kinds; files are written into `folder`."""
    torch.set_num_threads(1)
    for name, text in (("small", NET), ("old", OLD)):
        (folder / f"{name}.prototxt").write_text(text)
    net, old = net_of(NET), net_of(OLD, "TEST")
    solvers = [solver_of(net, kind) for kind in ("SGD", "Adam")]
    new = [
        caffemodel.encode_net(caffemodel.net_message(one), caffemodel.net_arrays(one)) for one in (net, old)
    ]
    ancient = [old_file(old, oldest, packed) for oldest in (False, True) for packed in (True, False)]
    read_net = net_reader(folder / "net.prototxt")
    v1, v2, h5 = (folder / name for name in ("v1.caffemodel", "v2.caffemodel", "f.h5"))
    files_of_run = folders.run_folder(folder)
    return [
        *array_kinds(folder, net),
        Kind("run folder", 0.06, folders.run_seeds(files_of_run), folders.RUN_CHANGES,
             folders.run_reader(folder / "run", files_of_run)),
        Kind("program or pickle", 0.01, folders.programs(), BYTE_CHANGES, folders.program_reader(folder)),
        Kind("template", 0.02, [text.encode() for text in folders.TEMPLATES], TEXT_CHANGES,
             folders.template_reader()),
        Kind("fields of layers", 0.1, folders.layers(), folders.FIELD_CHANGES, read_net),
        Kind("caffemodel, V2", 0.08, new, MESSAGE_CHANGES, weights_reader(v2, [net, old])),
        Kind("caffemodel, V1 and V0", 0.08, ancient, MESSAGE_CHANGES, weights_reader(v1, [old])),
        Kind("caffemodel, HDF5", 0.02, written(net, folder / "s.h5"), BYTE_CHANGES, weights_reader(h5, [net])),
        Kind("solverstate", 0.04, states(solvers, folder / "s.solverstate"), MESSAGE_CHANGES,
             state_reader(folder / "f.solverstate", solvers)),
        Kind("solverstate, HDF5", 0.02, states(solvers, folder / "s.solverstate.h5"), BYTE_CHANGES,
             state_reader(folder / "f.solverstate.h5", solvers)),
        Kind("binaryproto", 0.03, blobs(folder / "s.binaryproto"), MESSAGE_CHANGES,
             blob_reader(folder / "f.binaryproto")),
        Kind("LMDB record", 0.06, records(), MESSAGE_CHANGES, record_reader(folder / "lmdb", DATA)),
        Kind("LMDB record with boxes", 0.02, boxes(), MESSAGE_CHANGES, record_reader(folder / "boxes", BOXES)),
        Kind("LMDB file", 0.04, files(folder), PAGE_CHANGES, file_reader(folder / "pages")),
        Kind("net, prototxt", 0.1, nets(read_net), TEXT_CHANGES, read_net),
        Kind("solver, prototxt", 0.04, [text.encode() for text in SOLVERS], TEXT_CHANGES,
             solver_reader(folder / "solver.prototxt")),
    ]  # fmt: skip


def array_kinds(folder: Path, net: Net) -> list[Kind]:
    """Files of arrays, pictures and tables."""
    listed = [
        Kind("HDF5 data", 0.06, arrays.hdf5_data(), BYTE_CHANGES, arrays.hdf5_reader(folder / "data.h5")),
        Kind(
            "safetensors",
            0.06,
            arrays.tensors(net, folder),
            (*BYTE_CHANGES, *[arrays.header_word] * 4),
            arrays.tensors_reader(folder / "f.safetensors", net),
        ),
        Kind("npz", 0.04, arrays.archives(), BYTE_CHANGES, arrays.archive_reader(folder / "f.npz")),
        Kind("npy", 0.02, arrays.single_arrays(), BYTE_CHANGES, arrays.single_reader(folder / "f.npy")),
        Kind("idx", 0.02, arrays.idx_files(folder), BYTE_CHANGES, arrays.idx_reader(folder / "f-idx3-ubyte")),
        Kind("picture", 0.03, arrays.pictures(), BYTE_CHANGES, arrays.picture_reader(folder / "f.png")),
        Kind("table, text", 0.03, arrays.tables(), TEXT_CHANGES, arrays.table_reader(folder / "f.csv")),
    ]
    if seeds := arrays.parquet():
        listed.append(
            Kind("table, Parquet", 0.02, seeds, BYTE_CHANGES, arrays.table_reader(folder / "f.parquet"))
        )
    return listed  # fmt: skip


# What is mutated


def solver_of(net: Net, kind: str) -> Solver:
    return Solver(net, schema.parse_solver(f'{SOLVER} type: "{kind}"').message)


def old_file(net: Net, oldest: bool, packed: bool) -> bytes:
    """The net's weights in the V1 form, or in the V0 form."""
    out = field(1, b"old")
    types = {"Convolution": 4, "InnerProduct": 14}
    for made, held in zip(net.made, caffemodel.net_arrays(net), strict=True):
        name, blobs = made.spec.name.encode(), [old_blob(array, packed) for array in held]
        if oldest:
            inner = field(1, name) + field(2, b"conv") + b"".join(field(50, blob) for blob in blobs)
            content = field(1, inner)
        else:
            kind = number_field(5, types.get(made.spec.type, 18))
            content = field(4, name) + kind + b"".join(field(6, blob) for blob in blobs)
        out += field(2, content)
    return out


def old_blob(array: np.ndarray, packed: bool) -> bytes:
    """A blob with four sizes; its values as one field, or as a field each."""
    sizes = (1,) * (4 - array.ndim) + array.shape
    values = array.astype("<f4").tobytes()
    data = (
        field(5, values)
        if packed
        else b"".join(b"\x2d" + values[i : i + 4] for i in range(0, len(values), 4))
    )
    return b"".join(number_field(i + 1, size) for i, size in enumerate(sizes)) + data


def written(net: Net, path: Path) -> list[bytes]:
    interchange.save_weights(net, path)
    return [path.read_bytes()]


def states(solvers: Sequence[Solver], path: Path) -> list[bytes]:
    contents = []
    for solver in solvers:
        solverstate.write_solverstate(solver, path, "w.caffemodel")
        contents.append(path.read_bytes())
    return contents


def blobs(path: Path) -> list[bytes]:
    values = np.arange(48, dtype=np.float32).reshape(1, 3, 4, 4)
    caffemodel.write_blob(path, values)
    return [path.read_bytes(), old_blob(values, True), old_blob(values, False)]


def nets(read: Callable[[bytes], None]) -> list[bytes]:
    """Small nets of each syntax; those of tests/corpus and the shorter ones of nets/ that need no files."""
    files = [*(ROOT / "tests" / "corpus").glob("*.prototxt"), *(ROOT / "nets").glob("*.prototxt")]
    texts = [path.read_bytes() for path in sorted(files) if "solver" not in path.name]
    seeds = [text.encode() for text in (NET, OLD, OLDEST)]
    for text in texts:
        with suppress(NetspecError):
            if len(text) < 3000:
                read(text)
                seeds.append(text)
    return seeds


# What reads it


def weights_reader(path: Path, nets: Sequence[Net]) -> Callable[[bytes], None]:
    def read(data: bytes) -> None:
        path.write_bytes(data)
        interchange.read_weights(path)
        for net in nets:
            interchange.load_weights(net, path)
        if path.suffix == ".caffemodel":
            caffemodel.read_caffemodel(path).message()

    return read


def state_reader(path: Path, solvers: Sequence[Solver]) -> Callable[[bytes], None]:
    def read(data: bytes) -> None:
        path.write_bytes(data)
        state = solverstate.read_solverstate(path)
        solver = next(
            (one for one in solvers if len(state.history) == len(one.params) * len(one.rule.slots)),
            solvers[0],
        )
        solver.load_state_dict(solverstate.to_state_dict(state, solver))

    return read


def blob_reader(path: Path) -> Callable[[bytes], None]:
    def read(data: bytes) -> None:
        path.write_bytes(data)
        read_blob(path)
        caffemodel.read_blob_file(path)

    return read


def net_reader(path: Path) -> Callable[[bytes], None]:
    def read(data: bytes) -> None:
        path.write_bytes(data)
        schema.read(path, unknown="keep")
        document = schema.read_net(path)
        for phase in (spec.TRAIN, spec.TEST):
            make_net(document, phase, device="meta")

    return read


def solver_reader(path: Path) -> Callable[[bytes], None]:
    def read(data: bytes) -> None:
        path.write_bytes(data)
        plan = experiment.load(path)
        rate = LearningRate(plan.solver)
        for iteration in range(3):
            rate.next(iteration)
        Solver(make_net(plan.train, device="meta"), plan.solver, at=plan.at)
        for test in {
            id(test.spec): test.spec for test in plan.tests
        }.values():  # a run builds equal ones once, too
            make_net(test, device="meta")

    return read
