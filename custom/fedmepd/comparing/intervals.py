"""Means with their spread and 95 % interval: over seeds by Student's t, over cases and seeds by the bootstrap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from fedmepd.comparing.design import Design

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """Means over seeds with their uncertainty; arrays of one shape.

    Args:
        mean: over the seeds.
        sd: standard deviation over the seeds; NaN with a single one.
        low, high: ends of the 95 % interval; NaN where there is none.
    """

    mean: np.ndarray
    sd: np.ndarray
    low: np.ndarray
    high: np.ndarray


def estimate(
    design: Design, per_seed: np.ndarray, replicates: np.ndarray | None, overlap: np.ndarray | float = 0.0
) -> Estimate:
    """Returns means over seeds with the interval that the design allows.

    Args:
        design: of the comparison.
        per_seed: scores, or differences of two methods, (..., seeds).
        replicates: the same mean over seeds in every draw of the bootstrap, (draws, ...); None without cases.
        overlap: test cases for each training case, for repeated splits; broadcast to (...).
    """
    mean, sd = mean_and_sd(per_seed)
    if design.interval == "bootstrap":
        low, high = np.quantile(replicates, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    elif design.interval:
        low, high = t_interval(per_seed, overlap if design.interval == "corrected t" else 0.0)
    else:
        low = high = np.full_like(mean, np.nan)
    return Estimate(mean, sd, low, high)


def mean_and_sd(per_seed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and standard deviation over the seeds, the last axis; NaN for that of a single one."""
    mean = per_seed.mean(axis=-1)
    return mean, per_seed.std(axis=-1, ddof=1) if per_seed.shape[-1] > 1 else np.full_like(mean, np.nan)


def t_interval(per_seed: np.ndarray, overlap: np.ndarray | float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Returns the ends of Student's interval of a mean over S seeds.

    Args:
        per_seed: (..., S) with S of 2 or more.
        overlap: test cases for each training case. With repeated splits of the same cases the variance of the mean is
            (1/S + overlap) s^2 instead of s^2/S (Nadeau and Bengio, Machine Learning 2003); 0: independent seeds.
    """
    count = per_seed.shape[-1]
    half = stats.t.ppf((1 + LEVEL) / 2, count - 1) * _error(per_seed, overlap)
    return per_seed.mean(axis=-1) - half, per_seed.mean(axis=-1) + half


def t_test(per_seed: np.ndarray, overlap: np.ndarray | float = 0.0) -> np.ndarray:
    """Returns the two-sided p of a mean of 0, as :func:`t_interval`; NaN where all seeds have the same value."""
    error = _error(per_seed, overlap)
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = np.abs(per_seed.mean(axis=-1)) / error
    return np.where(error > 0, 2 * stats.t.sf(statistic, per_seed.shape[-1] - 1), np.nan)


def _error(per_seed: np.ndarray, overlap: np.ndarray | float) -> np.ndarray:
    return per_seed.std(axis=-1, ddof=1) * np.sqrt(1 / per_seed.shape[-1] + overlap)
