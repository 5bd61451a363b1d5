"""Segmentations and the labels that they are compared with: matched by name, checked before anything is measured."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from unicodedata import normalize

import numpy as np

from fedmepd.data.cases import LABEL, Case
from fedmepd.data.containment import outside
from fedmepd.data.findings import ERROR, WARNING, Finding, error, refuse
from fedmepd.data.grids import MOST_APART_MM, apart_mm
from fedmepd.data.inspection import Inspection, inspect_labels
from fedmepd.data.names import kinds_of, read_case_name
from fedmepd.data.opening import open_dataset
from fedmepd.data.preparation import classes_of_label
from fedmepd.data.volumes import VolumeError, Volumes, is_nifti, read_volumes, stem
from fedmepd.errors import DataError
from fedmepd.tasks.task import Task


@dataclass(frozen=True)
class Pair:
    """A prediction and a label of the same case, each a case whose label file is the segmentation."""

    prediction: Case
    label: Case

    @property
    def name(self) -> str:
        """The case's name."""
        return self.prediction.name


@dataclass(frozen=True)
class Matched:
    """What was matched.

    Args:
        pairs: sorted by name.
        without_label, without_prediction: names of the cases that are not in both.
    """

    pairs: list[Pair]
    without_label: list[str]
    without_prediction: list[str]


def match(task: Task, predictions: Path, labels: Path, *, follow_links: bool, cache: Path) -> Matched:
    """Matches predictions and labels by the names of their cases; two files are a pair whatever their names.

    Args:
        task: of the segmentations.
        predictions, labels: a NIfTI file; a folder of such files, named after their cases, with or without a word such
            as ``_seg`` or ``_pred`` at the end, or after an image of theirs as ``_flair_seg``; or a folder of cases in
            any layout that `fedmepd data check` knows.
        follow_links, cache: see :func:`fedmepd.data.opening.open_dataset`.

    Raises:
        DataError: one holds no segmentation, or no case is in both.
    """
    how = {"follow_links": follow_links, "cache": cache}
    labelled = find_segmentations(task, labels, expected=_stems(predictions), **how)
    predicted = find_segmentations(task, predictions, expected=labelled.keys(), **how)
    if predictions.is_file() and labels.is_file():
        [prediction], [label] = predicted.values(), labelled.values()
        return Matched([Pair(prediction, label)], [], [])
    names = sorted(predicted.keys() & labelled.keys())
    if not names:
        raise DataError(
            f"no case is in both {predictions} ({', '.join(sorted(predicted)[:3])}, ...) and {labels} "
            f"({', '.join(sorted(labelled)[:3])}, ...): expected files or folders of the same names"
        )
    return Matched(
        [Pair(predicted[name], labelled[name]) for name in names],
        sorted(predicted.keys() - labelled.keys()),
        sorted(labelled.keys() - predicted.keys()),
    )


def find_segmentations(
    task: Task, path: Path, *, follow_links: bool, cache: Path, expected: Collection[str] = ()
) -> dict[str, Case]:
    """Returns the segmentations of a file or folder, see :func:`match`, as cases by name.

    Args:
        task: of the segmentations.
        path: the file or folder.
        follow_links, cache: see :func:`fedmepd.data.opening.open_dataset`.
        expected: names of cases. A file that is called as one of them is its segmentation, even if the name ends in a
            modality's word.

    Raises:
        DataError: there is none, or two are of the same name.
    """
    if path.is_file() and is_nifti(path):
        files = [path]
    elif path.is_dir():
        files = [file for file in sorted(path.iterdir()) if is_nifti(file) and file.is_file()]
    elif path.exists():
        files = []
    else:
        raise DataError(f"{path} does not exist: expected a NIfTI file, or a folder")
    if files:
        if path.is_dir():
            files = [file for file in files if _as_expected(task, file, expected) or not _is_image(task, file)]
            refuse([found for file in files if (found := outside(file, path, follow_links)) is not None])
        cases = [_named_after(task, file, expected) for file in files]
    else:
        dataset = open_dataset(task, path, follow_links=follow_links, cache=cache)
        refuse([*dataset.findings, *(found for case in dataset.cases for found in case.findings)])
        cases = [case for case in dataset.cases if case.label is not None]
    if not cases:
        raise DataError(
            f"{path} has no segmentation in it: expected NIfTI files named after their cases, or a folder of cases "
            f"with labels such as {task.file_name('001', None)}"
        )
    found: dict[str, Case] = {}
    for case in cases:
        # The same name may be stored as other bytes, with its accents apart.
        name = normalize("NFC", case.name)
        if name in found:
            raise DataError(f"{found[name].label} and {case.label} are both of case {name}: remove one")
        found[name] = replace(case, name=name)
    return found


def _stems(path: Path) -> set[str]:
    """The names of a folder's NIfTI files, each with what may follow a case's name and without."""
    return {normalize("NFC", _name(file)) for file in path.iterdir() if is_nifti(file)} if path.is_dir() else set()


# Words that other programs put behind a case's name.
_PREDICTED = ("pred", "prediction", "predicted")


