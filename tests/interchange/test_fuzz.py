"""Whatever is in a weight file, reading gives weights or a NetspecError, in bounded time and memory."""

from __future__ import annotations

import contextlib
import random
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from netspec import interchange
from netspec.errors import NetspecError
from netspec.interchange import caffemodel, hdf5, solverstate, weights
from netspec.interchange.blobs import encode_varint
from netspec.net.net import Net
from tests.interchange.test_weights import SHARED, TEXT, net_of, old_file, solver_of

ROUNDS = 1500
Read = Callable[[bytes], None]


def mutated(data: bytes, choose: random.Random) -> bytes:
    """A few changes of the kinds that break readers: bits, lengths, cuts, repeats."""
    out = bytearray(data)
    for _ in range(choose.choice((1, 1, 2, 4, 12))):
        at = choose.randrange(len(out) + 1)
        kind = choose.randrange(7)
        if kind == 0 and out:
            out[at % len(out)] ^= 1 << choose.randrange(8)
        elif kind == 1 and out:
            out[at % len(out)] = choose.choice((0, 1, 0x7F, 0x80, 0xFF, choose.randrange(256)))
        elif kind == 2:
            del out[at:]
        elif kind == 3:
            del out[at : at + choose.randrange(1, 40)]
        elif kind == 4:
            out[at:at] = encode_varint(choose.choice((0, 2**31, 2**32, 2**63, 2**64 - 1)))
        elif kind == 5:
            piece = out[at : at + choose.randrange(1, 60)]
            out[at:at] = piece * choose.randrange(1, 5)
        else:
            out[at:at] = bytes(choose.randrange(256) for _ in range(choose.randrange(1, 12)))
    return bytes(out)


def read_model(net: Net) -> Read:
    def read(data: bytes) -> None:
        model = caffemodel.parse_caffemodel(data)
        weights.load_caffemodel(net, model)
        weights.named(model)
        model.message()

    return read


def read_state(net: Net, kind: str) -> Read:
    solver = solver_of(net, kind)

    def read(data: bytes) -> None:
        solver.load_state_dict(solverstate.to_state_dict(solverstate.parse_solverstate(data), solver))

    return read


def survive(seeds: list[tuple[bytes, Read]], rounds: int, seed: int) -> int:
    """Read mutations of every seed; gives how many were read without an error."""
    choose, good, refused = random.Random(seed), 0, 0
    limit = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss + (256 << 10)
    for i in range(rounds):
        data, read = seeds[i % len(seeds)]
        started = time.monotonic()
        try:
            read(mutated(data, choose))
            good += 1
        except NetspecError:
            refused += 1
        assert time.monotonic() - started < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < limit
    assert good + refused == rounds
    return good


def test_caffemodels() -> None:
    net, shared = net_of(TEXT), net_of(SHARED)
    seeds = [(old_file(net, "v0"), read_model(net)), (old_file(net, "v1", packed=False), read_model(net))]
    for one in (net, shared):
        data = caffemodel.encode_net(caffemodel.net_message(one), caffemodel.net_arrays(one))
        seeds.append((data, read_model(one)))
        small = caffemodel.parse_caffemodel(data).skeleton()
        seeds.append((small, read_model(one)))
    assert survive(seeds, 2 * ROUNDS, 1) > 10


def test_solver_states(tmp_path: Path) -> None:
    net = net_of(SHARED)
    seeds = []
    for kind in ("SGD", "Adam"):
        solverstate.write_solverstate(solver_of(net, kind), tmp_path / "a", "w.caffemodel")
        seeds.append(((tmp_path / "a").read_bytes(), read_state(net, kind)))
    assert survive(seeds, ROUNDS, 2) > 10


def test_hdf5(tmp_path: Path) -> None:
    net = net_of(SHARED)
    interchange.save_weights(net, tmp_path / "n.h5")
    solverstate.write_solverstate(solver_of(net, "SGD"), tmp_path / "s.h5", "w.caffemodel")

    def load(data: bytes) -> None:
        weights.load_layers(net, hdf5.read_weights(data).items(), "f", partial=True)

    seeds: list[tuple[bytes, Read]] = [
        ((tmp_path / "n.h5").read_bytes(), load),
        ((tmp_path / "s.h5").read_bytes(), lambda data: void(hdf5.read_state(data))),
    ]
    assert survive(seeds, ROUNDS // 2, 3) > 10


def void(_: object) -> None:
    """For reads whose result does not matter."""


def test_binaryprotos_and_noise(tmp_path: Path) -> None:
    path = tmp_path / "b"
    caffemodel.write_blob(path, np.ones((1, 3, 4, 4), np.float32))
    choose = random.Random(4)

    def read(data: bytes) -> None:
        path.write_bytes(data)
        caffemodel.read_blob_file(path)

    survive([(path.read_bytes(), read)], 300, 5)
    for _ in range(300):
        path.write_bytes(bytes(choose.randrange(256) for _ in range(choose.randrange(200))))
        for attempt in (interchange.read_weights, solverstate.read_solverstate):
            with pytest.raises(NetspecError):
                attempt(path)


def test_long_files_of_nothing_end_in_time() -> None:
    started = time.monotonic()
    for data in (b"\x0a\x00" * 400_000, b"\x3a\x00" * 400_000, (b"\xa2\x06\x02\x3a\x00") * 90_000):
        with contextlib.suppress(NetspecError):
            caffemodel.parse_caffemodel(data)
    assert time.monotonic() - started < 20
