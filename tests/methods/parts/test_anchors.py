"""Anchors (algorithm section 3.6): clusters fixed in round 0, means replaced in round 1, moved slowly afterwards."""

from __future__ import annotations

import pytest
import torch

from fedmepd.methods.parts.anchors import Anchors
from fedmepd.methods.parts.case_vectors import CaseVectors

# Two classes; of class 0 cases 0-1 and 2-4 lie far apart at level 4, of class 1 cases 0, 3 and 1, 2, 4.
PLACES = {0: (0, 50), 1: (1, -50), 2: (100, -50), 3: (100, 50), 4: (101, -50)}
CLUSTERS = {0: [{0, 1}, {2, 3, 4}], 1: [{0, 3}, {1, 2, 4}]}


def vectors(seed: int, absent: tuple[tuple[int, int], ...] = (), cases=tuple(PLACES)) -> dict[int, CaseVectors]:
    """Class vectors near the places; ``absent`` names pairs of case and class that the crop did not hold."""
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for case in cases:
        there = torch.tensor([(case, k) not in absent for k in range(2)])
        by_level = {level: torch.randn(2, 2 + level, generator=generator) for level in (1, 2, 3, 4)}
        for k in range(2):
            by_level[4][k] += PLACES[case][k]
        # A class that is absent must not count, whatever is in its place.
        made[case] = CaseVectors({level: rows * there[:, None] for level, rows in by_level.items()}, there)
    return made


def means(of: dict[int, CaseVectors], level: int, k: int) -> list[torch.Tensor | None]:
    """Mean over each cluster's cases that held class k."""
    found = []
    for members in CLUSTERS[k]:
        rows = [of[case].by_level[level][k] for case in sorted(members) if case in of and of[case].there[k]]
        found.append(sum(rows) / len(rows) if rows else None)
    return found


def agree(anchors: Anchors, expected: dict[int, list[torch.Tensor]]) -> None:
    """The order of the rows is free, but the same at all levels."""
    found = anchors.tensors()
    order = None
    for level, rows in expected.items():
        rows = torch.stack(rows)
        if order is None:
            order = [int((found[level] - row).abs().sum(dim=1).argmin()) for row in rows]
            assert sorted(order) == list(range(len(found[level])))
        torch.testing.assert_close(found[level][order], rows, rtol=1e-5, atol=1e-4)


def test_three_rounds_against_plain_loops() -> None:
    anchors = Anchors(2, 0.9, seed=0)
    assert anchors.tensors() == {}
    # In round 2 no case of the second cluster of class 0 holds the class.
    rounds = [vectors(0), vectors(1, ((0, 0),)), vectors(2, ((2, 0), (3, 0), (4, 0))), vectors(3)]
    expected: dict[int, list] = {level: [None] * 4 for level in (4, 1, 2, 3)}
    for number, of in enumerate(rounds):
        anchors.update(of, number)
        for level, rows in expected.items():
            fresh = [*means(of, level, 0), *means(of, level, 1)]
            for row, mean in enumerate(fresh):
                if mean is None:
                    continue
                rows[row] = mean if number <= 1 else 0.9 * rows[row] + 0.1 * mean
        agree(anchors, expected)
    assert any(mean is None for mean in means(rounds[2], 4, 0))


def test_anchors_of_the_untrained_network_are_replaced_however_late() -> None:
    """The fusion site was away in round 1: round 2 replaces them, round 3 moves them."""
    anchors = Anchors(2, 0.9, seed=0)
    anchors.update(vectors(0), 0)
    second, third = vectors(2), vectors(3)
    anchors.update(second, 2)
    again = Anchors(2, 0.9, seed=0)
    again.restore(anchors.state())
    replaced = means(second, 4, 0) + means(second, 4, 1)
    agree(again, {4: replaced})
    again.update(third, 3)
    moved = means(third, 4, 0) + means(third, 4, 1)
    agree(again, {4: [0.9 * old + 0.1 * new for old, new in zip(replaced, moved, strict=True)]})


