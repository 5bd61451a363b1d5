"""What the ``dataset.json`` of a data set in the Decathlon's layout says of its channels and of its labels."""

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
from fedmepd.modalities import BRATS

FILE_NAME = "dataset.json"

# Of the Decathlon and nnU-Net 1, and of nnU-Net 2.
_CHANNEL_KEYS = ("modality", "channel_names")

# Task01 itself, where its dataset.json was lost; its cases are called so.
_TASK01_CASE = re.compile(r"BRATS_\d{3}", re.IGNORECASE)
_TASK01_CHANNELS = {"FLAIR": 0, "T1": 1, "T1ce": 2, "T2": 3}

_EXPECTED = "expected one of FLAIR, T1w, t1gd, T2w for each channel"
_PUBLIC = "the dataset.json of the site's data cannot be used"

# A label's name says its class if its words are these, besides those that say nothing.
_CLASS_WORDS = {
    "background": {"background"},
    "NCR/NET": {"ncr", "net", "netc", "necrosis", "necrotic", "nonenhancing"},
    "ED": {"ed", "edema", "oedema", "snfh"},
    "ET": {"et", "enhancing"},
}
_SAY_NOTHING = {"tumor", "tumour", "core", "and", "peritumoral", "peritumoural"}


@dataclass(frozen=True)
class Described:
    """What is known of a data set in the Decathlon's layout.

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


def read_dataset_json(folder: Path, case_names: Iterable[str], follow_links: bool) -> Described:
    """Reads the file; without one, the Decathlon's own cases, known by their names, are taken for what they are.

    Args:
        folder: with the folder ``imagesTr``.
        case_names: of the data set.
        follow_links: whether links may lead out of the folder.

    Raises:
        DataError: the file is damaged, or does not say which modality each channel is; or there is none, and the cases
            are not the Decathlon's.
    """
    file = folder / FILE_NAME
    if not file.is_file() and not file.is_symlink():
        return _without_file(file, case_names)
    if (problem := outside(file, folder, follow_links)) is not None:
        raise DataError(problem.text, _PUBLIC)
    try:
        # Some editors put a byte-order mark first.
        told = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as problem:
        raise DataError(f"{file} cannot be read as JSON: {problem}", _PUBLIC) from problem
    if not isinstance(told, dict):
        raise DataError(f"{file}: expected an object with modality or channel_names, and labels", _PUBLIC)
    convention = _convention(told.get("labels"))
    doubt = ""
    if convention is None:
        said = json.dumps(told["labels"]) if "labels" in told else "missing"
        classes = ", ".join(BRATS.classes)
        doubt = f"labels in {file} is {said}: expected the values of {classes} as one of the known conventions has them"
    return Described(_channels(file, told), convention, doubt)


def _without_file(file: Path, case_names: Iterable[str]) -> Described:
    if not all(_TASK01_CASE.fullmatch(name) for name in case_names):
        raise DataError(
            f"{file} does not exist, and the cases are not called as the Decathlon's: expected the file with modality "
            f"({_EXPECTED}, in the order of the channels) and labels (the name of each value's class)",
            _PUBLIC,
        )
    text = f"{file} does not exist: channels are read as FLAIR, T1, T1ce, T2, labels as 1 ED, 2 NCR/NET, 3 ET"
    return Described(_TASK01_CHANNELS, "msd", findings=(warning("no dataset.json, read as the Decathlon's", text),))


def _channels(file: Path, told: dict[str, Any]) -> dict[str, int]:
    there = [key for key in _CHANNEL_KEYS if key in told]
    if not there:
        raise DataError(f"{file}: modality is missing: {_EXPECTED}", _PUBLIC)
    read = {key: _modalities(told[key]) for key in there}
    for key, modalities in read.items():
        if modalities is None:
            raise DataError(f"{file}: {key} is {json.dumps(told[key])}: {_EXPECTED}", _PUBLIC)
    if len(there) > 1 and read[there[0]] != read[there[1]]:
        raise DataError(f"{file}: {' and '.join(there)} say different channels: remove the wrong one", _PUBLIC)
    return {modality: number for number, modality in enumerate(read[there[0]] or ())}


def _modalities(told: Any) -> list[str] | None:
    """The modality of each channel, in their order; None where that is not clear."""
    if isinstance(told, list):
        names = told
    elif isinstance(told, dict) and all(re.fullmatch(r"\d{1,4}", key, re.ASCII) for key in told):
        numbered = {int(key): name for key, name in told.items()}
        if len(numbered) < len(told) or sorted(numbered) != list(range(len(told))):
            return None
        names = [numbered[number] for number in range(len(told))]
    else:
        return None
    kinds = [kind_of(name) if isinstance(name, str) else None for name in names]
    if not kinds or None in kinds or LABEL in kinds or len(set(kinds)) < len(kinds):
        return None
    return [kind for kind in kinds if kind is not None]


def _convention(told: Any) -> str | None:
    """The convention whose values and classes are exactly these; None where none is."""
    if not isinstance(told, dict):
        return None
    classes: dict[int, int] = {}
    for key, value in told.items():
        # The Decathlon writes "1": "edema", nnU-Net 2 writes "edema": 1.
        number, name = (key, value) if isinstance(value, str) else (value, key)
        if not re.fullmatch(r"\d{1,3}", str(number), re.ASCII):
            return None
        found = _class(name)
        if found is None or classes.setdefault(int(number), found) != found:
            return None
    return next((name for name, convention in BRATS.conventions.items() if convention == classes), None)


def _class(name: str) -> int | None:
    """The number of the class that a label's name says in so many words; None where it says none or several."""
    plain = re.sub(r"non[^a-z0-9]*enhancing", "nonenhancing", name.lower())
    words = {word for word in re.split(r"[^a-z0-9]+", plain) if word} - _SAY_NOTHING
    for number, class_name in enumerate(BRATS.classes):
        if words and words <= _CLASS_WORDS[class_name]:
            return number
    return None
