"""The choice of a configuration: the best mean over the sites of their best validation, over the trials' seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from fedmepd.errors import FedMEPDError
from fedmepd.evaluation.results import HISTORY
from fedmepd.experiments.plan import Choice, Overrides, Plan, PlannedRun, runs_of, runs_of_all
from fedmepd.experiments.run_folder import RunFolder
from fedmepd.storage import read_json

_FUSION_SITE = "server"


@dataclass(frozen=True)
class Trial:
    """A configuration that is tried.

    Attributes:
        choice: that it belongs to.
        more: settings that differ from the choice's; none for the first trial.
        runs: one per seed.
    """

    choice: Choice
    more: Overrides
    runs: tuple[PlannedRun, ...]


def trials_of(plan: Plan) -> list[Trial]:
    """Returns all trials of a plan: of every method its settings as they are, and with each of its candidates.

    Raises:
        FedMEPDError: the plan does not say how to tune, or not the same number of trials for every method.
    """
    if plan.tune is None:
        raise FedMEPDError("the plan has no section tune: expected seeds and candidates, see docs/compare.md")
    counts = {choice.name: 1 + len(choice.candidates) for choice in plan.choices()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise FedMEPDError(f"every method needs the same number of trials, its own settings included: {listed}")
    if set(counts.values()) == {1}:
        raise FedMEPDError("the plan has no candidates to choose from: set tune.candidates, or tune of every method")
    found = []
    for choice in plan.choices():
        for number, more in enumerate(({}, *choice.candidates), 1):
            named = Choice(f"{choice.name}-trial-{number}", choice.method, choice.settings)
            runs = runs_of_all([named], partial(runs_of, plan, seeds=plan.tune.seeds, more=more))
            found.append(Trial(choice, more, tuple(runs)))
    return found


def choose(trials: Sequence[Trial], folder: Path) -> dict[str, dict[str, Any]]:
    """Returns what was chosen for every method, and why.

    Args:
        trials: that are done.
        folder: with a sub-folder for every run.

    Returns:
        by name: ``chosen`` (settings that differ from the method's own), ``trials`` (their number), and ``scores``, for
        each trial its ``settings`` and its ``mdsc`` on validation, None if a run of it has failed. Of equal ones the
        first is chosen.

    Raises:
        FedMEPDError: all trials of a method have failed.
    """
    scores: dict[str, list[dict[str, Any]]] = {}
    for trial in trials:
        of_seeds = [validation(folder / run.name) for run in trial.runs]
        mean = None if None in of_seeds else fmean(of_seeds)
        scores.setdefault(trial.choice.name, []).append({"settings": trial.more, "mdsc": mean})
    chosen = {}
    for name, tried in scores.items():
        usable = [one for one in tried if one["mdsc"] is not None]
        if not usable:
            raise FedMEPDError(f"{name}: no trial is finished with validation scores: the logs in {folder} say more")
        best = max(usable, key=lambda one: one["mdsc"])
        chosen[name] = {"chosen": best["settings"], "trials": len(tried), "scores": tried}
    return chosen


def validation(run: Path) -> float | None:
    """Returns the mean over a run's sites of their best validation mDSC; None if there is none, or no finished run.

    The best, because it is the best model on validation that is tested.
    """
    if not RunFolder(run).is_finished():
        return None
    histories = read_json(run / HISTORY, "the curves of a run")
    best = [
        max(entry["mdsc"] for entry in history["validation"])
        for name, history in histories.items()
        if name != _FUSION_SITE and history["validation"]
    ]
    return fmean(best) if best else None
