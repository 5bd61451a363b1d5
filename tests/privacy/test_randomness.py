from __future__ import annotations

import numpy as np
from scipy.stats import kstest

from fedmepd.privacy.randomness import SecretRandom
from tests.privacy.randomness import known


def test_noise_is_normal() -> None:
    drawn = known().normal(100_001)
    assert len(drawn) == 100_001
    assert kstest(drawn, "norm").pvalue > 0.01
    # Independent: the two halves of Box and Muller share a radius.
    assert abs(np.corrcoef(drawn[:50_000], drawn[50_001:])[0, 1]) < 0.02


def test_each_patient_is_drawn_by_itself() -> None:
    random = known()
    drawn = np.zeros((4000, 5), dtype=bool)
    for row in drawn:
        row[random.chosen(5, 0.3)] = True
    assert np.allclose(drawn.mean(axis=0), 0.3, atol=0.03)
    # Of independent draws, the number in a step has the variance of a binomial distribution.
    assert abs(drawn.sum(axis=1).var() - 5 * 0.3 * 0.7) < 0.1
    assert all(len(random.chosen(5, 1.0)) == 5 for _ in range(100))


def test_all_places_are_drawn() -> None:
    random = known()
    counts = np.bincount([random.one_of(3) for _ in range(3000)], minlength=3)
    assert len(counts) == 3 and counts.min() > 900


def test_nothing_is_drawn_twice() -> None:
    assert not np.array_equal(SecretRandom().normal(10), SecretRandom().normal(10))
