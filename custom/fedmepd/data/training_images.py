"""What the images look like that a model was trained on, and how the images of a case differ from them.

A network reads voxels, not millimetres, and intensities relative to the body's mean.
Where a case differs in these from the cases of the training, a segmentation looks as sure as ever, and is worth less.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median

import numpy as np

from fedmepd.data.findings import Finding, warning
from fedmepd.tasks.task import Task

# Voxels whose sides differ by more than this are of another size.
MOST_OTHER_SIZE = 0.1

# A head without its skull is smaller than one with it by about half. Brains of adults and children differ less.
_MOST_OTHER_VOLUME = 1.6

# Of the z-scores within the brain. The tumour, in which patients differ, is above the last one.
PERCENTILES = (5, 25, 50, 75)

# Standard deviations of the brain. Patients and phantoms of one modality differ by 0.5 at most; an image of another
# modality, or one with the skull or with a background above 0, by 0.8 and more.
_MOST_OTHER_INTENSITY = 0.75

# Fewer voxels tell no distribution.
_FEWEST_VOXELS = 1000

# Voxels that stand for all of a brain.
_SAMPLE = 50_000


@dataclass(frozen=True)
class ImageMeasures:
    """What is measured of a case's images; of many cases the medians.

    Args:
        voxel_mm: size of a voxel, from the shortest side to the longest; empty: unknown.
        foreground_ml: volume in which an image is above 0; 0: unknown.
        intensities: by modality, :data:`PERCENTILES` of the z-scores within the brain; a modality may be missing.
    """

    voxel_mm: tuple[float, ...] = ()
    foreground_ml: float = 0.0
    intensities: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def coarse(self) -> ImageMeasures:
        """Returns the measures with as many digits as comparisons need.

        A median of cases is the value of one of them, by which it would be known among others.
        """
        return ImageMeasures(
            tuple(round(side, 2) for side in self.voxel_mm),
            float(f"{self.foreground_ml:.2g}"),
            {name: tuple(round(value, 1) for value in values) for name, values in self.intensities.items()},
        )

    def that_matter(self, task: Task) -> ImageMeasures:
        """Returns the measures in which a case of a task should be like others: sizes do not matter after resampling,
        and volumes not where the whole image counts as the body.
        """
        sizes = () if task.resampled else self.voxel_mm
        return replace(self, voxel_mm=sizes, foreground_ml=0.0 if task.foreground == "whole" else self.foreground_ml)


def medians(cases: Sequence[ImageMeasures]) -> ImageMeasures:
    """Returns the median of each measure over the cases that have it."""
    sizes = [sorted(case.voxel_mm) for case in cases if case.voxel_mm]
    volumes = [case.foreground_ml for case in cases if case.foreground_ml]
    scores: dict[str, list[tuple[float, ...]]] = {}
    for case in cases:
        for modality, of_case in case.intensities.items():
            scores.setdefault(modality, []).append(of_case)
    return ImageMeasures(
        _medians(sizes), float(median(volumes)) if volumes else 0.0, {name: _medians(of) for name, of in scores.items()}
    )


def _medians(rows: Sequence[Sequence[float]]) -> tuple[float, ...]:
    return tuple(round(float(median(column)), 4) for column in zip(*rows, strict=True))


def percentiles(image: np.ndarray) -> tuple[float, ...]:
    """Returns :data:`PERCENTILES` of an image's z-scores within the brain (voxels above 0); empty if they tell nothing.

    Args:
        image: (X, Y, Z).
    """
    flat = image.ravel(order="K")
    brain = flat[flat > 0]
    if len(brain) < _FEWEST_VOXELS:
        return ()
    sample = brain[:: max(1, len(brain) // _SAMPLE)].astype(np.float64)
    if not np.isfinite(sample).all() or not sample.std():
        return ()
    scores = np.percentile((sample - sample.mean()) / sample.std(), PERCENTILES)
    return tuple(round(float(score), 2) for score in scores)


def other_size(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether two voxels have different sizes in mm, whatever the order of their sides."""
    pairs = zip(sorted(one), sorted(other), strict=True)
    return any(abs(side - beside) > MOST_OTHER_SIZE * min(side, beside) for side, beside in pairs)


def differences(name: str, case: ImageMeasures, trained: ImageMeasures) -> list[Finding]:
    """Returns a warning for each way in which a case's images differ from those that a model was trained on.

    Args:
        name: the case's name.
        case: its measures.
        trained: the medians of the training cases; what is not known of them is not compared.
    """
    found = []
    if case.voxel_mm and trained.voxel_mm and other_size(case.voxel_mm, trained.voxel_mm):
        sizes = [" x ".join(f"{side:g}" for side in sorted(size)) for size in (case.voxel_mm, trained.voxel_mm)]
        text = (
            f"case {name} has voxels of {sizes[0]} mm, the model was trained with {sizes[1]} mm: expect a less "
            "accurate segmentation, or resample the images"
        )
        found.append(warning("other voxel size than in training", text))
    if case.foreground_ml and trained.foreground_ml:
        ratio = case.foreground_ml / trained.foreground_ml
        if not 1 / _MOST_OTHER_VOLUME < ratio < _MOST_OTHER_VOLUME:
            why = "was more removed around the body there?" if ratio > 1 else "is a part of the body missing?"
            text = (
                f"case {name} is above 0 in {case.foreground_ml:.0f} ml, the images that the model was trained with in "
                f"{trained.foreground_ml:.0f} ml: {why}"
            )
            found.append(warning("other size of the body than in training", text))
    unlike = [
        modality
        for modality, usual in trained.intensities.items()
        if (scores := case.intensities.get(modality))
        and max(abs(score - of_training) for score, of_training in zip(scores, usual, strict=True))
        > _MOST_OTHER_INTENSITY
    ]
    if unlike:
        text = (
            f"case {name}: the intensities of {' '.join(unlike)} are distributed as in no image that the model was "
            "trained with: is it another modality, or prepared in another way?"
        )
        found.append(warning(f"other intensities than in training ({' '.join(unlike)})", text))
    return found
