"""Scores lesion by lesion, by the rules that the BraTS challenges have published since 2023."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from fedmepd.evaluation.distances import hd95
from fedmepd.tasks.rules import LesionRules

# Of the labels' growth: the voxels that share a face or an edge.
_GROWTH = 2

_Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class LesionScores:
    """One region of one case, lesion by lesion.

    Args:
        dice: mean over the lesions that were found, missed and invented; 1 if there is none of them.
        hd95_mm: the same of the HD95 in mm; 0 if there is none.
        found: lesions of the label that a lesion of the prediction touches.
        missed: the other lesions of the label.
        invented: lesions of the prediction that touch none of the label.
    """

    dice: float
    hd95_mm: float
    found: int
    missed: int
    invented: int


def score_lesions(
    predicted: np.ndarray, true: np.ndarray, spacing: Sequence[float], rules: LesionRules
) -> LesionScores:
    """Scores one region lesion by lesion.

    The label grows by some voxels, and what hangs together then is one lesion: its voxels are those that it had before.
    The lesions of the prediction are what hangs together. Those that touch a grown lesion of the label are compared
    with it together. A missed or an invented lesion has Dice 0 and the HD95 that the rules set. Lesions of fewer voxels
    than the smallest are left out; what the prediction has at such a place is no invention.

    Args:
        predicted, true: masks (X, Y, Z).
        spacing: size of a voxel in mm along each axis.
        rules: of the task.
    """
    dice, distances, missed, touched = [], [], 0, set()
    box = _box_around(predicted | true, rules.dilation)
    predicted, true = predicted[box], true[box]
    parts, count = _components(predicted, rules)
    boxes = _boxes(parts)
    for lesion, near in _lesions(true, rules):
        touching = set(np.unique(parts[near.box][near.mask]).tolist()) - {0}
        touched |= touching
        if lesion.voxels < rules.smallest_voxels:
            continue
        if not touching:
            missed += 1
            continue
        around = _union([lesion.box, *(boxes[part] for part in touching)])
        wanted = np.zeros(count + 1, dtype=bool)
        wanted[list(touching)] = True
        its_prediction, its_label = wanted[parts[around]], np.zeros([side.stop - side.start for side in around], bool)
        inside = tuple(
            slice(own.start - side.start, own.stop - side.start) for own, side in zip(lesion.box, around, strict=True)
        )
        its_label[inside] = lesion.mask
        common = np.count_nonzero(its_prediction & its_label)
        dice.append(2 * common / (np.count_nonzero(its_prediction) + lesion.voxels))
        distances.append(hd95(its_prediction, its_label, spacing))
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    invented = sum(int(sizes[part]) >= rules.smallest_voxels for part in range(1, count + 1) if part not in touched)
    found, wrong = len(dice), missed + invented
    if not found + wrong:
        return LesionScores(1.0, 0.0, 0, 0, 0)
    return LesionScores(
        fmean([*dice, *[0.0] * wrong]), fmean([*distances, *[rules.missed_mm] * wrong]), found, missed, invented
    )


@dataclass(frozen=True)
class _Part:
    """A lesion in the box around it."""

    box: _Box
    mask: np.ndarray

    @property
    def voxels(self) -> int:
        return int(np.count_nonzero(self.mask))


def _lesions(true: np.ndarray, rules: LesionRules) -> Iterator[tuple[_Part, _Part]]:
    """Yields every lesion of the label, as it is and grown."""
    from scipy.ndimage import binary_dilation, generate_binary_structure

    grown = true
    if rules.dilation:
        grown = binary_dilation(true, generate_binary_structure(3, _GROWTH), iterations=rules.dilation)
    components, _ = _components(grown, rules)
    for number, box in _boxes(components).items():
        near = components[box] == number
        yield _Part(box, near & true[box]), _Part(box, near)


def _components(mask: np.ndarray, rules: LesionRules) -> tuple[np.ndarray, int]:
    from scipy.ndimage import generate_binary_structure, label

    return label(mask, generate_binary_structure(3, {6: 1, 18: 2, 26: 3}[rules.neighbours]))


def _boxes(components: np.ndarray) -> dict[int, _Box]:
    from scipy.ndimage import find_objects

    return dict(enumerate(find_objects(components), 1))


def _box_around(mask: np.ndarray, margin: int) -> _Box:
    """The smallest box with a mask and a margin around it, within the volume."""
    sides = []
    for axis in range(3):
        there = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        first, last = (there[0], there[-1]) if len(there) else (0, 0)
        sides.append(slice(max(0, int(first) - margin), int(last) + margin + 1))
    return tuple(sides)


def _union(boxes: list[_Box]) -> _Box:
    return tuple(slice(min(box.start for box in of), max(box.stop for box in of)) for of in zip(*boxes, strict=True))
