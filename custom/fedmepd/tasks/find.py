"""Finding a task by its name, which is the name of its file in this package."""

from __future__ import annotations

import importlib
import pkgutil

from fedmepd.closest import one_of
from fedmepd.errors import SettingsError
from fedmepd.tasks.task import Task

# The task where neither a model nor a job nor the user says one.
DEFAULT = "brats"

_PACKAGE = "fedmepd.tasks"

# Files of the package that are no task.
_OTHERS = ("find", "label_map", "labels", "rules", "task")


def task_names(package: str = _PACKAGE) -> tuple[str, ...]:
    """Returns the names of all tasks, the default first.

    Args:
        package: the Python package whose files are tasks.
    """
    found = {module.name for module in pkgutil.iter_modules(importlib.import_module(package).__path__)} - set(_OTHERS)
    return tuple(sorted(found, key=lambda name: (name != DEFAULT, name)))


def find_task(name: str, package: str = _PACKAGE) -> Task:
    """Returns a task.

    Args:
        name: of a file in the package, whose ``TASK`` it is.
        package: the Python package whose files are tasks.

    Raises:
        SettingsError: there is no such task, or its file cannot be used.
    """
    if name not in (names := task_names(package)):
        raise SettingsError(f"unknown task {name!r}: {one_of(name, names)}")
    file = f"the file {name}.py of {package.replace('.', '/')}"
    try:
        task = importlib.import_module(f"{package}.{name}").TASK
    # A task's file is written by users: whatever is wrong with it shall name it.
    except Exception as error:
        raise SettingsError(f"{file} cannot be used: {error}") from error
    if task.name != name:
        raise SettingsError(f"{file} holds a task {task.name!r}: expected the same name")
    return task


def task_of(settings: dict) -> Task:
    """Returns the task of a run from the settings that its results hold; older ones do not say it."""
    return find_task(settings.get("task", DEFAULT))
