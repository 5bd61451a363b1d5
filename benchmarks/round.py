"""Where a round's time goes, and how much memory a job takes: a whole job in FLARE's simulator.

Runs ``nvflare simulator JOB -w WORKSPACE -t 8``, as the README does, and reads the phases of every round from its
results.json (docs/results.md says what they are). Memory is the proportional set size of all processes together, in
which what several share counts once; every two seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from benchmarks import measure
from benchmarks.measure import MIB, Spread
from fedmepd.evaluation import results

JOB = Path(__file__).parents[1] / "jobs" / "fedmepd_brats"
# Phantoms and prepared cases are made once, for all runs of this benchmark.
CACHE = Path.home() / ".cache" / "fedmepd"

TARGET_OVERHEAD = 0.15
SAMPLE_SECONDS = 2.0

_QUICK = {
    "rounds": 2,
    "network": {"width": 4},
    "training": {"crop": 16},
    "evaluation": {"window": 48, "overlap": 0, "every": 2},
}
_QUICK_SITES = ("site-1", "site-5")


class MemoryWatch:
    """Samples the memory of a process and all its descendants, in a thread.

    Attributes:
        peak_mib: the largest sum so far.
        processes: how many processes there were then.
    """

    def __init__(self, pid: int):
        self._root = psutil.Process(pid)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.peak_mib = 0.0
        self.processes = 0

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            self.sample()
            if self._stop.wait(SAMPLE_SECONDS):
                return

    def sample(self) -> None:
        """Measures now."""
        sizes = [size for process in family(self._root) if (size := _proportional_mib(process)) is not None]
        if sum(sizes) > self.peak_mib:
            self.peak_mib, self.processes = sum(sizes), len(sizes)


def family(root: psutil.Process) -> list[psutil.Process]:
    """Returns a process and all its descendants, as far as they live."""
    try:
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _proportional_mib(process: psutil.Process) -> float | None:
    try:
        return process.memory_full_info().pss / MIB
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None


def copy_job(job: Path, folder: Path, changes: dict[str, Any]) -> Path:
    """Copies a job folder, with other settings.

    Args:
        job: the job's folder.
        folder: to copy it to; must not exist.
        changes: settings that replace the job's, section by section.

    Raises:
        FileNotFoundError: the job has no server configuration.
    """
    shutil.copytree(job, folder)
    path = folder / "app" / "config" / "config_fed_server.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    [workflow] = config["workflows"]
    settings = workflow["args"].setdefault("settings", {})
    for key, value in changes.items():
        settings[key] = settings.get(key, {}) | value if isinstance(value, dict) else value
    path.write_text(json.dumps(config, indent=2), encoding="utf-8")
    return folder


@contextmanager
def _simulator(command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen]:
    process = subprocess.Popen(command, env=environment, stdout=sys.stderr)
    # FLARE starts the sites in sessions of their own: a signal to the group would miss them.
    try:
        yield process
    finally:
        alive = family(psutil.Process(process.pid)) if process.poll() is None else []
        for member in alive:
            try:
                member.kill()
            except psutil.NoSuchProcess:
                pass
        process.wait()


def sites_of(job: Path) -> list[str]:
    """Returns the sites that a job's meta.json names."""
    apps = json.loads((job / "meta.json").read_text(encoding="utf-8"))["deploy_map"].values()
    return sorted({name for places in apps for name in places} - {"server"})


def run(job: Path, workspace: Path, cache: Path, sites: Sequence[str]) -> dict[str, Any]:
    """Runs a job.

    Args:
        job: its folder.
        workspace: for the simulator.
        cache: for phantoms and prepared cases.
        sites: those that take part, each in a process of its own.

    Returns:
        ``results``; ``wall_seconds`` of the command; ``peak_mib`` of its ``processes``.

    Raises:
        RuntimeError: the job failed; what the simulator printed says why.
    """
    command = [sys.executable, "-m", "nvflare.cli", "simulator", str(job), "-w", str(workspace)]
    command += ["-c", ",".join(sites), "-t", str(len(sites))]
    started = time.monotonic()
    with _simulator(command, os.environ | {"FEDMEPD_CACHE": str(cache)}) as process, MemoryWatch(process.pid) as memory:
        code = process.wait()
    if code:
        raise RuntimeError(f"the simulator ended with code {code}: see its lines above")
    return {
        "results": results.read(results.find(workspace)),
        "wall_seconds": time.monotonic() - started,
        "peak_mib": memory.peak_mib,
        "processes": memory.processes,
    }


