"""The task of docs/tasks.md is a task, and its made cases are cases of it."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import numpy as np
import pytest

from fedmepd.data.inspection import inspect_cases
from fedmepd.data.layouts import find_dataset
from fedmepd.tasks.task import Task

PAGE = Path(__file__).parents[2] / "docs" / "tasks.md"


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The two programs of the page: the task's file, and what makes cases."""
    folder = tmp_path_factory.mktemp("programs")
    files = []
    for number, content in enumerate(re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)):
        files.append(folder / f"{number}.py")
        files[-1].write_text(content)
    return files


def test_the_example(programs: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    task = runpy.run_path(str(programs[0]))["TASK"]
    assert isinstance(task, Task) and f"`custom/fedmepd/tasks/{task.name}.py`" in PAGE.read_text()
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(programs[1]))
    for site, modalities in {"fusion": ("T1ce", "FLAIR"), "site-1": ("T1ce",), "site-2": ("FLAIR",)}.items():
        inspection = inspect_cases(find_dataset(task, tmp_path / "made" / site).cases)
        inspection.require_good()
        assert {case.modalities for case in inspection.cases} == {modalities} and len(inspection.cases) == 8
        assert {case.convention for case in inspection.cases} == {"clinic"}
        assert all(np.all([found.label_counts[value] for value in (0, 1, 2)]) for found in inspection.facts)
