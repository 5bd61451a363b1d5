"""The cases of a folder that is to be segmented or scored."""

from __future__ import annotations

from collections import Counter
from pathlib import Path, PurePath

from fedmepd.data.cases import Case
from fedmepd.data.findings import ERROR, refuse
from fedmepd.data.folders import require_one_data_set
from fedmepd.data.inspection import is_text
from fedmepd.data.layouts import Dataset, find_dataset
from fedmepd.data.site import changed_files
from fedmepd.data.source import no_case
from fedmepd.errors import has_controls
from fedmepd.tasks.task import Task


def open_dataset(task: Task, folder: Path, *, follow_links: bool, cache: Path | None) -> Dataset:
    """Finds the cases of a folder in any layout. The files of a manifest must not have changed.

    Args:
        task: that the cases are of.
        folder: the folder, or a list.
        follow_links: whether links may lead out of a case's folder.
        cache: remembers the content of a manifest's files; None: nothing does.

    Raises:
        DataError: it cannot be read, holds no case or several sites, or differs from its manifest.
    """
    require_one_data_set(folder)
    dataset = find_dataset(task, folder, follow_links=follow_links)
    if dataset.parts is not None:
        # Before anything else reads the files: a link may no longer lead to the manifest's file.
        refuse(changed_files(dataset, cache))
    if not dataset.cases:
        refuse(dataset.findings)
        raise no_case(task, folder, dataset.findings)
    return dataset


def nameable(dataset: Dataset) -> tuple[list[Case], list[str]]:
    """Returns the cases whose names can be file names, and the findings about the others and about the folder."""
    problems = [finding.text for finding in dataset.findings if finding.severity == ERROR]
    counts = Counter(case.name for case in dataset.cases)
    cases = []
    for case in dataset.cases:
        if not is_text(case.name):
            problems.append(f"{ascii(case.name)} is a name that is not UTF-8: rename the case")
        elif len(PurePath(case.name).parts) != 1 or case.name in (".", "..") or has_controls(case.name):
            problems.append(f"{case.name!r} is no name that a file can have: rename the case")
        elif counts[case.name] == 1:
            cases.append(case)
    return cases, problems
