"""What the names of files and cases mean: modality, patient, institution, layout."""

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
    """Returns the kinds (modalities or :data:`LABEL`) that the words of a name may stand for, each once."""
    return _kinds(task, split_words(word_or_name))


def split_words(name: str) -> list[str]:
    """Returns the words of a name, in small letters."""
    return [word for word in re.split(r"[^a-z0-9]+", name.lower()) if word]


def _kinds(task: Task, words: list[str]) -> list[str]:
    known = words_of(task)
    found, others, place = [], set(), 0
    while place < len(words):
        for length in (2, 1):
            kind = known.get("".join(words[place : place + length]))
            if kind is not None and place + length <= len(words):
                found.append(kind)
                place += length - 1
                break
        else:
            others.add(words[place])
        place += 1
    kinds = list(dict.fromkeys(found))
    if others & set(task.derived_words) and LABEL not in kinds:
        return []
    if LABEL in kinds and others & set(task.other_label_words):
        return []
    for doubt in task.doubts:
        if kinds == [doubt.modality] and any(
            word in doubt.words or word.startswith(doubt.beginnings) for word in others
        ):
            return [doubt.modality, doubt.other]
    return kinds


def kinds_of_file(task: Task, path: Path) -> list[str]:
    """Returns the kinds that a file's name allows: none, or more than one, if the name does not decide.

    The names of the file's folder and of the folder above it do not count at the beginning: the folder of a patient or
    of an examination may be named after a modality. They do count if the folder is named so and no other word is left.
    """
    # BIDS names the image that a file lies over, which is not the file's own.
    name = re.sub(r"(?<=_)space-[a-z0-9]+_", "", stem(path) or "")
    words, folder = split_words(name), split_words(path.parent.name)
    if (kind := _kind_in_bids(task, stem(path) or "")) is not None:
        return [kind]
    for before in (split_words(path.parent.parent.name) + folder, folder):
        if before and words[: len(before)] == before:
            left = _kinds(task, words[len(before) :])
            if left or kind_of(task, path.parent.name) is None:
                return left
    return _kinds(task, words)


def _kind_in_bids(task: Task, name: str) -> str | None:
    """The modality of an image with contrast agent as BIDS names it, such as ``sub-1_ce-gadolinium_T1w``."""
    if not re.match(r"sub-[a-z0-9]+_", name) or not re.search(r"_ce-(gd|gad)[a-z0-9]*_", name):
        return None
    last = kind_of(task, name.rpartition("_")[2])
    return next((doubt.other for doubt in task.doubts if doubt.modality == last and "ce" in doubt.words), None)


@dataclass(frozen=True)
class CaseName:
    """What a case's name contains.

    Args:
        layout: the data set that names its cases so.
        patient: the patient.
        institution: where the images were made, if the name contains it.
        convention: meaning of the label's values, if the data set defines it.
        label_doubt: why the values of its label may not be the task's classes; empty: no doubt.
        disease: what the case has if it is not the task's disease but has labels of the same classes; else empty.
        label_choices: conventions of which its label may be, if there is a doubt.
        gathered: whether each of the case's images lies in a folder of its own.
        label_words: what the data set calls its labels, beside the task's words.
    """

    layout: str
    patient: str
    institution: str | None
    convention: str | None
    label_doubt: str = ""
    disease: str = ""
    label_choices: tuple[str, ...] = ()
    gathered: bool = False
    label_words: tuple[str, ...] = ()


def read_case_name(task: Task, name: str) -> CaseName:
    """Reads a case's name. If it fits no known data set, the name is also the patient's."""
    for names in task.case_names:
        if match := re.fullmatch(names.pattern, name, re.IGNORECASE):
            told = match.groupdict()
            institution = told.get("institution")
            return CaseName(
                names.layout.format_map(told),
                told.get("patient") or name,
                institution and institution.upper(),
                names.convention,
                f"{name} says {names.other_classes}" if names.other_classes else "",
                names.other_disease,
                names.choices,
                names.gathered,
                names.label_words,
            )
    return CaseName(PLAIN, name, None, None)


def read_label_name(task: Task, case: str, label: Path | None) -> CaseName:
    """Returns what the names of a case and of its label's file say about the label. The file's name has priority.

    When a public case is put into a folder with another name, its files usually keep their names.
    """
    if label is not None:
        word = rf"[^a-z0-9]+(?:{'|'.join(task.label_words)})(?![a-z0-9])"
        name = label.name[: len(stem(label) or "")]
        of_file = read_case_name(task, re.split(word, name, flags=re.IGNORECASE)[0])
        if of_file.layout != PLAIN:
            return of_file
    return read_case_name(task, case)


def kind_of(task: Task, words: str) -> str | None:
    """Returns the kind that the words name exactly, or None."""
    return words_of(task).get(re.sub(r"[^a-z0-9]+", "", words.lower()))
