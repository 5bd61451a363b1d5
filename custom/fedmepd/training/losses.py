"""The training loss: Dice plus class-weighted cross entropy over all outputs (algorithm section 2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fedmepd.networks.blocks import full_precision, voxel_major
from fedmepd.networks.network import Outputs

_EPSILON = 1e-7
_FLOOR = 0.005


@dataclass
class Target:
    """A label in the forms that every term of the loss needs, made once for all of them.

    Attributes:
        one_hot: (B, V, classes), V voxels.
        counts: voxels of each class in each sample, (B, classes).
    """

    one_hot: Tensor
    counts: Tensor

    @classmethod
    def of(cls, label: Tensor, classes: int) -> Target:
        """label (B, X, Y, Z) with class numbers."""
        flat = label.flatten(1)
        one_hot = torch.zeros(*flat.shape, classes, device=label.device).scatter_(2, flat[..., None], 1.0)
        return cls(one_hot, one_hot.sum(dim=1))


def dice_and_cross_entropy(probabilities: Tensor, target: Target) -> tuple[Tensor, Tensor]:
    """Both parts of the loss of one output.

    Args:
        probabilities: (B, classes, X, Y, Z).
        target: the label of the same B samples.

    Returns:
        Dice loss, 1 minus the classes' mean Dice with sums over batch and voxels; cross entropy, each voxel weighted by
        the share of its sample that is of another class.
    """
    flat = full_precision(voxel_major(probabilities))
    of_true_class = flat * target.one_hot
    overlap = of_true_class.sum(dim=(0, 1))
    dice = 1 - (2 * overlap / (flat.sum(dim=(0, 1)) + target.counts.sum(dim=0) + _EPSILON)).mean()
    weights = 1 - target.counts / flat.shape[1]
    # At each voxel one class counts, so its probability is picked before the logarithm.
    weight_of_voxel = torch.matmul(target.one_hot, weights[..., None]).squeeze(2)
    cross_entropy = -(weight_of_voxel * of_true_class.sum(dim=2).clamp(_FLOOR, 1).log()).mean()
    return dice, cross_entropy


@dataclass
class Loss:
    """The loss and its parts, each [cross entropy, Dice]: of the segmentation, each level's map, each modality."""

    total: Tensor
    segmentation: tuple[Tensor, Tensor]
    regions: dict[int, tuple[Tensor, Tensor]]
    auxiliary: list[tuple[Tensor, Tensor]]


def training_loss(outputs: Outputs, label: Tensor) -> Loss:
    """Sums the loss over the segmentation, the four region maps and the modalities' auxiliary predictions.

    Args:
        outputs: of a training pass.
        label: class numbers, (B, X, Y, Z).
    """
    target = Target.of(label, outputs.segmentation.shape[1])

    def parts(probabilities: Tensor) -> tuple[Tensor, Tensor]:
        dice, cross_entropy = dice_and_cross_entropy(probabilities, target)
        return cross_entropy, dice

    segmentation = parts(outputs.segmentation)
    regions = {level: parts(region) for level, region in sorted(outputs.full_size_regions().items())}
    auxiliary = [parts(of_modality) for of_modality in outputs.auxiliary.unbind(dim=0)]
    total = sum(cross_entropy + dice for cross_entropy, dice in (segmentation, *regions.values(), *auxiliary))
    return Loss(total, segmentation, regions, auxiliary)
