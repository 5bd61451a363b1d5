"""Finding a task by its name, which is the name of its file in this folder."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

from fedmepd.errors import SettingsError
from fedmepd.tasks.task import Task

# The task where neither a model nor a job nor the user says one.
DEFAULT = "brats"

# Files of this folder that are no task.
_OTHERS = ("find", "task")


def task_names() -> tuple[str, ...]:
    """Returns the names of all tasks, the default first."""
    found = {module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)])} - set(_OTHERS)
    return tuple(sorted(found, key=lambda name: (name != DEFAULT, name)))


def find_task(name: str) -> Task:
    """Returns a task.

    Args:
        name: of a file in this folder, whose ``TASK`` it is.

    Raises:
        SettingsError: there is no such task, or its file cannot be used.
    """
    if name not in task_names():
        raise SettingsError(f"unknown task {name!r}: expected one of {', '.join(task_names())}")
    try:
        task = importlib.import_module(f"fedmepd.tasks.{name}").TASK
    # A task's file is written by users: whatever is wrong with it shall name it.
    except Exception as error:
        raise SettingsError(f"the file {name}.py of fedmepd/tasks cannot be used: {error}") from error
    if task.name != name:
        raise SettingsError(f"the file {name}.py of fedmepd/tasks holds a task {task.name!r}: expected the same name")
    return task


def task_of(settings: dict) -> Task:
    """Returns the task of a run from the settings that its results hold; older ones do not say it."""
    return find_task(settings.get("task", DEFAULT))
