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
from fedmepd.errors import DataError
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
    """

    channels: dict[str, int]
    convention: str | None
    label_doubt: str = ""
    findings: tuple[Finding, ...] = ()


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
    convention = _convention(task, told.get("labels"))
    doubt = ""
    if convention is None:
        said = json.dumps(told["labels"]) if "labels" in told else "missing"
        classes = ", ".join(task.classes)
        doubt = f"labels in {file} is {said}: expected the values of {classes} in one of the known conventions"
    return Described(_channels(task, file, told), convention, doubt)


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
            raise DataError(f"{file}: {key} is {json.dumps(told[key])}: {_expected(task)}", _PUBLIC)
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


def _convention(task: Task, told: Any) -> str | None:
    """The convention with exactly these values and classes, or None."""
    if not isinstance(told, dict):
        return None
    classes: dict[int, int] = {}
    for key, value in told.items():
        # The Decathlon writes "1": "edema", nnU-Net 2 writes "edema": 1.
        number, name = (key, value) if isinstance(value, str) else (value, key)
        if not re.fullmatch(r"\d{1,3}", str(number), re.ASCII):
            return None
        found = task.class_named(name)
        if found is None or classes.setdefault(int(number), found) != found:
            return None
    return next((name for name, convention in task.conventions.items() if convention.classes == classes), None)
