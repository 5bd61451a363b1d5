"""BIDS: a folder per subject, one per session in it, and derivatives with labels and processed images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from fedmepd.data.cases import LABEL, Case
from fedmepd.data.containment import outside
from fedmepd.data.file_kinds import Pattern, propose, sort_files
from fedmepd.data.findings import Finding, error
from fedmepd.data.names import kinds_of_file, split_words
from fedmepd.data.pattern_fit import fitting
from fedmepd.data.volumes import is_nifti, stem
from fedmepd.tasks.task import Task

LAYOUT = "BIDS"

_DERIVATIVES = "derivatives"

# What BIDS calls a segmentation; the second one only where its name does not say that it is of the brain.
_SEGMENTATIONS = ("dseg", "mask")


def is_bids(folder: Path) -> bool:
    """Whether a folder is a data set of BIDS: subjects, and a description or derivatives."""
    marks = ("dataset_description.json", "participants.tsv", _DERIVATIVES)
    return any((folder / mark).exists() for mark in marks) and any(_subjects(folder))


def read_bids(
    task: Task, folder: Path, follow_links: bool, patterns: Sequence[Pattern], fitted: set[Pattern]
) -> Iterator[Case]:
    """Gives a case for every subject and session.

    Images are those of the only derivative that has some, or the raw ones if none has. Labels are those of derivatives.

    Args:
        task: that they are of.
        folder: the data set.
        follow_links: whether links may lead out of it.
        patterns: which files are of which kind, by their path below the data set.
        fitted: takes the patterns that fit a file.
    """
    derivatives = folder / _DERIVATIVES
    sources = {"": folder}
    if derivatives.is_dir():
        sources |= {child.name: child for child in sorted(derivatives.iterdir()) if child.is_dir()}
    places = {
        session.relative_to(source)
        for source in sources.values()
        for subject in _subjects(source)
        for session in _sessions(subject)
    }
    for place in sorted(places):
        files = {
            name: [file for file in sorted((source / place).rglob("*")) if is_nifti(file)]
            for name, source in sources.items()
        }
        fitted |= fitting(folder, (file for of_one in files.values() for file in of_one), patterns)
        yield _case(task, folder, place, files, follow_links, patterns)


def _subjects(folder: Path) -> Iterator[Path]:
    return (child for child in sorted(folder.glob("sub-*")) if child.is_dir())


def _sessions(subject: Path) -> list[Path]:
    return [child for child in sorted(subject.glob("ses-*")) if child.is_dir()] or [subject]


def _case(
    task: Task,
    folder: Path,
    place: Path,
    files: dict[str, list[Path]],
    follow_links: bool,
    patterns: Sequence[Pattern],
) -> Case:
    findings: list[Finding] = []
    images = {name: [file for file in of_one if _is_image(task, file)] for name, of_one in files.items()}
    processed = [name for name, of_one in images.items() if name and of_one]
    chosen = images[processed[0] if processed else ""]
    if len(processed) > 1 and not patterns:
        several = " and ".join(f"{_DERIVATIVES}/{name}" for name in processed)
        text = f"{folder / place}: {several} have images: name one of them, or say which are meant with --pattern"
        findings.append(error("images in several derivatives", text))
    elif lost := set() if patterns else _kinds(task, images[""]) - _kinds(task, chosen):
        text = (
            f"{folder / place}: {_DERIVATIVES}/{processed[0]} has images, but none of {', '.join(sorted(lost))}, "
            "which the raw data have: say with --pattern which files are meant"
        )
        findings.append(error("derivative that lacks some of the raw images", text))
    labels = [file for of_one in files.values() for file in of_one if _is_label(task, file)]
    if patterns:
        labels = [] if any(pattern.kind == LABEL for pattern in patterns) else labels
        chosen = [file for of_one in files.values() for file in of_one if file not in labels]
    for file in [file for file in (*chosen, *labels) if outside(file, folder, follow_links) is not None]:
        findings.append(outside(file, folder, follow_links))
        chosen, labels = ([one for one in of_kind if one != file] for of_kind in (chosen, labels))
    found, more = sort_files(task, folder, chosen, patterns, follow_links, varies=place.parts)
    if LABEL not in found and len(labels) == 1:
        found[LABEL] = labels[0]
    elif LABEL not in found and labels:
        both = " and ".join(str(file.relative_to(folder)) for file in labels[:2])
        ways = " or ".join(propose(folder, file, LABEL, place.parts) for file in labels[:2])
        text = f"{folder / place}: {both} look like the label: say {ways}"
        findings.append(error("two files that look like the same modality", text))
    label = found.pop(LABEL, None)
    name = "_".join(place.parts)
    return Case(name, found, label, patient=place.parts[0], layout=LAYOUT, findings=(*findings, *more), task=task)


def _kinds(task: Task, files: list[Path]) -> set[str]:
    return {kind for file in files for kind in kinds_of_file(task, file)}


def _is_image(task: Task, file: Path) -> bool:
    kinds = kinds_of_file(task, file)
    return bool(kinds) and LABEL not in kinds


def _is_label(task: Task, file: Path) -> bool:
    words = split_words(stem(file) or "")
    other = set(words) & set(task.other_label_words)
    return not other and bool(words) and words[-1] in (*_SEGMENTATIONS, *task.label_words)
