"""The measures of a single case by region: for reports at a site, in more detail than a run's results."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedmepd.evaluation.metrics import case_scores, compared_regions
from fedmepd.tasks.labels import Groups
from fedmepd.tasks.task import Task

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from torch import Tensor


@dataclass(frozen=True)
class RegionMeasures:
    """One region of one case.

    Args:
        dice: 0 to 1, by the BraTS rule where the region is empty.
        hd95_mm: 95th percentile of the Hausdorff distance in mm, by the BraTS rule where the region is empty.
        sensitivity: share of the label's voxels that the prediction has; None where the label is empty.
        specificity: share of the voxels outside the label that the prediction leaves out, over the whole volume with
            its background, as in BraTS; None where the label fills the volume.
        label_ml, prediction_ml: volumes, without the voxels that the label leaves out.
        nsd: normalised surface Dice, 0 to 1.
        lesion_dice, lesion_hd95_mm: means over its lesions.
        lesions_found, lesions_missed, lesions_invented: numbers of lesions, see
            :class:`fedmepd.evaluation.lesions.LesionScores`.
    """

    dice: float
    hd95_mm: float
    sensitivity: float | None
    specificity: float | None
    label_ml: float
    prediction_ml: float
    nsd: float
    lesion_dice: float
    lesion_hd95_mm: float
    lesions_found: int
    lesions_missed: int
    lesions_invented: int


def measure_case(
    task: Task,
    prediction: Tensor | ArrayLike,
    label: Tensor | ArrayLike,
    spacing: Sequence[float],
    groups: Groups = (),
) -> dict[str, RegionMeasures]:
    """Measures every region of a case that its label tells, without the voxels that it leaves out.

    Args:
        task: whose regions are measured.
        prediction: classes (X, Y, Z) of the whole volume.
        label: classes (X, Y, Z).
        spacing: voxel size along X, Y and Z in mm.
        groups: classes that the label does not tell apart.

    Raises:
        ValueError: the two shapes differ or are not three-dimensional.
    """
    from monai.metrics import compute_confusion_matrix_metric, get_confusion_matrix

    scores = case_scores(task, prediction, label, spacing, groups)
    if not scores.dice:
        return {}
    masks = [mask[None] for mask in compared_regions(task, prediction, label, groups)]
    counts = get_confusion_matrix(*masks, include_background=True)[0]
    voxel_ml = math.prod(spacing) / 1000
    predicted_voxels, label_voxels = (mask[0].bool().flatten(1).sum(dim=1).tolist() for mask in masks)
    measures = {}
    of_regions = zip(scores.dice, counts, label_voxels, predicted_voxels, strict=True)
    for region, of_region, label_count, predicted_count in of_regions:
        true_positive, false_positive, true_negative, false_negative = of_region.tolist()
        sensitivity = specificity = None
        if true_positive + false_negative:
            sensitivity = compute_confusion_matrix_metric("sensitivity", of_region).item()
        if true_negative + false_positive:
            specificity = compute_confusion_matrix_metric("specificity", of_region).item()
        lesions = scores.lesions[region]
        measures[region] = RegionMeasures(
            scores.dice[region],
            scores.hd95_mm[region],
            sensitivity,
            specificity,
            label_count * voxel_ml,
            predicted_count * voxel_ml,
            scores.nsd[region],
            lesions.dice,
            lesions.hd95_mm,
            lesions.found,
            lesions.missed,
            lesions.invented,
        )
    return measures


def region_millilitres(task: Task, classes: Tensor | ArrayLike, spacing: Sequence[float]) -> dict[str, float]:
    """Returns the volume of every region of a class map (X, Y, Z) with voxels of ``spacing`` mm."""
    import numpy as np

    voxels = np.bincount(np.asarray(classes).ravel(), minlength=len(task.classes))
    millilitres = float(np.prod(spacing)) / 1000
    return {region: float(voxels[list(members)].sum() * millilitres) for region, members in task.regions.items()}
