"""Distances between the surfaces of two masks, by MONAI."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

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

    with warnings.catch_warnings():
        # MONAI 1.6 warns of an argument that it passes itself.
        warnings.filterwarnings("ignore", ".*always_return_as_numpy", FutureWarning)
        distance = compute_hausdorff_distance(
            *_batches(predicted, true), include_background=True, percentile=95, spacing=_plain(spacing)
        )
    return distance.item()


def surface_dice(predicted: Tensor | ArrayLike, true: Tensor | ArrayLike, spacing: Sequence[float]) -> float:
    """Returns the share of both surfaces within :data:`TOLERANCE_MM` of the other one (NSD, surface Dice).

    Args:
        predicted, true: masks (X, Y, Z), neither of them empty.
        spacing: size of a voxel in mm along each axis.
    """
    from monai.metrics import compute_surface_dice

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*always_return_as_numpy", FutureWarning)
        share = compute_surface_dice(
            *_batches(predicted, true),
            class_thresholds=[TOLERANCE_MM],
            include_background=True,
            spacing=_plain(spacing),
        )
    return share.item()


def _batches(*masks: Tensor | ArrayLike) -> list[Tensor]:
    import torch

    return [torch.as_tensor(mask)[None, None].float() for mask in masks]


def _plain(spacing: Sequence[float]) -> list[float]:
    return [float(size) for size in spacing]
