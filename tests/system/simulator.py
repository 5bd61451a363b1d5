"""Runs jobs in FLARE's simulator, as processes of their own, and ends what they leave behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from fedmepd.federation.in_process import run_in_process
from fedmepd.job_settings import make_settings
from fedmepd.site_settings import SiteSettings
from fedmepd.storage import load_tensors
from tests.signals import WITH_INTERRUPTS_IGNORED

ROOT = Path(__file__).parents[2]
SITES = ("site-1", "site-2")

# As small as a federation gets, but with personal filters and calibration. float32 throughout: comparable bit by bit.
TINY = {
    "method": "fedmepd",
    "rounds": 2,
    "network": {"width": 4},
    "calibration": {"anchors_per_class": 2},
    "aggregation": {"wire_precision": "float32"},
    "personalization": {"patience": 1, "warmup_rounds": 0},
    "training": {"crop": 16, "precision": "float32", "fusion_threads": 1},
    "evaluation": {"window": 48, "overlap": 0, "every": 2},
}


@dataclass
class Finished:
    code: int
    output: str
    workspace: Path

    @property
    def results(self) -> dict:
        return json.loads((self.workspace / "server/simulate_job/results/results.json").read_text())


def simulate(
    workspace: Path,
    settings: dict,
    *options: str,
    data: Path,
    cache: Path,
    kill_at: str | None = None,
    faults: dict | None = None,
    notes: Path | None = None,
    attack: dict | None = None,
) -> Finished:
    """Runs the default job with other settings; kills all its processes once ``kill_at`` is in the output.

    ``faults`` is the plan of tests/system/faulty's executor, ``notes`` the file of its controller that notes which
    images the server opens, ``attack`` the plan of its hostile controller; they then stand in for the product's.
    """
    job = workspace.with_name(workspace.name + "_job")
    shutil.copytree(ROOT / "jobs/fedmepd_brats", job, dirs_exist_ok=True)
    config = job / "app/config/config_fed_server.json"
    content = json.loads(config.read_text())
    content["workflows"][0]["args"]["settings"] = settings
    if notes:
        content["workflows"][0]["path"] = "faulty.WatchedController"
        content["workflows"][0]["args"]["notes"] = str(notes)
    if attack:
        content["workflows"][0]["path"] = "faulty.HostileController"
        content["workflows"][0]["args"]["plan"] = attack
    config.write_text(json.dumps(content))
    if faults:
        clients = job / "app/config/config_fed_client.json"
        content = json.loads(clients.read_text())
        content["executors"][0]["executor"] = {"path": "faulty.FaultyExecutor", "args": {"plan": faults}}
        clients.write_text(json.dumps(content))
    if faults or notes or attack:
        shutil.copy(Path(__file__).parent / "faulty/faulty.py", job / "app/custom")
    command = ["-m", "nvflare.cli", "simulator", str(job), "-w", str(workspace), "-c", ",".join(SITES), *options]
    code, output = run(command, data=data, cache=cache, kill_at=kill_at)
    return Finished(code, output, workspace)


def run(
    command: list[str],
    *,
    data: Path,
    cache: Path,
    kill_at: str | None = None,
    interrupt_at: str | None = None,
    seconds: float = 240,
) -> tuple[int, str]:
    """Runs Python with ``command``; returns its exit code and what it wrote.

    It is killed if it writes nothing for ``seconds``. Once ``interrupt_at`` is in the output it is interrupted; it has
    then inherited that interrupts are ignored.
    """
    environment = os.environ | {
        "FEDMEPD_DATA": str(data),
        "FEDMEPD_CACHE": str(cache),
        "FEDMEPD_DEVICE": "cpu",
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
    }
    process = subprocess.Popen(
        [*(WITH_INTERRUPTS_IGNORED if interrupt_at else ()), sys.executable, *command],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    silence = Silence(seconds, lambda: _kill(process.pid))
    lines = []
    try:
        for line in process.stdout:
            silence.broken()
            lines.append(line)
            if kill_at and kill_at in line:
                break
            if interrupt_at and interrupt_at in line:
                process.send_signal(signal.SIGINT)
                interrupt_at = None
    finally:
        if kill_at:
            _kill(process.pid)
        code = process.wait()
        silence.end()
        process.stdout.close()
    return code, "".join(lines)


class Silence:
    """Ends something that has not been heard of for a while: a busy machine is slow, and not silent.

    Args:
        seconds: from the last sign of life.
        end_it: called in another thread when they are over.
    """

    def __init__(self, seconds: float, end_it: Callable[[], None]):
        self._seconds, self._end_it = seconds, end_it
        self._last, self._ended = time.monotonic(), threading.Event()
        threading.Thread(target=self._listen, daemon=True).start()

    def broken(self) -> None:
        """Notes a sign of life."""
        self._last = time.monotonic()

    def end(self) -> None:
        """Stops listening."""
        self._ended.set()

    def _listen(self) -> None:
        while not self._ended.wait(1):
            if time.monotonic() - self._last > self._seconds:
                self._end_it()
                return


def _kill(pid: int) -> None:
    # FLARE starts the sites' processes in sessions of their own, so a signal to the group would miss them.
    try:
        parent = psutil.Process(pid)
        family = [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for process in family:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            pass
    # The parent is left to those who have started it: who waits second for a process does not get its exit code.
    psutil.wait_procs(family[1:], timeout=30)


def weights(folder: Path, round_number: int) -> dict[str, dict]:
    """The final weights of the server and all sites below a folder of states, whatever the folder's layout."""
    found = {"server": load_tensors(next(folder.rglob("server_state.pt")))["method"]["weights"]}
    for path in sorted(folder.rglob(f"state_{round_number:05d}.pt")):
        site = next((part for part in path.parts if part in SITES), "server")
        found["fusion" if path.parent.name == "fusion" else site] = load_tensors(path)["network"]
    return found


def in_process(folder: Path, settings: dict, cohort: Path, cache: Path) -> tuple[dict, dict[str, dict]]:
    """Runs a federation in this process, without FLARE; returns its results and its final weights."""
    site_settings = SiteSettings(data=cohort, cache=cache, device="cpu")
    results = run_in_process(make_settings("phantom", settings), site_settings, folder, sites=SITES)
    return results, weights(folder, settings["rounds"])


def assert_same(first: dict[str, dict], second: dict[str, dict]) -> None:
    """Compares weights of server and sites bit by bit."""
    assert first.keys() == second.keys() == {"server", "fusion", *SITES}
    for owner in first:
        assert first[owner].keys() == second[owner].keys()
        different = [key for key in first[owner] if not torch.equal(first[owner][key], second[owner][key])]
        assert not different, f"{owner}: {len(different)} weights differ, such as {different[:3]}"


def board(folder: Path, run: str):
    """What TensorBoard shows of one of the runs below a folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (place,) = {path.parent for path in folder.rglob("events.out.tfevents.*") if path.parent.name == run}
    return EventAccumulator(str(place)).Reload()
