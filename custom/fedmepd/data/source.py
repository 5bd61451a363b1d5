"""A data set that a site's, or a federation's, data are made of: found, checked, and free of errors."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from fedmepd.data.cases import Case
from fedmepd.data.file_kinds import Pattern
from fedmepd.data.findings import ERROR, Finding, warning
from fedmepd.data.folders import list_of, require_one_data_set
from fedmepd.data.formats import describe_formats, other_format
from fedmepd.data.inspection import Inspection, inspect_cases
from fedmepd.data.layouts import Dataset, find_dataset
from fedmepd.data.manifest import FILE_NAME, load_manifest, read_manifest
from fedmepd.data.pattern_fit import PatternFitsNothing
from fedmepd.errors import DataError
from fedmepd.tasks.task import Task

# Of what a folder without cases holds.
_MOST_SHOWN = 3


@dataclass(frozen=True)
class Source:
    """A data set that was looked through, and may be written.

    Args:
        dataset: what was found.
        inspection: of all cases.
        left_out: number of faulty cases that the user allowed to leave out.
        patterns: which files of a case are of which kind, where the user has said it.
    """

    dataset: Dataset
    inspection: Inspection
    left_out: int
    patterns: tuple[Pattern, ...] = ()


def open_source(
    task: Task,
    folder: Path,
    *,
    labels: str | None,
    follow_links: bool,
    skip_faulty: bool,
    cache: Path | None,
    earlier: Path | None = None,
    without: str | None = None,
    patterns: Sequence[Pattern] = (),
    found: Callable[[Dataset], None] = lambda dataset: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Source:
    """Finds and checks the cases of a folder, whether it has a manifest or not.

    Args:
        task: that the cases are of.
        folder: the folder, or a list.
        labels: convention of the labels, if the user says it.
        follow_links: whether links may lead out of a case's folder.
        skip_faulty: leave out cases with errors.
        cache: see :func:`~fedmepd.data.inspection.inspect_cases`.
        earlier: where a manifest may be that knows the convention of cases whose layout does not tell it.
        without: name of a sub-folder whose cases belong to another data set.
        patterns: which files are of which kind; none: those of the earlier manifest.
        found: called with the data set before its images are read.
        progress: called with the number of cases read so far, and of all.

    Raises:
        DataError: there is no case, the folder holds several sites, or, unless they are left out, a case has an error.
    """
    require_one_data_set(folder, without)
    task = _with_earlier_values(task, earlier)
    said = bool(patterns)
    patterns = tuple(patterns) or (() if list_of(folder) else _earlier_patterns(task, earlier))
    try:
        dataset = find_dataset(
            task, folder, manifest=False, follow_links=follow_links, without=without, patterns=patterns
        )
    except PatternFitsNothing as error:
        if said:
            raise
        raise PatternFitsNothing(
            error.told,
            f"an earlier `fedmepd data init` noted it in {earlier / FILE_NAME}; say --pattern with what fits today, or "
            "remove it from patterns there",
        ) from error
    if not dataset.cases:
        raise no_case(task, folder, dataset.findings)
    found(dataset)
    known, own = _known(task, earlier, {case.name for case in dataset.cases if case.convention})
    cases = [
        replace(case, convention=case.convention or known.get(case.name) or (None if case.label_doubt else own))
        for case in dataset.cases
    ]
    findings = [*dataset.findings, *([] if labels else _read_as_earlier(dataset.cases, cases, known))]
    inspection = inspect_cases(cases, labels=labels, cache=cache, progress=progress, known=findings)
    usable = inspection.without_faulty() if skip_faulty else inspection
    try:
        usable.require_good()
    except DataError as error:
        rest = inspection.without_faulty()
        if skip_faulty or not rest.cases or any(found.severity == ERROR for found in rest.findings):
            raise
        advice = "or leave out the cases with errors: --skip-faulty"
        raise DataError(error.message, error.public, lines=(*error.lines, advice)) from error
    if not usable.cases:
        raise DataError(f"all cases of {folder} have errors: see `fedmepd data check {folder} --details`")
    return Source(dataset, usable, len(inspection.cases) - len(usable.cases), patterns)


def _read_as_earlier(found: Sequence[Case], cases: Sequence[Case], known: Collection[str]) -> list[Finding]:
    """Warns of new cases with labels that are read as the earlier ones of the folder."""
    new = [
        case
        for before, case in zip(found, cases, strict=True)
        if case.label is not None and case.name not in known and before.convention is None
        # The default is what such labels are read as anyhow, and other values are refused.
        if case.convention not in (None, case.task.default_convention)
    ]
    if not new:
        return []
    first, more = new[0], f" and {len(new) - 1} more" if len(new) > 1 else ""
    text = (
        f"{first.name}{more}: the labels are read as those of the cases before them, "
        f"{first.task.describe_convention(first.convention)}; say --labels if they are of another kind"
    )
    return [warning("labels of new cases, read as those of the earlier ones", text)]


def no_case(task: Task, folder: Path, findings: Sequence[Finding] = ()) -> DataError:
    """The error of a folder without any case.

    Args:
        task: that the cases should be of.
        folder: the folder.
        findings: what was found there instead.
    """
    unread = []
    if folder.is_dir():
        # A few are enough to say what they are.
        files = islice((file for file in folder.rglob("*") if other_format(file)), 1000)
        unread = [told for _, _, told in describe_formats(files)]
    told = "".join(f". {finding.text}" for finding in findings[:_MOST_SHOWN])
    raw = f". It holds images in formats that are not read: {'; '.join(unread)}" if unread else ""
    return DataError(
        f"no case in {folder}: expected a folder per case with NIfTI files in it, such as "
        f"001/{task.file_name('001', task.modalities[0])}, the Decathlon's folders of images and labels, or a list "
        f"cases.csv{raw}{told}"
    )


def _with_earlier_values(task: Task, folder: Path | None) -> Task:
    """The task with the label values that a user has described for an earlier data set."""
    if folder is None or not (folder / FILE_NAME).is_file() or (manifest := load_manifest(folder)).task != task.name:
        return task
    for name, values in manifest.label_values.items():
        # What the user says is the latest.
        if name not in task.conventions:
            task = task.with_convention(name, values.convention())
    return task


def _earlier_patterns(task: Task, folder: Path | None) -> tuple[Pattern, ...]:
    if folder is None or not (folder / FILE_NAME).is_file() or (manifest := load_manifest(folder)).task != task.name:
        return ()
    return tuple(Pattern.read(task, text) for text in manifest.patterns)


def _known(task: Task, folder: Path | None, told: Collection[str]) -> tuple[dict[str, str | None], str | None]:
    """The conventions that an earlier manifest of the folder holds, and the one of all cases that do not tell theirs.

    Args:
        task: that the cases are of.
        folder: of the manifest.
        told: cases whose layout tells their convention, which says nothing of others unless the user has described it.
    """
    if folder is None or not (folder / FILE_NAME).is_file():
        return {}, None
    known = {case.name: case.convention for case in read_manifest(task, folder)[0]}
    values = load_manifest(folder).label_values
    others = {own for name, own in known.items() if own is not None and (name not in told or own in values)}
    return known, others.pop() if len(others) == 1 else None
