"""What lies in a folder, and what tells what it holds: one data set, several, or a case."""

from __future__ import annotations

import os
from pathlib import Path

from fedmepd.closest import like_path
from fedmepd.data.bids import is_bids
from fedmepd.data.manifest import FILE_NAME as MANIFEST
from fedmepd.data.names import kinds_of_file
from fedmepd.data.volumes import is_nifti
from fedmepd.errors import DataError, remedy
from fedmepd.tasks.task import Task
from fedmepd.text_table import counted

LISTS = ("cases.csv", "cases.json")

IMAGES_TR = "imagesTr"

# Folders between a data set and its cases that say nothing about a patient.
_GROUPS = (
    *("hgg", "lgg", "training", "train", "trainingdata", "validation"),
    *("data", "images", "imaging", "cases", "patients"),
)

# What operating systems and network storage keep beside a user's files, and often let nobody read.
_OF_SYSTEMS = ("lost+found", "system volume information", "$recycle.bin", "@eadir", "__macosx")


def children_of(folder: Path) -> list[Path]:
    """Returns what lies in a folder, sorted by name, without the folders of operating systems.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return sorted(child for child in folder.iterdir() if child.name.lower() not in _OF_SYSTEMS)
    except OSError as problem:
        way = f"expected a folder with one sub-folder per case{like_path(folder)}"
        raise DataError(
            f"{folder} cannot be read: {problem.strerror}; {remedy(problem) if folder.exists() else way}",
            public="a data folder cannot be read",
        ) from problem


def list_of(folder: Path) -> Path | None:
    """Returns the list that says which cases there are, if there is one."""
    if folder.is_file():
        return folder
    return next((child for child in children_of(folder) if child.name.lower() in LISTS), None)


def data_set_mark(folder: Path) -> str:
    """Returns what says that a folder is a single data set, and holds no sites; empty: nothing does."""
    if (folder / MANIFEST).is_file():
        return MANIFEST
    return cases.name if (cases := list_of(folder)) else has_layout(folder)


def has_layout(folder: Path) -> str:
    """What makes a folder one of the Decathlon's, nnU-Net's or BIDS; empty: nothing."""
    return IMAGES_TR if (folder / IMAGES_TR).is_dir() else "the layout of BIDS" if is_bids(folder) else ""


def is_group(name: str) -> bool:
    """Whether a folder's name is that of a group of cases, such as HGG, and tells no patient."""
    return name.lower() in _GROUPS


def sole_folder(folder: Path) -> Path | None:
    """Returns the only sub-folder, beside hidden ones; None: there are none or several."""
    there = [child for child in children_of(folder) if child.is_dir() and not child.name.startswith(".")]
    return there[0] if len(there) == 1 else None


def site_folders(folder: Path) -> list[Path]:
    """Returns the sub-folders with a manifest of a federation's folder; none if it is a data set itself."""
    folder = Path(folder)
    if not folder.is_dir() or (folder / MANIFEST).is_file():
        return []
    # Of a folder that may not be read nobody knows; whoever looks into it says so.
    return [child for child in children_of(folder) if os.path.isfile(child / MANIFEST)]


def require_one_data_set(folder: Path, without: str | None = None) -> None:
    """Does nothing if a folder does not hold the data sets of several sites: their manifests would tell.

    Args:
        folder: the folder, or a list.
        without: name of a sub-folder whose cases belong to another data set.

    Raises:
        DataError: it does; a site would be taken for a patient.
    """
    sites = [place for place in site_folders(folder) if place.name != without]
    if sites:
        raise DataError(
            f"{folder} holds {counted(len(sites), 'site')} of a federation: name one, such as {sites[0]}; if it is one "
            f"data set, remove the {MANIFEST} in its sub-folders",
            public="a data folder holds the data sets of several sites",
        )


def images_in(task: Task, folder: Path) -> list[Path]:
    """Returns the files directly in a folder that may be images or labels of a case, by the words of their names."""
    return [file for file in children_of(folder) if is_nifti(file) and kinds_of_file(task, file)]


def _holds_cases(task: Task, folder: Path) -> bool:
    """Whether a folder may hold cases, and is not one itself.

    A list or a manifest says so of images in it. Images of no kind, such as an atlas, may lie beside folders of cases.
    """
    if not folder.is_dir():
        return False
    children = children_of(folder)
    if not any(map(is_nifti, children)) or data_set_mark(folder):
        return True
    deeper = (file for child in children if child.is_dir() for file in child.rglob("*"))
    return not images_in(task, folder) and any(map(is_nifti, deeper))


def is_apart(task: Task, folder: Path) -> bool:
    """Whether a sub-folder holds the cases of another data set, and is not a case of that name.

    Raises:
        DataError: it may be either.
    """
    # Of a folder that may not be read nobody knows; whoever looks into it says so.
    if not os.path.isdir(folder) or _holds_cases(task, folder):
        return os.path.isdir(folder)
    cases = [child for child in children_of(folder) if child.is_dir() and any(map(is_nifti, children_of(child)))]
    if cases:
        image = images_in(task, folder)[0]
        raise DataError(
            f"{folder} holds images, such as {image.name}, and folders of cases, such as {cases[0].name}: put the "
            "images of each case into a folder of its own",
            public=f"a folder {folder.name} holds images, and folders of cases",
        )
    return False


def other_spelling(task: Task, folder: Path, name: str) -> str:
    """Says of a sub-folder with cases that its name may be meant as another one; empty: it is not like it.

    Args:
        task: that the cases are of.
        folder: the sub-folder.
        name: of the folder for fusion training.
    """
    if folder.name == name or folder.name.lower() != name.lower() or not is_apart(task, folder):
        return ""
    return (
        f"its name is {name} but for upper and lower case: call it {name} if its cases are for fusion training, else "
        "give it another name"
    )


def require_spelling(task: Task, folder: Path, name: str) -> None:
    """Does nothing if no sub-folder has a name that is another one but for upper and lower case.

    Args:
        task, name: as of :func:`other_spelling`.
        folder: with the sub-folders.

    Raises:
        DataError: one has.
    """
    for child in children_of(folder):
        if why := other_spelling(task, child, name):
            raise DataError(f"{child}: {why}", public=f"a sub-folder's name is {name} but for upper and lower case")
