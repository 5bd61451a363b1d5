"""From a file's axes to the one frame that the network sees, and back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# BraTS' own orientation: axes point left, posterior, superior.
FRAME = "LPS"

# The farthest that a corner of the volume may move from one file of a case to another.
MOST_APART_MM = 0.1


def into_frame(values: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Turns and flips a volume (X, Y, Z) so that its axes point as nearly left, posterior, superior as they can.

    Args:
        values: the volume as its file holds it.
        affine: the file's, (4, 4).
    """
    from nibabel.orientations import apply_orientation

    return apply_orientation(values, frame_orientation(affine))


def out_of_frame(values: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Undoes :func:`into_frame`."""
    from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform

    return apply_orientation(values, ornt_transform(axcodes2ornt(FRAME), io_orientation(affine)))


def frame_orientation(affine: np.ndarray) -> np.ndarray:
    """Returns how :func:`into_frame` turns and flips a volume, as nibabel writes orientations."""
    from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

    return ornt_transform(io_orientation(affine), axcodes2ornt(FRAME))


def frame_spacing(affine: np.ndarray) -> tuple[float, float, float]:
    """Returns the size of a voxel in mm along each axis of the frame."""
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    order = np.argsort(frame_orientation(affine)[:, 0])
    return tuple(float(sizes[axis]) for axis in order)


def apart_mm(one: np.ndarray, other: np.ndarray, shape: Sequence[int]) -> float:
    """Returns the largest distance in mm between the corners of a volume (X, Y, Z) under two affines."""
    corners = np.array([(x, y, z, 1) for x in (0, shape[0]) for y in (0, shape[1]) for z in (0, shape[2])])
    # A damaged header may contain any numbers.
    with np.errstate(all="ignore"):
        return float(np.linalg.norm((corners @ (one - other).T)[:, :3], axis=1).max())
