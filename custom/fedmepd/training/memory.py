"""Gives freed memory back to the system."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable


def give_back() -> None:
    """Returns to the system what this process has freed; does nothing where the C library is not GNU's.

    GNU's keeps a validation's windows, tens of megabytes a site, for a use that may not come before the next one. It
    takes milliseconds, once a round.
    """
    _malloc_trim()(0)


@functools.cache
def _malloc_trim() -> Callable[[int], int]:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return lambda padding: 0
