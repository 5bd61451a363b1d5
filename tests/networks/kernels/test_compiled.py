from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import filelock
import numpy as np
import pytest
import torch

from fedmepd.networks.kernels import compiled as kernels
from fedmepd.networks.kernels.compiled import compiled, load, one_process_compiles, side_by_side, store, values


@compiled
def copy(source, target):
    for place in range(len(source)):
        store(target, place, load(source[place]))


def as_row(numbers: torch.Tensor) -> np.ndarray:
    return values(numbers.view(1, 1, -1, 1, 1))[0]


def test_bfloat16_is_read_as_pytorch_reads_it() -> None:
    """Every number that there is, NaNs, infinities and numbers below the normal ones among them."""
    every = torch.arange(2**16, dtype=torch.int32).to(torch.uint16).view(torch.bfloat16)
    found = torch.empty(2**16)
    copy(as_row(every), as_row(found))
    torch.testing.assert_close(found, every.float(), rtol=0, atol=0, equal_nan=True)


def test_bfloat16_is_rounded_as_pytorch_rounds_it() -> None:
    """Numbers between two neighbours, in the middle of them, above the largest, and NaNs with any bits."""
    generator = torch.Generator().manual_seed(0)
    bits = torch.randint(-(2**31), 2**31, (200_000,), generator=generator)
    middles = (torch.arange(2**16) << 16 | 2**15) - 2**31
    numbers = torch.cat([bits, middles, middles + 1, middles - 1]).to(torch.int32).view(torch.float32)
    found = torch.empty(len(numbers), dtype=torch.bfloat16)
    copy(as_row(numbers), as_row(found))
    expected = numbers.to(torch.bfloat16)
    assert torch.equal(found.isnan(), expected.isnan())
    assert torch.equal(found.nan_to_num(), expected.nan_to_num())


def test_a_map_is_not_copied() -> None:
    map_ = torch.zeros(2, 3, 4, 5, 6).contiguous(memory_format=torch.channels_last_3d)
    values(map_)[1, 3 * 7 + 2] = 1.0
    # The eighth voxel of the second sample, third channel.
    assert map_[1, 2, 0, 1, 1] == 1.0 and map_.sum() == 1.0


def test_every_piece_is_done_once() -> None:
    for threads in (1, 3):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            for pieces in (1, 2, 7):
                done: list[int] = []
                side_by_side(lambda first, end, done=done: done.extend(range(first, end)), pieces)
                assert sorted(done) == list(range(pieces))
        finally:
            torch.set_num_threads(before)


def test_who_waits_too_long_compiles_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(kernels.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(kernels, "_PATIENCE", 0.1)
    with one_process_compiles():
        pass
    (lock,) = tmp_path.iterdir()
    with filelock.FileLock(lock), one_process_compiles():
        pass
    monkeypatch.setattr(kernels.tempfile, "gettempdir", lambda: str(lock / "no folder"))
    with one_process_compiles():
        pass


def test_loops_compile_where_no_folder_can_be_written(tmp_path: Path) -> None:
    """As in a container whose file system is read-only."""
    package = tmp_path / "loops"
    package.mkdir()
    (package / "double.py").write_text(
        "from fedmepd.networks.kernels.compiled import compiled\n\n\n"
        "@compiled\ndef double(x):\n    return 2 * x\n\n\nprint(double(21.0))\n"
    )
    # Numba tries this folder alone if it is named; a file is none.
    (tmp_path / "file").touch()
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "file" / "folder")}
    ended = subprocess.run(
        [sys.executable, str(package / "double.py")], env=environment, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == "42.0"
