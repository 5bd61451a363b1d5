"""Checks of one volume of a case: its values and its header."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedmepd.data.cases import LABEL
from fedmepd.data.findings import Finding, error, note, warning
from fedmepd.data.grids import MOST_APART_MM, apart_mm, into_frame
from fedmepd.data.resampling import Grid
from fedmepd.data.volumes import Volumes
from fedmepd.text_table import counted

# Interpolation leaves a few negative voxels around the brain; a z-score makes about half of it negative.
_MOST_NEGATIVE = 0.25

_USUAL_SPACING_MM = (0.3, 6.0)

# A file with more different values than this is an image, not a label.
_MOST_LABELS = 20

# An image with fewer different values than this in a whole brain is no MR image.
_FEWEST_VALUES, _WHOLE_BRAIN_VOXELS = 24, 1000

# Sums of squares of larger or smaller intensities leave the range of float32.
_INTENSITIES = (1e-15, 1e15)

# Voxels of the brain that stand for all where single ones do not matter.
_SAMPLE = 50_000

# Single voxels far outside the rest: the deviation is more than twice that of the values up to this percentile.
_MOST_DEVIATION, _PERCENTILE = 2.0, 99.0

# Two examinations are the same if their intensities are, in steps of the mean by this: so few that rounding by another
# scale matters nowhere, and far more than two patients' brains have in common.
_STEPS = 4


@dataclass
class CaseVolume:
    """One volume of a case.

    Args:
        kind: a modality, or :data:`LABEL`.
        path: its file.
        values: (X, Y, Z), cleaned of what preparation cleans them of.
        read: the file's content.
    """

    kind: str
    path: Path
    values: np.ndarray
    read: Volumes

    @property
    def grid(self) -> Grid:
        """Where its voxels lie."""
        return Grid(self.values.shape, self.read.affine)


UNKNOWN_LABEL = "unknown label value"


def check_values(volume: CaseVolume) -> list[Finding]:
    """Says what is wrong with a volume's values."""
    return list(_check_label(volume) if volume.kind == LABEL else _check_image(volume))


def _check_label(volume: CaseVolume) -> Iterator[Finding]:
    found = list(label_counts(volume.values))
    unknown = [value for value in found if not 0 <= value <= 255 or value != int(value)]
    if not unknown and len(found) > _MOST_LABELS:
        unknown = found
    if unknown:
        shown = ", ".join(f"{value:.7g}" for value in unknown[:5]) + (", ..." if len(unknown) > 5 else "")
        text = f"{volume.path} holds the label values {shown}: expected a few whole numbers, such as 0, 1, 2, 4"
        yield error(UNKNOWN_LABEL, text)
    elif not any(found):
        yield note("label that is background alone", f"{volume.path} is 0 everywhere: the case is kept")


def label_counts(values: np.ndarray) -> dict[float, int]:
    """Returns the number of voxels of every value."""
    if values.dtype == np.uint8:
        counts = np.bincount(values.ravel(order="K"), minlength=1)
        return {value: int(counts[value]) for value in counts.nonzero()[0].tolist()}
    found, counts = np.unique(values, return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))


def _check_image(volume: CaseVolume) -> Iterator[Finding]:
    path, values = volume.path, volume.values
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        yield error("NaN or infinity in an image", f"{path} holds NaN or infinity: convert the image again")
        return
    if values.min() == values.max():
        text = f"{path} holds the value {values.flat[0]:g} everywhere: convert the image again"
        yield error("constant image", text)
        return
    low, high = _INTENSITIES
    if not low <= (largest := float(np.abs(values).max())) <= high:
        text = f"{path} holds intensities up to {largest:.3g}: expected them between {low:g} and {high:g}; scale it"
        yield error("intensities that are too large or too small", text)
        return
    # In the order of the memory, which is several times as fast.
    flat = values.ravel(order="K")
    yield from _check_intensities(path, flat[flat > 0])
    negative, there = np.count_nonzero(values < 0), np.count_nonzero(values)
    if negative > _MOST_NEGATIVE * there:
        yield error(
            "image with negative intensities",
            f"{path} is negative in {negative / there:.0%} of its non-zero voxels: expected intensities as the scanner "
            "gave them, 0 outside the body and not normalised",
        )
    elif negative:
        yield note(
            "a few negative values, which become 0",
            f"{path} has {counted(negative, 'negative voxel')}; what is negative becomes 0",
        )


