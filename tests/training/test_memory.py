from __future__ import annotations

import ctypes
import platform

import psutil
import pytest

from fedmepd.training import memory


def resident() -> float:
    return psutil.Process().memory_info().rss / 2**20


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_goes_back() -> None:
    """100 MiB in small pieces, the last of which stays: the C library cannot shrink its heap by itself."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = (
        ctypes.c_void_p,
        [ctypes.c_size_t],
        [ctypes.c_void_p],
    )
    memory.give_back()
    pieces = [libc.malloc(1000) for _ in range(100 * 2**20 // 1000)]
    for piece in pieces:
        ctypes.memset(piece, 1, 1000)
    held = resident()
    for piece in pieces[:-1]:
        libc.free(piece)
    kept = resident()
    memory.give_back()
    assert kept > held - 20 and resident() < kept - 60
    libc.free(pieces[-1])


def test_another_c_library(monkeypatch) -> None:
    memory._of_library.cache_clear()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    memory.give_back()
    memory._of_library.cache_clear()
