"""The sentence about a rival, chosen by rule, so that it never says more than the interval allows."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fedmepd.comparing.design import LEAST_SEEDS
from fedmepd.text_table import counted


@dataclass(frozen=True)
class Difference:
    """The reference's score minus the rival's.

    Args:
        mean: over the seeds.
        low, high: ends of the 95 % interval; NaN where there is none.
    """

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Sides:
    """The reference and a rival.

    Args:
        reference, rival: names of the methods.
        reference_trials, rival_trials: how many configurations of each were tried before the compared one.
        seeds: how many both have.
    """

    reference: str
    rival: str
    reference_trials: int
    rival_trials: int
    seeds: int


def sentence(sides: Sides, sites: Difference, fusion: Difference | None) -> str:
    """Returns what may be said about a rival.

    "better" or "worse" need an interval without 0, at least three seeds, and a winner that was not tried in more
    configurations than the loser.

    Args:
        sides: who is compared.
        sites: difference of the mean of the sites.
        fusion: difference at the fusion site; None where it is not tested.
    """
    at_sites = f"at the sites {_clause(sides, sites)}"
    at_fusion = "" if fusion is None else f"; at the fusion site {_clause(sides, fusion)}"
    return f"{sides.reference} against {sides.rival}: {at_sites}{at_fusion} ({counted(sides.seeds, 'seed')})."


def verdict(sides: Sides, difference: Difference) -> str:
    """Returns ``better``, ``worse`` or ``not shown``: what the reference may be called."""
    if math.isnan(difference.low) or difference.low <= 0 <= difference.high or sides.seeds < LEAST_SEEDS:
        return "not shown"
    if difference.low > 0:
        return "better" if sides.reference_trials <= sides.rival_trials else "not shown"
    return "worse" if sides.rival_trials <= sides.reference_trials else "not shown"


def _clause(sides: Sides, difference: Difference) -> str:
    found = verdict(sides, difference)
    if math.isnan(difference.low):
        return f"not shown to differ: difference {difference.mean:+.3f}, no interval"
    interval = f"[{difference.low:+.3f}, {difference.high:+.3f}]"
    if found != "not shown":
        return f"{found} by {abs(difference.mean):.3f} {_turned(difference)}"
    return f"not shown to differ: difference {difference.mean:+.3f} {interval}{_why_no_claim(sides, difference)}"


def _turned(difference: Difference) -> str:
    """The interval of the absolute difference."""
    ends = sorted((abs(difference.low), abs(difference.high)))
    return f"[{ends[0]:.3f}, {ends[1]:.3f}]"


def _why_no_claim(sides: Sides, difference: Difference) -> str:
    """Why an interval without 0 is not enough."""
    if difference.low <= 0 <= difference.high:
        return ""
    if sides.seeds < LEAST_SEEDS:
        return f", and {counted(sides.seeds, 'seed')} {'is' if sides.seeds == 1 else 'are'} too few for a claim"
    counts = sides.reference_trials, sides.rival_trials
    more, fewer = (sides.reference, sides.rival) if counts[0] > counts[1] else (sides.rival, sides.reference)
    return f", and {more} was tried in {max(counts)} configurations, {fewer} in {min(counts)}"
