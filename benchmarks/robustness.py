"""What one broken or malicious site does to the others, and what the norm bound makes of it.

The default job's federation of eight sites in one process: once without one site, and once for each way in which that
site may spoil its updates. Compared are the test scores of the other sites, and of the server. Every run keeps its
state in the folder given, so that the command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from benchmarks import measure
from fedmepd.config import Settings
from fedmepd.evaluation import results
from fedmepd.federation.exchange import Update
from fedmepd.federation.in_process import run_in_process
from fedmepd.site_settings import SiteSettings

SITES = tuple(f"site-{number}" for number in range(1, 9))
TARGET = 0.03

# By name: what becomes of a change. A local epoch of the default job changes a weight by some 0.005.
ATTACKS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "scaled x1000": lambda change: change * 1000,
    "scaled x100": lambda change: change * 100,
    "sign flipped": lambda change: -change,
    "constant 0.05": lambda change: torch.full_like(change, 0.05),
}
NOBODY, HONEST = "without the site", "honest"

_QUICK = {
    "rounds": 2,
    "network": {"width": 4},
    "training": {"crop": 16},
    "evaluation": {"window": 48, "overlap": 0, "every": 2},
}


def spoil(culprit: str, attack: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[str, Update], Update]:
    """Returns what becomes of the sites' updates on their way to the server.

    Args:
        culprit: the site whose updates are spoilt.
        attack: what is done to every tensor.
    """

    def on_the_way(site: str, update: Update) -> Update:
        if site != culprit:
            return update
        return Update(update.round, {key: attack(value) for key, value in update.tensors.items()}, update.report)

    return on_the_way


def row(name: str, found: dict[str, Any], baseline: dict[str, Any], culprit: str) -> dict[str, Any]:
    """Returns what a run did to the other sites.

    Args:
        name: of the run.
        found, baseline: results of the run, and of the one without the culprit.
        culprit: the site that is left out of the means.
    """
    means = [fmean(site["test"]["mdsc"] for site in of["sites"] if site["name"] != culprit) for of in (found, baseline)]
    entry = next((site for site in found["sites"] if site["name"] == culprit), {"limited": [], "rounds_missed": []})
    return {
        "run": name,
        "others": means[0],
        "difference": means[0] - means[1],
        "server": found["server"]["test"]["mdsc"],
        "server_difference": found["server"]["test"]["mdsc"] - baseline["server"]["test"]["mdsc"],
        "limited": len(entry["limited"]),
        "refused": len(entry["rounds_missed"]),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table and writes the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("workspace_robustness"), help="for the runs' states")
    parser.add_argument("--culprit", default="site-7", choices=SITES, help="default: site-7, which has all modalities")
    parser.add_argument("--runs", nargs="+", choices=(*ATTACKS, HONEST), default=list(ATTACKS), help="default: attacks")
    parser.add_argument("--bound", type=float, help="aggregation.norm_bound; default: the job's; 0: no bound")
    parser.add_argument("--json", type=Path, help="file for the figures; default: benchmarks/results/robustness.json")
    parser.add_argument("--quick", action="store_true", help="two sites, tiny sizes, to try the command out")
    options = parser.parse_args(arguments)
    sites = ("site-5", options.culprit) if options.quick else SITES
    changes: dict[str, Any] = dict(_QUICK) if options.quick else {}
    if options.bound is not None:
        changes["aggregation"] = {"norm_bound": options.bound}
    settings = Settings.make("phantom", changes)
    machine = SiteSettings.load()

    def run(name: str, of: Sequence[str], **more: Any) -> dict[str, Any]:
        folder = options.folder / name.replace(" ", "-")
        if (kept := folder / "results" / results.FILE_NAME).is_file():
            found = results.read(kept)
            if found["status"] == "finished":
                return found
        print(f"{name}:", file=sys.stderr)
        return run_in_process(settings, machine, folder, of, lambda line: print(line, file=sys.stderr), **more)

    baseline = run(NOBODY, [site for site in sites if site != options.culprit])
    rows = [row(NOBODY, baseline, baseline, options.culprit)]
    for name in options.runs:
        more = {} if name == HONEST else {"on_the_way": spoil(options.culprit, ATTACKS[name])}
        rows.append(row(name, run(name, sites, **more), baseline, options.culprit))
    environment = measure.environment()
    bound = settings.aggregation.norm_bound
    print(f"\n{measure.describe(environment)}")
    print(f"{settings.rounds} rounds, {len(sites)} sites, culprit {options.culprit}, norm bound {bound:g}\n")
    print(_table(rows))
    worst = min((one["difference"] for one in rows[1:]), default=0.0)
    verdict = "met" if worst >= -TARGET else "MISSED"
    print(f"\nworst difference of the other sites {worst:+.3f}; at most {TARGET} may be lost: {verdict}")
    report = measure.write_report(
        "robustness", options.json, environment, rows, busy=os.getloadavg()[0], culprit=options.culprit, bound=bound
    )
    print(f"\nwritten to {report}")


def _table(rows: Sequence[dict[str, Any]]) -> str:
    cells = [
        [
            one["run"],
            f"{one['others']:.3f}",
            f"{one['difference']:+.3f}",
            f"{one['server']:.3f}",
            f"{one['server_difference']:+.3f}",
            str(one["limited"]),
            str(one["refused"]),
        ]
        for one in rows
    ]
    header = ["mDSC", "other sites", "difference", "server", "difference", "rounds scaled down", "rounds refused"]
    return measure.table(header, cells)


if __name__ == "__main__":
    main(sys.argv[1:])