def test_assignment_is_that_of_round_0() -> None:
    """Afterwards cases may change places; they keep their cluster."""
    anchors = Anchors(2, 0.9, seed=0)
    anchors.update(vectors(0), 0)
    swapped = vectors(1)
    swapped[0].by_level[4][0] += 100
    swapped[2].by_level[4][0] -= 100
    anchors.update(swapped, 1)
    agree(anchors, {4: means(swapped, 4, 0) + means(swapped, 4, 1)})


def test_class_that_no_crop_held_has_no_anchor_until_one_does() -> None:
    anchors = Anchors(2, 0.5, seed=0)
    without = tuple((case, 1) for case in PLACES)
    anchors.update(vectors(0, without), 0)
    anchors.update(vectors(1, without), 1)
    assert {level: len(rows) for level, rows in anchors.tensors().items()} == {1: 2, 2: 2, 3: 2, 4: 2}
    late = vectors(2)
    anchors.update(late, 2)
    # Class 0 moves by half; class 1 starts with this round's means as they are.
    first, second = means(vectors(1, without), 4, 0), means(late, 4, 0)
    moved = [(old + new) / 2 for old, new in zip(first, second, strict=True)]
    agree(anchors, {4: moved + means(late, 4, 1)})


def test_case_that_first_holds_the_class_later_joins_the_nearest_cluster() -> None:
    anchors = Anchors(2, 0.5, seed=0)
    anchors.update(vectors(0, ((4, 0),)), 0)
    first = vectors(1)
    anchors.update(first, 1)
    agree(anchors, {4: means(first, 4, 0) + means(first, 4, 1)})


@pytest.mark.parametrize(("cases", "expected"), [((0,), 1), ((0, 3), 2), ((0, 1, 2), 3)])
def test_fewer_cases_than_clusters(cases: tuple[int, ...], expected: int) -> None:
    """Each case is an anchor of its own."""
    anchors = Anchors(4, 0.9, seed=0)
    of = vectors(0, cases=cases)
    anchors.update(of, 0)
    assert all(len(rows) == 2 * expected for rows in anchors.tensors().values())
    rows = [of[case].by_level[4][k] for k in range(2) for case in cases]
    agree(anchors, {4: rows})


def test_one_anchor_a_class_is_the_mean_of_all_cases() -> None:
    anchors = Anchors(1, 0.9, seed=0)
    of = vectors(0, ((1, 0),))
    anchors.update(of, 0)
    for level in (1, 2, 3, 4):
        expected = [
            sum(of[case].by_level[level][0] for case in (0, 2, 3, 4)) / 4,
            sum(of[case].by_level[level][1] for case in range(5)) / 5,
        ]
        torch.testing.assert_close(anchors.tensors()[level], torch.stack(expected), rtol=1e-5, atol=1e-5)


def test_no_vectors_change_nothing() -> None:
    anchors = Anchors(2, 0.9, seed=0)
    anchors.update({}, 0)
    assert anchors.tensors() == {}


def test_state_and_restore_go_on_alike() -> None:
    first, second = Anchors(2, 0.9, seed=0), Anchors(2, 0.9, seed=0)
    first.update(vectors(0), 0)
    second.restore(first.state())
    for number in (1, 2):
        of = vectors(number)
        first.update(of, number)
    second = Anchors(2, 0.9, seed=0)
    third = Anchors(2, 0.9, seed=0)
    third.update(vectors(0), 0)
    second.restore(third.state())
    for number in (1, 2):
        second.update(vectors(number), number)
    assert all(torch.equal(rows, second.tensors()[level]) for level, rows in first.tensors().items())


# One class; cases 0-2 and 3-6 lie far apart, case 7 alone beside the second group.
LONELY = {case: (0.0 + case,) for case in range(3)} | {case: (100.0 + case,) for case in range(3, 7)} | {7: (150.0,)}


