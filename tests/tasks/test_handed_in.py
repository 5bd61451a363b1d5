"""A task is handed in: no other file names its images or classes, and no module loads a task when it is imported."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import fedmepd
from fedmepd.tasks.find import find_task, task_names

PACKAGE = Path(fedmepd.__file__).parent
# The authors' files number the modalities, whose names stand beside the numbers.
EXCEPTIONS = {PACKAGE / "networks" / "published.py", *(PACKAGE / "tasks" / f"{name}.py" for name in task_names())}


def names() -> set[str]:
    """Modalities, classes and regions of all tasks, but those that are plain English words, as background is."""
    tasks = [find_task(name) for name in task_names()]
    found = {name for task in tasks for name in (*task.modalities, *task.classes, *task.regions)}
    return {name for name in found if name != name.lower()}


def texts(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of every string of a module but its docstrings."""
    tree = ast.parse(source)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    bodies = [node.body for node in ast.walk(tree) if isinstance(node, documented)]
    docstrings = {id(body[0].value) for body in bodies if body and isinstance(body[0], ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.lineno, node.value


def named(source: str) -> list[str]:
    """The strings of a module that hold a name of a task as a word, with their lines."""
    exact = names()
    # File words and options are modalities in small letters.
    words = exact | {modality.lower() for name in task_names() for modality in find_task(name).modalities}
    pattern = re.compile(
        rf"(?<![A-Za-z0-9])({'|'.join(map(re.escape, sorted(words, key=len, reverse=True)))})(?![A-Za-z0-9])"
    )
    return [f"{line}: {text[:80]}" for line, text in sorted(texts(source)) if pattern.search(text)]


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_task_is_named_in_its_own_file_alone(path: Path) -> None:
    if path not in EXCEPTIONS:
        assert named(path.read_text()) == []


def test_names_are_found() -> None:
    """The test above sees what there is to see."""
    assert named('"""T1 in a docstring."""\nx = f"a {1} FLAIR image"\ny = "scan_t1ce.nii"\nz = "T1w"\n') == [
        "2:  FLAIR image",
        "3: scan_t1ce.nii",
    ]
    assert all(named(path.read_text()) for path in EXCEPTIONS)


# What a text about any task must not say of all of them; of BraTS, it may say it by name.
BRAIN_TUMOURS = re.compile(r"\b(brains?|skull\w*|head without|tumou?rs?|oedema|gliomas?|MRI)\b", re.IGNORECASE)
# Names of what a prepared case holds, and a word in the names of regions of any data set.
KEYS = {"brain", "tumour", "tumor"}
# The phantoms are heads with a tumour.
ABOUT_HEADS = {PACKAGE / "data" / f"{name}.py" for name in ("phantom", "phantom_cohorts", "phantom_heads", "hospitals")}
OTHER_TASKS_PAPER = "Brain Tumor Segmentation, Medical Image Analysis 2025"


def about_brain_tumours(source: str) -> list[str]:
    """The strings of a module that speak of brain tumours, whatever the task, with their lines."""
    return [
        f"{line}: {text[:80]}"
        for line, text in sorted(texts(source))
        if BRAIN_TUMOURS.search(text) and "BraTS" not in text and text not in KEYS and OTHER_TASKS_PAPER not in text
    ]


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_text_calls_every_task_one_of_brain_tumours(path: Path) -> None:
    if path not in EXCEPTIONS | ABOUT_HEADS:
        assert about_brain_tumours(path.read_text()) == []


def test_such_texts_are_found() -> None:
    assert about_brain_tumours('x = "outside the brain"\ny = "in BraTS the tumour"\nz = f"{1} Tumours"\n') == [
        "1: outside the brain",
        "3:  Tumours",
    ]
    assert about_brain_tumours((PACKAGE / "tasks" / "brats.py").read_text())


def test_no_module_loads_a_task_when_it_is_imported() -> None:
    program = (
        "import importlib, pkgutil, sys, fedmepd\n"
        "from fedmepd.tasks.find import task_names\n"
        "tasks = {f'fedmepd.tasks.{name}' for name in task_names()}\n"
        "count = 0\n"
        "for module in pkgutil.walk_packages(fedmepd.__path__, 'fedmepd.'):\n"
        "    if module.name not in tasks and not module.name.endswith('.__main__'):\n"
        "        try:\n"
        "            importlib.import_module(module.name)\n"
        # The receivers of optional packages.
        "        except ModuleNotFoundError as error:\n"
        "            assert error.name in ('mlflow', 'wandb'), error\n"
        "        count += 1\n"
        "assert count > 100, count\n"
        "assert len(tasks) > 1 and not tasks & set(sys.modules), tasks & set(sys.modules)\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