def _check_intensities(path: Path, brain: np.ndarray) -> Iterator[Finding]:
    """Checks for what mean and deviation cannot bear, and for a mask.

    Args:
        path: the image.
        brain: its values above 0.
    """
    if len(brain) < _WHOLE_BRAIN_VOXELS:
        return
    sample = brain[:: max(1, len(brain) // _SAMPLE)].astype(np.float64)
    few = np.unique(sample)
    if len(few) < _FEWEST_VALUES and len(np.unique(brain)) < _FEWEST_VALUES:
        text = f"{path} holds {counted(len(np.unique(brain)), 'different value')} above 0: look whether it is a mask"
        yield warning("image with few different values", text)
        return
    rest = np.minimum(sample, np.percentile(sample, _PERCENTILE))
    if brain.std(dtype=np.float64) > _MOST_DEVIATION * rest.std():
        text = (
            f"{path}: a few voxels (up to {brain.max():.4g}) lie far outside the rest (up to {rest.max():.4g}) and "
            "would decide how the image is normalised: correct them, or set data.clip_percent of the job to 1"
        )
        yield warning("single voxels far outside the rest", text)


def check_header(volume: CaseVolume) -> Iterator[Finding]:
    """Says what is wrong with a volume\'s position in space."""
    import nibabel

    header, shape = volume.read.header, volume.values.shape
    if volume.read.form == "sizes":
        axes = "".join(nibabel.aff2axcodes(volume.read.affine))
        text = (
            f"{volume.path}: its header has no qform and no sform, so nothing says where left and front are; it is "
            f"read as {axes}: convert the original again"
        )
        yield warning("header without an orientation", text)
    if volume.read.unit_ignored:
        text = (
            f"{volume.path}: its header says {volume.read.unit_ignored}, but the sizes are those of mm, which are read"
        )
        yield warning("header with a unit that cannot be right", text)
    elif volume.read.unit_mm != 1:
        text = f"{volume.path}: its header gives positions in units of {volume.read.unit_mm:g} mm"
        yield note("header in another unit than mm", text)
    if volume.read.form == "qform" and int(header["sform_code"]):
        yield warning("header whose sform is all 0, read by its qform", f"{volume.path}: the qform is used")
    elif int(header["qform_code"]) and int(header["sform_code"]):
        try:
            apart = apart_mm(header.get_qform(), header.get_sform(), shape)
        # An invalid qform is not used either.
        except Exception:
            apart = np.inf
        if not apart <= MOST_APART_MM:
            text = f"{volume.path}: its qform and sform differ; the sform is used"
            yield warning("headers whose qform and sform disagree", text)
    low, high = _USUAL_SPACING_MM
    if not all(low <= size <= high for size in volume.read.spacing):
        sizes = " x ".join(f"{size:.3g}" for size in volume.read.spacing)
        yield warning("unusual voxel size", f"{volume.path} has voxels of {sizes} mm: look at its header")


def digest(volume: CaseVolume) -> str:
    """Returns the SHA-256 of a volume's content, see :class:`fedmepd.data.case_facts.CaseFacts`."""
    with np.errstate(all="ignore"):
        if volume.kind == LABEL:
            content = volume.values.astype(np.float32)
        else:
            content = _comparable(into_frame(volume.values, volume.read.affine))
    made = hashlib.sha256(repr(content.shape).encode())
    # The first axis runs fastest, as in files.
    made.update(np.ascontiguousarray(content.T).data)
    return made.hexdigest()


def _comparable(image: np.ndarray) -> np.ndarray:
    """The brain of an image (X, Y, Z) in steps of its mean: the same after padding, cropping and scaling.

    An image of a few voxels stays as it is, since those of two patients could be the same by chance.
    """
    brain = image > 0
    if np.count_nonzero(brain) < _WHOLE_BRAIN_VOXELS or not np.isfinite(image).all():
        return image.astype(np.float32)
    for axis in range(3):
        inside = np.flatnonzero(brain.any(axis=tuple(other for other in range(3) if other != axis)))
        box = (slice(None),) * axis + (slice(inside[0], inside[-1] + 1),)
        image, brain = image[box], brain[box]
    there = np.multiply(image, brain, dtype=np.float64)
    steps = there * (_STEPS * np.count_nonzero(brain) / there.sum())
    return np.minimum(steps, 255, out=steps).astype(np.uint8)
