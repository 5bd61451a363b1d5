"""When what the process has freed goes back to the system; where the C library is not GNU's, it decides by itself."""

from __future__ import annotations

import contextlib
import ctypes
import functools
from collections.abc import Callable, Iterator

# From malloc.h: free memory at the end of the heap beyond which it shrinks; sizes from which a block is a mapping of
# its own, which goes back as soon as it is freed.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_MOST = 2**31 - 1
# The library raises both by itself when a process frees large blocks, as every network does. This is as far as it goes.
_USUAL_TRIM, _USUAL_MMAP = 64 * 2**20, 32 * 2**20


def give_back() -> None:
    """Returns to the system what this process has freed.

    GNU's C library keeps a validation's windows, tens of megabytes a site, for a use that may not come before the next
    one. It takes milliseconds, once a round.
    """
    _of_library("malloc_trim")(0)


@contextlib.contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keeps what is freed within for what is allocated next; afterwards :func:`give_back` returns it.

    A pass without gradients allocates every feature map where the one before it has just been freed. Given back in
    between, it is cleared page by page by the system each time, which takes a fifth of the pass. In training the maps
    live long and differ in size: there the gaps between them would be kept too. It is the main thread that gains, in
    which sites and ``predict`` work: other threads' memory the library bounds more tightly.
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
