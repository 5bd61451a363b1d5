"""The cases of a folder that is to be segmented or scored."""

from __future__ import annotations

from collections import Counter
from pathlib import Path, PurePath

from fedmepd.data.cases import Case
from fedmepd.data.findings import ERROR, refuse
from fedmepd.data.layouts import Dataset, find_dataset, site_folders
from fedmepd.data.site import changed_files
from fedmepd.data.site_folders import no_case
from fedmepd.errors import DataError
from fedmepd.tasks.task import Task


def open_dataset(task: Task, folder: Path, *, follow_links: bool, cache: Path) -> Dataset:
    """Finds the cases of a folder in any layout; those of a manifest only if their files are what they were.

    Args:
        task: that the cases are of.
        folder: the folder, or a list.
        follow_links: whether links may lead out of a case's folder.
        cache: remembers the content of a manifest's files.

    Raises:
        DataError: it cannot be read, holds no case or several sites, or is not what its manifest says.
    """
    sites = site_folders(folder)
    if sites:
        raise DataError(f"{folder} holds the {len(sites)} sites of a federation: name one of them, such as {sites[0]}")
    dataset = find_dataset(task, folder, follow_links=follow_links)
    if dataset.parts is not None:
        # Before anything else reads them: a link may lead to another file than the manifest's.
        refuse(changed_files(dataset, cache))
    if not dataset.cases:
        refuse(dataset.findings)
        raise no_case(task, folder)
    return dataset


def nameable(dataset: Dataset) -> tuple[list[Case], list[str]]:
    """Returns the cases that a file each can be named after, and what is wrong with the others and with the folder."""
    problems = [finding.text for finding in dataset.findings if finding.severity == ERROR]
    counts = Counter(case.name for case in dataset.cases)
    cases = []
    for case in dataset.cases:
        if len(PurePath(case.name).parts) != 1 or case.name in (".", ".."):
            problems.append(f"{case.name!r} is no name that a file can have: rename the case")
        elif counts[case.name] == 1:
            cases.append(case)
    return cases, problems
