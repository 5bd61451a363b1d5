"""The cases of a folder that is to be segmented."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedmepd.data.cases import Case
from fedmepd.data.layouts import Dataset
from fedmepd.data.opening import nameable
from fedmepd.tasks.brats import BRATS


def dataset(*names: str) -> Dataset:
    cases = [Case(name, {"T1": Path(name)}, None, patient=name, task=BRATS) for name in names]
    return Dataset(Path("x"), "cases", cases)


@pytest.mark.parametrize("name", ["../a", "..", "a\x1b[2J", "a\nb", "a\u202eb"])
def test_a_name_that_no_file_is_to_have(name: str) -> None:
    """A segmentation is named after its case."""
    cases, problems = nameable(dataset("good", name, "Müller 1"))
    assert [case.name for case in cases] == ["good", "Müller 1"]
    assert problems == [f"{name!r} is no name that a file can have: rename the case"]
