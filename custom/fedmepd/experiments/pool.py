"""Processes of runs, several at a time. One that fails stops no other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedmepd.errors import FedMEPDError
from fedmepd.experiments.run_folder import RunFolder

_LOOK_SECONDS, _PATIENCE_SECONDS = 0.2, 10.0

_WORKER = (sys.executable, "-m", "fedmepd.experiments.worker")


@dataclass(frozen=True)
class Ended:
    """A process that has ended.

    Attributes:
        folder: of its run.
        reason: why it failed; None if it did not.
        seconds: how long it took.
    """

    folder: RunFolder
    reason: str | None
    seconds: float


def run_all(
    folders: Sequence[RunFolder],
    *,
    at_once: int,
    threads: int,
    look: Callable[[], None] = lambda: None,
    options: Sequence[str] = (),
    worker: Sequence[str] = _WORKER,
) -> Iterator[Ended]:
    """Does runs, each in a process of its own, and yields each as it ends.

    Whatever ends this generator ends the processes that are still running. Their runs go on from their state the next
    time.

    Args:
        folders: of the runs, in the order in which they begin.
        at_once: how many at a time.
        threads: CPU threads of each.
        look: called a few times a second.
        options: of the worker.
        worker: the command.
    """
    waiting, running = list(folders), {}
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                folder = waiting.pop(0)
                try:
                    process = _start(folder, [*worker, str(folder.path), *options], environment)
                except OSError as error:
                    yield Ended(folder, f"cannot be started: {error}", 0.0)
                    continue
                running[process] = folder, time.monotonic()
            look()
            for process in [process for process in running if process.poll() is not None]:
                folder, started = running.pop(process)
                yield Ended(folder, _reason(folder, process.returncode), time.monotonic() - started)
            if running:
                time.sleep(_LOOK_SECONDS)
    finally:
        _stop(list(running))


def _start(folder: RunFolder, command: list[str], environment: dict[str, str]) -> subprocess.Popen:
    folder.path.mkdir(parents=True, exist_ok=True)
    with open(folder.log, "ab") as log:
        # In a session of its own: an interrupt at the terminal reaches this process, which ends the others in order.
        return subprocess.Popen(
            [*command, "--beside", str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )


def _reason(folder: RunFolder, status: int) -> str | None:
    if status == 0:
        return None
    if status < 0:
        name = signal.Signals(-status).name
        likely = ": memory ran out, most likely" if -status == signal.SIGKILL else ""
        return f"its process was ended by {name}{likely}; {folder.log} says more"
    try:
        reason = folder.failure()
    except FedMEPDError:
        reason = None
    return reason or _last_line(folder.log) or f"its process ended with status {status}"


def _last_line(log: Path) -> str:
    """What a worker said last, where it could not keep the reason: the disk was full, most likely."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _stop(processes: list[subprocess.Popen]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in processes:
            try:
                os.killpg(process.pid, number)
            except ProcessLookupError:
                continue
        deadline = time.monotonic() + _PATIENCE_SECONDS
        for process in processes:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                continue
