"""Random numbers addressed by (seed, key): the draws of a sample do not depend on earlier draws.

So a batch can be made again, ahead of time, in another batch size or on another machine, and the state of a
data source is a position. The stream of a key is splitmix64 (Steele, Lea and Flood 2014) from a mixed start.
"""

from __future__ import annotations

import hashlib

import numpy as np

from netspec.data.files.idx import Array

GOLDEN = 0x9E3779B97F4A7C15
"""2^64 / golden ratio, splitmix64's increment."""
MASK = 2**64 - 1


def derive(seed: int, *names: str | int) -> int:
    """A seed of 63 bits for the part of a run called `names`."""
    text = "\0".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def mix(z: Array) -> Array:
    """splitmix64's output function, in place on uint64."""
    z ^= z >> np.uint64(30)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return z


def bits(seed: int, keys: Array, n: int) -> Array:
    """(len(keys), n) uint64: the first n words of each key's stream."""
    start = mix(np.array([(seed + GOLDEN) & MASK], np.uint64)) ^ mix(
        keys.astype(np.uint64) * np.uint64(GOLDEN) + np.uint64(1)
    )
    steps = np.arange(1, n + 1, dtype=np.uint64) * np.uint64(GOLDEN)
    return mix(mix(start)[:, None] + steps)


def uniform(seed: int, keys: Array, n: int) -> Array:
    """(len(keys), n) float64 ~ U[0, 1)."""
    return (bits(seed, keys, n) >> np.uint64(11)) * 2.0**-53


def integers(seed: int, keys: Array, n: int, below: int | Array) -> Array:
    """(len(keys), n) int64 ~ U{0 .. below - 1}."""
    return (uniform(seed, keys, n) * below).astype(np.int64)
