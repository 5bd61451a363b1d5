"""Validation scores against what was spent: steps and bytes of all participants together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedmepd.comparing.run import RunFile
from fedmepd.comparing.scores import FUSION

BUDGETS = ("steps", "bytes")
_SPENDS_NOTHING = {"steps": "it takes no steps", "bytes": "it sends nothing"}


@dataclass(frozen=True)
class Curve:
    """A method's mean validation score over the sites, by seed and validation.

    Args:
        rounds: of the validations that every seed has, (points,).
        spent: what all participants together had spent by then, by budget, (seeds, points).
        scores: (seeds, points).
    """

    rounds: np.ndarray
    spent: dict[str, np.ndarray]
    scores: np.ndarray

    def areas(self, budget: str, up_to: float) -> np.ndarray | None:
        """Returns the :func:`area` of every seed; None where :meth:`why_no_area` says why."""
        if self.why_no_area(budget, up_to):
            return None
        return np.array([area(*of_seed, up_to) for of_seed in zip(self.spent[budget], self.scores, strict=True)])

    def why_no_area(self, budget: str, up_to: float) -> str | None:
        """Returns why a seed has no score over a budget; None if all have one."""
        if not (self.spent[budget][:, -1] > 0).all():
            return _SPENDS_NOTHING[budget]
        if not (self.spent[budget][:, 0] < up_to).all():
            return "the budget is spent before, or at, its first validation"
        return None


def curve(runs: Sequence[RunFile]) -> Curve | None:
    """Returns the curve of a method's runs; None where they do not say enough.

    Args:
        runs: one a seed.
    """
    found = [_of_run(run) for run in runs]
    if any(not of_run for of_run in found):
        return None
    rounds = sorted(set.intersection(*map(set, found)))
    if not rounds:
        return None
    # (seeds, points, score and budgets)
    points = np.array([[of_run[number] for number in rounds] for of_run in found])
    spent = {name: points[..., place] for place, name in enumerate(BUDGETS, 1)}
    return Curve(np.array(rounds), spent, points[..., 0])


def _of_run(file: RunFile) -> dict[int, tuple[float, float, float]]:
    """By round with a validation: the sites' mean score, and steps and bytes up to then. Empty without steps."""
    sites = [file.curves[entry.name] for entry in file.run.sites if entry.name in file.curves]
    everybody = [*sites, *([file.curves[FUSION]] if FUSION in file.curves else [])]
    rounds = [each for of_one in everybody for each in of_one.rounds]
    if any(each.steps is None for each in rounds):
        return {}
    scores: dict[int, list[float]] = {}
    for of_site in sites:
        for validation in of_site.validation:
            scores.setdefault(validation.round, []).append(validation.mdsc)
    validating = sum(bool(of_site.validation) for of_site in sites)
    return {
        number: (
            float(np.mean(of_round)),
            float(sum(each.steps for each in rounds if each.round <= number)),
            float(sum(each.bytes_up + each.bytes_down for each in rounds if each.round <= number)),
        )
        for number, of_round in scores.items()
        # A round that a site has missed would be a mean over other sites.
        if len(of_round) == validating
    }


def area(spent: np.ndarray, score: np.ndarray, budget: float) -> float:
    """Returns the mean, over a budget, of the best score so far: the convergence score of the FeTS challenge.

    Before the first validation the best score is 0. It jumps at each better validation.

    Args:
        spent: at every validation, in rising order, (points,).
        score: (points,).
        budget: up to which the area is taken, above 0.
    """
    within = spent <= budget
    best = np.maximum.accumulate(score[within])
    widths = np.diff(np.append(spent[within], budget))
    return float((best * widths).sum() / budget)


def common_budget(curves: Sequence[Curve | None], name: str) -> float:
    """Returns the largest budget that every run with a curve has spent; 0 where there is none."""
    ends = [end for curve in curves if curve is not None for end in curve.spent[name][:, -1] if end > 0]
    return float(min(ends, default=0.0))
