"""Between the grids of a case's files and the one grid that the network sees, where a task resamples its cases."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedmepd.data.grids import frame_orientation, frame_spacing, into_frame
from fedmepd.data.volumes import MOST_VOXELS, TOO_LARGE, VolumeError


@dataclass(frozen=True)
class Grid:
    """Where the voxels of a volume lie.

    Args:
        shape: voxels along each axis.
        affine: voxel indices to mm, (4, 4).
    """

    shape: tuple[int, int, int]
    affine: np.ndarray

    def box(self, corner: Sequence[int], shape: Sequence[int]) -> Grid:
        """Returns the grid of a part that begins at a voxel."""
        return Grid(tuple(shape), self.affine @ _moved(np.eye(3), np.asarray(corner, dtype=np.float64)))


def network_grid(first: Grid, voxel_mm: Sequence[float]) -> Grid:
    """Returns the grid on which the network sees a case.

    Its axes are those of the first image, turned and flipped as :func:`~fedmepd.data.grids.into_frame` does, so nothing
    is rotated. Its middle is that of the first image, and it covers that image but for half a voxel.

    Args:
        first: of the case's first image.
        voxel_mm: size of a voxel along each axis of the frame.

    Raises:
        VolumeError: the grid would have more than :data:`~fedmepd.data.volumes.MOST_VOXELS` voxels.
    """
    from nibabel.orientations import inv_ornt_aff

    turned = first.affine @ inv_ornt_aff(frame_orientation(first.affine), first.shape)
    sides = np.array(into_frame(np.broadcast_to(np.uint8(0), first.shape), first.affine).shape)
    steps = np.asarray(voxel_mm) / frame_spacing(first.affine)
    shape = np.maximum(1, np.rint(sides / steps)).astype(int)
    if math.prod(shape.tolist()) > MOST_VOXELS:
        size = " x ".join(f"{side:g}" for side in np.round(sides * frame_spacing(first.affine)))
        raise VolumeError(
            kind=TOO_LARGE, reason=f"by its header it is {size} mm large: too large for voxels of the task's size"
        )
    # The middle voxel stays in the middle.
    start = ((sides - 1) - (shape - 1) * steps) / 2
    return Grid(tuple(shape.tolist()), turned @ _moved(np.diag(steps), start))


def from_network(
    first: Grid, voxel_mm: Sequence[float], box: np.ndarray, corner: Sequence[int], grid: Grid
) -> np.ndarray:
    """Returns what the network found in a box of its grid, on another grid; 0 outside the box.

    Args:
        first, voxel_mm: see :func:`network_grid`.
        box: (X, Y, Z); floating-point numbers are interpolated, others are taken from the nearest voxel.
        corner: the box's first voxel.
        grid: the other one.
    """
    own = network_grid(first, voxel_mm).box(corner, box.shape)
    return onto(box, own.affine, grid, linear=box.dtype.kind == "f")


def onto(values: np.ndarray, affine: np.ndarray, grid: Grid, *, linear: bool, outside: int = 0) -> np.ndarray:
    """Returns a volume on another grid.

    Args:
        values: (X, Y, Z).
        affine: of the volume.
        grid: the other one.
        linear: whether to interpolate linearly between voxels, as of images, or to take the nearest one, as of classes.
        outside: the class where the volume does not reach; interpolated values are 0 there.
    """
    from scipy.ndimage import affine_transform

    places = np.linalg.inv(affine) @ grid.affine
    # Places that are whole but for rounding are whole, so that a grid onto itself changes nothing.
    places = np.where(np.abs(places - (whole := np.rint(places))) < _ROUNDING, whole, places)
    how = {"matrix": places[:3, :3], "offset": places[:3, 3], "output_shape": grid.shape}
    if not linear:
        return affine_transform(values, **how, order=0, mode="grid-constant", cval=outside)
    # Up to the outer faces of its voxels, an image has the values of the outermost ones.
    reached = affine_transform(np.ones(values.shape, dtype=np.uint8), **how, order=0, mode="grid-constant")
    return affine_transform(values, **how, order=1, mode="nearest", output=np.float32) * reached


_ROUNDING = 1e-6


def overlap(one: Grid, other: Grid) -> bool:
    """Whether two volumes show a common place: whether the middle of one lies in the other."""
    for inner, outer in ((one, other), (other, one)):
        middle = inner.affine @ [*((np.array(inner.shape) - 1) / 2), 1]
        place = (np.linalg.inv(outer.affine) @ middle)[:3]
        if (place >= -0.5).all() and (place <= np.array(outer.shape) - 0.5).all():
            return True
    return False


def _moved(matrix: np.ndarray, offset: np.ndarray) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = matrix, offset
    return affine
