"""The command ``fedmepd tasks``, and the options by which other commands say a task and its label values."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from fedmepd.tasks.find import DEFAULT, find_task, task_names

if TYPE_CHECKING:
    from fedmepd.tasks.task import Task


def add_tasks_command(topics: argparse._SubParsersAction) -> None:
    """Adds it to the parser of ``fedmepd``."""
    tasks = topics.add_parser("tasks", help="list the tasks: modalities, file names, label values, regions")
    tasks.add_argument("name", nargs="?", help="one task; default: all")
    tasks.set_defaults(run=_tasks)


def add_task_option(parser: argparse.ArgumentParser, default: str = DEFAULT) -> None:
    """Adds the option ``--task``, None where it is not given.

    Args:
        parser: of a command.
        default: what the help says of that.
    """
    parser.add_argument(
        "--task", metavar="TASK", help=f"what the cases are of, see `fedmepd tasks`; default: {default}"
    )


def chosen_task(options: argparse.Namespace, values: Iterable[str | None] = ()) -> Task:
    """Returns the task that the options say, or the default one.

    Args:
        options: of the command.
        values: what they say of label values; the task gets those that a file describes.

    Raises:
        SettingsError: there is no such task, or a file with label values cannot be used.
    """
    return with_label_maps(find_task(options.task or DEFAULT), values)


def with_label_maps(task: Task, values: Iterable[str | None]) -> Task:
    """Returns the task with the label values that files describe, each under its file's name without the ending."""
    from fedmepd.tasks.label_map import is_label_map, read_label_map

    for given in values:
        if given is not None and is_label_map(given):
            task = task.with_convention(_name(given), read_label_map(task, Path(given)))
    return task


def convention_of(task: Task, given: str | None) -> str | None:
    """Returns the convention that a user calls so, or describes in the file of that name; None where nothing is said.

    Args:
        task: what :func:`with_label_maps` returned.
        given: the option's value.

    Raises:
        SettingsError: the task has none of that name.
    """
    from fedmepd.tasks.label_map import is_label_map

    return None if given is None else task.convention(_name(given) if is_label_map(given) else given)


def _name(file: str) -> str:
    return Path(file).name.rpartition(".")[0]


def conventions_help(*, to_write: bool = False) -> str:
    """The label values of the default task, as a part of an option's help; to read labels by, or to write them."""
    task = find_task(DEFAULT)
    names = [name for name, convention in task.conventions.items() if not (to_write and convention.groups)]
    known = ", ".join(f"{name} ({task.describe_convention(name)})" for name in names)
    own = "" if to_write else ", or a YAML file that describes them"
    return f"{known}{own}; `fedmepd tasks` lists those of other tasks"


def image_options() -> dict[str, str]:
    """Returns the options that name the image of a modality, for all tasks, and the modalities that each is for."""
    found: dict[str, list[str]] = {}
    for task in map(find_task, task_names()):
        for modality in task.modalities:
            names = found.setdefault(task.option(modality), [])
            names += [modality] if modality not in names else []
    return {option: " or ".join(names) for option, names in found.items()}


def image_destination(option: str) -> str:
    """Returns the name by which the parsed options hold the image of an option of :func:`image_options`."""
    return f"image_{option.removeprefix('--')}"


def _tasks(options: argparse.Namespace) -> None:
    names = task_names() if options.name is None else [options.name]
    print("\n\n".join("\n".join(_describe(find_task(name))) for name in names))


def _describe(task: Task) -> list[str]:
    lines = [f"{task.name}: {task.title} ({task.subject})"]
    for modality in task.modalities:
        lines.append(f"  image {modality}: a file name with {' or '.join(task.words[modality])}")
    lines += [f"  images: {task.images}", f"  intensities: {task.describe_intensities()}"]
    if task.voxel_mm:
        does = "to which all cases are resampled" if task.resampled else "expected; nothing is resampled"
        lines.append(f"  voxels: {task.describe_voxels()}, {does}")
    lines.append(f"  label: a file name with {' or '.join(task.label_words)}")
    for name in task.conventions:
        written = ", as segmentations are written" if name == task.default_convention else ""
        lines.append(f"  label values {name}: {task.describe_convention(name)}{written}")
    for region, members in task.regions.items():
        lines.append(f"  region {region}: {' + '.join(task.classes[number] for number in members)}")
    return lines
