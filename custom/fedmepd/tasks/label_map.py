"""A user's own label values: a YAML file that says what each of them means."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedmepd.closest import one_of
from fedmepd.errors import SettingsError, cannot_read, explain
from fedmepd.tasks.labels import IGNORE, Convention, grouped
from fedmepd.tasks.task import Task

BACKGROUND_WORD, IGNORE_WORD = "background", "ignore"

ENDINGS = (".yaml", ".yml")


class LabelMap(BaseModel):
    """What the file holds.

    ``values``: of each value of the labels, a class or a region of the task, ``background``, or ``ignore``.
    ``classes``: the classes and regions that the labels tell, where these are not all classes of the task.
    """

    model_config = ConfigDict(extra="forbid")

    values: dict[int, str] = Field(min_length=1)
    classes: list[str] | None = None


def is_label_map(given: str) -> bool:
    """Whether what a user says of the label values is the name of a file."""
    return given.lower().endswith(ENDINGS)


def read_label_map(task: Task, file: Path) -> Convention:
    """Reads the file.

    A region stands for all its classes: the label says that a voxel is one of them, and not which. A class that no
    value names may hide in the background, so the label does not tell it from the background either.

    Args:
        task: of the labels.
        file: in YAML, see :class:`LabelMap`.

    Raises:
        SettingsError: the file cannot be read, names a class that the task has not, or leaves open what is annotated.
    """
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        if content is None:
            raise SettingsError(f"{file} is empty: expected `values`, with the meaning of each value of the labels")
        content = LabelMap.model_validate(content)
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        what = "a YAML file with `values`, the meaning of each value of the labels"
        raise SettingsError(cannot_read(file, error, what, "YAML")) from error
    except ValidationError as error:
        raise SettingsError(explain(error, str(file), LabelMap)) from error
    return label_map_convention(task, content, str(file))


def label_map_convention(task: Task, content: LabelMap, where: str) -> Convention:
    """Returns the convention that a label map describes; errors name ``where``. See :func:`read_label_map`."""
    meanings = {value: _members(task, name, where) for value, name in content.values.items()}
    wrong = [value for value in meanings if not 0 <= value < 256]
    if wrong:
        raise SettingsError(f"{where}: value {wrong[0]}: expected whole numbers from 0 to 255")
    if meanings.get(0, ()) not in (None, (0,)):
        raise SettingsError(f"{where}: value 0: expected {BACKGROUND_WORD} or {IGNORE_WORD}")
    sets = {members for members in meanings.values() if members}
    twice = next((task.classes[number] for number, times in _counts(sets).items() if times > 1), None)
    if twice is not None:
        raise SettingsError(f"{where}: {twice} is part of several values' meanings: expected classes or regions apart")
    names = [name for name in content.values.values() if name.lower() not in (BACKGROUND_WORD, IGNORE_WORD)]
    if not names:
        raise SettingsError(f"{where}: no value stands for a class: expected {', '.join(task.classes[1:])}, or regions")
    hidden = set(range(1, len(task.classes))) - {number for members in sets for number in members}
    partial = hidden or any(len(members) > 1 for members in sets)
    _check_classes(task, content, names, bool(partial), where)
    background = {0, *hidden}
    classes = {
        value: IGNORE if members is None else min(background) if members == (0,) else min(members)
        for value, members in meanings.items()
    }
    groups = grouped(len(task.classes), [*sets - {(0,)}, background]) if partial else ()
    return Convention(Path(where).name, classes, groups=groups, by_values=False)


def _members(task: Task, name: str, where: str) -> tuple[int, ...] | None:
    """The classes that a name stands for; None for a voxel to ignore."""
    if name.lower() == IGNORE_WORD:
        return None
    names = {class_name.lower(): (number,) for number, class_name in enumerate(task.classes)}
    names |= {region.lower(): tuple(sorted(members)) for region, members in task.regions.items()}
    names[BACKGROUND_WORD] = (0,)
    if name.lower() not in names:
        known = dict.fromkeys([*task.classes[1:], *task.regions, BACKGROUND_WORD, IGNORE_WORD])
        raise SettingsError(f"{where}: unknown meaning {name!r}: {one_of(name, known)}")
    return names[name.lower()]


def _counts(sets: set[tuple[int, ...]]) -> Counter[int]:
    return Counter(number for members in sets for number in members)


def _check_classes(task: Task, content: LabelMap, names: list[str], partial: bool, where: str) -> None:
    told = list(dict.fromkeys(names))
    if content.classes is None:
        if partial:
            raise SettingsError(
                f"{where}: the values do not tell all classes of task {task.name} ({', '.join(task.classes[1:])}): if "
                f"nothing else is annotated, add `classes: [{', '.join(told)}]`"
            )
    elif {name.lower() for name in content.classes} != {name.lower() for name in told}:
        raise SettingsError(f"{where}: classes: expected those that the values name: {', '.join(told)}")
