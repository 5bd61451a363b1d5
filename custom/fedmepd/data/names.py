"""What names of files and cases say: modality, patient, institution, layout."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from fedmepd.data.cases import LABEL, PLAIN
from fedmepd.data.volumes import stem
from fedmepd.tasks.task import Task


def words_of(task: Task) -> dict[str, str]:
    """Returns what each word of a file's name stands for: a modality, or :data:`LABEL`."""
    by_kind = task.words | {LABEL: task.label_words}
    return {word: kind for kind, words in by_kind.items() for word in words}


def kinds_of(task: Task, word_or_name: str) -> list[str]:
    """Returns the kinds (modalities or :data:`LABEL`) that the words of a name stand for, each once."""
    known = words_of(task)
    words = [word for word in re.split(r"[^a-z0-9]+", word_or_name.lower()) if word]
    found, place = [], 0
    while place < len(words):
        for length in (2, 1):
            kind = known.get("".join(words[place : place + length]))
            if kind is not None and place + length <= len(words):
                found.append(kind)
                place += length - 1
                break
        place += 1
    return list(dict.fromkeys(found))


def kinds_of_file(task: Task, path: Path) -> list[str]:
    """Returns the kinds that a file's name allows, none or more than one where it does not decide.

    The name of the file's folder at its beginning does not count: a patient's folder may be called after a modality.
    """
    name, folder = stem(path) or "", path.parent.name.lower()
    return kinds_of(task, name[len(folder) :] if name.startswith(folder) else name)


@dataclass(frozen=True)
class CaseName:
    """What a case's name says.

    Args:
        layout: the data set that names its cases so.
        patient: whose examination it is.
        institution: where it was made, if the name tells.
        convention: of its label, if the data set has one.
    """

    layout: str
    patient: str
    institution: str | None
    convention: str | None


def read_case_name(task: Task, name: str) -> CaseName:
    """Returns what a case's name says; of a name of no known data set, that it is its own patient."""
    for names in task.case_names:
        if match := re.fullmatch(names.pattern, name, re.IGNORECASE):
            told = match.groupdict()
            institution = told.get("institution")
            return CaseName(
                names.layout.format_map(told),
                told.get("patient") or name,
                institution and institution.upper(),
                names.convention,
            )
    return CaseName(PLAIN, name, None, None)
