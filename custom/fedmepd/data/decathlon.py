"""Folders ``imagesTr`` and ``labelsTr``: of the Decathlon, one file a case, or of nnU-Net, one a channel."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from fedmepd.data.cases import Case
from fedmepd.data.containment import outside
from fedmepd.data.dataset_json import Described, read_dataset_json
from fedmepd.data.findings import Finding, note
from fedmepd.data.names import read_case_name
from fedmepd.data.volumes import is_nifti, stem
from fedmepd.tasks.task import Task

# The layout of a data set that is not the Decathlon's own.
_DECATHLON, _NNUNET = "the Decathlon's layout", "nnU-Net's raw layout"

# BRATS_001_0000.nii.gz is channel 0 of the case BRATS_001.
_CHANNEL = re.compile(r"(.+)_(\d{4})")


def read_images_tr(task: Task, folder: Path, follow_links: bool, findings: list[Finding]) -> Iterator[Case]:
    """Gives the cases of such a folder.

    Args:
        task: that they are of.
        folder: the folder that contains ``imagesTr``.
        follow_links: whether links may lead out of it.
        findings: takes what is found of the whole.

    Raises:
        DataError: ``dataset.json`` cannot be used.
    """
    groups = [folder / group for group in ("imagesTr", "imagesTs") if (folder / group).is_dir()]
    images = {
        image: image.name[: len(stem(image) or "")]
        for group in groups
        for image in sorted(group.iterdir())
        if is_nifti(image)
    }
    if not images:
        return
    numbered = {image: match for image, name in images.items() if (match := _CHANNEL.fullmatch(name))}
    # A few other files beside those of nnU-Net do not make it the Decathlon's layout.
    apart = len(numbered) * 2 > len(images)
    if apart:
        for image in [image for image in images if image not in numbered]:
            text = f"{image} is passed over: expected a name that ends as {next(iter(numbered)).name} does"
            findings.append(note("image without the number of a channel, passed over", text))
        images = {image: name for image, name in images.items() if image in numbered}
    names = [match[1] for match in numbered.values()] if apart else list(images.values())
    described = read_dataset_json(task, folder, names, follow_links)
    findings += described.findings
    task = replace(task, conventions=task.conventions | dict([described.own] if described.own else []))
    of_cases: dict[str, dict[str, Path]] = {}
    for image, name in images.items():
        if apart:
            channel = next(
                (kind for kind, place in described.channels.items() if place == int(numbered[image][2])), None
            )
            of_cases.setdefault(numbered[image][1], {})
            if channel is None:
                text = f"{image} is passed over: dataset.json has no channel {int(numbered[image][2])}"
                findings.append(note("channel that dataset.json does not name, passed over", text))
            else:
                of_cases[numbered[image][1]][channel] = image
        else:
            of_cases[name] = dict.fromkeys(described.channels, image)
    for name, found in of_cases.items():
        yield _case(task, folder, name, found, {} if apart else described.channels, described, follow_links)


def _case(
    task: Task,
    folder: Path,
    name: str,
    images: dict[str, Path],
    channels: dict[str, int],
    described: Described,
    follow_links: bool,
) -> Case:
    label = next((file for file in _labels(folder, name) if file.is_file() or file.is_symlink()), None)
    files = [*dict.fromkeys(images.values()), *([] if label is None else [label])]
    problems = {file: outside(file, folder, follow_links) for file in files}
    good = {kind: image for kind, image in images.items() if problems[image] is None}
    layout = _NNUNET if not channels else task.decathlon.layout if task.decathlon else _DECATHLON
    told = read_case_name(task, name)
    return Case(
        name,
        good,
        None if label is None or problems[label] is not None else label,
        channels={kind: place for kind, place in channels.items() if kind in good},
        patient=told.patient,
        institution=told.institution,
        convention=described.convention,
        layout=layout,
        findings=tuple(problem for problem in problems.values() if problem is not None),
        label_doubt=described.label_doubt,
        task=task,
    )


def _labels(folder: Path, name: str) -> list[Path]:
    return [folder / "labelsTr" / f"{name}{ending}" for ending in (".nii.gz", ".nii", ".NII.GZ", ".NII")]
