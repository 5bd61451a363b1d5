"""Loops over numbers that Numba compiles for this processor, and bfloat16 in them.

PyTorch's operations read and write a whole map each; a compiled loop does several of them in one pass. The compiled
code is kept beside the module, or in the user's cache folder, so that only a machine's first process compiles it.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import filelock
import numpy as np
import torch
from numba import njit, types
from numba.core import event
from numba.extending import overload
from torch import Tensor

# NumPy has no bfloat16, so its bits are read as whole numbers.
PRECISIONS = (torch.float64, torch.float32, torch.bfloat16)
# NaN and infinity stay what they are: training looks for them.
_ARITHMETIC = {"nogil": True, "error_model": "numpy", "fastmath": {"contract", "nsz"}}
# Seconds to wait while another process compiles; then this one does so too.
_PATIENCE = 120.0
# More than a module has.
_LOOPS = 32

inner_loop = njit(**_ARITHMETIC, no_cpython_wrapper=True, no_cfunc_wrapper=True)
"""Decorates a function that only compiled ones call."""

_IN_ANY_ORDER = _ARITHMETIC | {"fastmath": _ARITHMETIC["fastmath"] | {"reassoc"}}
inner_sum = njit(**_IN_ANY_ORDER, no_cpython_wrapper=True, no_cfunc_wrapper=True)
"""The same for a sum of many numbers, which the processor's vectors add in an order of their own, always the same."""


def compiled(function: Callable) -> Callable:
    """Decorates a function that Python calls; compiled at its first call, or loaded from where it is kept."""
    try:
        return njit(**_ARITHMETIC, cache=True)(function)
    except RuntimeError:
        # No folder for the code can be written: every process compiles it.
        return njit(**_ARITHMETIC)(function)


def call_first(call: Callable[[], object], loop: Callable, what: str) -> None:
    """Makes the first call of a module's loops, in which they are compiled, or loaded from where their code is kept.

    Of the sites that start at once on a machine, one compiles while the others wait, and then load. The log says so
    where something is compiled.

    Args:
        call: calls the loops with numbers of no meaning.
        loop: one of them.
        what: they compute, in plain words for the log.
    """
    folder = _folder(loop)
    telling = _Telling(what, folder is not None)
    with contextlib.ExitStack() as held, event.install_listener("numba:compile", telling):
        if folder is not None:
            # The folder is the user's own, so no stranger can hold the lock. To compile twice is only slower.
            with contextlib.suppress(OSError):
                held.enter_context(filelock.FileLock(folder / f"{_module(loop)}.lock", timeout=_PATIENCE))
        for _ in range(_LOOPS):
            try:
                call()
                return
            except OSError:
                # A loop that cannot be written, as on a full disk, is compiled, and is there in the next call.
                continue
            except (EOFError, pickle.UnpicklingError, ValueError):
                # Files that are cut off or changed. They are a copy of what can be made again.
                for file in _files(loop):
                    file.unlink()
        call()


class _Telling(event.Listener):
    """Says that loops are about to be compiled; Numba tells a listener nothing of a loop that is loaded.

    Args:
        what: they compute.
        kept: whether there is a folder for the code.
    """

    def __init__(self, what: str, kept: bool):
        self._what, self._kept = what, kept

    def on_start(self, _: event.Event) -> None:
        _say_once(self._what, self._kept)

    def on_end(self, _: event.Event) -> None:
        pass


@functools.cache
def _say_once(what: str, kept: bool) -> None:
    then = "later processes on this machine load them"
    if not kept:
        then = "each process does so: set NUMBA_CACHE_DIR to a folder that can be written, so that one is enough"
    logging.getLogger(__name__).info("compiling the loops for %s takes some seconds; %s", what, then)


def kept_in(loop: Callable) -> Path | None:
    """Returns the folder in which the code of a loop's module is kept; None if it is not, and each process compiles."""
    return _folder(loop) if _files(loop) else None


def _folder(loop: Callable) -> Path | None:
    # With NUMBA_DISABLE_JIT a loop stays a function of Python.
    kept = loop.stats.cache_path if hasattr(loop, "stats") else None
    return None if kept is None else Path(kept)


def _files(loop: Callable) -> list[Path]:
    folder = _folder(loop)
    return [] if folder is None else list(folder.glob(f"{_module(loop)}.*.nb[ic]"))


def _module(loop: Callable) -> str:
    return Path(loop.py_func.__code__.co_filename).stem


Shared = Callable[[Callable[[int, int], object], int], None]
"""Calls a function with the first and the end of shares of so many pieces."""


@contextlib.contextmanager
def side_by_side() -> Iterator[Shared]:
    """Yields what shares work among PyTorch's number of threads. They end with it: FLARE warns of those that stay."""
    threads = torch.get_num_threads()
    if threads == 1:
        yield lambda run, pieces: run(0, pieces)
        return
    with ThreadPoolExecutor(threads) as pool:

        def share(run: Callable[[int, int], object], pieces: int) -> None:
            edges = [pieces * number // threads for number in range(threads + 1)]
            list(pool.map(run, edges[:-1], edges[1:]))

        yield share


def values(map_: Tensor) -> np.ndarray:
    """(B, C, X, Y, Z) in channels_last_3d -> (B, X * Y * Z * C), without a copy; bfloat16 as its bits."""
    return as_array(map_.permute(0, 2, 3, 4, 1).flatten(1))


def as_array(tensor: Tensor) -> np.ndarray:
    """Returns the tensor's numbers, which are not copied; bfloat16 as its bits."""
    tensor = tensor.detach()
    return tensor.view(torch.int16).numpy().view(np.uint16) if tensor.dtype == torch.bfloat16 else tensor.numpy()


def load(value: float | np.uint16) -> float | np.float32:
    """Returns the number that an element of an array of :func:`as_array` stands for."""
    return _of_bits(value) if isinstance(value, np.uint16) else value


def store(array: np.ndarray, place: int, value: float) -> None:
    """Writes a number into an array of :func:`as_array`, rounded as PyTorch rounds."""
    (_write_bits if array.dtype == np.uint16 else _write)(array, place, value)


# What the two are in compiled code, which knows the type of the elements beforehand.
@overload(load)
def _compiled_load(value):
    return _of_bits if isinstance(value, types.Integer) else (lambda value: value)


@overload(store)
def _compiled_store(array, place, value):
    return _write_bits if isinstance(array.dtype, types.Integer) else _write


def _of_bits(value):
    return np.uint32(np.uint32(value) << np.uint32(16)).view(np.float32)


def _write(array, place, value):
    array[place] = value


def _write_bits(array, place, value):
    single = np.float32(value)
    if single != single:
        # What rounds other numbers would make an infinity of some NaNs.
        array[place] = np.uint16(0x7FC0)
        return
    bits = single.view(np.uint32)
    # Half of what is cut off is added, less its smallest bit where the last bit that stays is even.
    odd = np.uint32(np.uint32(bits >> np.uint32(16)) & np.uint32(1))
    array[place] = np.uint16(np.uint32(bits + np.uint32(np.uint32(0x7FFF) + odd)) >> np.uint32(16))
