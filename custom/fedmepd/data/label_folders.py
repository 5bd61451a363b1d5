"""Labels in a folder of their own, named after the cases: as UPENN-GBM has them beside its images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fedmepd.data.cases import LABEL, Case
from fedmepd.data.findings import Finding, error, note, warning
from fedmepd.data.names import kinds_of, kinds_of_file, read_label_name
from fedmepd.data.volumes import stem
from fedmepd.tasks.task import Task
from fedmepd.text_table import counted


def named_labels(task: Task, folder: Path, volumes: Sequence[Path]) -> dict[str, Path] | None:
    """Returns the labels of a folder by what stands before the label's word; None if it holds anything else.

    A single label in a folder of its name is that of a case without images.
    """
    found: dict[str, Path] = {}
    for file in volumes:
        name = file.name[: len(stem(file) or "")]
        before, _, word = name.rpartition("_")
        if not before or kinds_of(task, word) != [LABEL] or kinds_of_file(task, file) != [LABEL]:
            return None
        found[before] = file
    return None if set(found) <= {folder.name} else found


def with_labels(cases: list[Case], labels: dict[str, list[Path]], findings: list[Finding]) -> list[Case]:
    """Gives cases without a label the one that is named after them, and drops what is no case beside one of its name.

    Args:
        cases: that were found.
        labels: by the name of the case, see :func:`named_labels`.
        findings: takes what is found of the whole.
    """
    if not labels:
        return cases
    named = {case.name for case in cases if case.images}
    kept = [_labelled(case, labels) for case in cases if case.images or case.label or case.name not in named]
    folders = Counter(case.label.parent for case in kept if case.label in labels.get(case.name, []))
    for folder, count in folders.items():
        text = f"{folder} holds labels alone: {counted(count, 'label')} taken from there, by the names of the cases"
        findings.append(note("labels in a folder of their own, taken by their names", text))
    left = [
        file
        for name, files in labels.items()
        for file in files
        if name not in named and not any(name.startswith(f"{case}_") for case in named)
    ]
    if left:
        text = f"{left[0]}{f' and {len(left) - 1} more' if len(left) > 1 else ''}: no case of this name has been found"
        findings.append(note("labels without a case, passed over", text))
    return kept


def _labelled(case: Case, labels: dict[str, list[Path]]) -> Case:
    files = labels.get(case.name, [])
    if case.label is None and not files:
        near = next((one[0] for name, one in labels.items() if name.startswith(f"{case.name}_")), None)
        if near is None:
            return case
        text = (
            f"{near} is passed over, and case {case.name} has no label: its name says more than the case's; if it is "
            "the label, rename it"
        )
        return replace(case, findings=(*case.findings, warning("file that may be the label, passed over", text)))
    both = [*([case.label] if case.label else []), *files]
    if len(both) > 1:
        text = f"both {both[0]} and {both[1]} are labels of case {case.name}: remove or rename one"
        return replace(case, findings=(*case.findings, error("two files that look like the same modality", text)))
    if case.label is not None:
        return case
    told = read_label_name(case.task, case.name, files[0])
    return replace(
        case,
        label=files[0],
        convention=told.convention,
        label_doubt=told.label_doubt,
        label_choices=told.label_choices,
        findings=tuple(found for found in case.findings if found.kind != "file that may be the label, passed over"),
    )
