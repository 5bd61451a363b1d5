"""The formulas of a comparison in slow, obvious code: loops over cases, seeds, sites and draws."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from statistics import fmean, stdev

# Quantile 0.975 of Student's t, from printed tables, by degrees of freedom.
T_975 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 9: 2.262}


def t_interval(values: Sequence[float], overlap: float = 0.0) -> tuple[float, float]:
    half = T_975[len(values) - 1] * stdev(values) * math.sqrt(1 / len(values) + overlap)
    return fmean(values) - half, fmean(values) + half


def sign_flips(differences: Sequence[Fraction | int]) -> float:
    """Exact for fractions: no rounding can part equal sums."""
    observed = abs(sum(differences))
    flipped = [
        abs(sum(sign * value for sign, value in zip(signs, differences, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(differences))
    ]
    return sum(value >= observed for value in flipped) / len(flipped)


def wilcoxon(differences: Sequence[float]) -> float:
    """Exact, of differences without ties and zeros: all ways to give signs to the ranks."""
    order = sorted(differences, key=abs)
    observed = sum(rank for rank, value in enumerate(order, 1) if value > 0)
    ranks = range(1, len(order) + 1)
    sums = [sum(itertools.compress(ranks, chosen)) for chosen in itertools.product((0, 1), repeat=len(order))]
    below = sum(value <= observed for value in sums) / len(sums)
    above = sum(value >= observed for value in sums) / len(sums)
    return min(1.0, 2 * min(below, above))


def holm(values: Sequence[float]) -> list[float]:
    """For each p the largest of what it and all smaller ones become."""
    count = len(values)
    multiplied = {place: (count - sum(other < values[place] for other in values)) for place in range(count)}
    # Of equal ones the first has the larger factor, and both become the larger result.
    return [
        max(min(1.0, multiplied[other] * values[other]) for other in range(count) if values[other] <= values[place])
        for place in range(count)
    ]


def ranks(dice: Sequence[Sequence[Sequence[float]]], hd95: Sequence[Sequence[Sequence[float]]]) -> list[list[float]]:
    """Mean rank by method and case, of scores by method, case and region."""
    methods, cases, regions = len(dice), len(dice[0]), len(dice[0][0])
    found = []
    for method in range(methods):
        of_method = []
        for case in range(cases):
            of_case = []
            for region in range(regions):
                mine, others = dice[method][case][region], [dice[other][case][region] for other in range(methods)]
                of_case.append(1 + sum(other > mine for other in others))
                mine, others = hd95[method][case][region], [hd95[other][case][region] for other in range(methods)]
                of_case.append(1 + sum(other < mine for other in others))
            of_method.append(fmean(of_case))
        found.append(of_method)
    return found


def area(spent: Sequence[float], scores: Sequence[float], budget: float, pieces: int = 100_000) -> float:
    """The best score so far at the middle of many small pieces of the budget, averaged."""
    total = 0.0
    for piece in range(pieces):
        here = (piece + 0.5) * budget / pieces
        total += max((score for at, score in zip(spent, scores, strict=True) if at <= here), default=0.0)
    return total / pieces


def redraw(
    values: Sequence[Sequence[Sequence[Sequence[float]]]],
    cases: Sequence[Sequence[Sequence[int]]],
    seeds: Sequence[int],
    summarise: Callable[[list[float]], list[float]],
) -> list[list[float]]:
    """One draw of the bootstrap, by row and column.

    Args:
        values: by owner, seed, row and case.
        cases: numbers of the drawn cases, by owner and seed.
        seeds: numbers of the drawn seeds.
        summarise: turns the owners' means into columns.
    """
    rows = []
    for row in range(len(values[0][0])):
        of_seeds = []
        for seed in seeds:
            owners = [
                fmean(values[owner][seed][row][case] for case in cases[owner][seed]) for owner in range(len(values))
            ]
            of_seeds.append(summarise(owners))
        rows.append([fmean(column) for column in zip(*of_seeds, strict=True)])
    return rows
