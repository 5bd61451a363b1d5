from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from fedmepd.comparing.significance import holm, sign_flips, wilcoxon
from tests.comparing import slow


@pytest.mark.parametrize("count", [2, 3, 5, 8])
def test_sign_flips(count: int) -> None:
    tenths = np.random.default_rng(count).integers(-30, 60, count)
    exact = slow.sign_flips([Fraction(int(tenth), 10) for tenth in tenths])
    assert sign_flips(tenths / 10) == pytest.approx(exact)
    assert sign_flips(-tenths / 10) == pytest.approx(exact)


def test_sign_flips_by_hand() -> None:
    """Of the eight sums of 1, 2 and 3 with signs only 6 and -6 are as far from 0 as 6; four of them as 4: 2 + 3 - 1."""
    assert sign_flips(np.array([1.0, 2.0, 3.0])) == 2 / 8
    assert sign_flips(np.array([-1.0, 2.0, 3.0])) == 4 / 8
    assert sign_flips(np.full(5, 0.1)) == 2 / 32
    assert sign_flips(np.zeros(4)) == 1
    # A tie: the difference of one seed is 0, so that every sum comes twice.
    assert sign_flips(np.array([0.0, 1.0, 2.0])) == 4 / 8


def test_wilcoxon() -> None:
    differences = np.array([0.31, -0.12, 0.43, 0.27, -0.05, 0.19, 0.08, 0.55])
    assert wilcoxon(differences) == pytest.approx(slow.wilcoxon(differences))
    assert wilcoxon(np.zeros(6)) == 1


def test_holm_by_hand() -> None:
    """0.01 * 4, 0.02 * 3, 0.03 * 2 which is not below the one before, 0.5 * 1."""
    assert holm(np.array([0.03, 0.01, 0.5, 0.02])) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert holm(np.array([0.7, 0.6])) == pytest.approx([1, 1])
    # Ties: both become three times as large.
    assert holm(np.array([0.1, 0.1, 0.9])) == pytest.approx([0.3, 0.3, 0.9])


def test_holm_against_a_slow_one() -> None:
    values = np.random.default_rng(1).uniform(0, 0.3, 14)
    assert holm(values) == pytest.approx(slow.holm(values))


def test_what_has_no_p_does_not_count_for_holm() -> None:
    found = holm(np.array([0.02, np.nan, 0.5]))
    assert found[[0, 2]] == pytest.approx([0.04, 0.5]) and np.isnan(found[1])
