"""What dishonest sites do to the others, and what the bounds and robust means make of it.

The default job's federation of eight sites in one process: once without the culprits, and once for each way in which
they may spoil their updates. Compared are the test scores of the other sites, and of the server; with ``--small``, the
scores of the last round's models on the validation cases, which are six of every site then. With several seeds, all of
it is done for each, and the differences come with their 95 % interval (Student's t over the seeds). Every run keeps its
state in the folder given, so that the command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch

from benchmarks import measure
from fedmepd.cli.terminal import positive
from fedmepd.comparing.intervals import t_interval
from fedmepd.config import Settings, differences
from fedmepd.errors import FedMEPDError
from fedmepd.evaluation import results
from fedmepd.federation.exchange import Update
from fedmepd.federation.in_process import run_in_process
from fedmepd.job_settings import make_settings, of_this_version
from fedmepd.methods.parts.selection import DECODER
from fedmepd.site_settings import SiteSettings

SITES = tuple(f"site-{number}" for number in range(1, 9))
TARGET = 0.03

Tensors = dict[str, torch.Tensor]
# What becomes of an update's changes; it is told the round.
Attack = Callable[[Tensors, int], Tensors]


def times(factor: float) -> Attack:
    """All changes times a factor."""
    return lambda changes, number: {key: change * factor for key, change in changes.items()}


def constant(value: float) -> Attack:
    """Every change is the same. A local epoch of the default job changes a weight by some 0.005."""
    return lambda changes, number: {key: torch.full_like(change, value) for key, change in changes.items()}


def one_filter(changes: Tensors, number: int) -> Tensors:
    """The norm of the whole update, against its direction, in the decoder's filter with the fewest weights."""
    total = sum(float(change.double().square().sum()) for change in changes.values()) ** 0.5
    key = min((key for key in changes if key.startswith(DECODER)), key=lambda name: changes[name][0].numel())
    spoilt = {name: torch.zeros_like(change) for name, change in changes.items()}
    spoilt[key][0] = -total * torch.nn.functional.normalize(changes[key][0].flatten(), dim=0).reshape(
        changes[key][0].shape
    )
    return spoilt


def weight_of_filters(changes: Tensors, number: int) -> Tensors:
    """Hardly any change of the decoder in every second round, which raises its weights H; then thrice the reverse."""
    factor = 1e-6 if number % 2 else -3.0
    return {key: change * (factor if key.startswith(DECODER) else 1.0) for key, change in changes.items()}


ATTACKS: dict[str, Attack] = {
    "scaled x1000": times(1000),
    "scaled x100": times(100),
    "sign flipped": times(-1),
    "sign flipped x3": times(-3),
    "sign flipped x9": times(-9),
    "constant 0.05": constant(0.05),
    "weight H": weight_of_filters,
    "one filter": one_filter,
    "free rider": times(0),
}
NOBODY, HONEST = "without the site", "honest"

_QUICK = {
    "rounds": 2,
    "network": {"width": 4},
    "training": {"crop": 16},
    "evaluation": {"window": 48, "overlap": 0, "every": 2},
}
# Most of a small run's time would be the distances of the final test: Dice of the last round's models is enough.
_SMALL = {
    "rounds": 6,
    "network": {"width": 4},
    "training": {"crop": 16, "fusion_threads": 1},
    "personalization": {"warmup_rounds": 2, "patience": 2},
    "evaluation": {"window": 48, "overlap": 0, "every": 6, "pictures": False},
    "data": {"validation": 0.375},
}


def spoil(culprits: Collection[str], attack: Attack) -> Callable[[str, Update], Update]:
    """Returns what becomes of the sites' updates on their way to the server.

    Args:
        culprits: the sites whose updates are spoilt.
        attack: what is done to the changes.
    """

    def on_the_way(site: str, update: Update) -> Update:
        if site not in culprits:
            return update
        return Update(update.round, attack(update.tensors, update.round), update.report)

    return on_the_way


