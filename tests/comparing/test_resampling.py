from __future__ import annotations

import numpy as np
import pytest

from fedmepd.comparing.resampling import resample
from tests.comparing import slow


def summaries(owners: np.ndarray) -> np.ndarray:
    """The mean and the least of the owners."""
    return np.stack([owners.mean(axis=-1), owners.min(axis=-1)], axis=-1)


def values(seeds: int, sizes: tuple[int, ...] = (4, 3), rows: int = 2) -> list[list[np.ndarray]]:
    random = np.random.default_rng(7)
    return [[random.uniform(size=(rows, size)) for _ in range(seeds)] for size in sizes]


@pytest.mark.parametrize("each_seed", [True, False])
def test_against_a_slow_one(each_seed: bool) -> None:
    """Quantiles and the covariance of rows and columns are those of a loop with other random numbers."""
    of = values(seeds=3)
    found = resample(of, summaries, each_seed=each_seed, draws=20_000)
    random = np.random.default_rng(1)
    expected = []
    for _ in range(4000):
        shared = [random.integers(0, len(owner[0][0]), len(owner[0][0])) for owner in of]
        drawn = [
            [random.integers(0, len(seed[0]), len(seed[0])) if each_seed else shared[place] for seed in owner]
            for place, owner in enumerate(of)
        ]
        chosen = random.integers(0, 3, 3)
        expected.append(slow.redraw(of, drawn, chosen, lambda owners: [sum(owners) / len(owners), min(owners)]))
    expected = np.array(expected)
    assert found.shape == (20_000, 2, 2)
    for quantile in (0.025, 0.5, 0.975):
        assert np.quantile(found, quantile, axis=0) == pytest.approx(np.quantile(expected, quantile, axis=0), abs=0.015)
    covariance = np.cov(expected.reshape(len(expected), -1).T)
    assert np.cov(found.reshape(len(found), -1).T) == pytest.approx(covariance, abs=0.1 * covariance.max())


def test_the_same_cases_for_all_rows() -> None:
    """A method that is better by a constant is better by it in every draw; of another's cases nothing cancels."""
    of = [[np.stack([of_seed[0], of_seed[0] + 0.25]) for of_seed in owner] for owner in values(seeds=3)]
    for each_seed in (True, False):
        found = resample(of, summaries, each_seed=each_seed, draws=200)
        assert found[:, 1] - found[:, 0] == pytest.approx(np.full((200, 2), 0.25))
        assert found[:, 0].std(axis=0).min() > 0.01


def test_the_same_cases_for_all_seeds_of_a_fixed_split() -> None:
    """Two seeds with opposite scores: their mean is 0.5 for every draw of cases if the cases are the same."""
    scores = np.random.default_rng(0).uniform(size=(1, 8))
    of = [[scores, 1 - scores]]

    def spread(each_seed: bool) -> float:
        found = resample(of, lambda owners: owners, each_seed=each_seed, draws=4000)[:, 0, 0]
        # Draws in which both seeds came once: the others are about one seed.
        return float(np.abs(found - 0.5).min()), float((np.abs(found - 0.5) < 1e-12).mean())

    assert spread(False)[1] == pytest.approx(0.5, abs=0.05)
    assert spread(True)[1] < 0.1


def test_one_case_and_one_seed_leave_no_spread() -> None:
    found = resample([[np.array([[0.3], [0.6]])]], lambda owners: owners, each_seed=False, draws=50)
    assert found[:, :, 0] == pytest.approx(np.tile([0.3, 0.6], (50, 1)))


def test_repeatable() -> None:
    of = values(seeds=2)
    first, second, other = (resample(of, summaries, each_seed=True, draws=100, seed=seed) for seed in (3, 3, 4))
    assert np.array_equal(first, second) and not np.array_equal(first, other)
