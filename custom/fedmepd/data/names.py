"""What the names of files and cases mean: modality, patient, institution, layout."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from fedmepd.data.cases import LABEL, PLAIN
from fedmepd.data.volumes import stem

# The words by which BraTS 2017 to 2024, the Decathlon, BIDS, BraTS toolkits and TCGA pre-processing name the files of a
# case. Two neighbouring words count as one, so that t1_ce and T2-FLAIR are understood.
WORDS: dict[str, str] = {
    **dict.fromkeys(("flair", "fla", "t2f", "t2flair"), "FLAIR"),
    **dict.fromkeys(("t1ce", "t1c", "t1gd", "t1post"), "T1ce"),
    **dict.fromkeys(("t1", "t1n", "t1w"), "T1"),
    **dict.fromkeys(("t2", "t2w"), "T2"),
    **dict.fromkeys(("seg", "segm", "segmentation", "label"), LABEL),
}


# With one of these words, a T1 may be an image with contrast agent, and a T2 may be a FLAIR.
_CONTRAST = frozenset(("contrast", "gad", "gado", "gadolinium", "gd", "km", "ce", "post", "postcontrast"))
_DARK_FLUID = frozenset(("dark", "darkfluid", "da", "tirm"))
# With one of these words, the file is not the image itself but was derived from it, or it is T2*.
_NO_IMAGE = frozenset(("map", "mask", "subtraction", "subtracted", "star", "t2star", "gre", "swi"))


def kinds_of(word_or_name: str) -> list[str]:
    """Returns the kinds (modalities or :data:`LABEL`) that the words of a name may stand for, each once."""
    return _kinds(_words(word_or_name))


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[^a-z0-9]+", name.lower()) if word]


def _kinds(words: list[str]) -> list[str]:
    found, others, place = [], set(), 0
    while place < len(words):
        for length in (2, 1):
            kind = WORDS.get("".join(words[place : place + length]))
            if kind is not None and place + length <= len(words):
                found.append(kind)
                place += length - 1
                break
        else:
            others.add(words[place])
        place += 1
    kinds = list(dict.fromkeys(found))
    if others & _NO_IMAGE and LABEL not in kinds:
        return []
    if kinds == ["T1"] and others & _CONTRAST:
        return ["T1", "T1ce"]
    if kinds == ["T2"] and others & _DARK_FLUID:
        return ["T2", "FLAIR"]
    return kinds


def kinds_of_file(path: Path) -> list[str]:
    """Returns the kinds that a file's name allows: none, or more than one, if the name does not decide.

    The names of the file's folder and of the folder above it do not count at the beginning: the folder of a patient or
    of an examination may be named after a modality. They do count if the folder is named so and no other word is left.
    """
    words, folder = _words(stem(path) or ""), _words(path.parent.name)
    for before in (_words(path.parent.parent.name) + folder, folder):
        if before and words[: len(before)] == before:
            left = _kinds(words[len(before) :])
            if left or kind_of(path.parent.name) is None:
                return left
    return _kinds(words)


@dataclass(frozen=True)
class CaseName:
    """What a case's name contains.

    Args:
        layout: the data set that names its cases so.
        patient: the patient.
        institution: where the images were made, if the name contains it.
        convention: meaning of the label's values, if the data set defines it.
        label_doubt: why the values of its label may not be this task's classes; empty: no doubt.
        tumour: the kind of tumour if it is not adult glioma but has labels of the same classes; else empty.
    """

    layout: str
    patient: str
    institution: str | None
    convention: str | None
    label_doubt: str = ""
    tumour: str = ""


# Brats18_CBICA_AAB_1: year, institution, patient, examination.
_YEARS_WITH_INSTITUTION = re.compile(r"brats(1[789])_([a-z]+\d*|\d{4})_.+_\d+", re.IGNORECASE)
_BRATS_2020 = re.compile(r"brats20_(training|validation)_\d+", re.IGNORECASE)
_BRATS_2021 = re.compile(r"brats2021_\d+", re.IGNORECASE)
# BraTS-GLI-00001-000, BraTS-MEN-RT-0001-1: challenge, patient, examination.
_BRATS_2023 = re.compile(r"(brats-([a-z]+(?:-[a-z]+)*)-\d+)-\d+", re.IGNORECASE)

# Challenges since 2023 whose labels are 1 NCR/NET, 2 ED, 3 ET, with the kind of tumour if it is not adult glioma. Since
# 2024 some of them use 4 for resection cavities, which the checks of label values refuse.
_SAME_CLASSES = {"gli": "", "ssa": "", "men": "meningioma", "met": "metastases"}
_OTHER_CLASSES = {
    "ped": "labels of children's tumours, of other classes (since 2024: 1 ET, 2 non-enhancing tumour, 3 cyst, 4 ED)",
    "men-rt": "labels of one class, the tumour volume to irradiate",
    "goat": "labels of several kinds of tumours",
}

_LABEL_WORD = re.compile(
    rf"[^a-z0-9]+(?:{'|'.join(word for word, kind in WORDS.items() if kind == LABEL)})(?![a-z0-9])", re.IGNORECASE
)


def read_case_name(name: str) -> CaseName:
    """Reads a case's name. If it fits no known data set, the name is also the patient's."""
    if match := _YEARS_WITH_INSTITUTION.fullmatch(name):
        return CaseName(f"BraTS 20{match[1]}", name.rpartition("_")[0], match[2].upper(), "brats")
    if _BRATS_2020.fullmatch(name):
        return CaseName("BraTS 2020", name, None, "brats")
    if _BRATS_2021.fullmatch(name):
        return CaseName("BraTS 2021", name, None, "brats")
    if match := _BRATS_2023.fullmatch(name):
        layout, challenge = "BraTS 2023 or later", match[2].lower().replace("peds", "ped")
        if challenge in _SAME_CLASSES:
            return CaseName(layout, match[1], None, "brats2023", tumour=_SAME_CLASSES[challenge])
        what = _OTHER_CLASSES.get(challenge, "labels of a challenge that is not known here")
        return CaseName(layout, match[1], None, None, f"{name} says {what}")
    return CaseName(PLAIN, name, None, None)


def read_label_name(case: str, label: Path | None) -> CaseName:
    """Returns what the names of a case and of its label's file say about the label. The file's name has priority.

    When a public case is put into a folder with another name, its files usually keep their names.
    """
    if label is not None:
        of_file = read_case_name(_LABEL_WORD.split(label.name[: len(stem(label) or "")])[0])
        if of_file.layout != PLAIN:
            return of_file
    return read_case_name(case)


def kind_of(words: str) -> str | None:
    """Returns the kind that the words name exactly, or None."""
    return WORDS.get(re.sub(r"[^a-z0-9]+", "", words.lower()))