@dataclass(frozen=True)
class Task:
    """One run, in a form that another process can be told.

    Attributes:
        name: an attack, ``HONEST`` or ``NOBODY``.
        seed: of the run.
        sites: that take part.
        culprits: the sites whose updates are spoilt, if the name is an attack.
        changes: to the phantom preset's settings.
        folder: for its state and results.
    """

    name: str
    seed: int
    sites: tuple[str, ...]
    culprits: tuple[str, ...]
    changes: dict[str, Any]
    folder: Path

    def settings(self) -> Settings:
        """Returns those of the run."""
        return make_settings("phantom", self.changes | {"seed": self.seed})

    def found(self) -> dict[str, Any] | None:
        """Returns the results if the run is finished.

        Raises:
            FedMEPDError: the folder holds a run of other sites or settings, such as another ``--trim``.
        """
        file = self.folder / "results" / results.FILE_NAME
        kept = results.read(file) if file.is_file() else {"status": ""}
        if kept["status"] != "finished":
            return None
        different = differences(of_this_version(kept["settings"]), self.settings().model_dump(mode="json"))
        if sorted(site["name"] for site in kept["sites"]) != sorted(self.sites):
            different.append("other sites")
        if different:
            raise FedMEPDError(f"{file} is of another run ({'; '.join(different)}): choose another --folder")
        return kept

    def run(self) -> None:
        """Runs it, or goes on with it, on one core."""
        torch.set_num_threads(1)
        more = {"on_the_way": spoil(self.culprits, ATTACKS[self.name])} if self.name in ATTACKS else {}
        about = f"{self.name}, seed {self.seed}: "
        run_in_process(
            self.settings(), SiteSettings.load(), self.folder, self.sites, lambda line: _say(about + line), **more
        )


def run_all(tasks: Sequence[Task], at_once: int) -> None:
    """Does what is not finished, some at a time, each in a process of its own.

    A failure or an interrupt ends all of them; they go on from their state the next time.
    """
    left = [task for task in tasks if task.found() is None]
    _say(f"{len(left)} of {len(tasks)} runs are left")
    with multiprocessing.get_context("spawn").Pool(at_once, maxtasksperchild=1) as pool:
        for done, _ in enumerate(pool.imap_unordered(Task.run, left), 1):
            _say(f"{done} of {len(left)} runs are done")


def row(
    name: str,
    found: Sequence[dict[str, Any]],
    baseline: Sequence[dict[str, Any]],
    culprits: Collection[str],
    scores: str = "test",
) -> dict[str, Any]:
    """Returns what an attack did to the other sites.

    Args:
        name: of the attack.
        found, baseline: results of its runs, and of those without the culprits, one for each seed.
        culprits: the sites that are left out of the means.
        scores: which are compared, ``test`` or ``validation``.
    """

    def others(of: dict[str, Any]) -> float:
        return fmean(site[scores]["mdsc"] for site in of["sites"] if site["name"] not in culprits)

    def server(of: dict[str, Any]) -> float:
        return of["server"][scores]["mdsc"]

    entries = [site for of in found for site in of["sites"] if site["name"] in culprits]
    figures: dict[str, Any] = {"run": name}
    for side, score in (("others", others), ("server", server)):
        values = np.array([score(of) for of in found])
        less = values - np.array([score(of) for of in baseline])
        figures |= {side: float(values.mean()), f"{side}_difference": float(less.mean())}
        if len(less) > 1:
            figures[f"{side}_interval"] = [float(end) for end in t_interval(less)]
    return figures | {
        "limited": sum(len(entry["limited"]) for entry in entries),
        "refused": sum(len(entry["rounds_missed"]) for entry in entries),
    }


