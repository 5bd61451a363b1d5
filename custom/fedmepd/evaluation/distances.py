"""Distances between the surfaces of two masks, by MONAI."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from torch import Tensor

# The distance in mm up to which two surfaces count as the same, as in BraTS.
TOLERANCE_MM = 1.0


def hd95(predicted: Tensor | ArrayLike, true: Tensor | ArrayLike, spacing: Sequence[float]) -> float:
    """Returns the larger of the two directed 95th percentiles of the Hausdorff distance, in mm.

    Args:
        predicted, true: masks (X, Y, Z), neither of them empty.
        spacing: size of a voxel in mm along each axis.
    """
    from monai.metrics import compute_hausdorff_distance

    return _computed(compute_hausdorff_distance, predicted, true, spacing, percentile=95)


def surface_dice(predicted: Tensor | ArrayLike, true: Tensor | ArrayLike, spacing: Sequence[float]) -> float:
    """Returns the share of both surfaces within :data:`TOLERANCE_MM` of the other one (NSD, surface Dice).

    Args:
        predicted, true: masks (X, Y, Z), neither of them empty.
        spacing: size of a voxel in mm along each axis.
    """
    from monai.metrics import compute_surface_dice

    return _computed(compute_surface_dice, predicted, true, spacing, class_thresholds=[TOLERANCE_MM])


def _computed(
    metric: Callable[..., Tensor],
    predicted: Tensor | ArrayLike,
    true: Tensor | ArrayLike,
    spacing: Sequence[float],
    **options: Any,
) -> float:
    import torch

    masks = (torch.as_tensor(mask)[None, None].float() for mask in (predicted, true))
    with warnings.catch_warnings():
        # MONAI 1.6 warns of an argument that it passes itself.
        warnings.filterwarnings("ignore", ".*always_return_as_numpy", FutureWarning)
        found = metric(*masks, include_background=True, spacing=[float(size) for size in spacing], **options)
    return found.item()
