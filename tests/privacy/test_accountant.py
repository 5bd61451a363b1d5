from __future__ import annotations

import math

import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from fedmepd.config import LEAST_NOISE
from fedmepd.privacy.accountant import Release, epsilon, least_noise


def gaussian(noise: float, delta: float) -> float:
    """The epsilon of one sum without sampling (Balle and Wang, ICML 2018, theorem 8)."""

    def excess(eps: float) -> float:
        upper, lower = (norm.cdf(sign / (2 * noise) - eps * noise) for sign in (1, -1))
        return upper - math.exp(eps) * lower - delta

    return brentq(excess, 0, 200)


@pytest.mark.parametrize(
    ("noise", "rate", "times", "delta"),
    [
        # The examples of dp-accounting's own tests, each with epsilon 1.
        (math.sqrt(3), 1.0, 3, 0.126936),
        (0.5, 0.2, 3, 0.15594),
    ],
)
def test_examples_of_dp_accounting(noise, rate, times, delta) -> None:
    assert epsilon([Release(noise, rate, times)], delta) == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize(("noise", "times"), [(1.0, 1), (5.0, 20), (0.8, 3)])
def test_sums_without_sampling_are_one_gaussian(noise, times) -> None:
    expected = gaussian(noise / math.sqrt(times), 1e-5)
    assert epsilon([Release(noise, 1.0, times)], 1e-5) == pytest.approx(expected, rel=1e-3)


def test_the_moments_accountant_of_abadi_is_an_upper_bound() -> None:
    """Abadi et al., CCS 2016, section 3.2: q = 0.01, noise 4, 10,000 steps, delta 1e-5: epsilon 1.26."""
    assert 0.8 < epsilon([Release(4.0, 0.01, 10_000)], 1e-5) < 1.26


def test_parts_add_up_to_the_whole() -> None:
    parts = [Release(1.5, 0.3, 4), Release(9.0, 1.0, 1), Release(1.5, 0.3, 6)]
    whole = epsilon([Release(1.5, 0.3, 10), Release(9.0, 1.0, 1)], 1e-5)
    assert epsilon(parts, 1e-5) == whole
    assert whole > epsilon([Release(1.5, 0.3, 10)], 1e-5) > epsilon([Release(1.5, 0.3, 9)], 1e-5)
    assert epsilon([], 1e-5) == 0 and epsilon([Release(1.5, 0.3, 0)], 1e-5) == 0


def test_the_least_noise_uses_up_the_budget() -> None:
    def planned(noise):
        return [Release(noise, 0.25, 40), Release(30.0, 1.0, 10)]

    noise = least_noise(planned, 3.0, 1e-5)
    assert epsilon(planned(noise), 1e-5) <= 3.0
    assert epsilon(planned(noise - 0.02), 1e-5) > 3.0


def test_no_noise_is_enough_where_others_have_spent_the_budget() -> None:
    assert least_noise(lambda noise: [Release(noise, 0.1, 1), Release(0.3, 1.0, 1)], 1.0, 1e-5) is None
    assert least_noise(lambda noise: [Release(noise, 0.001, 1)], 500.0, 1e-5) == LEAST_NOISE
