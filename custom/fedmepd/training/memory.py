"""How much memory a process has held, and when freed memory goes back to the system.

Only GNU's C library is controlled; others decide for themselves.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
from collections.abc import Callable, Iterator
from pathlib import Path

# From malloc.h. The heap shrinks when more than the first is free at its end. Blocks larger than the second are
# mappings of their own and go back to the system as soon as they are freed.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_MOST = 2**31 - 1
# The library raises both by itself when a process frees large blocks, as every network does. This is as far as it goes.
_USUAL_TRIM, _USUAL_MMAP = 64 * 2**20, 32 * 2**20


def give_back() -> None:
    """Returns the memory that this process has freed to the system.

    GNU's C library keeps the memory of a validation's windows (tens of megabytes per site), although it may not be used
    before the next validation. The call takes milliseconds, once per round.
    """
    _of_library("malloc_trim")(0)


def peak_mib() -> float | None:
    """Returns the most memory in MiB that this process has held (resident set); None where Linux does not say it.

    Not from ``getrusage``: its figure starts at what the parent process held.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((round(int(line.split()[1]) / 1024, 1) for line in lines if line.startswith("VmHWM:")), None)


@contextlib.contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keeps memory that is freed inside for the next allocations; afterwards :func:`give_back` returns it.

    A pass without gradients allocates every feature map where the previous one has just been freed. If the memory went
    back in between, the system would clear it page by page each time, which takes a fifth of the pass. In training,
    maps live long and differ in size, so the gaps between them would be kept too. Only the main thread gains, in which
    sites and ``predict`` work: the library limits the memory of other threads more tightly.
    """
    change = _of_library("mallopt")
    change(_MMAP_THRESHOLD, _MOST)
    change(_TRIM_THRESHOLD, _MOST)
    try:
        yield
    finally:
        change(_MMAP_THRESHOLD, _USUAL_MMAP)
        change(_TRIM_THRESHOLD, _USUAL_TRIM)


@functools.cache
def _of_library(name: str) -> Callable[..., int]:
    try:
        return getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError, TypeError):
        return lambda *_: 0
