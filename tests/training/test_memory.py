from __future__ import annotations

import ctypes
import platform

import psutil
import pytest

from fedmepd.training import memory


def resident() -> float:
    return psutil.Process().memory_info().rss / 2**20


with_gnu = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")


def c_library() -> ctypes.CDLL:
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    return libc


@with_gnu
def test_freed_memory_goes_back() -> None:
    """100 MiB in small pieces, the last of which stays: the C library cannot shrink its heap by itself."""
    libc = c_library()
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


@with_gnu
def test_a_large_map_is_kept_within_and_goes_back_after() -> None:
    """The last piece is larger than any gap that this or another test has left, which the library would fill first."""
    libc = c_library()

    def resident_after_one_is_freed(mebibytes: int) -> float:
        piece = libc.malloc(mebibytes * 2**20)
        ctypes.memset(piece, 1, mebibytes * 2**20)
        libc.free(piece)
        return resident()

    memory.give_back()
    before = resident()
    with memory.freed_memory_kept():
        assert resident_after_one_is_freed(100) > before + 80
    memory.give_back()
    assert resident() < before + 20
    with pytest.raises(ZeroDivisionError), memory.freed_memory_kept():
        raise ZeroDivisionError
    assert resident_after_one_is_freed(1000) < before + 20


def test_another_c_library(monkeypatch) -> None:
    memory._of_library.cache_clear()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    memory.give_back()
    with memory.freed_memory_kept():
        pass
    memory._of_library.cache_clear()
