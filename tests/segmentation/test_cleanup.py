from __future__ import annotations

import numpy as np
import pytest

from fedmepd.segmentation.cleanup import clean
from fedmepd.tasks.brats import BRATS

# 4 voxels of 2 x 1 x 3 mm: 0.024 ml; 2 of them that touch the others by a corner alone; 3 far away: 0.018 ml.
SPACING = (2.0, 1.0, 3.0)


@pytest.fixture
def classes() -> np.ndarray:
    made = np.zeros((8, 8, 8), dtype=np.uint8)
    made[1, 1, 1:3] = 2, 3
    made[2, 2, 3:5] = 1, 2
    made[6, 6, 5:8] = 3, 3, 1
    return made


def test_off_by_default(classes: np.ndarray) -> None:
    assert np.array_equal(clean(BRATS, classes, SPACING), classes)


@pytest.mark.parametrize(("threshold", "left"), [(0.018, 7), (0.0181, 4), (0.024, 4), (0.0241, 0)])
def test_small_components(classes: np.ndarray, threshold: float, left: int) -> None:
    """Diagonal neighbours are one component, whatever their classes; exactly the threshold is enough."""
    found = clean(BRATS, classes, SPACING, min_component_ml=threshold)
    expected = classes.copy()
    if left < 7:
        expected[6, 6] = 0
    if left < 4:
        expected[:] = 0
    assert np.array_equal(found, expected) and np.count_nonzero(found) == left
    assert np.count_nonzero(classes) == 7


@pytest.mark.parametrize(("threshold", "kept"), [(0.018, True), (0.0181, False)])
def test_little_enhancing_tumour(classes: np.ndarray, threshold: float, kept: bool) -> None:
    """All of it counts together: 3 voxels."""
    found = clean(BRATS, classes, SPACING, min_enhancing_ml=threshold)
    expected = classes if kept else np.where(classes == 3, 1, classes)
    assert np.array_equal(found, expected)


def test_components_go_first(classes: np.ndarray) -> None:
    """The far component takes two voxels of enhancing tumour with it; one is left, 0.006 ml."""
    found = clean(BRATS, classes, SPACING, min_component_ml=0.02, min_enhancing_ml=0.01)
    assert sorted(found[found > 0].tolist()) == [1, 1, 2, 2]


def test_no_tumour() -> None:
    assert not clean(BRATS, np.zeros((4, 4, 4), np.uint8), SPACING, min_component_ml=1, min_enhancing_ml=1).any()
