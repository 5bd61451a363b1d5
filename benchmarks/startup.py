"""How long a site's process takes from its start until it could train: the interpreter and all imports, by stages.

Fresh processes, by turns: one imports as the product does (:mod:`fedmepd.flare.loading`), the other the same modules
plainly. Files are in the operating system's cache, byte code is compiled. Not in these seconds: FLARE's registration,
its way of asking for tasks, and opening the site's data.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from benchmarks import measure
from benchmarks.measure import Spread

TARGET_SECONDS = 3.0

STAGES = {
    "interpreter": "Python",
    "flare": "FLARE with its transport drivers",
    "torch": "PyTorch",
    "components": "executor, filters and other components of the job",
    "site": "data, network and training of the site",
    "monai": "MONAI",
    "optimizer": "what PyTorch imports for its first optimizer",
}

# A site's process, in the order in which FLARE and the executor import.
_PROCESS = """
import time
last = time.monotonic()
import sys
started, way = float(sys.argv[1]), sys.argv[2]
seconds = {"interpreter": last - started}

def end(stage):
    global last
    now = time.monotonic()
    seconds[stage] = seconds.get(stage, 0.0) + now - last
    last = now

import nvflare.private.fed.app.simulator.simulator_worker
from nvflare.fuel.f3.communicator import load_comm_drivers
load_comm_drivers()
end("flare")
if way == "product":
    import fedmepd.flare.loading
else:
    import torch
end("torch")
import fedmepd.flare.executor, fedmepd.flare.filters
import nvflare.app_opt.pt.decomposers
end("components")

import importlib
from fedmepd.flare import loading
plain, outer = importlib.import_module, []

def timed(name, package=None):
    if outer or name not in loading.NEEDED:
        return plain(name, package)
    outer.append(name)
    try:
        return plain(name, package)
    finally:
        outer.clear()
        end("monai" if name.startswith("monai") else "site")

importlib.import_module = timed
if way == "product":
    loading.load()
else:
    for name in loading.NEEDED:
        importlib.import_module(name)
    loading.load_optimizers()
end("optimizer")

import json
print(json.dumps({"way": way, "seconds": seconds, "processor": time.process_time(), "modules": len(sys.modules)}))
"""


def start(way: str) -> dict[str, Any]:
    """Starts a process that imports what a site's process does, and waits for it.

    Args:
        way: ``product`` or ``plain``.

    Returns:
        ``way``; ``seconds`` by stage; ``processor``: seconds of processor time; ``modules``: how many were loaded.
    """
    command = [sys.executable, "-c", _PROCESS, str(time.monotonic()), way]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        raise RuntimeError(f"a process that only imports has failed:\n{run.stderr}")
    return json.loads(run.stdout.splitlines()[-1])


@measure.command
def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table and writes the report."""
    options = measure.arguments(__doc__.splitlines()[0]).parse_args(arguments)
    if options.threads:
        os.environ["OMP_NUM_THREADS"] = str(options.threads)
    busy = os.getloadavg()[0]
    runs: dict[str, list[dict[str, Any]]] = {"plain": [], "product": []}

    def keep(work) -> float:
        run = work()
        runs[run["way"]].append(run)
        return sum(run["seconds"].values())

    pairs = measure.alternate(
        1 if options.quick else options.pairs, lambda: start("plain"), lambda: start("product"), measure=keep
    )
    totals = {"plain": Spread.of(pairs.first), "product": Spread.of(pairs.second)}
    rows = _rows(runs, totals)
    environment = measure.environment()
    print(measure.describe(environment))
    print(f"{len(pairs.first)} pairs; processes that were running when it began: {busy:.1f}\n")
    cells = [[row["stage"], *(Spread(**row[way]).text(row["digits"]) for way in runs)] for row in rows]
    print(measure.table(["seconds", *(f"{way}: median (lowest-highest)" for way in runs)], cells))
    print(f"\nplain / product: {pairs.ratio().text()}")
    verdict = "met" if totals["product"].median <= TARGET_SECONDS else "MISSED"
    print(f"product: {totals['product'].median:.2f} s; target: at most {TARGET_SECONDS:.0f} s: {verdict}")
    report = measure.write_report(
        "startup", options.json, environment, rows, busy=busy, ratio=pairs.ratio().as_dict(), runs=runs
    )
    print(f"\nwritten to {report}")


def _rows(runs: dict[str, list[dict[str, Any]]], totals: dict[str, Spread]) -> list[dict[str, Any]]:
    def row(stage: str, value, digits: int = 2) -> dict[str, Any]:
        spreads = {way: Spread.of([value(run) for run in of_way]).as_dict() for way, of_way in runs.items()}
        return {"stage": stage, **spreads, "digits": digits}

    return [
        *(row(what, lambda run, stage=stage: run["seconds"][stage]) for stage, what in STAGES.items()),
        {"stage": "all", **{way: total.as_dict() for way, total in totals.items()}, "digits": 2},
        row("processor time of all", lambda run: run["processor"]),
        row("modules loaded", lambda run: run["modules"], 0),
    ]


if __name__ == "__main__":
    sys.exit(main())
