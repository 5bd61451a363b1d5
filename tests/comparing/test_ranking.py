from __future__ import annotations

import numpy as np
import pytest

from fedmepd.comparing.ranking import rank, ranks
from fedmepd.comparing.scores import Cases
from tests.comparing import slow


def cases(dice: np.ndarray, hd95_mm: np.ndarray) -> Cases:
    return Cases(dice, hd95_mm, np.zeros(dice.shape, dtype=bool))


def test_ranks_against_a_slow_one() -> None:
    random = np.random.default_rng(0)
    # Rounded, so that there are ties.
    dice, hd95_mm = random.uniform(size=(4, 5, 3)).round(1), random.uniform(0, 10, (4, 5, 3)).round(0)
    assert ranks(cases(dice, hd95_mm)) == pytest.approx(np.array(slow.ranks(dice, hd95_mm)))


def test_ranks_by_hand() -> None:
    """One case, one region: Dice 0.9, 0.9, 0.5 have the ranks 1, 1, 3; HD95 2, 1, 3 mm have 2, 1, 3."""
    found = ranks(cases(np.array([[[0.9]], [[0.9]], [[0.5]]]), np.array([[[2.0]], [[1.0]], [[3.0]]])))
    assert found[:, 0] == pytest.approx([1.5, 1.0, 3.0])


def test_places_and_their_range() -> None:
    """The second method is ahead in one of twenty draws, the third never."""
    replicates = np.tile([1.2, 1.8, 3.0], (20, 1))
    replicates[0] = [1.9, 1.1, 3.0]
    found = rank(np.array([1.2, 1.8, 3.0]), replicates)
    assert found.place.tolist() == [1, 2, 3]
    # One draw in twenty is 5 %, more than the 2.5 % at either end.
    assert (found.first.tolist(), found.last.tolist()) == ([1, 1, 3], [2, 2, 3])
    once_in_a_hundred = rank(np.array([1.2, 1.8, 3.0]), np.concatenate([np.tile([1.2, 1.8, 3.0], (80, 1)), replicates]))
    assert (once_in_a_hundred.first.tolist(), once_in_a_hundred.last.tolist()) == ([1, 2, 3], [1, 2, 3])


def test_equal_methods_have_the_same_place() -> None:
    found = rank(np.array([1.5, 1.5, 3.0]), np.tile([1.5, 1.5, 3.0], (10, 1)))
    assert found.place.tolist() == [1, 1, 3] == found.last.tolist()