@measure.command
def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table and writes the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("workspace_robustness"), help="for the runs' states")
    parser.add_argument(
        "--culprits", nargs="+", default=["site-7"], choices=SITES, help="default: site-7, which has all modalities"
    )
    parser.add_argument("--runs", nargs="+", choices=(*ATTACKS, HONEST), default=list(ATTACKS), help="default: attacks")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="default: 0")
    parser.add_argument("--at-once", type=positive, default=1, help="runs at a time, each on one core; default: 1")
    parser.add_argument("--bound", type=float, help="aggregation.norm_bound; default: the job's; 0: no bound")
    parser.add_argument("--trim", type=float, help="aggregation.trim; default: the job's")
    parser.add_argument("--direction", type=float, help="aggregation.direction; default: the job's")
    parser.add_argument("--json", type=Path, help="file for the figures; default: benchmarks/results/robustness.json")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--small", action="store_true", help="six rounds, width 4, crops of 16: about a minute a run")
    size.add_argument("--quick", action="store_true", help="two sites, tiny sizes, to try the command out")
    options = parser.parse_args(arguments)
    culprits = tuple(options.culprits)
    sites = ("site-5", *culprits) if options.quick else SITES
    changes: dict[str, Any] = dict(_QUICK if options.quick else _SMALL if options.small else {})
    changes["training"] = changes.get("training", {}) | {"threads": 1, "fusion_threads": 1}
    asked = {"norm_bound": options.bound, "trim": options.trim, "direction": options.direction}
    changes["aggregation"] = {key: value for key, value in asked.items() if value is not None}

    def task(name: str, seed: int) -> Task:
        of = tuple(site for site in sites if name != NOBODY or site not in culprits)
        place = options.folder / f"seed-{seed}" / name.replace(" ", "-")
        return Task(name, seed, of, culprits, changes, place)

    # One seed after the other: what is there when it is stopped is whole for the first ones.
    names = [NOBODY, *options.runs]
    tasks = {name: [task(name, seed) for seed in options.seeds] for name in names}
    run_all([tasks[name][number] for number in range(len(options.seeds)) for name in names], options.at_once)
    found = {name: [one.found() for one in of_name] for name, of_name in tasks.items()}
    scores = "validation" if options.small else "test"
    rows = [row(name, found[name], found[NOBODY], culprits, scores) for name in names]
    settings = make_settings("phantom", changes)
    environment = measure.environment()
    bounds = settings.aggregation.model_dump(include={"norm_bound", "trim", "direction"})
    print(f"\n{measure.describe(environment)}")
    said = ", ".join(f"{name} {value:g}" for name, value in bounds.items())
    seeds = ", ".join(map(str, options.seeds))
    print(f"{settings.rounds} rounds, {len(sites)} sites, culprits {', '.join(culprits)}, seeds {seeds}, {said}\n")
    print(_table(rows))
    worst = min((one["others_difference"] for one in rows[1:]), default=0.0)
    verdict = "met" if worst >= -TARGET else "MISSED"
    print(f"\nworst difference of the other sites {worst:+.3f}; at most {TARGET} may be lost: {verdict}")
    report = measure.write_report(
        "robustness",
        options.json,
        environment,
        rows,
        busy=os.getloadavg()[0],
        culprits=culprits,
        seeds=options.seeds,
        **bounds,
    )
    print(f"\nwritten to {report}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _table(rows: Sequence[dict[str, Any]]) -> str:
    def difference(one: dict[str, Any], side: str) -> str:
        interval = one.get(f"{side}_interval")
        ends = f" ({interval[0]:+.3f} to {interval[1]:+.3f})" if interval else ""
        return f"{one[f'{side}_difference']:+.3f}{ends}"

    cells = [
        [
            one["run"],
            f"{one['others']:.3f}",
            difference(one, "others"),
            f"{one['server']:.3f}",
            difference(one, "server"),
            str(one["limited"]),
            str(one["refused"]),
        ]
        for one in rows
    ]
    header = ["mDSC", "other sites", "difference", "server", "difference", "rounds scaled down", "rounds refused"]
    return measure.table(header, cells)


if __name__ == "__main__":
    sys.exit(main())