def rows(timing: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns one row for each phase of the rounds from 1 on, and one for their total.

    Args:
        timing: of results.json.

    Returns:
        ``phase``, the spread of its seconds, and its ``share`` of all rounds' time.
    """
    rounds = [record for record in timing["rounds"] if record["round"] > 0]
    seconds = {phase: [record[phase] for record in rounds] for phase in timing["mean_round"]}
    # A round in which a run was resumed has a start-up besides, which is not counted here.
    seconds["total"] = [sum(values) for values in zip(*seconds.values(), strict=True)]
    whole = sum(seconds["total"])
    return [
        {"phase": phase, **Spread.of(values).as_dict(), "share": sum(values) / whole}
        for phase, values in seconds.items()
    ]


@measure.command
def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the tables and writes the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--job", type=Path, default=JOB, help="job folder; default: jobs/fedmepd_brats")
    parser.add_argument("--rounds", type=int, help="default: the job's")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder for phantoms; default: ~/.cache/fedmepd")
    parser.add_argument("--json", type=Path, help="file for the figures; default: benchmarks/results/round.json")
    parser.add_argument("--quick", action="store_true", help="two sites, tiny sizes, to try the command out")
    options = parser.parse_args(arguments)
    changes = dict(_QUICK) if options.quick else {}
    if options.rounds:
        changes["rounds"] = options.rounds
    busy = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="fedmepd-") as folder:
        job = copy_job(options.job, Path(folder) / options.job.name, changes)
        found = run(job, Path(folder) / "workspace", options.cache, _QUICK_SITES if options.quick else sites_of(job))
    environment = measure.environment()
    timing = found["results"]["timing"]
    print(f"\n{measure.describe(environment)}")
    print(f"{options.job.name}, {found['results']['rounds']} rounds; processes that ran when it began: {busy:.1f}\n")
    phases = rows(timing)
    print(_table(phases))
    print("\n" + "\n".join(_notes(found)))
    report = measure.write_report(
        "round",
        options.json,
        environment,
        phases,
        busy=busy,
        job=options.job.name,
        wall_seconds=found["wall_seconds"],
        peak_mib=found["peak_mib"],
        processes=found["processes"],
        timing=timing,
        mdsc={"sites": found["results"]["mean"]["mdsc"], "server": found["results"]["server"]["test"]["mdsc"]},
    )
    print(f"\nwritten to {report}")


def _table(phases: Sequence[dict[str, Any]]) -> str:
    cells = [
        [
            row["phase"].replace("_", " "),
            Spread(row["median"], row["lowest"], row["highest"]).text(),
            f"{row['share']:.1%}",
        ]
        for row in phases
    ]
    return measure.table(["a round, seconds", "median (lowest-highest)", "of all rounds"], cells)


def _notes(found: dict[str, Any]) -> list[str]:
    results_, timing = found["results"], found["results"]["timing"]
    sites = timing["start_up_of_sites"].values()
    later = [record["mean_site"] for record in timing["rounds"] if record["round"] > 0]
    means = {key: Spread.of([mean[key] for mean in later]).text() for key in later[0]}
    share = timing["overhead"]["share_of_training"]
    verdict = "met" if share <= TARGET_OVERHEAD else "MISSED"
    overhead = f"{share:.1%} of the training; target: at most {TARGET_OVERHEAD:.0%}: {verdict}"
    return [
        f"average site: training {means['training']} s, evaluation {means['evaluation']} s, transfer "
        f"{means['transfer']} s, waiting for the last site {means['waiting']} s",
        f"start-up: server {timing['seconds']['start_up']:.1f} s; sites: process "
        f"{Spread.of([site['process'] for site in sites]).text(1)} s, data "
        f"{Spread.of([site['data'] for site in sites]).text(1)} s",
        f"final test {timing['seconds']['testing']:.1f} s; job {results_['seconds']:.1f} s; command "
        f"{found['wall_seconds']:.1f} s",
        f"memory of {found['processes']} processes: {found['peak_mib']:,.0f} MiB at most",
        f"all but training and evaluation: {overhead}",
    ]


if __name__ == "__main__":
    sys.exit(main())
