"""What ``fedmepd data check`` prints: counts for everybody, names of cases and files for who sits at the machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from statistics import median
from typing import Any

from fedmepd import __version__
from fedmepd.data.cases import Case
from fedmepd.data.findings import ERROR, MOST_SHOWN, NOTE, WARNING, Finding, count_kinds
from fedmepd.data.inspection import Inspection, class_counts
from fedmepd.data.layouts import Dataset
from fedmepd.tasks.task import Task
from fedmepd.text_table import counted, table

_TITLES = {ERROR: "errors, which keep a case from being used", WARNING: "warnings", NOTE: "notes"}
# Of cases without a label.
_INFERENCE = "inference only"


def describe_found(dataset: Dataset) -> str:
    """One line about what a folder holds, before any image is read."""
    cases, patients = len(dataset.cases), len({case.patient for case in dataset.cases})
    return f"found {dataset.layout}: {counted(cases, 'case')} of {counted(patients, 'patient')}"


def describe_data(dataset: Dataset, inspection: Inspection) -> list[str]:
    """Tables of what the cases hold: modalities, shapes, voxel sizes, labels, classes, parts."""
    cases, facts = inspection.cases, inspection.facts
    rows = []
    for modalities, count in Counter(case.modalities for case in cases).most_common():
        labelled = sum(case.modalities == modalities and case.label is not None for case in cases)
        rows.append([str(count), str(labelled), " ".join(modalities) or "none"])
    lines = table(["cases", "labelled", "modalities"], rows)
    shapes = Counter(" x ".join(map(str, found.shape)) for found in facts if found.shape)
    spacings = Counter(" x ".join(f"{size:g}" for size in found.spacing) for found in facts if found.spacing)
    axes = Counter(found.orientation for found in facts if found.orientation)
    for title, counts in (("shape in voxels", shapes), ("voxel in mm", spacings), ("axes", axes)):
        lines += ["", *table(["cases", title], [[str(count), text] for text, count in _most(counts)])]
    sets = Counter(
        (
            " ".join(map(str, sorted(found.label_counts))),
            case.task.describe_convention(case.convention) if case.convention else "not decided",
        )
        for case, found in zip(cases, facts, strict=True)
        if found.label_counts
    )
    if sets:
        rows = [[str(count), values, reads] for (values, reads), count in sets.most_common()]
        lines += ["", *table(["cases", "label values", "read as"], rows), "", *_classes(inspection)]
    if dataset.parts is not None:
        lines += ["", *_parts(dataset)]
    return lines


def check_content(
    task: Task,
    datasets: Mapping[str | None, Dataset],
    findings: Sequence[Finding],
    overlaps: list[str],
    anonymous: bool,
    unread: Collection[str] = (),
) -> dict[str, Any]:
    """Returns what a check found as plain values with stable keys.

    Args:
        task: of the cases.
        datasets: by the names of sites; None for a folder that is one data set.
        findings: of all.
        overlaps: sentences about sites that share cases.
        anonymous: without names of cases and files.
        unread: names of sites whose files have not been read.
    """
    kinds = [(severity, kind) for severity in _TITLES for kind in count_kinds(findings, severity)]
    texts = {pair: [found.text for found in findings if (found.severity, found.kind) == pair] for pair in kinds}
    return {
        "version": __version__,
        "task": task.name,
        "errors": sum(found.severity == ERROR for found in findings),
        "warnings": sum(found.severity == WARNING for found in findings),
        "findings": [
            {"severity": severity, "kind": kind, "count": len(of_kind), "texts": None if anonymous else of_kind}
            for (severity, kind), of_kind in texts.items()
        ],
        "data_sets": [
            {
                "name": name,
                "read": name not in unread,
                "layout": dataset.layout,
                "cases": len(dataset.cases),
                "patients": len({case.patient for case in dataset.cases}),
                "labelled": sum(case.label is not None for case in dataset.cases),
                "modalities": [
                    {"modalities": list(modalities), "cases": count}
                    for modalities, count in Counter(case.modalities for case in dataset.cases).most_common()
                ],
                "parts": None if dataset.parts is None else _part_counts(dataset, dataset.cases),
            }
            for name, dataset in datasets.items()
        ],
        "overlaps": overlaps,
    }


def _part_counts(dataset: Dataset, cases: Sequence[Case]) -> dict[str, int]:
    counts = Counter(dataset.parts[case.name] or _INFERENCE for case in cases)
    return {part: counts[part] for part in ("train", "validation", "test", _INFERENCE)}


def _parts(dataset: Dataset) -> list[str]:
    """How many cases are in which part; apart for the site and for fusion training if a manifest marks some."""
    heads, rows = ["cases", "part"], []
    marked = any(case.for_fusion for case in dataset.cases)
    for fusion, whose in ((False, "the site"), (True, "fusion training")):
        cases = [case for case in dataset.cases if case.for_fusion == fusion]
        counts = _part_counts(dataset, cases)
        rows += [[str(count), part, *([whose] if marked else [])] for part, count in counts.items() if count]
    return table([*heads, "for"] if marked else heads, rows)


def _classes(inspection: Inspection) -> list[str]:
    by_case = [class_counts(case, found) for case, found in zip(inspection.cases, inspection.facts, strict=True)]
    rows = []
    names = dict.fromkeys([*inspection.cases[0].task.classes, *(name for counts in by_case for name in counts)])
    for name in names:
        there = [counts[name] for counts in by_case if counts[name]]
        middle = f"{median(there):.0f}" if there else ""
        rows.append([str(len(there)), str(sum(there)), middle, name])
    return table(["cases", "voxels", "median", "class"], rows)


def _most(counts: Counter[str], shown: int = 8) -> list[tuple[str, int]]:
    most = counts.most_common()
    left = sum(count for _, count in most[shown:])
    return [*most[:shown], *([("others", left)] if left else [])]


def describe_findings(
    findings: Sequence[Finding],
    severities: Sequence[str] = (ERROR, WARNING, NOTE),
    named: Collection[str] = (),
    most: int | None = MOST_SHOWN,
) -> list[str]:
    """Lists what was found, by kind.

    Args:
        findings: what was found.
        severities: of those to list.
        named: severities of which each finding is told with the names of cases and files.
        most: findings of a kind that are named at most; None: all.
    """
    lines = []
    for severity in severities:
        title = _TITLES[severity]
        kinds = count_kinds(findings, severity)
        if not kinds:
            continue
        lines += ["", f"{title}:"]
        for kind, count in kinds.items():
            lines.append(f"{count:6d}  {kind}")
            if severity in named:
                texts = [found.text for found in findings if (found.kind, found.severity) == (kind, severity)]
                lines += [f"          {text}" for text in texts[:most]]
                if most is not None and count > most:
                    lines.append(f"          and {count - most} more: --details names all")
    return lines
