"""The command ``fedmepd compare run``."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedmepd.cli.terminal import INTERRUPTED, positive, progress_lines, require_absent
from fedmepd.text_table import counted

if TYPE_CHECKING:
    from fedmepd.experiments.conduct import Conductor, Outcome

# Exit status if a run has failed.
FAILED = 1

# Without a terminal, from one line about the progress to the next.
_EVERY_SECONDS = 300.0
# Changed settings that a row of the list names.
_MOST_CHANGES = 3


def add_compare_run_command(compare: argparse._SubParsersAction) -> None:
    """Adds it to the parser of ``fedmepd compare``."""
    run = compare.add_parser(
        "run",
        help="run methods with several seeds on this machine, as a plan says",
        description="Runs every method of a plan with every seed on this machine, several at a time. Started again "
        "with the same plan and folder, it goes on where it was stopped. Results that are there are never overwritten. "
        "Exit status 1: a run failed.",
    )
    run.add_argument("plan", type=Path, help="a YAML file, such as benchmarks/plans/first.yaml")
    run.add_argument("out", type=Path, help="folder for the results, with a sub-folder for each run")
    run.add_argument(
        "--tune",
        action="store_true",
        help="first try several settings for each method on other seeds, the same number for each, and run the best on "
        "validation; the plan says which",
    )
    run.add_argument(
        "--at-once", type=positive, metavar="NUMBER", help="runs at a time; default: as cores and memory allow"
    )
    run.add_argument(
        "--list",
        action="store_true",
        help="print the runs and how far each is, and start nothing; not together with --tune, --at-once",
    )
    run.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from fedmepd.experiments.conduct import Conductor
    from fedmepd.experiments.plan import read_plan
    from fedmepd.site_settings import SiteSettings

    if options.list:
        require_absent(options, ("tune", "at_once"), "--list starts nothing: leave one of the two out")
    machine = SiteSettings.load()
    plan = read_plan(options.plan, machine.data)
    with _Bar() as bar:
        conductor = Conductor(plan, options.out, machine, at_once=options.at_once, say=bar.say, progress=bar.show)
        if options.list:
            return _list(conductor, options.out)
        try:
            outcome = conductor.carry_out(options.tune)
        except KeyboardInterrupt:
            bar.close()
            tune = " --tune" if options.tune else ""
            again = f"fedmepd compare run {shlex.quote(str(options.plan))} {shlex.quote(str(options.out))}{tune}"
            print(f"interrupted: all runs are stopped and their state is kept. To go on: {again}", file=sys.stderr)
            return INTERRUPTED
    return _show(outcome, options.out)


def _list(conductor: Conductor, out: Path) -> int:
    from fedmepd.evaluation.tables import status_in_words
    from fedmepd.experiments.run_folder import RunFolder
    from fedmepd.text_table import table

    rows = []
    for run in conductor.planned():
        folder = RunFolder(out / run.name)
        results, failure = folder.results(), folder.failure()
        state = status_in_words(results) if results else "begun" if folder.has_begun() else "not begun"
        changes = folder.changes(run)
        said = f"{failure or state}{f'; the plan has changed: {_shortened(changes)}' if changes else ''}"
        rows.append([run.name, f"{max(0, results['round']) if results else 0}/{run.settings.rounds}", said])
    print("\n".join(table(["run", "rounds", "state"], rows)))
    return 0


def _shortened(changes: list[str]) -> str:
    more = len(changes) - _MOST_CHANGES
    return "; ".join([*changes[:_MOST_CHANGES], *([f"{more} more"] if more > 0 else [])])


def _show(outcome: Outcome, out: Path) -> int:
    from fedmepd.experiments.costs import cost_table

    finished = [results for folder in outcome.runs if (results := folder.results()) and results["status"] == "finished"]
    if finished:
        print("\n".join(["", "Medians of each method's runs:", "", *cost_table(finished), ""]))
    if outcome.failed:
        print(f"{len(outcome.failed)} failed; the same command tries them again:", file=sys.stderr)
        for name, reason in outcome.failed.items():
            print(f"  {name}: {reason}", file=sys.stderr)
    print(f"{len(finished)} of {counted(len(outcome.runs), 'run')} finished. The results are in {out}")
    if finished:
        print(f"To compare them: fedmepd compare show {shlex.quote(str(out))}{_against(finished)}")
    return FAILED if outcome.failed else 0


def _against(finished: list[dict[str, Any]]) -> str:
    """The option that names the reference, where the usual one is not among the methods."""
    names = list(dict.fromkeys(one["run_name"].removesuffix(f"-seed-{one['seed']}") for one in finished))
    return "" if len(names) == 1 or "fedmepd" in names else f" --against {shlex.quote(names[0])}"


class _Bar:
    """A progress bar over all rounds with the time left; lines above it. Without a terminal, a line now and then."""

    def __init__(self) -> None:
        self._bar, self._what = None, ""
        self._lines: Callable[[int, int], None] | None = None

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def show(self, what: str, done: int, total: int) -> None:
        from tqdm import tqdm

        if not sys.stderr.isatty():
            if what != self._what:
                self._what, self._lines = what, progress_lines(what, "round", _EVERY_SECONDS, done_before=done)
            self._lines(done, total)
            return
        if what != self._what:
            self.close()
            self._what = what
            # What was done before this start says nothing about the time that is left.
            # The time left is that of the average round, since methods take turns; the clock goes on between rounds.
            steady = {"smoothing": 0, "mininterval": 1.0, "miniters": 0}
            self._bar = tqdm(desc=what, total=total, initial=done, unit="round", leave=False, disable=None, **steady)
        self._bar.update(done - self._bar.n)

    def say(self, line: str) -> None:
        from tqdm import tqdm

        tqdm.write(line, file=sys.stdout)
        sys.stdout.flush()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
