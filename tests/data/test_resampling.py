from __future__ import annotations

import nibabel
import numpy as np
import pytest
from nibabel.eulerangles import euler2mat

from fedmepd.data.grids import into_frame
from fedmepd.data.resampling import Grid, network_grid, onto, overlap
from fedmepd.data.volumes import VolumeError

ANISOTROPIC = np.diag([-0.5, -0.7, 3.0, 1.0])


def oblique(sizes=(0.8, 1.1, 2.5), angles=(0.3, -0.2, 0.5), origin=(-20.0, 13.0, 40.0)) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = euler2mat(*angles) @ np.diag(sizes)
    affine[:3, 3] = origin
    return affine


def swapped() -> np.ndarray:
    """The first axis runs from bottom to top, the second from left to right, the third from back to front."""
    return np.array([[0, 0.9, 0, 5], [0, 0, 1.3, -7], [2.0, 0, 0, 3], [0, 0, 0, 1.0]])


AFFINES = {
    "anisotropic": ANISOTROPIC,
    "oblique": oblique(),
    "swapped": swapped(),
    "turned far": oblique(angles=(1.2, 0.4, 2.0)),
}
SHAPE = (9, 8, 7)


def slow(values: np.ndarray, affine: np.ndarray, grid: Grid, linear: bool) -> np.ndarray:
    """Voxel by voxel: its place in mm, the indices there, and the eight neighbours weighted by distance."""
    found = np.zeros(grid.shape)
    back = np.linalg.inv(affine)
    for place in np.ndindex(grid.shape):
        at = (back @ grid.affine @ [*place, 1])[:3]
        if (at < -0.5).any() or (at >= np.array(values.shape) - 0.5).any():
            continue
        at = np.clip(at, 0, np.array(values.shape) - 1)
        if not linear:
            found[place] = values[tuple(np.floor(at + 0.5).astype(int))]
            continue
        low = np.floor(at).astype(int)
        for step in np.ndindex(2, 2, 2):
            weight = np.prod(np.where(step, at - low, 1 - (at - low)))
            found[place] += weight * values[tuple(np.minimum(low + step, np.array(values.shape) - 1))]
    return found


@pytest.mark.parametrize("linear", [True, False])
@pytest.mark.parametrize("name", AFFINES)
def test_against_the_slow_formula(name: str, linear: bool) -> None:
    """From one grid to another of other axes, which reaches over its borders."""
    rng = np.random.default_rng(1)
    values = rng.uniform(1, 2, SHAPE).astype("float32")
    grid = Grid((8, 9, 10), oblique(sizes=(1.1, 0.9, 1.7), angles=(0.1, 0.2, -0.3), origin=AFFINES[name][:3, 3] - 2.1))
    expected = slow(values, AFFINES[name], grid, linear)
    found = onto(values, AFFINES[name], grid, linear=linear)
    assert found.shape == grid.shape and 0 < np.count_nonzero(expected) < expected.size
    assert found == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("name", AFFINES)
def test_the_network_sees_the_first_image_in_the_middle(name: str) -> None:
    first = Grid(SHAPE, AFFINES[name])
    grid = network_grid(first, (0.6, 0.9, 1.3))
    # Its axes: those of the frame, as near as the image's own allow, with voxels of the task's size.
    assert np.linalg.norm(grid.affine[:3, :3], axis=0) == pytest.approx((0.6, 0.9, 1.3))
    assert nibabel.aff2axcodes(grid.affine) == ("L", "P", "S")
    directions = AFFINES[name][:3, :3] / np.linalg.norm(AFFINES[name][:3, :3], axis=0)
    assert np.abs(directions.T @ grid.affine[:3, :3] / (0.6, 0.9, 1.3)).max(axis=0) == pytest.approx(1)

    def middle(of: Grid) -> np.ndarray:
        return of.affine @ [*((np.array(of.shape) - 1) / 2), 1]

    assert middle(grid) == pytest.approx(middle(first))
    extent = (
        np.array(into_frame(np.zeros(SHAPE), first.affine).shape)
        * np.linalg.norm(first.affine[:3, :3], axis=0)[np.abs(directions.T @ grid.affine[:3, :3]).argmax(axis=0)]
    )
    assert np.abs(np.array(grid.shape) * (0.6, 0.9, 1.3) - extent).max() <= 1.3 / 2 + 1e-9


@pytest.mark.parametrize("name", AFFINES)
def test_classes_come_back_to_their_own_grid_unchanged(name: str) -> None:
    """To voxels that are smaller along every axis, and back: each voxel has its own class again."""
    classes = np.random.default_rng(2).integers(0, 4, SHAPE).astype("uint8")
    own = Grid(SHAPE, AFFINES[name])
    grid = network_grid(own, (0.3, 0.3, 0.3))
    seen = onto(classes, own.affine, grid, linear=False)
    back = onto(seen, grid.affine, own, linear=False)
    assert back.dtype == np.uint8 and np.array_equal(back, classes)
    # By way of a box of it, as after cropping.
    box = grid.box((2, 3, 1), [side - 4 for side in grid.shape])
    inside = seen[2 : 2 + box.shape[0], 3 : 3 + box.shape[1], 1 : 1 + box.shape[2]]
    back = onto(inside, box.affine, own, linear=False)
    assert np.array_equal(back[2:-2, 2:-2, 2:-2], classes[2:-2, 2:-2, 2:-2])
    assert np.array_equal(back[back > 0], classes[back > 0])


@pytest.mark.parametrize("linear", [True, False])
def test_of_the_right_size_already(linear: bool) -> None:
    """Nothing but the turn into the frame."""
    values = np.random.default_rng(3).uniform(1, 9, SHAPE).astype("float32")
    own = Grid(SHAPE, swapped())
    grid = network_grid(own, (0.9, 1.3, 2.0))
    assert np.array_equal(onto(values, own.affine, grid, linear=linear), into_frame(values, own.affine))


def test_whether_volumes_show_a_common_place() -> None:
    large = Grid((40, 40, 40), oblique())
    for place, common in (((20, 20, 20), True), ((37, 2, 30), True), ((45, 20, 20), False), ((20, 20, -9), False)):
        small = Grid((4, 4, 4), oblique(origin=(large.affine @ [*place, 1])[:3]))
        assert overlap(small, large) == overlap(large, small) == common


def test_a_header_that_would_fill_the_memory_is_refused() -> None:
    """64 voxels of 900 mm along each axis are too many of 1 mm."""
    with pytest.raises(VolumeError, match="57600 x 57600 x 57600 mm large"):
        network_grid(Grid((64, 64, 64), np.diag([900.0, 900, 900, 1])), (1, 1, 1))
