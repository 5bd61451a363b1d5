"""What folders of cases look like, and how their files are told apart."""

from __future__ import annotations

import re
from pathlib import Path

from fedmepd.data.cases import Case
from fedmepd.errors import DataError

LABEL = "label"

# The words by which BraTS 2018 to 2023+, BraTS toolkits and TCGA pre-processing name the files of a case.
WORDS: dict[str, str] = {
    **dict.fromkeys(("flair", "fla", "t2f"), "FLAIR"),
    **dict.fromkeys(("t1ce", "t1c", "t1gd"), "T1ce"),
    **dict.fromkeys(("t1", "t1n"), "T1"),
    **dict.fromkeys(("t2", "t2w"), "T2"),
    **dict.fromkeys(("seg", "label"), LABEL),
}

# Folders of BraTS 2018 and 2019 between the data set and its cases.
GROUPS = ("hgg", "lgg")

SUFFIXES = (".nii", ".nii.gz")


def find_cases(folder: Path) -> list[Case]:
    """Returns the cases of ``folder``, sorted by name: one sub-folder per case, or HGG and LGG folders of such.

    A file belongs to the last word of its name that stands in :data:`WORDS`, in upper or lower case. Sub-folders
    without a NIfTI file, hidden ones, and files of other names are passed over; a sub-folder whose NIfTI files all
    have other names becomes a case without images, which :func:`fedmepd.data.validation.check_cases` reports.

    Raises:
        DataError: the folder cannot be read, two files claim to be the same modality, or two cases have one name.
    """
    cases: dict[str, Case] = {}
    folders: dict[str, Path] = {}
    for case_folder in _case_folders(Path(folder)):
        case = _case(case_folder)
        if case is None:
            continue
        if case.name in cases:
            raise DataError(
                f"{folders[case.name]} and {case_folder} are two cases of one name: rename one of the folders",
                public="two cases have the same name",
            )
        cases[case.name], folders[case.name] = case, case_folder
    return [cases[name] for name in sorted(cases)]


def _case_folders(folder: Path) -> list[Path]:
    found = []
    for child in _children(folder):
        if child.is_dir() and not child.name.startswith("."):
            found += _case_folders(child) if child.name.lower() in GROUPS else [child]
    return found


def _children(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise DataError(
            f"{folder} cannot be read: {error.strerror}; expected a folder with one sub-folder per case",
            public="a data folder cannot be read",
        ) from error


def _case(folder: Path) -> Case | None:
    files: dict[str, Path] = {}
    volumes = [file for file in _children(folder) if _stem(file) is not None]
    for file in volumes:
        kind = _kind(file)
        if kind in files:
            raise DataError(
                f"{folder}: both {files[kind].name} and {file.name} look like {kind}: remove or rename one",
                public=f"a case has two files that look like {kind}",
            )
        if kind is not None:
            files[kind] = file
    if not volumes:
        return None
    label = files.pop(LABEL, None)
    return Case(folder.name, files, label)


def _stem(file: Path) -> str | None:
    name = file.name.lower()
    if name.startswith("."):
        return None
    return next((name[: -len(suffix)] for suffix in SUFFIXES if name.endswith(suffix)), None)


def _kind(file: Path) -> str | None:
    words = re.split(r"[^a-z0-9]+", _stem(file) or "")
    return next((WORDS[word] for word in reversed(words) if word in WORDS), None)
