"""Self-distillation between modalities: from all of a case's images together to each of them alone (PASSION, FedAMM).

Shi et al., ACM MM 2024; taken over by FedAMM (MICCAI 2025). The fused output teaches, so no gradient goes into it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fedmepd.networks.blocks import full_precision
from fedmepd.tasks.labels import IGNORE

_EPSILON = 1e-7


def divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Returns T^2 times the Kullback-Leibler divergence from teacher to student, both softened by the temperature T.

    A softmax of logits / T is the softmax of log-probabilities / T, so probabilities will do.

    Args:
        student, teacher: class probabilities (B, classes, X, Y, Z).
        temperature: T; 1 leaves the probabilities as they are.

    Returns:
        the mean over batch and voxels; the sum over classes.
    """
    soft, target = (
        F.log_softmax(full_precision(p).clamp_min(_EPSILON).log() / temperature, dim=1)
        for p in (student, teacher.detach())
    )
    return (target.exp() * (target - soft)).sum(dim=1).mean() * temperature**2


def class_means(feature: Tensor, label: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Returns the mean feature of every class in every sample, with gradients: (B, classes, C); and who is there.

    Args:
        feature: (B, C, X, Y, Z), at the label's resolution.
        label: class numbers (B, X, Y, Z); voxels of :data:`~fedmepd.tasks.labels.IGNORE` are of no class.
        classes: their number.
    """
    voxels = full_precision(feature).flatten(2).transpose(1, 2)
    flat = label.flatten(1)
    known = flat != IGNORE
    one_hot = F.one_hot(flat.where(known, 0), classes).transpose(1, 2).to(voxels.dtype)
    if not known.all():
        one_hot = one_hot * known[:, None]
    counts = one_hot.sum(dim=2)
    sums = torch.matmul(one_hot, voxels)
    return sums / counts[..., None].clamp_min(1), counts > 0


def similarity_maps(feature: Tensor, means: Tensor) -> Tensor:
    """Returns the cosine between every voxel's feature and every class mean, (B, classes, V).

    Args:
        feature: (B, C, X, Y, Z).
        means: of the classes, (B, classes, C).
    """
    voxels = F.normalize(full_precision(feature).flatten(2), dim=1)
    return torch.matmul(F.normalize(means, dim=2), voxels)


def map_differences(maps: Tensor, others: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the mean squared and the mean absolute difference of similarity maps, of classes that are there alone.

    Args:
        maps, others: (B, classes, V).
        there: bool (B, classes).
    """
    difference = (maps - others)[there]
    if not difference.numel():
        # No voxel of the crop has a class that the label tells.
        return difference.sum(), difference.sum()
    return difference.square().mean(), difference.abs().mean()