def _as_expected(task: Task, file: Path, expected: Collection[str]) -> str:
    """Returns the expected case that a file is called after; empty if it is none."""
    name = normalize("NFC", _name(file))
    names, word = [name], _last_word(name)
    if word.lower() in _PREDICTED or kinds_of(task, word) == [LABEL]:
        names.append(_before(name, word))
        # Named after the first image, as MONAI does.
        image = _last_word(names[-1])
        if image and kinds_of(task, image) not in ([], [LABEL]):
            names.append(_before(names[-1], image))
    return next((name for name in names if name in expected), "")


def _before(name: str, word: str) -> str:
    return name[: len(name) - len(word)].rstrip("_-. ")


def _is_image(task: Task, file: Path) -> bool:
    """Whether the last word of a file's name is a modality's."""
    word = _last_word(_name(file))
    return bool(word) and kinds_of(task, word) not in ([], [LABEL])


def _named_after(task: Task, file: Path, expected: Collection[str]) -> Case:
    name = _as_expected(task, file, expected) or _name(file)
    word = _last_word(name)
    if name not in expected and kinds_of(task, word) == [LABEL]:
        # A file seg.nii.gz belongs to the case that its folder is named after.
        name = _before(name, word) or file.absolute().parent.name
    told = read_case_name(task, name)
    return Case(
        name,
        {},
        file,
        convention=told.convention,
        label_doubt=told.label_doubt,
        label_choices=told.label_choices,
        task=task,
    )


def _name(file: Path) -> str:
    return file.name[: len(stem(file) or "")]


def _last_word(name: str) -> str:
    return name.replace("-", "_").replace(".", "_").replace(" ", "_").rpartition("_")[2]


def check(
    matched: Matched,
    *,
    prediction_values: str | None,
    label_values: str | None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[Pair], list[str]]:
    """Reads all pairs, decides how their values are to be read, and compares their grids.

    The meaning of the labels' values is given by the user, by the layout, or by the values themselves if they decide.
    The meaning of the predictions' values is given by the user or by the values themselves.

    Args:
        matched: what to check.
        prediction_values, label_values: conventions that the user gives.
        progress: called with the number of pairs read so far, and of all.

    Returns:
        the pairs with the conventions of both, and warnings.

    Raises:
        DataError: a file cannot be read, holds unknown values, values that two conventions read differently, or is in
            another grid than the other.
    """
    # Segmentations may use other values than the labels of their data set.
    predictions = [_without_convention(pair.prediction) for pair in matched.pairs]
    labels = [pair.label for pair in matched.pairs]
    total = 2 * len(labels)
    of_predictions = inspect_labels(
        predictions,
        labels=prediction_values,
        option="--prediction-values",
        progress=lambda done, _: progress(done, total),
    )
    of_labels = inspect_labels(
        labels,
        labels=label_values,
        option="--label-values",
        progress=lambda done, _: progress(len(labels) + done, total),
    )
    findings = [*of_predictions.findings, *of_labels.findings]
    if not any(finding.severity == ERROR for finding in findings):
        pairs = zip(of_predictions.cases, of_labels.cases, strict=True)
        findings += [found for one, other in pairs if (found := _other_grid(one, other)) is not None]
    refuse(findings)
    pairs = [Pair(*cases) for cases in zip(of_predictions.cases, of_labels.cases, strict=True)]
    return pairs, [*_warnings("predictions", of_predictions), *_warnings("labels", of_labels)]


def _without_convention(case: Case) -> Case:
    return Case(case.name, {}, case.label, task=case.task)


def _warnings(what: str, inspection: Inspection) -> list[str]:
    return [f"{what}: {found.text}" for found in inspection.findings if found.severity == WARNING]


def _other_grid(prediction: Case, label: Case) -> Finding | None:
    one, other = _read(prediction), _read(label)
    advice = "a segmentation has to be in the grid of its label; resample it with nearest neighbours"
    if one.values.shape != other.values.shape:
        shapes = f"{one.values.shape}, {label.label} {other.values.shape}"
        return error(_GRIDS, f"{prediction.label} has shape {shapes}: {advice}")
    apart = apart_mm(one.affine, other.affine, one.values.shape)
    if not apart <= MOST_APART_MM:
        text = f"{prediction.label} has another affine than {label.label}, up to {apart:.2g} mm apart: {advice}"
        return error(_GRIDS, text)
    return None


_GRIDS = "prediction in another grid than its label"


def read_classes(case: Case) -> tuple[np.ndarray, tuple[float, float, float]]:
    """Returns the class numbers (X, Y, Z) of a segmentation in its file's grid, and the size of a voxel in mm.

    Raises:
        DataError: the file cannot be read any more.
    """
    read = _read(case)
    return classes_of_label(case.task, read.values, case.convention), read.spacing


def _read(case: Case) -> Volumes:
    try:
        return read_volumes(case.label)
    except (VolumeError, OSError) as problem:
        raise DataError(f"{case.label} cannot be read any more: {problem}") from problem
