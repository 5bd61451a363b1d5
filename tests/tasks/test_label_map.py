"""What a user's own label values mean, and what such a file may not leave open."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedmepd.errors import SettingsError
from fedmepd.tasks.brats import BRATS
from fedmepd.tasks.label_map import read_label_map
from fedmepd.tasks.labels import IGNORE, grouped, known_regions


def written(folder: Path, text: str) -> Path:
    (folder / "own.yaml").write_text(text)
    return folder / "own.yaml"


@pytest.mark.parametrize(
    ("text", "classes", "groups", "regions"),
    [
        # Classes of the task: 0 background, 1 NCR/NET, 2 ED, 3 ET. Regions: WT 1 2 3, TC 1 3, ET 3.
        ("values: {0: background, 7: ET, 5: ED, 6: NCR/NET}", {0: 0, 7: 3, 5: 2, 6: 1}, (), "WT TC ET"),
        # Several values of one class, and one to leave out.
        (
            "values: {0: background, 1: ncr/net, 2: ED, 3: NCR/NET, 4: et, 9: ignore}",
            {0: 0, 1: 1, 2: 2, 3: 1, 4: 3, 9: IGNORE},
            (),
            "WT TC ET",
        ),
        ("{values: {0: background, 1: WT}, classes: [WT]}", {0: 0, 1: 1}, ((0,), (1, 2, 3)), "WT"),
        (
            "{values: {0: background, 1: TC, 2: ED}, classes: [ED, TC]}",
            {0: 0, 1: 1, 2: 2},
            ((0,), (1, 3), (2,)),
            "WT TC",
        ),
        # What no value names may hide in the background.
        ("{values: {0: background, 1: ET}, classes: [ET]}", {0: 0, 1: 3}, ((0, 1, 2), (3,)), "ET"),
        ("{values: {0: ignore, 1: WT}, classes: [WT]}", {0: IGNORE, 1: 1}, ((0,), (1, 2, 3)), "WT"),
    ],
)
def test_what_a_map_says(tmp_path, text, classes, groups, regions):
    found = read_label_map(BRATS, written(tmp_path, text))
    assert (found.classes, found.groups) == (classes, groups) and not found.by_values
    assert " ".join(known_regions(BRATS.regions, found.groups)) == regions
    # The task takes it.
    assert BRATS.with_convention("own", found).conventions["own"] == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("values: {0: background, 1: WT}", r"add `classes: \[WT\]`"),
        ("values: {0: background, 1: NCR/NET, 2: ED}", r"do not tell all classes .* add `classes: \[NCR/NET, ED\]`"),
        ("{values: {0: background, 1: WT}, classes: [ET]}", "classes: expected those that the values name: WT"),
        ("values: {0: background, 1: necrosis}", "unknown meaning 'necrosis': expected one of NCR/NET, ED, ET, WT, TC"),
        ("values: {0: background, 1: TC, 3: ET, 2: ED}", "ET is part of several values' meanings"),
        ("values: {0: background, 1: ignore}", "no value stands for a class"),
        ("values: {1: WT}", "value 0: expected background or ignore"),
        ("values: {0: ET}", "value 0: expected background or ignore"),
        ("values: {0: background, 300: WT}", "value 300: expected whole numbers from 0 to 255"),
        ("values: {}", "own.yaml: values"),
        ("{values: {0: background}, class: [ET]}", "unknown key class: expected one of values, classes"),
        ("- 1", "own.yaml"),
        ("{", "cannot be read as YAML"),
    ],
)
def test_what_is_refused(tmp_path, text, message):
    with pytest.raises(SettingsError, match=message):
        read_label_map(BRATS, written(tmp_path, text))


def test_a_name_that_the_task_has(tmp_path):
    own = read_label_map(BRATS, written(tmp_path, "{values: {0: background, 1: WT}, classes: [WT]}"))
    with pytest.raises(SettingsError, match="task brats has label values msd already"):
        BRATS.with_convention("msd", own)
    task = BRATS.with_convention("own", own)
    assert task.describe_convention("own").endswith("own.yaml: 0, 1 WT")
    with pytest.raises(SettingsError, match="label values own do not tell all classes"):
        task.label_of_class("own")


def test_groups():
    assert grouped(5, [(3, 1), (2,)]) == ((0,), (1, 3), (2,), (4,))
    assert known_regions({"a": (1,), "b": (1, 3), "c": (1, 2, 3)}, grouped(5, [(3, 1)])) == ("b", "c")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # Values 0 to 4 of BraTS 2012 to 2015: necrosis, oedema, non-enhancing and enhancing tumour.
        ("brats2015", [0, 1, 2, 1, 3]),
        # Since 2024: 4 is a resection cavity; for children ET, NET, cyst and oedema are 1, 2, 3 and 4.
        ("brats2024", [0, 1, 2, 3, 0]),
        ("brats-ped2024", [0, 3, 1, 1, 2]),
    ],
)
def test_conventions_with_two_values_of_one_class(name, expected):
    convention = BRATS.conventions[name]
    assert [convention.classes[value] for value in range(5)] == expected
    # Written with the smallest of the values.
    assert BRATS.label_of_class(name) == tuple(expected.index(number) for number in range(4))
