from __future__ import annotations

import numpy as np
import pytest

from fedmepd.comparing.design import Design
from fedmepd.comparing.intervals import estimate, t_interval, t_test
from tests.comparing import slow

VALUES = np.random.default_rng(0).normal(0.02, 0.01, (4, 5))


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("overlap", [0.0, 0.5])
def test_t_interval(seeds: int, overlap: float) -> None:
    low, high = t_interval(VALUES[:, :seeds], overlap)
    for row in range(len(VALUES)):
        expected = slow.t_interval(VALUES[row, :seeds], overlap)
        assert (low[row], high[row]) == pytest.approx(expected, abs=1e-5)


def test_the_correction_for_repeated_splits() -> None:
    """60 training and 30 test cases, five seeds: sqrt((1/5 + 1/2) / (1/5)) = 1.87 times as wide."""
    plain, corrected = t_interval(VALUES), t_interval(VALUES, 0.5)
    assert (corrected[1] - corrected[0]) / (plain[1] - plain[0]) == pytest.approx(np.full(4, 3.5**0.5))


def test_p_and_interval_agree() -> None:
    """p is 0.05 where the interval ends at 0."""
    for overlap in (0.0, 0.5):
        low, _ = t_interval(VALUES, overlap)
        assert t_test(VALUES - low[:, None], overlap) == pytest.approx(np.full(4, 0.05))


def test_no_spread_no_p() -> None:
    assert np.isnan(t_test(np.array([[0.25, 0.25, 0.25]]), 0.5)).all()


def test_each_design_has_its_interval() -> None:
    replicates = np.linspace(0, 1, 1001)[:, None]
    per_seed = VALUES[:1]
    found = estimate(Design("independent", 5, True, True), per_seed, replicates)
    assert (found.low[0], found.high[0]) == pytest.approx(slow.t_interval(per_seed[0]), abs=1e-5)
    assert found.mean[0] == pytest.approx(per_seed.mean()) and found.sd[0] == pytest.approx(np.std(per_seed, ddof=1))
    for design in (Design("independent", 4, True, True), Design("fixed", 5, True, False)):
        found = estimate(design, per_seed[:, : design.seeds], replicates)
        assert (found.low[0], found.high[0]) == pytest.approx((0.025, 0.975))
    found = estimate(Design("repeated", 5, True, False), per_seed, replicates, 0.5)
    assert (found.low[0], found.high[0]) == pytest.approx(slow.t_interval(per_seed[0], 0.5), abs=1e-5)
    found = estimate(Design("independent", 1, False, True), per_seed[:, :1], None)
    assert found.mean[0] == per_seed[0, 0] and np.isnan([found.sd[0], found.low[0], found.high[0]]).all()
