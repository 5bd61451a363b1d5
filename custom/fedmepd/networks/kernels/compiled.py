"""Loops over numbers that Numba compiles for this processor, and bfloat16 in them.

PyTorch's operations read and write a whole map each; a compiled loop does several of them in one pass. The compiled
code is kept beside the module, or in the user's cache folder, so that only a machine's first process compiles it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import filelock
import numpy as np
import torch
from numba import njit, types
from numba.extending import overload
from torch import Tensor

# NumPy has no bfloat16, so its bits are read as whole numbers.
PRECISIONS = (torch.float64, torch.float32, torch.bfloat16)
# NaN and infinity stay what they are: training looks for them.
_ARITHMETIC = {"nogil": True, "error_model": "numpy", "fastmath": {"contract", "nsz"}}
# Seconds to wait while another process compiles; then this one does so too.
_PATIENCE = 120.0

inner_loop = njit(**_ARITHMETIC, no_cpython_wrapper=True, no_cfunc_wrapper=True)
"""Decorates a function that only compiled ones call."""


def compiled(function: Callable) -> Callable:
    """Decorates a function that Python calls; compiled at its first call, or loaded from where it is kept."""
    try:
        return njit(**_ARITHMETIC, cache=True)(function)
    except RuntimeError:
        # No folder for the code can be written: every process compiles it.
        return njit(**_ARITHMETIC)(function)


@contextlib.contextmanager
def one_process_compiles() -> Iterator[None]:
    """Around the first call: of the sites that start at once on a machine, one compiles, and the others load."""
    lock = filelock.FileLock(Path(tempfile.gettempdir()) / "fedmepd-compiles.lock", timeout=_PATIENCE)
    try:
        lock.acquire()
    except (filelock.Timeout, OSError):
        # To compile twice is only slower; another user's file cannot be locked.
        yield
        return
    with lock:
        lock.release()
        yield


def side_by_side(run: Callable[[int, int], object], pieces: int) -> None:
    """Calls ``run(first, end)`` for shares of the pieces, in PyTorch's number of threads."""
    threads = min(torch.get_num_threads(), pieces)
    edges = [pieces * number // threads for number in range(threads + 1)]
    list(_pool(threads, os.getpid()).map(run, edges[:-1], edges[1:]))


@functools.lru_cache(maxsize=2)
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Threads that stay; those of a parent process do not exist in its copy."""
    return ThreadPoolExecutor(threads)


def values(map_: Tensor) -> np.ndarray:
    """(B, C, X, Y, Z) in channels_last_3d -> (B, X * Y * Z * C), without a copy; bfloat16 as its bits."""
    flat = map_.detach().permute(0, 2, 3, 4, 1).reshape(len(map_), -1)
    return flat.view(torch.int16).numpy().view(np.uint16) if flat.dtype == torch.bfloat16 else flat.numpy()


def load(value: float | int) -> float:
    """A number of an array of :func:`values`; only in compiled code."""
    raise NotImplementedError


@overload(load)
def _load(value):
    if isinstance(value, types.Integer):
        return lambda value: np.uint32(np.uint32(value) << np.uint32(16)).view(np.float32)
    return lambda value: value


def store(array: Sequence, place: int, value: float) -> None:
    """Writes a number into an array of :func:`values`, rounded as PyTorch rounds; only in compiled code."""
    raise NotImplementedError


@overload(store)
def _store(array, place, value):
    if not isinstance(array.dtype, types.Integer):

        def plain(array, place, value):
            array[place] = value

        return plain

    def rounded(array, place, value):
        single = np.float32(value)
        bits = single.view(np.uint32)
        # Half of what is cut off, less the smallest bit where the last one kept is even.
        odd = np.uint32(np.uint32(bits >> np.uint32(16)) & np.uint32(1))
        up = np.uint32(bits + np.uint32(np.uint32(0x7FFF) + odd))
        # Rounding up would make an infinity of some NaNs.
        array[place] = np.uint16(up >> np.uint32(16)) if single == single else np.uint16(0x7FC0)

    return rounded
