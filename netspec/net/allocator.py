"""Keeps memory that a step frees in the process, so that the next step can use it without page faults."""

from __future__ import annotations

import ctypes
import os
import platform
from functools import cache

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""mallopt's numbers, from glibc's malloc.h."""
LARGEST_THRESHOLD = 1 << 25
"""Bytes; the highest threshold for separately mapped blocks that glibc accepts."""
NEVER_TRIM = (1 << 31) - 1


@cache
def keep_freed_memory() -> bool:
    """Tell glibc to keep freed blocks of up to 32 MB; returns whether it does.

    By default glibc asks the kernel for each large block anew and gives it back when it is freed, so that every batch
    of every layer has its pages cleared again: some 8,000 page faults a pass of ht_cac_mnist, a quarter of the
    processor time of its forward pass (docs/results/page_faults.json, `python -m tools.bench.page_faults`). Trainings,
    the laboratory and loaded models call this, once per process. It changes nothing with another C library, or where
    the environment already configures malloc (MALLOC_*, GLIBC_TUNABLES, LD_PRELOAD).
    """
    said = any(name.startswith("MALLOC_") for name in os.environ)
    if said or any(name in os.environ for name in ("GLIBC_TUNABLES", "LD_PRELOAD")):
        return False
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(MMAP_THRESHOLD, LARGEST_THRESHOLD)) and bool(mallopt(TRIM_THRESHOLD, NEVER_TRIM))
