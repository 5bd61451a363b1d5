"""Optional corrections of a finished segmentation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedmepd.errors import SettingsError
from fedmepd.tasks.task import Task


def clean(
    task: Task,
    classes: np.ndarray,
    spacing: Sequence[float],
    *,
    min_component_ml: float = 0.0,
    min_enhancing_ml: float = 0.0,
) -> np.ndarray:
    """Removes small components of tumour, then relabels enhancing tumour if its total is too small.

    Args:
        task: whose rule for small classes is followed.
        classes: class numbers (X, Y, Z).
        spacing: voxel size along X, Y and Z in mm.
        min_component_ml: connected components of the whole tumour (voxels that share a face, an edge or a corner) that
            are smaller become background; 0: none.
        min_enhancing_ml: if there is less of the class of :attr:`Task.small_class` (in BraTS the enhancing tumour), it
            becomes the other class of that rule; 0: never.

    Returns:
        class numbers, a new array.

    Raises:
        SettingsError: ``min_enhancing_ml`` is above 0, and the task has no such rule.
    """
    from scipy.ndimage import label

    require_rule(task, min_enhancing_ml)
    classes = classes.copy()
    millilitres = float(np.prod(spacing)) / 1000
    if min_component_ml > 0:
        components, _ = label(classes > 0, structure=np.ones((3, 3, 3)))
        small = np.bincount(components.ravel()) * millilitres < min_component_ml
        small[0] = False
        classes[small[components]] = 0
    if min_enhancing_ml > 0:
        small_class = classes == task.small_class.number
        if np.count_nonzero(small_class) * millilitres < min_enhancing_ml:
            classes[small_class] = task.small_class.becomes
    return classes


def require_rule(task: Task, min_enhancing_ml: float) -> None:
    """Raises :class:`~fedmepd.errors.SettingsError` if a threshold is asked for that the task has no rule for."""
    if min_enhancing_ml > 0 and task.small_class is None:
        raise SettingsError(f"--min-enhancing: task {task.name} does not say what becomes of a class that is too small")