def points(of: dict[int, tuple[float, ...]], absent: tuple[int, ...] = ()) -> dict[int, CaseVectors]:
    """Vectors of one class that are the same number at all levels."""
    return {
        case: CaseVectors(
            {level: torch.full((1, 2), place) for level in (1, 2, 3, 4)}, torch.tensor([case not in absent])
        )
        for case, (place,) in of.items()
    }


def values(anchors: Anchors) -> list[float]:
    return sorted(float(row[0]) for row in anchors.tensors()[1])


def test_no_anchor_of_fewer_cases() -> None:
    """Three clusters are there to be found; the one of a single case joins its neighbours."""
    every = Anchors(3, 0.5, seed=0)
    every.update(points(LONELY), 0)
    assert values(every) == [1.0, (103 + 104 + 105 + 106) / 4, 150.0]
    anchors = Anchors(3, 0.5, seed=0, fewest=3)
    anchors.update(points(LONELY), 0)
    assert values(anchors) == pytest.approx([1.0, (103 + 104 + 105 + 106 + 150) / 5]) and anchors.of_classes() == [2]


def test_cases_of_a_small_cluster_join_the_nearest_that_is_left() -> None:
    """Two clusters of two cases: only together do they suffice."""
    anchors = Anchors(2, 0.5, seed=0, fewest=3)
    anchors.update(points({0: (0.0,), 1: (2.0,), 2: (100.0,), 3: (102.0,)}), 0)
    assert values(anchors) == [51.0]


def test_round_with_fewer_cases_does_not_move_an_anchor() -> None:
    anchors = Anchors(2, 0.5, seed=0, fewest=3)
    anchors.update(points(LONELY), 0)
    anchors.update(points(LONELY), 1)
    before = values(anchors)
    moved = {case: (place + 10,) for case, (place,) in LONELY.items()}
    # Two of the first cluster's three cases hold the class: with them, the mean would tell of single patients.
    anchors.update(points(moved, absent=(1,)), 2)
    assert values(anchors) == pytest.approx([before[0], before[1] + 5])


def test_class_of_too_few_cases_has_no_anchor() -> None:
    anchors = Anchors(2, 0.5, seed=0, fewest=3)
    anchors.update(points({0: (0.0,), 1: (2.0,)}), 0)
    assert anchors.tensors() == {} and anchors.of_classes() == [0]
    anchors.update(points({0: (0.0,), 1: (2.0,), 2: (4.0,)}), 1)
    assert values(anchors) == [2.0]


def test_several_examinations_of_a_patient_are_one_patients() -> None:
    """Three cases of one patient are no anchor; with two more patients in their cluster they are."""
    cases = {number: (float(number),) for number in range(5)}
    whose = ["Smith", "Smith", "Smith", "Miller", "Brown"]
    anchors = Anchors(1, 0.5, seed=0, fewest=3, patients=whose)
    anchors.update(points({place: cases[place] for place in (0, 1, 2)}), 0)
    assert anchors.tensors() == {}
    anchors.update(points(cases), 1)
    assert values(anchors) == [2.0]
    # Another round shows only Smith's: the anchor stays where it was.
    anchors.update(points({place: (9.0,) for place in (0, 1, 2)}), 2)
    assert values(anchors) == [2.0]


def test_a_cluster_of_one_patients_examinations_is_given_up() -> None:
    """By cases it would have three; its members join the other cluster."""
    cases = {0: (0.0,), 1: (1.0,), 2: (2.0,), 3: (100.0,), 4: (101.0,), 5: (102.0,)}
    anchors = Anchors(2, 0.5, seed=0, fewest=3, patients=["A", "B", "C", "Smith", "Smith", "Smith"])
    anchors.update(points(cases), 0)
    assert values(anchors) == pytest.approx([306 / 6])
