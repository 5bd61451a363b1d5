"""Scores of the evaluated regions, by the rules of the BraTS challenge: Dice, HD95, NSD, and lesion by lesion."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Literal

from fedmepd.evaluation.distances import hd95, surface_dice
from fedmepd.tasks.labels import IGNORE, Groups, known_regions
from fedmepd.tasks.rules import LESION_COUNTS
from fedmepd.tasks.task import Task

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from torch import Tensor

    from fedmepd.evaluation.lesions import LesionScores

# Raise this number when the same segmentation gets another Dice or HD95: runs of two versions are not compared. Scores
# of lesions and NSD are not part of a comparison.
VERSION = 1

Empty = Literal["both", "label", "prediction"]


@dataclass(frozen=True)
class CaseScores:
    """Scores of one case, by the name of every region that its label tells.

    Args:
        dice: Dice, 0 to 1.
        empty: where the region is empty: in ``both``, only in the ``label``, only in the ``prediction``; None: in
            neither.
        hd95_mm: 95th percentile of the Hausdorff distance in mm; None if it was not requested.
        nsd: normalised surface Dice, 0 to 1, see :func:`fedmepd.evaluation.distances.surface_dice`; None likewise.
        lesions: scores lesion by lesion; None likewise.
    """

    dice: dict[str, float]
    empty: dict[str, Empty | None]
    hd95_mm: dict[str, float] | None = None
    nsd: dict[str, float] | None = None
    lesions: dict[str, LesionScores] | None = None


def case_scores(
    task: Task,
    prediction: Tensor | ArrayLike,
    label: Tensor | ArrayLike,
    spacing: Sequence[float],
    groups: Groups = (),
) -> CaseScores:
    """Scores one case: Dice, HD95 and NSD per region, and its lesions.

    A region that is empty in both prediction and label has Dice 1, NSD 1 and HD95 0; empty in only one of them, Dice 0,
    NSD 0 and the HD95 that the task sets (373.13 mm in BraTS). HD95 is the larger of the two directed 95th percentiles.

    Args:
        task: whose regions are scored.
        prediction: classes (X, Y, Z).
        label: classes (X, Y, Z); voxels of :data:`~fedmepd.tasks.labels.IGNORE` belong to no region, and neither do
            the prediction's there.
        spacing: voxel size along X, Y and Z in mm.
        groups: classes that the label does not tell apart; a region that needs them told apart is not scored.

    Raises:
        ValueError: the two shapes differ or are not three-dimensional.
    """
    from fedmepd.evaluation.lesions import score_lesions

    predicted, true = compared_regions(task, prediction, label, groups)
    scores = _overlap(known_regions(task.regions, groups), predicted, true)
    distances, surfaces, lesions = {}, {}, {}
    for region, of_prediction, of_label in zip(scores.dice, predicted, true, strict=True):
        if scores.empty[region]:
            distances[region] = 0.0 if scores.dice[region] == 1 else task.empty_distance_mm
            surfaces[region] = scores.dice[region]
        else:
            distances[region] = hd95(of_prediction, of_label, spacing)
            surfaces[region] = surface_dice(of_prediction, of_label, spacing)
        masks = of_prediction.bool().numpy(), of_label.bool().numpy()
        lesions[region] = score_lesions(*masks, spacing, task.lesions)
    return CaseScores(scores.dice, scores.empty, distances, surfaces, lesions)


def dice_only(task: Task, prediction: Tensor | ArrayLike, label: Tensor | ArrayLike, groups: Groups = ()) -> CaseScores:
    """Scores one case like :func:`case_scores`, by Dice alone: cheap enough for validation during training."""
    masks = compared_regions(task, prediction, label, groups)
    return _overlap(known_regions(task.regions, groups), *masks)


def summarise(scores: Sequence[CaseScores], order: Iterable[str] = ()) -> dict | None:
    """Averages the scores of a site's cases; a region's over the cases whose labels tell it.

    Args:
        scores: of the cases.
        order: of the regions in the result; without, that in which they are first met.

    Returns:
        ``dice`` by region, ``mdsc`` (mean of the regions' Dice), ``empty`` (number of cases by region) and, unless they
        were left out, by region ``hd95_mm``, ``nsd``, and ``lesions``: means of ``dice`` and ``hd95_mm`` over the
        cases, and how many lesions of all cases were ``found``, ``missed`` and ``invented``. None without any case, or
        without any region that a label tells.
    """
    names = dict.fromkeys([*order, *(region for score in scores for region in score.dice)])
    told = {region: [score for score in scores if region in score.dice] for region in names}
    told = {region: of_region for region, of_region in told.items() if of_region}
    if not told:
        return None
    dice = {region: fmean(score.dice[region] for score in of_region) for region, of_region in told.items()}
    summary = {
        "dice": dice,
        "mdsc": fmean(dice.values()),
        "empty": {
            region: sum(score.empty[region] is not None for score in of_region) for region, of_region in told.items()
        },
    }
    for key, average in (("hd95_mm", fmean), ("nsd", fmean), ("lesions", _of_all_lesions)):
        if all(getattr(score, key) is not None for score in scores):
            summary[key] = {
                region: average([getattr(score, key)[region] for score in of_region])
                for region, of_region in told.items()
            }
    return summary


def _of_all_lesions(cases: Sequence[LesionScores]) -> dict[str, float | int]:
    return {
        "dice": fmean(of.dice for of in cases),
        "hd95_mm": fmean(of.hd95_mm for of in cases),
        **{count: sum(getattr(of, count) for of in cases) for count in LESION_COUNTS},
    }


def compared_regions(
    task: Task, prediction: Tensor | ArrayLike, label: Tensor | ArrayLike, groups: Groups = ()
) -> tuple[Tensor, Tensor]:
    """Returns the masks of a prediction and of a label, of the regions that the label tells, without ignored voxels."""
    import torch

    regions = list(task.regions)
    told = [regions.index(region) for region in known_regions(task.regions, groups)]
    predicted, true = region_masks(task, prediction)[told], region_masks(task, label)[told]
    ignored = torch.as_tensor(label).cpu() == IGNORE
    if ignored.any() and predicted.shape == true.shape:
        predicted = predicted * ~ignored
    return predicted, true


def region_masks(task: Task, classes: Tensor | ArrayLike) -> Tensor:
    """Returns the regions of a class map (X, Y, Z) as masks (region, X, Y, Z) on the CPU."""
    import torch

    classes = torch.as_tensor(classes).cpu()
    return torch.stack([torch.isin(classes, torch.tensor(members)) for members in task.regions.values()]).float()


def _overlap(regions: Sequence[str], predicted: Tensor, true: Tensor) -> CaseScores:
    from monai.metrics import compute_dice

    if predicted.shape != true.shape or predicted.ndim != 4:
        raise ValueError(
            f"prediction {tuple(predicted.shape[1:])} and label {tuple(true.shape[1:])}: expected the same (X, Y, Z)"
        )
    if not regions:
        return CaseScores({}, {})
    dice = compute_dice(predicted[None], true[None], ignore_empty=False)[0].tolist()
    empty = [_empty(bool(p.any()), bool(t.any())) for p, t in zip(predicted, true, strict=True)]
    return CaseScores(dict(zip(regions, dice, strict=True)), dict(zip(regions, empty, strict=True)))


def _empty(predicted: bool, true: bool) -> Empty | None:
    """Where a region is empty, by whether there is any of it."""
    if predicted and true:
        return None
    return "label" if predicted else "prediction" if true else "both"
