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


def kinds_of(word_or_name: str) -> list[str]:
    """Returns the kinds (modalities or :data:`LABEL`) that the words of a name stand for, each once."""
    words = [word for word in re.split(r"[^a-z0-9]+", word_or_name.lower()) if word]
    found, place = [], 0
    while place < len(words):
        for length in (2, 1):
            kind = WORDS.get("".join(words[place : place + length]))
            if kind is not None and place + length <= len(words):
                found.append(kind)
                place += length - 1
                break
        place += 1
    return list(dict.fromkeys(found))


def kinds_of_file(path: Path) -> list[str]:
    """Returns the kinds that a file's name allows: none, or more than one, if the name does not decide.

    The name of the file's folder at its beginning does not count: a patient's folder may be named after a modality.
    """
    name, folder = stem(path) or "", path.parent.name.lower()
    return kinds_of(name[len(folder) :] if name.startswith(folder) else name)


@dataclass(frozen=True)
class CaseName:
    """What a case's name contains.

    Args:
        layout: the data set that names its cases so.
        patient: the patient.
        institution: where the images were made, if the name contains it.
        convention: of its label, if the data set has one.
    """

    layout: str
    patient: str
    institution: str | None
    convention: str | None


# Brats18_CBICA_AAB_1: year, institution, patient, examination.
_YEARS_WITH_INSTITUTION = re.compile(r"brats(1[789])_([a-z]+\d*|\d{4})_.+_\d+", re.IGNORECASE)
_BRATS_2020 = re.compile(r"brats20_(training|validation)_\d+", re.IGNORECASE)
_BRATS_2021 = re.compile(r"brats2021_\d+", re.IGNORECASE)
# BraTS-GLI-00001-000: task, patient, examination.
_BRATS_2023 = re.compile(r"(brats-[a-z]+-\d+)-\d+", re.IGNORECASE)


def read_case_name(name: str) -> CaseName:
    """Reads a case's name. If it fits no known data set, the name is also the patient's."""
    if match := _YEARS_WITH_INSTITUTION.fullmatch(name):
        return CaseName(f"BraTS 20{match[1]}", name.rpartition("_")[0], match[2].upper(), "brats")
    if _BRATS_2020.fullmatch(name):
        return CaseName("BraTS 2020", name, None, "brats")
    if _BRATS_2021.fullmatch(name):
        return CaseName("BraTS 2021", name, None, "brats")
    if match := _BRATS_2023.fullmatch(name):
        return CaseName("BraTS 2023 or later", match[1], None, "brats2023")
    return CaseName(PLAIN, name, None, None)
