"""Whether sites whose folders lie on one machine have patients in common, by paths and names alone.

Two such sites are nearly always a mistake: a patient would be trained on at one site and tested at the other. What the
files contain, which takes longer, is compared by :func:`fedmepd.data.summary.describe_overlap`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from shlex import quote

from fedmepd.config import FUSION_SITE
from fedmepd.data.layouts import Dataset, find_dataset
from fedmepd.errors import DataError
from fedmepd.tasks.task import Task
from fedmepd.text_table import counted

_WRONG = "two sites would have the same patients"
_MOST_SHOWN = 3


def check_sites(task: Task, folder: Path, sites: Sequence[str]) -> str:
    """Refuses a folder in which sites have the same folder or files, the fusion site among them.

    Args:
        task: that the cases are of.
        folder: with a sub-folder for each site.
        sites: their names, without the fusion site's.

    Returns:
        a warning of patients of the same names; empty: there are none.

    Raises:
        DataError: two sites have the same folder or files, or a folder cannot be read.
    """
    names = [*sites, *([FUSION_SITE] if (folder / FUSION_SITE).is_dir() else [])]
    require_own_folders({name: folder / name for name in names})
    found = {name: find_dataset(task, folder / name, without=FUSION_SITE) for name in names}
    require_own_files(found)
    lines = same_names(found)
    if not lines:
        return ""
    more = f"; and {counted(len(lines) - _MOST_SHOWN, 'more pair')}" if len(lines) > _MOST_SHOWN else ""
    return (
        f"{'; '.join(lines[:_MOST_SHOWN])}{more}. If they are the same people, the scores are too good: "
        f"`fedmepd data check {quote(str(folder))}` compares what their files contain"
    )


def require_own_folders(folders: Mapping[str, Path]) -> None:
    """Does nothing if every site has a folder of its own.

    Args:
        folders: by site, the fusion site's too.

    Raises:
        DataError: a link makes two of them the same.
    """
    owners: dict[str, str] = {}
    for site, folder in folders.items():
        place = os.path.realpath(folder)
        if (other := owners.setdefault(place, site)) != site:
            raise DataError(
                f"{folders[other]} and {folder} are the same folder, {place}: {_WRONG}. Give each site a folder of its "
                "own, or leave one of the two out",
                public=f"{other} and {site} have the same data folder",
            )


def require_own_files(found: Mapping[str, Dataset]) -> None:
    """Does nothing if no two sites have a file in common.

    Args:
        found: the data sets by site.

    Raises:
        DataError: links of two of them lead to the same file.
    """
    owners: dict[str, tuple[str, Path]] = {}
    for site, dataset in found.items():
        for case in dataset.cases:
            for file in (*case.images.values(), *([case.label] if case.label else [])):
                other, theirs = owners.setdefault(os.path.realpath(file), (site, file))
                if other != site:
                    raise DataError(
                        f"{other} and {site} have the same files, such as {theirs} and {file}: {_WRONG}. Take these "
                        "cases out of one of the two",
                        public=f"{other} and {site} have the same files",
                    )


def same_names(found: Mapping[str, Dataset]) -> list[str]:
    """Returns a sentence about every two sites with patients of the same names, which may be the same people.

    Args:
        found: the data sets by site.
    """
    patients = {site: {case.patient for case in dataset.cases} for site, dataset in found.items()}
    lines = []
    for one, other in combinations(found, 2):
        both = patients[one] & patients[other]
        if both:
            how_many = "all" if both == patients[one] == patients[other] else "some"
            lines.append(
                f"{one} and {other} have {counted(len(both), 'patient')} of the same name, {how_many} of theirs"
            )
    return lines
