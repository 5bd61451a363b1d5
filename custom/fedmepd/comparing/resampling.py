"""The bootstrap over test cases and seeds: what the scores of the same methods would be with other cases and seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

DRAWS = 10_000
# Draws at a time, so that memory does not grow with their number.
_BATCH = 500


def resample(
    values: Sequence[Sequence[np.ndarray]],
    summarise: Callable[[np.ndarray], np.ndarray],
    *,
    each_seed: bool,
    draws: int = DRAWS,
    seed: int = 0,
) -> np.ndarray:
    """Returns the mean over seeds of every column in every draw.

    A draw takes as many cases of every owner as there are, with replacement, and as many seeds. Everything that is
    resampled in one call is resampled alike: differences between two of its rows are paired. The owners are fixed.

    Args:
        values: of every owner (outer) and seed (inner), (rows, cases).
        summarise: turns the owners' means (..., owners) into columns (..., columns) before seeds are averaged.
        each_seed: whether every seed has cases of its own. Otherwise all seeds have the same cases, and a draw takes
            the same ones of them for all seeds.
        draws: how many.
        seed: of the random numbers.

    Returns:
        (draws, rows, columns).
    """
    random = np.random.default_rng(seed)
    seeds = len(values[0])
    parts = []
    for start in range(0, draws, _BATCH):
        count = min(_BATCH, draws - start)
        means = np.stack([_means(random, of_owner, count, each_seed) for of_owner in values], axis=-1)
        chosen = _times_drawn(random, seeds, count)
        parts.append(np.einsum("dsrc,ds->drc", summarise(means), chosen))
    return np.concatenate(parts)


def _means(random: np.random.Generator, of_seeds: Sequence[np.ndarray], count: int, each_seed: bool) -> np.ndarray:
    """Means over drawn cases, (draws, seeds, rows)."""
    chosen = None
    means = []
    for of_seed in of_seeds:
        if chosen is None or each_seed:
            chosen = _times_drawn(random, of_seed.shape[1], count)
        means.append(chosen @ of_seed.T)
    return np.stack(means, axis=1)


def _times_drawn(random: np.random.Generator, items: int, count: int) -> np.ndarray:
    """How often each of some items is drawn, as a share of all, (draws, items)."""
    return random.multinomial(items, np.full(items, 1 / items), size=count) / items
