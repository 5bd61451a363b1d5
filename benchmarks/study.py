"""The study of docs/results.md: runs its plans, keeps the finished runs in docs/results, writes pages and figures.

    python -m benchmarks.study OUT            # runs everything that is not finished, in this order of plans
    python -m benchmarks.study OUT --list     # says how far it is, and how many hours are left
    python -m benchmarks.study OUT --pages    # keeps what is finished so far, and writes the pages; starts nothing

OUT gets a folder for each plan of benchmarks/plans, as `fedmepd compare run` makes it. The same command goes on where
it was stopped. Pages and docs/results are written after each plan; only finished runs are used. Runs whose results are
in docs/results are not repeated, so that a clone on another machine goes on with the rest.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.measure import command
from benchmarks.results_kept import keep, take_up
from benchmarks.results_page import PAGES, RUNS, write_pages
from fedmepd.cli.terminal import INTERRUPTED, positive
from fedmepd.experiments.conduct import Conductor, how_many
from fedmepd.experiments.plan import PlannedRun, read_plan
from fedmepd.experiments.pool import run_all
from fedmepd.experiments.run_folder import RunFolder
from fedmepd.site_settings import SiteSettings
from fedmepd.text_table import table

PLANS = Path(__file__).parent / "plans"
# In the order of what they decide.
STUDY = (
    "hospitals-converged",
    "hospitals-all",
    "hospitals-fusion-cases",
    "hospitals-rivals-converged",
    "hospitals-ablations",
    "first",
)

Say = Callable[[str], None]


class Study:
    """The plans and how far they are.

    Args:
        plans: files, in order.
        out: gets a folder for each.
        runs: folder for the kept runs.
        pages: to write.
        at_once: how many runs at a time; None: as cores and memory allow.
        say: takes lines about the progress.
        run: does runs, see :func:`fedmepd.experiments.pool.run_all`.
    """

    def __init__(
        self,
        plans: Sequence[Path],
        out: Path,
        *,
        runs: Path = RUNS,
        pages: Sequence[Path] = PAGES,
        at_once: int | None = None,
        say: Say = print,
        run: Callable[..., Any] = run_all,
    ):
        self._machine = SiteSettings.load()
        self._out, self._runs, self._pages, self._say = Path(out), runs, pages, say
        # Without the machine's own data folder: the study is on phantoms.
        self._conductors = {
            file.stem: Conductor(
                read_plan(file, None), self._out / file.stem, self._machine, at_once=at_once, say=self._tell, run=run
            )
            for file in plans
        }
        self._at_once = at_once
        for name in self._conductors:
            self._take_up(name)

    def _take_up(self, name: str) -> None:
        planned = self._conductors[name].planned()
        for run in take_up(planned, self._runs / name, self._out / name):
            self._say(f"{name}: the kept results of {run} are of other settings than the plan's: it is run again")

    def carry_out(self) -> dict[str, str]:
        """Runs what is left, plan by plan, and writes the pages after each; returns why runs have failed, by name."""
        failed = {}
        for name, conductor in self._conductors.items():
            self._say(f"{name}:")
            failed |= {f"{name}/{run}": reason for run, reason in conductor.carry_out().failed.items()}
            self.write()
        return failed

    def _tell(self, line: str) -> None:
        self._say(f"  {line}; {self.left()}")

    def write(self) -> None:
        """Keeps the finished runs, and writes the pages and figures."""
        for name in self._conductors:
            # Each method by itself: one that has all its seeds does not wait for the others.
            finished: dict[str, list[Path]] = defaultdict(list)
            for run, folder in self._folders(name):
                if folder.is_finished():
                    finished[_title(run)].append(folder.results_file())
            kept = [file for files in finished.values() for file in keep(files, self._runs / name)]
            self._say(f"{name}: kept {len(kept)} finished runs in {self._runs / name}")
        for line in write_pages(self._runs, self._pages):
            self._say(line)

    def listed(self) -> str:
        """Returns a table of the plans, and the hours that are left."""
        rows = []
        for name in self._conductors:
            folders = self._folders(name)
            finished = sum(folder.is_finished() for _, folder in folders)
            rows.append([name, f"{finished} of {len(folders)}", *_cells(*self._seconds_left([name]))])
        return "\n".join([*table(["plan", "finished", "core-hours left", "not measured"], rows, left={0}), self.left()])

    def left(self) -> str:
        """Returns a sentence on how long the rest takes."""
        seconds, unknown = self._seconds_left(list(self._conductors))
        runs = [run for name in self._conductors for run, folder in self._folders(name) if not folder.is_finished()]
        if not runs:
            return "nothing is left"
        if self._at_once is None:
            self._at_once = how_many(runs, 1, self._machine)
        at_once = self._at_once
        if unknown == len(runs):
            return f"{unknown} runs are left; no run of their methods is measured yet, so their hours are not known"
        said = f"about {seconds / 3600 / at_once:.1f} hours are left, {at_once} runs at a time"
        return said + f", without {unknown} runs of methods that no run has measured" * bool(unknown)

    def _folders(self, name: str) -> list[tuple[PlannedRun, RunFolder]]:
        return [(run, RunFolder(self._out / name / run.name)) for run in self._conductors[name].planned()]

    def _seconds_left(self, names: Sequence[str]) -> tuple[float, int]:
        """Returns the core-seconds of the runs of some plans that are left, and how many runs are not in it.

        A round is as long as the average one so far of the same method in the same plan, or else in the others.
        """
        rates: dict[tuple[str, ...], list[float]] = defaultdict(list)
        left: list[tuple[str, PlannedRun, int]] = []
        for name in self._conductors:
            for run, folder in self._folders(name):
                results = folder.results()
                rounds = max(0, results["round"]) if results else 0
                if rounds:
                    rate = results["seconds"] / rounds
                    rates[name, _title(run)].append(rate)
                    rates[(run.settings.method,)].append(rate)
                if name in names and not (results and results["status"] == "finished"):
                    left.append((name, run, run.settings.rounds - rounds))
        known = [
            (rates.get((name, _title(run))) or rates.get((run.settings.method,)), rounds) for name, run, rounds in left
        ]
        return sum(fmean(of) * rounds for of, rounds in known if of), sum(not of for of, _ in known)


def _title(run: PlannedRun) -> str:
    return run.name.removesuffix(f"-seed-{run.settings.seed}")


def _cells(seconds: float, unknown: int) -> tuple[str, str]:
    return f"{seconds / 3600:.1f}", str(unknown)


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the study, or says how far it is."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.study", description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path, help="folder for the runs, with a sub-folder for each plan")
    parser.add_argument("--plans", nargs="+", metavar="NAME", default=STUDY, choices=STUDY, help="these plans alone")
    parser.add_argument("--at-once", type=positive, metavar="NUMBER", help="runs at a time")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--list", action="store_true", help="say how far it is, and start nothing")
    what.add_argument("--pages", action="store_true", help="keep finished runs and write the pages, and start nothing")
    options = parser.parse_args(arguments)
    try:
        study = Study([PLANS / f"{name}.yaml" for name in options.plans], options.out, at_once=options.at_once)
        if options.list:
            print(study.listed())
            return 0
        if options.pages:
            study.write()
            return 0
        failed = study.carry_out()
    except KeyboardInterrupt:
        print("interrupted: all runs are stopped and their state is kept. The same command goes on", file=sys.stderr)
        return INTERRUPTED
    for name, reason in failed.items():
        print(f"{name}: {reason}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
