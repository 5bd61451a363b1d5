"""A plan, carried out: what is checked before, what is run, what is said of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from fedmepd.data.federation_folder import look_into
from fedmepd.data.same_patients import check_sites
from fedmepd.doctor.computer import Computer
from fedmepd.errors import FedMEPDError
from fedmepd.experiments.plan import Plan, PlannedRun, runs_of, runs_of_all
from fedmepd.experiments.pool import Ended, run_all
from fedmepd.experiments.run_folder import RunFolder
from fedmepd.experiments.tuning import choose, trials_of
from fedmepd.site_settings import SiteSettings
from fedmepd.storage import locked, read_json, write_json
from fedmepd.tasks.find import find_task
from fedmepd.training.memory_needs import memory_need, weights

TUNING = "tuning.json"

# Of the memory that is free when the runs begin.
_SHARE_OF_MEMORY = 0.9

# Called with a line of text.
Say = Callable[[str], None]
# Called with what is being done, the rounds that are done, and all rounds.
Progress = Callable[[str, int, int], None]


@dataclass
class Outcome:
    """What became of a plan.

    Attributes:
        runs: the folders of all runs that are reported, in order.
        failed: why runs have failed, by name; of trials too.
    """

    runs: list[RunFolder] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


class Conductor:
    """Carries out a plan in a folder, or what is left of it.

    Args:
        plan: what to run.
        out: a sub-folder for each run; the trials of a tuning are in ``<out>_tuning``.
        machine: this one.
        at_once: how many runs at a time; None: as cores and memory allow.
        say: takes lines about the progress.
        progress: takes the numbers for a progress bar.
        run: does runs, see :func:`fedmepd.experiments.pool.run_all`.
    """

    def __init__(
        self,
        plan: Plan,
        out: Path,
        machine: SiteSettings,
        *,
        at_once: int | None = None,
        say: Say = lambda line: None,
        progress: Progress = lambda what, done, total: None,
        run: Callable[..., Iterator[Ended]] = run_all,
    ):
        self.plan, self.machine = plan, machine
        self.out = Path(out)
        # The folder may be named by a dot.
        place = Path(os.path.abspath(out))
        self._tuning = place.with_name(f"{place.name}_tuning")
        self._at_once = at_once
        self._say, self._progress, self._run = say, progress, run

    def planned(self) -> list[PlannedRun]:
        """Returns all runs of the plan without tuning.

        Raises:
            SettingsError: a method, a setting or a site is unknown, or a value is out of bounds.
        """
        return runs_of_all(self.plan.choices(), partial(runs_of, self.plan, seeds=self.plan.seeds))

    def carry_out(self, tune: bool = False) -> Outcome:
        """Does everything that is not done yet.

        Args:
            tune: choose the settings of every method first.

        Raises:
            FedMEPDError: something is refused before any run begins: settings, a changed plan, a folder that another
                process works on.
        """
        outcome = Outcome()
        planned = self.planned()
        trials = trials_of(self.plan) if tune else []
        with self._reserved(tune):
            if tune:
                self._refuse_untuned()
                self._do([run for trial in trials for run in trial.runs], self._tuning, "trials", outcome)
                chosen = self._with_earlier(choose(trials, self._tuning))
                write_json(self._tuning / TUNING, chosen)
                planned = []
                for choice in self.plan.choices():
                    of = chosen[choice.name]
                    self._say(f"{choice.name}: chosen of {of['trials']}: {of['chosen'] or 'its own settings'}")
                    planned += runs_of(self.plan, choice, self.plan.seeds, of["chosen"], of["trials"])
            outcome.runs = self._do(planned, self.out, "runs", outcome)
        return outcome

    def _refuse_untuned(self) -> None:
        """Runs that were begun without trials are refused before any trial begins."""
        for choice in self.plan.choices():
            for run in runs_of(self.plan, choice, self.plan.seeds, trials=1 + len(choice.candidates)):
                folder = RunFolder(self.out / run.name)
                if any(change.startswith("trials was") for change in folder.changes(run)):
                    raise FedMEPDError(
                        f"{folder.path} was begun with another number of trials: name another folder for this plan"
                    )

    def _with_earlier(self, chosen: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """An earlier choice among the same settings stays, although a failed trial may be finished by now.

        The runs that it decided may have begun.
        """
        file = self._tuning / TUNING
        before = read_json(file, "the settings that were chosen") if file.is_file() else {}
        for name, of in chosen.items():
            if name in before and _tried(before[name]) == _tried(of):
                of["chosen"] = before[name]["chosen"]
        return chosen

    @contextmanager
    def _reserved(self, tune: bool) -> Iterator[None]:
        with ExitStack() as locks:
            for folder in (self.out, self._tuning)[: 1 + tune]:
                locks.enter_context(
                    locked(folder / ".lock", f"{folder} is in use: `fedmepd compare run` works there already")
                )
            yield

    def _do(self, runs: Sequence[PlannedRun], out: Path, what: str, outcome: Outcome) -> list[RunFolder]:
        folders = {run.name: RunFolder(out / run.name) for run in runs}
        self._refuse_changes(runs, folders)
        for run in runs:
            folders[run.name].begin(run)
        # One seed after the other: while runs go on, those of the first seeds can be compared already.
        seeds = list(dict.fromkeys(run.settings.seed for run in runs))
        in_order = sorted(runs, key=lambda run: seeds.index(run.settings.seed))
        left = [run for run in in_order if not folders[run.name].is_finished()]
        if left:
            at_once = self._at_once or how_many(left, self.plan.threads, self.machine)
            self._say(f"{what}: {len(runs) - len(left)} of {len(runs)} are finished; {at_once} at a time")
            left = self._prepare(left, folders, at_once, outcome)
            self._train(left, folders, at_once, what, outcome)
        return list(folders.values())

    def _refuse_changes(self, runs: Sequence[PlannedRun], folders: dict[str, RunFolder]) -> None:
        """What is there stays: a plan that has changed is refused before anything begins."""
        for run in runs:
            changes = folders[run.name].changes(run)
            if changes:
                raise FedMEPDError(
                    f"the plan has changed since {folders[run.name].path} was begun: {'; '.join(changes)}. Name "
                    "another folder for the changed plan, or change it back. Methods, variations and seeds may be added"
                )

    def _prepare(
        self, runs: list[PlannedRun], folders: dict[str, RunFolder], at_once: int, outcome: Outcome
    ) -> list[PlannedRun]:
        """Prepares every cohort once; returns the runs whose cases are there."""
        cohorts = {}
        for run in runs:
            if folders[run.name].results_file() is None:
                cohorts.setdefault(run.cohort(), run)
        for folder, sites, task in {(run.data, run.sites, run.settings.task) for run in cohorts.values() if run.data}:
            beside = "" if isinstance(self.plan.sites, list) else look_into(find_task(task), folder).without_images()
            for text in [*([beside] if beside else []), *check_sites(find_task(task), folder, sites)]:
                self._say(f"warning: {text}")
        self._progress("preparing cases", 0, len(cohorts))
        preparing = [folders[run.name] for run in cohorts.values()]
        without = set()
        pool = self._run(preparing, at_once=at_once, threads=self.plan.threads, options=("--prepare",))
        # Whatever happens meanwhile, the processes end with the pool.
        with closing(pool):
            for number, one in enumerate(pool, 1):
                self._progress("preparing cases", number, len(cohorts))
                if one.reason is None:
                    continue
                cohort = next(run.cohort() for run in runs if run.name == one.folder.path.name)
                without.add(cohort)
                outcome.failed |= {run.name: one.reason for run in runs if run.cohort() == cohort}
                self._say(f"cases of {one.folder.path.name} cannot be prepared: {one.reason}")
        return [run for run in runs if run.cohort() not in without]

    def _train(
        self, runs: list[PlannedRun], folders: dict[str, RunFolder], at_once: int, what: str, outcome: Outcome
    ) -> None:
        rounds = _Rounds({run.name: run.settings.rounds for run in runs}, folders)
        total = rounds.total

        def look() -> None:
            self._progress(what, rounds.done(), total)

        look()
        pool = self._run([folders[run.name] for run in runs], at_once=at_once, threads=self.plan.threads, look=look)
        with closing(pool):
            for number, one in enumerate(pool, 1):
                name = one.folder.path.name
                if one.reason is not None:
                    outcome.failed[name] = one.reason
                    rounds.give_up(name)
                said = "finished" if one.reason is None else f"failed: {one.reason}"
                self._say(f"{name}: {said} ({one.seconds / 60:.1f} min; {number} of {len(runs)})")
        look()


def _tried(of: dict[str, Any]) -> list[Any]:
    return [one["settings"] for one in of["scores"]]


class _Rounds:
    """Counts the rounds of runs by their results; the final test counts as another one."""

    def __init__(self, rounds: dict[str, int], folders: dict[str, RunFolder]):
        self._rounds, self._folders = rounds, folders
        self._seen: dict[str, tuple[int, int]] = {}
        self._given_up: set[str] = set()
        self.total = sum(number + 1 for number in rounds.values())

    def give_up(self, name: str) -> None:
        """Counts a run that has failed as done."""
        self._given_up.add(name)

    def done(self) -> int:
        """Returns how many rounds are done."""
        return sum(self._done(name) for name in self._rounds)

    def _done(self, name: str) -> int:
        if name in self._given_up:
            return self._rounds[name] + 1
        file = self._folders[name].results_file()
        if file is None:
            return 0
        written = file.stat().st_mtime_ns
        if self._seen.get(name, (0, 0))[0] != written:
            results = self._folders[name].results()
            self._seen[name] = written, max(0, results["round"]) + (results["status"] == "finished")
        return self._seen[name][1]


def how_many(runs: Sequence[PlannedRun], threads: int, machine: SiteSettings) -> int:
    """Returns how many runs fit into this machine at a time: by its cores, and by the memory that is free.

    The simulator, and a GPU, are for one run at a time: both use all that there is.
    """
    if any(run.engine == "simulator" for run in runs) or machine.torch_device().type != "cpu":
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # A network is built to know its size: once for all runs of one.
    alike = {(run.settings.network, run.settings.training.crop, run.settings.training.batch): run for run in runs}
    need = max(_memory(run) for run in alike.values())
    fits = int(Computer().memory()[1] * _SHARE_OF_MEMORY // need)
    return max(1, min(cores // threads, fits, len(runs)))


def _memory(run: PlannedRun) -> int:
    """An upper bound in bytes: one site trains at a time, but the networks and optimizers of all are kept."""
    modalities = find_task(run.settings.task).modalities
    return memory_need(run.settings, modalities) + len(run.sites) * 4 * weights(run.settings, modalities)
