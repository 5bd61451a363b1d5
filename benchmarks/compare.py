"""Throughput of `fedmepd compare run`, side by side against one after another: ``python -m benchmarks.compare``.

The same plan is carried out in folders of its own, by turns: with as many runs at a time as the machine has cores, and
with one at a time. Every run has one thread. The cases are in the cache before. Then the weights that both leave are
compared, bit by bit.

The report has a row for each way with its ``seconds``, and for both the ``ratio`` (one after another / side by side). A
machine that does other work gives a lower ratio, so the report says how busy it was before each measurement
(``busy_cores``: cores that other processes used).
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch

from benchmarks.measure import Spread, alternate, arguments, command, describe, environment, table, write_report
from fedmepd.cli.terminal import positive
from fedmepd.errors import FedMEPDError
from fedmepd.experiments.conduct import Conductor
from fedmepd.experiments.costs import cost_table
from fedmepd.experiments.plan import Plan
from fedmepd.experiments.run_folder import RunFolder
from fedmepd.site_settings import SiteSettings
from fedmepd.storage import load_tensors

TARGET = 1.8
_QUICK = {"rounds": 1, "network": {"width": 4}, "training": {"crop": 16}, "evaluation": {"overlap": 0}}
_BUSY_SECONDS = 2.0


@command
def main(
    given: Sequence[str] | None = None,
    carry_out: Callable[[Plan, Path, int], list[RunFolder]] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> int:
    """Runs the benchmark; returns the exit status: 1 if the weights differ.

    Args:
        given: the options.
        carry_out: does a plan in a folder, so many runs at a time; returns the runs' folders.
        clock: of the measurement, in seconds.
    """
    parser = arguments("Runs side by side against runs one after another.", pairs=1)
    parser.add_argument("--methods", nargs="+", default=["fedavg", "local"], help="default: fedavg local")
    parser.add_argument("--runs", type=positive, default=2, help="runs of each method, a seed each; default: 2")
    parser.add_argument("--rounds", type=positive, default=3, help="of each run; default: 3")
    options = parser.parse_args(given)
    carry_out = carry_out or _carry_out
    settings = _QUICK if options.quick else {"rounds": options.rounds}
    sites = 1 if options.quick else None
    plan = Plan(methods=options.methods, seeds=list(range(options.runs)), settings=settings, sites=sites)
    here, cores, busy = environment(), len(os.sched_getaffinity(0)), []
    with tempfile.TemporaryDirectory() as root:
        number = iter(range(10**6))
        # The cases are made and prepared here, and not in what is measured.
        runs = carry_out(plan.model_copy(update={"settings": settings | _QUICK}), Path(root) / "first", cores)
        left: dict[int, list[RunFolder]] = {}

        def work(at_once: int) -> None:
            left[at_once] = carry_out(plan, Path(root) / f"out-{next(number)}", at_once)

        def measure(of: Callable[[], Any]) -> float:
            busy.append(busy_cores())
            started = clock()
            of()
            return clock() - started

        pairs = alternate(options.pairs, partial(work, 1), partial(work, cores), warmup=0, measure=measure)
        same = weights(left[1]) == weights(left[cores])
        costs = cost_table([folder.results() for folder in left[cores]])
    rows = [
        {"way": "one after another", "at_once": 1, "seconds": Spread.of(pairs.first).as_dict()},
        {"way": "side by side", "at_once": cores, "seconds": Spread.of(pairs.second).as_dict()},
    ]
    ratio = pairs.ratio()
    print(f"{len(runs)} runs of {plan.settings['rounds']} rounds; {describe(here)}")
    print(f"cores that other processes used before each measurement: {', '.join(f'{cores:.1f}' for cores in busy)}\n")
    seconds = [[row["way"], Spread(**row["seconds"]).text(0)] for row in rows]
    print(table(["way", "seconds"], seconds))
    met = "met" if ratio.median >= TARGET else "missed"
    print(f"\nthroughput side by side: {ratio.text()} times; target: at least {TARGET}: {met}")
    print(f"weights: {'the same bits' if same else 'different'}\n")
    print("\n".join(costs))
    what = {"runs": len(runs), "settings": settings, "ratio": ratio.as_dict(), "same_bits": same, "busy_cores": busy}
    print(f"wrote {write_report('compare', options.json, here, rows, **what)}")
    return 0 if same else 1


def _carry_out(plan: Plan, out: Path, at_once: int) -> list[RunFolder]:
    machine = SiteSettings.load().model_copy(update={"data": None})
    outcome = Conductor(plan, out, machine, at_once=at_once).carry_out()
    if outcome.failed:
        raise FedMEPDError(f"runs have failed: {outcome.failed}")
    return outcome.runs


def busy_cores() -> float:
    """Returns how many cores the machine's processes use at the moment."""
    return psutil.cpu_percent(_BUSY_SECONDS) / 100 * psutil.cpu_count()


def weights(runs: Sequence[RunFolder]) -> dict[str, str]:
    """Returns a checksum of everything that each run's server and sites have trained, by file."""
    found = {}
    for run in runs:
        for file in sorted(run.path.rglob("*.pt")):
            digest = hashlib.sha256()
            _add(digest, {key: value for key, value in load_tensors(file).items() if key in _TRAINED})
            found[str(file.relative_to(run.path.parent))] = digest.hexdigest()
    return found


# What server, fusion site, sites and models keep of weights and optimizers.
_TRAINED = ("network", "optimizer", "method", "state", "anchors")


def _add(digest: Any, content: Any) -> None:
    if isinstance(content, torch.Tensor):
        digest.update(content.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    elif isinstance(content, dict):
        for key, value in content.items():
            digest.update(str(key).encode())
            _add(digest, value)
    elif isinstance(content, list | tuple):
        for value in content:
            _add(digest, value)


if __name__ == "__main__":
    sys.exit(main())
