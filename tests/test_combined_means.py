"""What several means tell together, against a slow count with exact numbers."""

from __future__ import annotations

import itertools
import random

import pytest
from sympy import Matrix

from fedmepd import combined_means
from fedmepd.combined_means import tells_of_few

PATIENTS = "abcdefg"


def sets(*texts: str) -> list[frozenset[str]]:
    return [frozenset(text) for text in texts]


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
    ],
)
def test_by_hand(asked: str, known: list[str], fewest: int, tells: bool) -> None:
    assert tells_of_few(frozenset(asked), sets(*known), fewest) == tells


def dimension(rows: list[frozenset[str]], within: tuple[str, ...]) -> int:
    """How many independent combinations are zero for all patients but some."""

    def rank(patients: list[str]) -> int:
        return Matrix([[int(patient in one) for patient in patients] for one in rows]).rank() if rows else 0

    return rank(list(PATIENTS)) - rank([patient for patient in PATIENTS if patient not in within])


def told_slowly(asked: frozenset[str], known: list[frozenset[str]], fewest: int) -> bool:
    """Looks at every group of fewer patients."""
    groups = itertools.chain.from_iterable(itertools.combinations(PATIENTS, size) for size in range(1, fewest))
    return any(dimension([asked, *known], group) > dimension(known, group) for group in groups)


@pytest.mark.parametrize("seed", range(60))
def test_against_exact_numbers(seed: int) -> None:
    of = random.Random(seed)
    fewest = of.choice((2, 3, 4))
    asked, *known = (frozenset(of.sample(PATIENTS, of.randrange(1, 8))) for _ in range(of.randrange(1, 5)))
    assert tells_of_few(asked, known, fewest) == told_slowly(asked, known, fewest)


def test_both_answers_are_among_those() -> None:
    of = random.Random(0)
    answers = []
    for _ in range(40):
        asked, *known = (frozenset(of.sample(PATIENTS, of.randrange(3, 8))) for _ in range(3))
        answers.append(tells_of_few(asked, known, 3))
    assert 5 < sum(answers) < 35


@pytest.mark.parametrize(("count", "splits"), [(100, 10), (1000, 15)])
def test_a_hospital_that_is_split_anew_again_and_again(count: int, splits: int) -> None:
    """Nobody's score is told: so many means are few for what so many patients are."""
    of = random.Random(0)
    patients = [f"patient-{number}" for number in range(count)]
    known: list[frozenset[str]] = []
    for _ in range(splits):
        asked = frozenset(of.sample(patients, count // 5))
        assert not tells_of_few(asked, known, 3)
        known.append(asked)


def test_where_nobody_can_be_sure_nothing_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    known = sets("cefg", "abeg")
    assert not tells_of_few(frozenset("acg"), known, 3)
    monkeypatch.setattr(combined_means, "_MOST_CHOICES", 0)
    assert tells_of_few(frozenset("acg"), known, 3)
