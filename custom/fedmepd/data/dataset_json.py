"""The ``dataset.json`` of a data set in the Decathlon layout: its channels and its label values."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedmepd.data.cases import LABEL
from fedmepd.data.containment import outside
from fedmepd.data.findings import Finding, warning
from fedmepd.data.names import kind_of
from fedmepd.errors import DataError, plain_text
from fedmepd.tasks.labels import Convention, grouped
from fedmepd.tasks.task import Task

FILE_NAME = "dataset.json"

# The first key is that of the Decathlon and nnU-Net 1, the second that of nnU-Net 2.
_CHANNEL_KEYS = ("modality", "channel_names")

_PUBLIC = "the dataset.json of the site's data cannot be used"


@dataclass(frozen=True)
class Described:
    """What is known about a data set in the Decathlon layout.

    Args:
        channels: the volume of each modality in an image file, from 0.
        convention: how the labels' values are to be read; None where it is not known.
        label_doubt: why it is not.
        findings: what was found besides.
        own: name and content of the convention, if it is the file's own: the task has none with these values.
    """

    channels: dict[str, int]
    convention: str | None
    label_doubt: str = ""
    findings: tuple[Finding, ...] = ()
    own: tuple[str, Convention] | None = None


def read_dataset_json(task: Task, folder: Path, case_names: Iterable[str], follow_links: bool) -> Described:
    """Reads the file. If there is none, the Decathlon's own cases are recognised by their names.

    Args:
        task: that the cases are of.
        folder: the folder that contains ``imagesTr``.
        case_names: names of all cases of the data set.
        follow_links: whether links may lead out of the folder.

    Raises:
        DataError: the file is damaged or does not name the modality of each channel, or there is no file and the cases
            are not those of the Decathlon.
    """
    file = folder / FILE_NAME
    if not file.is_file() and not file.is_symlink():
        return _without_file(task, file, case_names)
    if (problem := outside(file, folder, follow_links)) is not None:
        raise DataError(problem.text, _PUBLIC)
    try:
        # Some editors write a byte-order mark at the beginning.
        told = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as problem:
        raise DataError(f"{file} cannot be read as JSON: {problem}", _PUBLIC) from problem
    if not isinstance(told, dict):
        raise DataError(f"{file}: expected an object with modality or channel_names, and labels", _PUBLIC)
    found, doubt = _convention(task, told.get("labels")), ""
    convention = own = None
    if found is not None:
        # One of that name is of an earlier reading of the file.
        known = {name: one for name, one in task.conventions.items() if name != FILE_NAME}
        convention = next((name for name, one in known.items() if _same(one, found)), FILE_NAME)
        own = (FILE_NAME, found) if convention == FILE_NAME else None
    else:
        said = plain_text(json.dumps(told["labels"])) if "labels" in told else "missing"
        classes = ", ".join(task.classes)
        doubt = f"labels in {file} is {said}: expected the values of {classes}"
    return Described(_channels(task, file, told), convention, doubt, own=own)


def _without_file(task: Task, file: Path, case_names: Iterable[str]) -> Described:
    known = task.decathlon
    if known is None or not all(re.fullmatch(known.case, name, re.IGNORECASE) for name in case_names):
        raise DataError(
            f"{file} does not exist, and the names of the cases are not those of the Decathlon: expected the file with "
            f"modality ({_expected(task)}, in the order of the channels) and labels (the name of each value's class)",
            _PUBLIC,
        )
    text = (
        f"{file} does not exist: channels are read as {', '.join(known.channels)}, labels as "
        f"{task.describe_convention(known.convention)}"
    )
    channels = {modality: number for number, modality in enumerate(known.channels)}
    return Described(channels, known.convention, findings=(warning("no dataset.json, read as the Decathlon's", text),))


def _expected(task: Task) -> str:
    return f"expected one of {', '.join(task.modalities)} for each channel"


def _channels(task: Task, file: Path, told: dict[str, Any]) -> dict[str, int]:
    there = [key for key in _CHANNEL_KEYS if key in told]
    if not there:
        raise DataError(f"{file}: modality is missing: {_expected(task)}", _PUBLIC)
    read = {key: _modalities(task, told[key]) for key in there}
    for key, modalities in read.items():
        if modalities is None:
            raise DataError(f"{file}: {key} is {plain_text(json.dumps(told[key]))}: {_expected(task)}", _PUBLIC)
    if len(there) > 1 and read[there[0]] != read[there[1]]:
        raise DataError(f"{file}: {' and '.join(there)} say different channels: remove the wrong one", _PUBLIC)
    return {modality: number for number, modality in enumerate(read[there[0]] or ())}


def _modalities(task: Task, told: Any) -> list[str] | None:
    """The modality of each channel, in order; None if it is not clear."""
    if isinstance(told, list):
        names = told
    elif isinstance(told, dict) and all(re.fullmatch(r"\d{1,4}", key, re.ASCII) for key in told):
        numbered = {int(key): name for key, name in told.items()}
        if len(numbered) < len(told) or sorted(numbered) != list(range(len(told))):
            return None
        names = [numbered[number] for number in range(len(told))]
    else:
        return None
    kinds = [kind_of(task, name) if isinstance(name, str) else None for name in names]
    if not kinds or None in kinds or LABEL in kinds or len(set(kinds)) < len(kinds):
        return None
    return [kind for kind in kinds if kind is not None]


def _convention(task: Task, told: Any) -> Convention | None:
    """What the values mean, or None if it is not clear for all classes.

    A name may stand for several values and a value for several names, as in nnU-Net's regions: a value is of the
    classes that all its names have in common and none of the others has.
    """
    if not isinstance(told, dict):
        return None
    values_of: list[tuple[set[int], set[int]]] = []
    for key, value in told.items():
        # The Decathlon writes "1": "edema", nnU-Net 2 writes "edema": 1.
        numbers, name = (key, value) if isinstance(value, str) else (value, key)
        numbers = numbers if isinstance(numbers, list) else [numbers]
        members = task.named(name)
        if members is None or any(
            isinstance(one, bool) or not re.fullmatch(r"\d{1,3}", str(one), re.ASCII) for one in numbers
        ):
            return None
        values_of.append(({int(one) for one in numbers}, set(members)))
    classes: dict[int, tuple[int, ...]] = {}
    for value in sorted(set().union(*(values for values, _ in values_of))):
        inside = [members for values, members in values_of if value in values]
        others = [
            members
            for values, members in values_of
            # Of other values of the same class, as two kinds of necrosis are, the value stays one of that class.
            if value not in values and not members <= {0} and members not in inside
        ]
        classes[value] = tuple(sorted(set.intersection(*inside).difference(*others)))
        if not classes[value]:
            return None
    sets = set(classes.values())
    together = sorted(number for members in sets for number in members)
    if together != list(range(len(task.classes))) or classes.get(0) != (0,):
        return None
    groups = grouped(len(task.classes), sets) if any(len(members) > 1 for members in sets) else ()
    numbers = {value: members[0] for value, members in classes.items()}
    return Convention(FILE_NAME, numbers, groups=groups, by_values=False)


def _same(one: Convention, other: Convention) -> bool:
    return (one.classes, one.groups) == (other.classes, other.groups)
