from __future__ import annotations

import itertools
import math

import pytest

from fedmepd.comparing.claims import Difference, Sides, sentence, verdict


def sides(seeds: int = 5, reference_trials: int = 1, rival_trials: int = 1) -> Sides:
    return Sides("fedmepd", "fedavg", reference_trials, rival_trials, seeds)


BETTER, WORSE, OPEN = Difference(0.1, 0.05, 0.15), Difference(-0.1, -0.15, -0.05), Difference(0.01, -0.02, 0.04)


def test_sentences() -> None:
    assert sentence(sides(), BETTER, OPEN) == (
        "fedmepd against fedavg: at the sites better by 0.100 [0.050, 0.150]; at the fusion site not shown to differ: "
        "difference +0.010 [-0.020, +0.040] (5 seeds)."
    )
    assert sentence(sides(seeds=3), WORSE, None) == (
        "fedmepd against fedavg: at the sites worse by 0.100 [0.050, 0.150] (3 seeds)."
    )
    assert sentence(sides(seeds=1), BETTER, None) == (
        "fedmepd against fedavg: at the sites not shown to differ: difference +0.100 [+0.050, +0.150], and 1 seed is "
        "too few for a claim (1 seed)."
    )
    assert "fedmepd was tried in 4 configurations, fedavg in 1" in sentence(sides(reference_trials=4), BETTER, None)
    assert "fedavg was tried in 4 configurations, fedmepd in 1" in sentence(sides(rival_trials=4), WORSE, None)
    without = sentence(sides(seeds=1), Difference(0.1, math.nan, math.nan), None)
    assert without.endswith("at the sites not shown to differ: difference +0.100, no interval (1 seed).")


@pytest.mark.parametrize(
    ("difference", "of", "expected"),
    [
        (BETTER, sides(), "better"),
        (WORSE, sides(), "worse"),
        (OPEN, sides(), "not shown"),
        # An interval that ends at 0 holds it.
        (Difference(0.1, 0.0, 0.2), sides(), "not shown"),
        (Difference(-0.1, -0.2, 0.0), sides(), "not shown"),
        (BETTER, sides(seeds=3), "better"),
        (BETTER, sides(seeds=2), "not shown"),
        (WORSE, sides(seeds=2), "not shown"),
        (BETTER, sides(reference_trials=2), "not shown"),
        (BETTER, sides(rival_trials=2), "better"),
        (WORSE, sides(rival_trials=2), "not shown"),
        (WORSE, sides(reference_trials=2), "worse"),
        (Difference(0.1, math.nan, math.nan), sides(), "not shown"),
    ],
)
def test_rule(difference: Difference, of: Sides, expected: str) -> None:
    assert verdict(of, difference) == expected


def test_a_sentence_never_claims_more_than_the_rule() -> None:
    ends = (-0.2, -0.1, 0.0, 0.1, 0.2)
    claims = 0
    for low, high, seeds, mine, others in itertools.product(ends, ends, (1, 2, 3, 10), (1, 4), (1, 4)):
        if low <= high:
            difference = Difference((low + high) / 2, low, high)
            said = sentence(sides(seeds, mine, others), difference, None)
            assert "outperform" not in said
            claimed = "better by" in said or "worse by" in said
            claims += claimed
            if claimed:
                assert seeds >= 3 and not low <= 0 <= high
                assert mine <= others if low > 0 else others <= mine
            else:
                assert "not shown to differ" in said
    assert claims
