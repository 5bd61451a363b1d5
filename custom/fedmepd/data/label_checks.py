"""Checks of a label against the images of its case: whether it is one of them, fits them, and covers them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from fedmepd.data.cases import LABEL
from fedmepd.data.findings import Finding, error, warning
from fedmepd.data.resampling import onto
from fedmepd.data.volume_checks import CaseVolume
from fedmepd.text_table import counted

# If more than this share of a label is where all images are 0, the label belongs to another image.
_MOST_OUTSIDE = 0.5

# Less of an image outside its label than this comes from grids that are turned.
_MOST_UNCOVERED = 0.01


def label_as_image(volumes: Sequence[CaseVolume]) -> Iterator[Finding]:
    """An image that is 0 wherever the label is, and nowhere else, tells the network the answer."""
    label = next((volume for volume in volumes if volume.kind == LABEL), None)
    # A label without any background says nothing.
    if label is None or not (labelled := label.values != 0).any() or labelled.all():
        return
    total = np.count_nonzero(labelled)
    for volume in volumes:
        if volume is label or np.count_nonzero(volume.values) != total:
            continue
        if np.array_equal(volume.values != 0, labelled):
            text = (
                f"{volume.path} ({volume.kind}) is above 0 exactly where {label.path.name} is: replace it by the image"
            )
            yield error("label in the place of an image", text)


def check_coverage(label: CaseVolume, first: CaseVolume) -> Iterator[Finding]:
    """Warns where a label on a grid of its own and the first image show different parts of the body."""
    body, labelled = first.values > 0, label.values > 0
    yield from check_outside(label, labelled & ~_reached(first, label), f"lie outside {first.path.name}")
    share = np.count_nonzero(body & ~_reached(label, first)) / max(1, np.count_nonzero(body))
    if share > _MOST_UNCOVERED:
        text = (
            f"{label.path} does not cover {share:.0%} of what {first.path.name} beside it shows: there, the case "
            "enters neither the loss nor the scores"
        )
        yield warning("label that does not cover its images", text)


def _reached(volume: CaseVolume, other: CaseVolume) -> np.ndarray:
    """Which voxels of another volume's grid lie in a volume."""
    there = np.ones(volume.values.shape, dtype=np.uint8)
    return onto(there, volume.read.affine, other.grid, linear=False) > 0


def check_outside(label: CaseVolume, outside: np.ndarray, where: str) -> Iterator[Finding]:
    """Says how much of a label is where no image shows anything."""
    count, total = np.count_nonzero(outside), np.count_nonzero(label.values > 0)
    text = f"{label.path}: {count} of {counted(total, 'labelled voxel')} {where}"
    if count > _MOST_OUTSIDE * total:
        yield error("label that does not fit its images", f"{text}: it is another case's")
    elif count:
        yield warning("label that reaches out of the images", text)
