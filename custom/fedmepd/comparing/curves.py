"""Validation scores against what was spent: steps and bytes of all participants together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedmepd.comparing.run import RunFile
from fedmepd.comparing.scores import FUSION

BUDGETS = ("steps", "bytes")


@dataclass(frozen=True)
class Curve:
    """A method's mean validation score over the sites, by validation.

    Args:
        rounds: of the validations that every seed has, (points,).
        spent: what all participants together had spent by then, mean over the seeds, by budget, (points,).
        mean: over the seeds, (points,).
        sd: over the seeds, (points,); NaN with a single one.
    """

    rounds: np.ndarray
    spent: dict[str, np.ndarray]
    mean: np.ndarray
    sd: np.ndarray


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
    sd = points[..., 0].std(axis=0, ddof=1) if len(runs) > 1 else np.full(len(rounds), np.nan)
    means = points.mean(axis=0)
    spent = {name: means[:, place] for place, name in enumerate(BUDGETS, 1)}
    return Curve(np.array(rounds), spent, means[:, 0], sd)


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
    """Returns the largest budget that every method with a curve has spent; 0 where there is none."""
    ends = [curve.spent[name][-1] for curve in curves if curve is not None and curve.spent[name][-1] > 0]
    return float(min(ends, default=0.0))
