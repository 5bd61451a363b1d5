from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import filelock
import numpy as np
import pytest
import torch

from fedmepd.networks.kernels.compiled import compiled, load, side_by_side, store, values


@compiled
def copy(source, target):
    for place in range(len(source)):
        store(target, place, load(source[place]))


# The same function compiled, and as Python runs it.
COPIES = [pytest.param(copy, id="compiled"), pytest.param(copy.py_func, id="python")]


def as_row(numbers: torch.Tensor) -> np.ndarray:
    return values(numbers.view(1, 1, -1, 1, 1))[0]


@pytest.mark.parametrize("copy", COPIES)
def test_bfloat16_is_read_as_pytorch_reads_it(copy: Callable) -> None:
    """Every number that there is, NaNs, infinities and numbers below the normal ones among them."""
    every = torch.arange(2**16, dtype=torch.int32).to(torch.uint16).view(torch.bfloat16)
    found = torch.empty(2**16)
    copy(as_row(every), as_row(found))
    torch.testing.assert_close(found, every.float(), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("copy", COPIES)
def test_bfloat16_is_rounded_as_pytorch_rounds_it(copy: Callable) -> None:
    """Numbers between two neighbours, in the middle of them, above the largest, and NaNs with any bits."""
    generator = torch.Generator().manual_seed(0)
    bits = torch.randint(-(2**31), 2**31, (20_000,), generator=generator)
    middles = (torch.arange(0, 2**16, 3) << 16 | 2**15) - 2**31
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
                with side_by_side() as share:
                    share(lambda first, end, done=done: done.extend(range(first, end)), pieces)
                assert sorted(done) == list(range(pieces))
            # FLARE warns its users of threads that go on.
            assert not [thread for thread in threading.enumerate() if "ThreadPool" in thread.name]
        finally:
            torch.set_num_threads(before)


LOOP = """
import logging, os, resource, signal
logging.basicConfig(level=logging.INFO, format="%(message)s")
from fedmepd.networks.kernels.compiled import call_first, compiled

@compiled
def double(x):
    return 2 * x

if os.environ.get("FULL"):
    # Every write fails, as on a full disk.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
call_first(lambda: double(1.0), double, "doubling")
call_first(lambda: double(1), double, "doubling")
print(double(21.0), hasattr(double, "stats") and double.stats.cache_hits[double.signatures[0]])
"""


class Elsewhere:
    """A module with a loop, whose code is kept in a folder of its own; each call is a process."""

    def __init__(self, folder: Path):
        self.kept = folder / "kept"
        self.script = folder / "loops" / "double.py"
        self.script.parent.mkdir()
        self.script.write_text(LOOP)

    def run(self, **variables: str) -> subprocess.CompletedProcess:
        environment = os.environ | {"NUMBA_CACHE_DIR": str(self.kept), "PYTHONDONTWRITEBYTECODE": "1"} | variables
        command = [sys.executable, str(self.script)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)

    def doubles(self, **variables: str) -> bool:
        """Whether the code was loaded, not compiled."""
        ended = self.run(**variables)
        assert ended.returncode == 0, ended.stderr
        result, loaded = ended.stdout.split()
        assert result == "42.0"
        return loaded not in ("0", "False")


@pytest.fixture
def elsewhere(tmp_path: Path) -> Elsewhere:
    return Elsewhere(tmp_path)


SAID = "compiling the loops for doubling takes some seconds; "


def test_the_second_process_loads_what_the_first_has_compiled(elsewhere: Elsewhere) -> None:
    """And the log says once which loops are compiled, and says nothing of those that are loaded."""
    first, second = elsewhere.run(), elsewhere.run()
    assert (first.stdout, first.stderr) == ("42.0 0\n", f"{SAID}later processes on this machine load them\n")
    assert (second.stdout, second.stderr) == ("42.0 1\n", "")


def test_loops_compile_where_no_folder_can_be_written(elsewhere: Elsewhere) -> None:
    """As in a container whose file system is read-only; the log says what to do."""
    elsewhere.kept.touch()
    (elsewhere.script.parent / "__pycache__").touch()
    nowhere = str(elsewhere.kept / "folder")
    ended = elsewhere.run(NUMBA_CACHE_DIR=nowhere, XDG_CACHE_HOME=nowhere)
    assert ended.stdout == "42.0 0\n"
    assert ended.stderr.startswith(f"{SAID}each process does so: set NUMBA_CACHE_DIR to ")
    assert ended.stderr.count("\n") == 1


def test_loops_run_in_python_where_numba_is_switched_off(elsewhere: Elsewhere) -> None:
    """As for a debugger."""
    assert not elsewhere.doubles(NUMBA_DISABLE_JIT="1")


def test_loops_compile_on_a_full_disk(elsewhere: Elsewhere) -> None:
    assert not elsewhere.doubles(FULL="yes")
    assert [elsewhere.doubles(), elsewhere.doubles()] == [False, True]


@pytest.mark.parametrize("kind", ["nbi", "nbc"])
def test_kept_code_that_is_cut_off_is_made_again(elsewhere: Elsewhere, kind: str) -> None:
    elsewhere.doubles()
    file = min(elsewhere.kept.glob(f"*/*.{kind}"))
    others = file.with_name(f"another.double-1.{kind}")
    for each in (file, others):
        each.write_bytes(file.read_bytes()[:-40])
    assert [elsewhere.doubles(), elsewhere.doubles()] == [False, True]
    assert others.exists()


def test_who_waits_too_long_compiles_too(elsewhere: Elsewhere) -> None:
    elsewhere.doubles()
    (folder,) = elsewhere.kept.iterdir()
    lines = elsewhere.script.read_text().replace("call_first(", "compiled.__globals__['_PATIENCE'] = 0.1\ncall_first(")
    elsewhere.script.write_text(lines)
    with filelock.FileLock(folder / "double.lock"):
        assert not elsewhere.doubles()
