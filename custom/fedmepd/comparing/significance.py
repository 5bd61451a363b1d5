"""p of paired differences, and Holm's correction for several rivals."""

from __future__ import annotations

import numpy as np
from scipy import stats

# Up to so many sign flips, all are tried; with more seeds than that they are drawn.
_MOST_FLIPS = 100_000


def sign_flips(differences: np.ndarray) -> float:
    """Returns the two-sided p of differences that would be as likely with the other sign, exactly.

    Of all ways to flip the signs of S differences it is the share whose mean is at least as far from 0, so it cannot be
    below 2/2^S.

    Args:
        differences: (seeds,), 2 or more.
    """
    if not differences.any():
        return 1.0
    found = stats.permutation_test(
        (differences,),
        lambda flipped, axis: np.abs(flipped.mean(axis=axis)),
        permutation_type="samples",
        alternative="greater",
        n_resamples=_MOST_FLIPS,
        vectorized=True,
        rng=np.random.default_rng(0),
    )
    return float(found.pvalue)


def wilcoxon(differences: np.ndarray) -> float:
    """Returns the two-sided p of Wilcoxon's signed-rank test; 1 where all differences are 0.

    Args:
        differences: (cases,).
    """
    if not differences.any():
        return 1.0
    return float(stats.wilcoxon(differences).pvalue)


def holm(values: np.ndarray) -> np.ndarray:
    """Returns p after Holm's step-down correction.

    The smallest of n values is multiplied by n, the next one by n - 1, and so on; none becomes smaller than the one
    before it, and none larger than 1 (Holm, Scandinavian Journal of Statistics 1979).

    Args:
        values: p of every comparison; NaN where there is none, which does not count.
    """
    corrected = np.full_like(values, np.nan)
    order = [place for place in np.argsort(values) if not np.isnan(values[place])]
    largest = 0.0
    for left, place in zip(range(len(order), 0, -1), order, strict=True):
        largest = max(largest, min(1.0, left * values[place]))
        corrected[place] = largest
    return corrected
