import pytest

from fedmepd.config import DataSettings
from fedmepd.data.cases import Case
from fedmepd.data.splits import split_cases


def cases(count):
    return [Case(f"case-{number}", {}, None) for number in range(count)]


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
