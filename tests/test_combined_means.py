"""What several means tell together, against a slow formula and exact numbers."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Collection, Mapping

import numpy as np
import pytest
import scipy.linalg
from sympy import Matrix

from fedmepd import combined_means
from fedmepd.combined_means import tells_of_few


def of(*sets: Collection[str]) -> dict[str, str]:
    """The patient of each case: of a1, a2 and a3 it is a."""
    return {case: case[0] for one in sets for case in one}


@pytest.mark.parametrize(
    ("asked", "known", "fewest", "tells"),
    [
        ("abc", [], 3, False),
        ("ab", [], 3, True),
        ("", ["abc"], 3, False),
        # Seven times the last mean less three times each of the others is the score of x.
        ("abcdefx", ["abc", "def"], 3, True),
        ("abcdefxyz", ["abc", "def"], 3, False),
        # The others' sum counts a and b twice, and the mean once: what is left is {a, b}.
        ("abcdef", ["abcd", "abef"], 3, True),
        ("abcdef", ["abcd", "abef"], 2, False),
        # Half of the sum of three, less the mean, is {x}.
        ("abcdefx", ["abcd", "cdef", "abef"], 2, True),
        # Nothing is told that was not told before, as where a hospital has raised its min_count.
        ("uvwxyz", ["ab"], 3, False),
        ("abcd", ["ab"], 3, True),
        # One patient more at a time: a difference of one.
        ("abcdefgh", ["abcde", "abcdef"], 2, False),
        ("abcdefg", ["abcde", "abcdef"], 2, True),
        # Three examinations of one patient; the difference is one examination, or three of two patients.
        (["a1", "a2", "a3"], [], 2, True),
        (["a1", "a2", "b", "c"], [["a1", "b", "c"]], 2, True),
        (["a1", "a2", "b1", "b2", "b3", "c"], [["a1", "b1", "c"]], 3, True),
        (["a1", "a2", "b1", "b2", "c1", "c2"], [["a1", "b1", "c1"]], 3, False),
        # a counts 3 in the sum of three means, and three others 1 each: 9 of 12, which is (1 + 1/2) / 2.
        # In that of four, 16 of 20.
        ("ad", ["ab", "ac"], 2, False),
        ("ae", ["ab", "ac", "ad"], 2, True),
    ],
)
def test_by_hand(asked: Collection[str], known: list[Collection[str]], fewest: int, tells: bool) -> None:
    assert tells_of_few(asked, known, fewest, of(asked, *known)) == ("few" if tells else None)


def shares(sets: list[frozenset[str]], patient_of: Mapping[str, str], chosen: tuple[str, ...]) -> np.ndarray:
    """How much of the squared length of combinations can lie on the cases of some patients, by direction."""
    if not sets:
        return np.zeros(1)
    cases = sorted(patient_of)
    space = scipy.linalg.orth(np.array([[float(case in one) for case in cases] for one in sets]).T)
    return scipy.linalg.svdvals(space[[patient_of[case] in chosen for case in cases]]) ** 2


def told_slowly(asked: frozenset[str], known: list[frozenset[str]], fewest: int, patient_of: Mapping[str, str]) -> bool:
    """Looks at every group of fewer patients."""
    if 0 < len({patient_of[case] for case in asked}) < fewest:
        return True
    for size in range(1, fewest):
        limit = (1 + size / fewest) / 2
        for chosen in itertools.combinations(sorted(set(patient_of.values())), size):
            after, before = (shares(sets, patient_of, chosen) for sets in ([asked, *known], known))
            if np.maximum(after - limit, 0).sum() > np.maximum(before - limit, 0).sum() + 1e-6:
                return True
    return False


def chosen_sets(of: random.Random) -> tuple[frozenset[str], list[frozenset[str]], int, dict[str, str]]:
    patient_of = {f"case-{number}": of.choice("abcdefgh") for number in range(of.randrange(4, 13))}
    asked, *known = (
        frozenset(of.sample(sorted(patient_of), of.randrange(1, len(patient_of) + 1)))
        for _ in range(of.randrange(1, 5))
    )
    return asked, known, of.choice((2, 3, 4)), patient_of


@pytest.mark.parametrize("seed", range(60))
def test_against_the_slow_formula(seed: int) -> None:
    asked, known, fewest, patient_of = chosen_sets(random.Random(seed))
    told = told_slowly(asked, known, fewest, patient_of)
    assert tells_of_few(asked, known, fewest, patient_of) == ("few" if told else None)


def dimension(rows: list[frozenset[str]], patient_of: Mapping[str, str], within: tuple[str, ...]) -> int:
    """How many independent combinations are zero for all patients but some, in exact numbers."""

    def rank(cases: list[str]) -> int:
        return Matrix([[int(case in one) for case in cases] for one in rows]).rank() if rows and cases else 0

    return rank(sorted(patient_of)) - rank(sorted(case for case in patient_of if patient_of[case] not in within))


@pytest.mark.parametrize("seed", range(60, 120))
def test_what_is_told_exactly_never_leaves(seed: int) -> None:
    asked, known, fewest, patient_of = chosen_sets(random.Random(seed))
    told = any(
        dimension([asked, *known], patient_of, chosen) > dimension(known, patient_of, chosen)
        for size in range(1, fewest)
        for chosen in itertools.combinations(sorted(set(patient_of.values())), size)
    )
    assert tells_of_few(asked, known, fewest, patient_of) == "few" or not told


def test_both_answers_are_among_those() -> None:
    answers = Counter(tells_of_few(*chosen_sets(random.Random(seed))) for seed in range(60))
    assert min(answers[None], answers["few"]) > 10


def test_a_patient_who_counts_far_more_than_others() -> None:
    """Each difference to the first mean is a and a block of two; their sum counts a once for each."""
    others = [f"b{number}" for number in range(60)]
    patient_of = {case: case for case in ("a", *others)}
    known = [frozenset(patient_of)]
    for start in range(0, 60, 2):
        asked = frozenset(others) - {*others[start : start + 2]}
        if verdict := tells_of_few(asked, known, 3, patient_of):
            break
        known.append(asked)
    assert verdict == "few"
    # The combination that counts a as much as it can has a share of it that the rule allows: 2/3 of three patients.
    assert shares(known, patient_of, ("a",)).max() <= 2 / 3 < shares([asked, *known], patient_of, ("a",)).max()


@pytest.mark.parametrize(("count", "splits", "fewest"), [(100, 10, 3), (1000, 15, 3), (300, 30, 10), (50, 5, 5)])
def test_a_hospital_that_is_split_anew_again_and_again(count: int, splits: int, fewest: int) -> None:
    """Nobody's score is told: so many means are few for what so many patients are."""
    of = random.Random(0)
    patient_of = {name: name for name in (f"patient-{number}" for number in range(count))}
    known: list[frozenset[str]] = []
    for _ in range(splits):
        asked = frozenset(of.sample(sorted(patient_of), count // 5))
        assert tells_of_few(asked, known, fewest, patient_of) is None
        known.append(asked)


def test_where_nobody_can_be_sure(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, known = "bcdfhi", ["aeghi", "bcef"]
    patient_of = of(asked, *known)
    assert tells_of_few(asked, known, 3, patient_of) is None
    monkeypatch.setattr(combined_means, "_MOST_CHOICES", 0)
    assert tells_of_few(asked, known, 3, patient_of) == "unsure"
