"""Optional corrections of a finished segmentation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedmepd.modalities import BRATS

_ENHANCING = BRATS.classes.index("ET")
_CORE = BRATS.classes.index("NCR/NET")


def clean(
    classes: np.ndarray, spacing: Sequence[float], *, min_component_ml: float = 0.0, min_enhancing_ml: float = 0.0
) -> np.ndarray:
    """Removes small components of tumour, then relabels enhancing tumour if its total is too small.

    Args:
        classes: class numbers (X, Y, Z).
        spacing: voxel size along X, Y and Z in mm.
        min_component_ml: connected components of the whole tumour (voxels that share a face, an edge or a corner) that
            are smaller become background; 0: none.
        min_enhancing_ml: if the total enhancing tumour is smaller, it becomes NCR/NET. BraTS teams use this rule to
            avoid a Dice of 0 in cases without enhancing tumour; 0: never.

    Returns:
        class numbers, a new array.
    """
    from scipy.ndimage import label

    classes = classes.copy()
    millilitres = float(np.prod(spacing)) / 1000
    if min_component_ml > 0:
        components, _ = label(classes > 0, structure=np.ones((3, 3, 3)))
        small = np.bincount(components.ravel()) * millilitres < min_component_ml
        small[0] = False
        classes[small[components]] = 0
    enhancing = classes == _ENHANCING
    if np.count_nonzero(enhancing) * millilitres < min_enhancing_ml:
        classes[enhancing] = _CORE
    return classes
