"""What releases with Gaussian noise reveal together, as `dp-accounting` adds it up.

Privacy loss distributions give the exact epsilon up to a grid that rounds to the safe side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from fedmepd.config import LEAST_NOISE

# Of the grid of privacy losses. A finer one changes the fourth digit and takes ten times as long. To choose the noise,
# a coarser one does: it is on the safe side too, and costs a few thousandths of the budget.
_INTERVAL, _COARSE = 1e-3, 1e-2
# Beyond them, no epsilon that means anything is left to be found.
MOST_NOISE = 1e4
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Release:
    """Sums over patients with noise, all of one kind.

    Attributes:
        noise: standard deviation of the noise, in units of the most that one patient can add (its clipping norm).
        rate: with which probability a patient is in a sum, each by itself; 1: all are.
        times: how many such sums.
    """

    noise: float
    rate: float
    times: int


def epsilon(releases: Sequence[Release], delta: float) -> float:
    """Returns the epsilon of all releases together; 0 without any.

    Args:
        releases: in any order; each may depend on the results of those before.
        delta: of the guarantee.
    """
    times: dict[tuple[float, float], int] = {}
    for release in releases:
        if release.times:
            kind = (release.noise, release.rate)
            times[kind] = times.get(kind, 0) + release.times
    return _epsilon(tuple(sorted((*kind, count) for kind, count in times.items())), delta)


@cache
def _epsilon(kinds: tuple[tuple[float, float, int], ...], delta: float) -> float:
    if not kinds:
        return 0.0
    return _composed([Release(*kind) for kind in kinds], delta, _INTERVAL)


def _composed(releases: Sequence[Release], delta: float, interval: float) -> float:
    accountant = _accountant(interval)
    accountant.compose(_event(releases))
    return float(accountant.get_epsilon(delta))


def _accountant(interval: float) -> Any:
    # It imports scipy.stats, which takes a second that a job without privacy need not wait.
    from dp_accounting import NeighboringRelation
    from dp_accounting.pld import PLDAccountant

    # Zero-out neighbours have the same losses: a patient's share of a sum is there, or is zero.
    return PLDAccountant(NeighboringRelation.ADD_OR_REMOVE_ONE, interval)


def _event(releases: Sequence[Release]) -> Any:
    import dp_accounting as dp

    events = []
    for release in releases:
        if not release.times:
            continue
        event: Any = dp.GaussianDpEvent(release.noise)
        if release.rate < 1:
            event = dp.PoissonSampledDpEvent(release.rate, event)
        events.append(dp.SelfComposedDpEvent(event, release.times))
    return dp.ComposedDpEvent(events)


def least_noise(planned: Callable[[float], Sequence[Release]], target: float, delta: float) -> float | None:
    """Returns the least noise with which planned releases stay within a budget; None if no noise is enough.

    Args:
        planned: the releases by their noise; it may contain others, whose noise is given.
        target: the epsilon that they may reveal together.
        delta: of the guarantee.
    """
    import dp_accounting as dp

    def is_enough(noise: float) -> bool:
        return _composed(planned(noise), delta, _COARSE) <= target

    # The less the noise, the longer the calculation: from above, and no further down than needed.
    low = high = 1.0
    while not is_enough(high):
        low, high = high, 4 * high
        if high > MOST_NOISE:
            return None
    while low == high or is_enough(low):
        if low == LEAST_NOISE:
            return low
        high, low = low, max(LEAST_NOISE, low / 1.5)
    return float(
        dp.calibrate_dp_mechanism(
            lambda: _accountant(_COARSE),
            lambda noise: _event(planned(noise)),
            target,
            delta,
            dp.ExplicitBracketInterval(low, high),
            tol=_TOLERANCE,
        )
    )
