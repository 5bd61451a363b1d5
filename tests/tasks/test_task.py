"""What a task refuses, and finding one."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fedmepd.errors import SettingsError
from fedmepd.tasks.brats import BRATS
from fedmepd.tasks.find import find_task, task_names, task_of
from fedmepd.tasks.task import CaseNames, Convention, Doubt, SmallClass


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "BraTS 2020"}, "task BraTS 2020: name: expected small letters"),
        ({"modalities": ()}, "modalities: expected at least one"),
        ({"modalities": ("T1", "T1")}, "modalities: expected at least one, each once"),
        ({"modalities": ("T1-w",)}, "'T1-w': expected letters, digits and _"),
        ({"words": BRATS.words | {"T1": ("t1n",)}}, "words: expected 't1' among the words of T1"),
        ({"words": BRATS.words | {"PET": ("pet",)}}, "'PET' is no modality: expected FLAIR, T1ce, T1, T2"),
        ({"words": BRATS.words | {"T2": ("t2", "t1")}}, "'t1' stands for T1 and for T2"),
        ({"words": BRATS.words | {"T2": ("t2", "T2_w")}}, "'T2_w' of T2: expected small letters and digits"),
        ({"label_words": ()}, "label_words: expected at least one"),
        ({"classes": ("background",)}, "classes: expected the background and at least one more"),
        ({"class_colours": ("#000000",)}, "class_colours: expected 3"),
        ({"conventions": {"brats": Convention("x", {0: 0, 1: 1, 2: 2})}}, "brats: expected a value for each class"),
        (
            {"conventions": {"brats": Convention("x", {1: 0, 0: 1, 2: 2, 4: 3})}},
            "brats: expected a value for each class",
        ),
        ({"default_convention": "other"}, "'other' is none of them: expected brats, brats2023, brats2024"),
        ({"case_names": (CaseNames("x", "x", "brats2030"),)}, "'brats2030' is none of them"),
        ({"case_names": (CaseNames("x", "x", None),)}, "case_names: x: expected either a convention or other_classes"),
        ({"case_names": (CaseNames("x", "x", "brats", "y"),)}, "x: expected either a convention or other_classes"),
        ({"doubts": (Doubt("T1", ("gd",), "CT"),)}, "doubts: 'CT' is no modality: expected FLAIR, T1ce, T1, T2"),
        ({"class_words": {"cyst": ("cyst",)}}, "class_words: 'cyst' is no class: expected background, NCR/NET, ED, ET"),
        ({"regions": {"WT": (1, 4)}}, "regions: WT: expected numbers of classes from 1 to 3"),
        ({"regions": {"WT": (0, 1)}}, "regions: WT: expected numbers of classes from 1 to 3"),
        ({"colours": {"WT": "#000000"}}, "colours: expected one for each region: WT, TC, ET"),
        ({"small_class": SmallClass(4, 1)}, "small_class: expected numbers of classes from 0 to 3"),
        ({"foreground": "everything"}, "foreground: unknown rule 'everything': expected nonzero"),
        ({"intensity": "histogram"}, "intensity: unknown rule 'histogram': expected z-score or percentiles"),
    ],
)
def test_parts_that_do_not_fit(change: dict, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        replace(BRATS, **change)


def test_conventions_by_name() -> None:
    assert [BRATS.convention(name) for name in ("msd", "2023", "brats2023")] == ["msd", "brats2023", "brats2023"]
    with pytest.raises(
        SettingsError, match=r"task brats has no label values '2030': expected brats \(BraTS until 2021"
    ):
        BRATS.convention("2030")
    assert BRATS.describe_convention("msd") == "Decathlon: 0, 1 ED, 2 NCR/NET, 3 ET"
    assert BRATS.describe_labels() == "0 background, 1 NCR/NET, 2 ED, 4 ET"
    assert (BRATS.file_name("a", "T1ce"), BRATS.file_name("a", None)) == ("a_t1ce.nii.gz", "a_seg.nii.gz")


@pytest.mark.parametrize(
    ("task", "name", "expected"),
    [
        ("brats", "background", 0),
        ("brats", "necrotic and non-enhancing tumor core", 1),
        ("brats", "Nonenhancing tumour", 1),
        ("brats", "peritumoral edema", 2),
        ("brats", "enhancing tumor", 3),
        ("brats", "enhancing and non-enhancing tumor", None),
        ("brats", "tumor", None),
        ("brats", "resection cavity", None),
        ("brats", "", None),
        ("brats_post_treatment", "non-enhancing tumor core", 1),
        ("brats_post_treatment", "surrounding non-enhancing FLAIR hyperintensity", 2),
        ("brats_post_treatment", "enhancing tissue", 3),
        ("brats_post_treatment", "resection cavity", 4),
        # A class without words of its own is meant by those of its name.
        ("brats_post_treatment", "Background", 0),
    ],
)
def test_classes_by_name(task: str, name: str, expected: int | None) -> None:
    assert find_task(task).class_named(name) == expected


def test_tasks_are_found_by_name() -> None:
    assert task_names()[0] == "brats" and "brats_post_treatment" in task_names()
    for name in task_names():
        assert find_task(name).name == name and find_task(name) is find_task(name)
    with pytest.raises(SettingsError, match="unknown task 'task': expected one of brats, "):
        find_task("task")
    # Results of before there were tasks do not say theirs.
    assert task_of({"task": "brats_post_treatment"}).name == "brats_post_treatment" and task_of({}) is BRATS


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("TASK = 1 / 0", "broken_task.py of hospital_tasks cannot be used: division by zero"),
        ("", "broken_task.py of hospital_tasks cannot be used: .* has no attribute 'TASK'"),
        ("from fedmepd.tasks.brats import TASK", "broken_task.py .* holds a task 'brats': expected the same name"),
    ],
)
def test_a_file_that_holds_no_task(content: str, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "hospital_tasks").mkdir()
    (tmp_path / "hospital_tasks" / "broken_task.py").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    assert task_names("hospital_tasks") == ("broken_task",)
    try:
        with pytest.raises(SettingsError, match=message):
            find_task("broken_task", "hospital_tasks")
    finally:
        for name in ("hospital_tasks.broken_task", "hospital_tasks"):
            sys.modules.pop(name, None)
