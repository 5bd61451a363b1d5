"""Whether a long run stays as it begins: memory, open files, disk and time of a tiny federation over many rounds.

A POC federation of eight sites, each with processes of its own, as ``fedmepd poc`` makes it. After every round the
resident memory and the open files of the job's processes, and the size of their folders, are noted; logs, which FLARE
rotates, on their own.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from benchmarks import measure
from benchmarks.measure import MIB
from benchmarks.round import CACHE, JOB, copy_job
from fedmepd.evaluation import results
from fedmepd.flare.poc.workspace import Poc
from fedmepd.flare.watching import COMPLETED

ROUNDS = 100
SITES = tuple(f"site-{number}" for number in range(1, 9))

# What happens before this round is warming up.
FLAT_AFTER = 10
TARGET_GROWTH = 0.05
TARGET_SLOWEST = 2.0

TINY = {
    "network": {"width": 4},
    "training": {"crop": 16, "batch": 4},
    "calibration": {"anchors_per_class": 2},
    # Two cases a site to train on and one to validate on, six and three at the fusion site.
    "data": {"train": 0.125, "validation": 0.0625},
    # Every round validates, so that all are alike.
    "evaluation": {"window": 48, "overlap": 0, "every": 1},
}
_QUICK_ROUNDS = 12
_LOG = re.compile(r"log.*\.(txt|json)(\.\d+)?$|\.log(\.\d+)?$|events\.out\.tfevents|pool_stats|cells_")
_POLL_SECONDS = 0.2


def watch(poc: Poc, job_id: str) -> Iterator[dict[str, Any]]:
    """Yields a sample for each round that ends, until the job does.

    Args:
        poc: a running federation.
        job_id: of the job.

    Returns:
        ``round``; by process (``server`` or a site's name) ``rss_mib`` and ``files``; ``disk_mib`` of all folders but
        for logs, and ``logs_mib``.
    """
    seen = 0
    path = poc.server_kit / job_id / "results" / results.FILE_NAME
    while True:
        try:
            current = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            # Before the first round, or after the end.
            if seen:
                return
            time.sleep(_POLL_SECONDS)
            continue
        if current["round"] > seen:
            seen = current["round"]
            yield {"round": seen} | _sample(poc, job_id)
        if current["status"] == "finished":
            return
        time.sleep(_POLL_SECONDS)


def _sample(poc: Poc, job_id: str) -> dict[str, Any]:
    memory, files = {}, {}
    for process in poc.processes():
        command = process.info["cmdline"]
        if job_id not in command:
            continue
        try:
            name = _owner(poc, command)
            memory[name] = process.memory_info().rss / MIB
            # Sockets count among them.
            files[name] = process.num_fds()
        except psutil.NoSuchProcess:
            continue
    whole, logs = _sizes(poc.workspace)
    return {"rss_mib": memory, "files": files, "disk_mib": (whole - logs) / MIB, "logs_mib": logs / MIB}


def _owner(poc: Poc, command: list[str]) -> str:
    for name in poc.sites():
        if any(part.startswith(str(poc.kit(name))) for part in command):
            return name
    return "server"


def _sizes(folder: Path) -> tuple[int, int]:
    """Bytes of all files, and of the logs among them."""
    total, logs = 0, 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                size = os.lstat(os.path.join(place, name)).st_size
            except FileNotFoundError:
                # Renamed or removed just now.
                continue
            total += size
            logs += size if _LOG.search(name) else 0
    return total, logs


def rows(samples: Sequence[dict[str, Any]], seconds: Sequence[float]) -> list[dict[str, Any]]:
    """Returns one row for each process, one for the disk, one for the rounds' time.

    Args:
        samples: as :func:`watch` yields them.
        seconds: of every round from the first on.
    """
    settled = [sample for sample in samples if sample["round"] >= FLAT_AFTER]
    found = []
    for name in sorted(settled[0]["rss_mib"]):
        rss = [sample["rss_mib"][name] for sample in settled if name in sample["rss_mib"]]
        files = [sample["files"][name] for sample in settled if name in sample["files"]]
        found.append(
            {"what": f"{name}, memory MiB", "first": rss[0], "last": rss[-1], "highest": max(rss)}
            | {"growth": max(rss) / rss[0] - 1, "met": max(rss) / rss[0] - 1 <= TARGET_GROWTH}
        )
        found.append(
            {"what": f"{name}, open files", "first": files[0], "last": files[-1], "highest": max(files)}
            | {"growth": max(files) / files[0] - 1, "met": files[-1] <= files[0]}
        )
    # In the last round every site writes its last model, once.
    for what, key in (("disk of all but logs, MiB", "disk_mib"), ("logs of all, MiB", "logs_mib")):
        disk = [sample[key] for sample in settled if sample["round"] < len(seconds)]
        found.append(
            {"what": what, "first": disk[0], "last": disk[-1], "highest": max(disk)}
            | {"growth": max(disk) / disk[0] - 1}
            | {"met": max(disk) / disk[0] - 1 <= TARGET_GROWTH if key == "disk_mib" else None}
        )
    later = seconds[FLAT_AFTER - 1 :]
    found.append(
        {"what": "seconds of a round", "first": later[0], "last": later[-1], "highest": max(later)}
        | {"growth": max(later) / median(later) - 1, "met": max(later) <= TARGET_SLOWEST * median(later)}
    )
    return found


def run(folder: Path, rounds: int, sites: Sequence[str]) -> tuple[list[dict[str, Any]], list[float]]:
    """Runs the federation; returns the samples and the seconds of every round.

    Raises:
        RuntimeError: the job failed.
    """
    poc = Poc(folder / "poc", log=lambda line: print(line, file=sys.stderr))
    poc.prepare(sites, None)
    try:
        poc.start()
        job_id = poc.submit(copy_job(JOB, folder / "endurance", TINY | {"rounds": rounds}))
        samples = []
        for sample in watch(poc, job_id):
            samples.append(sample)
            if sample["round"] % 10 == 0:
                print(f"round {sample['round']}/{rounds}", file=sys.stderr, flush=True)
        status = poc.watch(job_id)
        if status != COMPLETED:
            raise RuntimeError(f"the job ended with {status}")
        timing = results.read(results.find(poc.download(job_id, folder / "results")))["timing"]
    finally:
        poc.stop()
    return samples, [record["total"] for record in timing["rounds"] if record["round"] > 0]


@measure.command
def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table and writes the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"default: {ROUNDS}")
    parser.add_argument("--json", type=Path, help="file for the figures; default: benchmarks/results/endurance.json")
    parser.add_argument("--quick", action="store_true", help="two sites, few rounds, to try the command out")
    options = parser.parse_args(arguments)
    os.environ.setdefault("FEDMEPD_CACHE", str(CACHE))
    busy, environment = os.getloadavg()[0], measure.environment()
    with tempfile.TemporaryDirectory() as folder:
        sites = SITES[:2] if options.quick else SITES
        samples, seconds = run(Path(folder), _QUICK_ROUNDS if options.quick else options.rounds, sites)
    table = rows(samples, seconds)
    print(measure.describe(environment))
    print(f"{len(seconds)} rounds, {len(sites)} sites; from round {FLAT_AFTER} on\n")
    print(
        measure.table(
            ("", "first", "last", "highest", "highest against first", ""),
            [
                (
                    row["what"],
                    f"{row['first']:.1f}",
                    f"{row['last']:.1f}",
                    f"{row['highest']:.1f}",
                    f"{row['growth']:+.1%}",
                    {True: "met", False: "MISSED", None: ""}[row["met"]],
                )
                for row in table
            ],
        )
    )
    path = measure.write_report(
        "endurance", options.json, environment, table, busy=busy, samples=samples, seconds=seconds
    )
    print(f"\nwritten to {path}")


if __name__ == "__main__":
    sys.exit(main())
