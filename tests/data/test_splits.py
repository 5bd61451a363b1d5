import pytest

from fedmepd.config import DataSettings
from fedmepd.data.cases import Case
from fedmepd.data.splits import some_cases, split_cases, split_patients
from fedmepd.tasks.brats import BRATS


def cases(count):
    return [Case(f"case-{number}", {}, None, task=BRATS) for number in range(count)]


@pytest.mark.parametrize(
    ("shares", "count", "expected"),
    [
        # (train, validation), cases, (train, validation, test)
        ((0.6, 0.1), 1, (1, 0, 0)),
        ((0.6, 0.1), 2, (1, 0, 1)),
        ((0.6, 0.1), 3, (1, 1, 1)),
        ((0.6, 0.1), 4, (2, 1, 1)),
        ((0.6, 0.1), 5, (3, 1, 1)),
        ((0.6, 0.1), 10, (6, 1, 3)),
        ((0.6, 0.1), 16, (9, 2, 5)),
        ((0.6, 0.1), 40, (24, 4, 12)),
        ((0.5, 0.125), 16, (8, 2, 6)),
        ((0.7, 0.3), 10, (7, 3, 0)),
        ((1.0, 0.0), 5, (5, 0, 0)),
        ((0.1, 0.0), 2, (1, 0, 1)),
        ((0.6, 0.1), 0, (0, 0, 0)),
    ],
)
def test_sizes(shares, count, expected):
    settings = DataSettings(train=shares[0], validation=shares[1])
    split = split_cases(cases(count), settings, 0, "site-1")
    assert (len(split.train), len(split.validation), len(split.test)) == expected
    names = [case.name for case in [*split.train, *split.validation, *split.test]]
    assert sorted(names) == sorted(case.name for case in cases(count))


def test_split_depends_on_names_seed_and_site_alone():
    settings = DataSettings()
    split = split_cases(cases(20), settings, 0, "site-1")
    assert split_cases(cases(20)[::-1], settings, 0, "site-1") == split
    assert split_cases(cases(20), settings, 1, "site-1") != split
    assert split_cases(cases(20), settings, 0, "site-2") != split
    # Not the first so many of the folder.
    assert split.train != cases(20)[:12]


def test_a_patient_is_never_split():
    """Ten patients, the first of whom has twenty examinations."""
    scans = [Case(f"p0_{number}", {}, None, patient="p0", task=BRATS) for number in range(20)]
    scans += [Case(f"p{number}_1", {}, None, patient=f"p{number}", task=BRATS) for number in range(1, 10)]
    split = split_cases(scans, DataSettings(), 0, "site-1")
    parts = [{case.patient for case in part} for part in (split.train, split.validation, split.test)]
    assert [len(part) for part in parts] == [6, 1, 3]
    assert sum(len(one & other) for one in parts for other in parts if one is not other) == 0


def test_patients_keep_their_part():
    """Ten more patients: who tested before still tests, and the shares hold for all twenty."""
    first = [f"p{number}" for number in range(10)]
    before = split_patients(first, DataSettings(), 0, "site")
    after = split_patients([*first, *(f"q{number}" for number in range(10))], DataSettings(), 0, "site", before)
    assert {patient: after[patient] for patient in first} == before
    assert sorted(after.values()) == ["test"] * 6 + ["train"] * 12 + ["validation"] * 2


def test_kept_parts_that_exceed_their_share():
    """All eight old patients train: the two new ones go where there is room."""
    kept = {f"p{number}": "train" for number in range(8)}
    after = split_patients([*kept, "q1", "q2"], DataSettings(train=0.5, validation=0.1), 0, "site", kept)
    assert {after["q1"], after["q2"]} <= {"validation", "test"}
    assert "gone" not in split_patients(["p1"], DataSettings(), 0, "site", {"gone": "test"})


def test_a_share_of_the_cases_is_a_part_of_every_larger_one():
    shares = (0.1, 0.3, 0.5, 1.0)
    chosen = [[case.name for case in some_cases(cases(24), share, 0)] for share in shares]
    assert [len(names) for names in chosen] == [2, 7, 12, 24]
    for smaller, larger in zip(chosen, chosen[1:], strict=False):
        assert set(smaller) < set(larger)
    # In the order of the list, not the first of it, and others for another seed.
    assert chosen[2] == [case.name for case in cases(24) if case.name in chosen[2]]
    assert chosen[2] != [case.name for case in cases(24)][:12]
    assert some_cases(cases(24), 0.5, 1) != some_cases(cases(24), 0.5, 0)
    assert len(some_cases(cases(3), 0.01, 0)) == 1 and some_cases([], 0.5, 0) == []
