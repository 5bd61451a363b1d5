"""Processes of runs, with scripts in place of the worker."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from fedmepd.experiments.pool import run_all
from fedmepd.experiments.run_folder import RunFolder


def script(text: str) -> list[str]:
    """A worker: its first argument is the run's folder."""
    return [sys.executable, "-c", f"import os, sys, time, pathlib\nfolder = pathlib.Path(sys.argv[1])\n{text}"]


def folders(root: Path, *names: str) -> list[RunFolder]:
    return [RunFolder(root / name) for name in names]


def ended(root: Path, text: str, *names: str, at_once: int = 2) -> dict[str, str | None]:
    found = run_all(folders(root, *names), at_once=at_once, threads=3, worker=script(text))
    return {one.folder.path.name: one.reason for one in found}


@pytest.mark.parametrize("at_once", [1, 2])
def test_as_many_at_a_time_as_asked_for(at_once: int, tmp_path) -> None:
    # The first ones wait for one another, however busy the machine is.
    text = f"""
start = time.monotonic()
(folder / "there").touch()
while len(list(folder.parent.glob("*/there"))) < {at_once} and time.monotonic() < start + 60: time.sleep(0.02)
time.sleep(0.4)
(folder / "when").write_text(f"{{start}} {{time.monotonic()}}")
"""
    assert ended(tmp_path, text, "a", "b", "c", "d", at_once=at_once) == dict.fromkeys("abcd")
    spans = [tuple(map(float, (tmp_path / name / "when").read_text().split())) for name in "abcd"]
    overlaps = [sum(start <= begin < end for start, end in spans) for begin, _ in spans]
    assert max(overlaps) == at_once


def test_threads_and_log(tmp_path) -> None:
    text = "print(os.environ['OMP_NUM_THREADS']); print('aside', file=sys.stderr)"
    ended(tmp_path, text, "a")
    ended(tmp_path, text, "a")
    assert sorted((tmp_path / "a" / "log.txt").read_text().split()) == ["3", "3", "aside", "aside"]


def test_one_that_fails_stops_no_other(tmp_path) -> None:
    text = """
if folder.name == "told": (folder / "failure.json").write_text('{"reason": "no case"}'); sys.exit(1)
if folder.name == "untold": print("the disk is full\\n"); sys.exit(1)
if folder.name == "silent": sys.exit(3)
if folder.name == "killed": os.kill(os.getpid(), 9)
"""
    reasons = ended(tmp_path, text, "told", "untold", "silent", "killed", "good")
    assert reasons == {
        "told": "no case",
        "untold": "the disk is full",
        "silent": "its process ended with status 3",
        "killed": f"its process was ended by SIGKILL: memory ran out, most likely; {tmp_path}/killed/log.txt says more",
        "good": None,
    }


def test_a_process_that_cannot_be_started(tmp_path) -> None:
    [one] = run_all(folders(tmp_path, "a"), at_once=1, threads=1, worker=[str(tmp_path / "missing")])
    assert one.reason.startswith("cannot be started: ")


def test_whatever_ends_the_pool_ends_its_processes(tmp_path) -> None:
    """Those that their workers have started too."""
    text = """
import subprocess
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
(folder / "pids").write_text(f"{os.getpid()} {child.pid}")
if folder.name != "a": time.sleep(60)
while not (folder.parent / "b" / "pids").exists() or not (folder.parent / "b" / "pids").read_text(): time.sleep(0.05)
child.kill()
"""
    pool = run_all(folders(tmp_path, "a", "b", "c"), at_once=2, threads=1, worker=script(text))
    assert next(pool).folder.path.name == "a"
    pids = [int(pid) for pid in (tmp_path / "b" / "pids").read_text().split()]
    assert all(_alive(pid) for pid in pids)
    pool.close()
    deadline = time.monotonic() + 60
    while any(_alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(_alive(pid) for pid in pids)
    assert not (tmp_path / "c").exists()


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_worker_ends_with_the_process_that_started_it(tmp_path) -> None:
    text = (
        "import os, threading, time\nfrom fedmepd.experiments.worker import _end_with\n"
        f"threading.Thread(target=_end_with, args=({os.getpid()} + 0 * os.getppid(),), daemon=True).start()\n"
        "time.sleep(60)"
    )
    # Its parent is this process: it stays. With another one's number, which is not its parent, it ends at once.
    stays = subprocess.Popen([sys.executable, "-c", text], start_new_session=True)
    ends = subprocess.Popen(
        [sys.executable, "-c", text.replace(str(os.getpid()), "1")], start_new_session=True, stderr=subprocess.PIPE
    )
    try:
        assert ends.wait(120) == -9
        assert stays.poll() is None
    finally:
        stays.kill()
        stays.wait()
