"""The training loss: Dice plus class-weighted cross entropy over all outputs (algorithm section 2)."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fedmepd.networks.blocks import full_precision
from fedmepd.networks.network import Outputs
from fedmepd.tasks.labels import IGNORE, Groups

_EPSILON = 1e-7
_FLOOR = 0.005


@dataclass
class Target:
    """A label in the forms that every term of the loss needs, made once for all of them.

    Attributes:
        one_hot: (B, classes, V), V voxels.
        counts: voxels of each class in each sample, (B, classes).
        weights: of each voxel in the cross entropy, the share of its sample that belongs to other classes, (B, V).
    """

    one_hot: Tensor
    counts: Tensor
    weights: Tensor

    @classmethod
    def of(cls, label: Tensor, classes: int) -> Target:
        """label (B, X, Y, Z) with class numbers, none of them to be ignored."""
        flat = label.flatten(1)
        one_hot = torch.stack([flat == number for number in range(classes)], dim=1).float()
        counts = one_hot.sum(dim=2)
        weights = (1 - counts / flat.shape[1]).gather(1, flat)
        return cls(one_hot, counts, weights)


def dice_and_cross_entropy(probabilities: Tensor, target: Target) -> tuple[Tensor, Tensor]:
    """Both parts of the loss of one output.

    Args:
        probabilities: (B, classes, X, Y, Z).
        target: the label of the same B samples.

    Returns:
        Dice loss, 1 minus the classes' mean Dice with sums over batch and voxels; cross entropy, each voxel weighted by
        the share of its sample that belongs to other classes.
    """
    flat = full_precision(probabilities.flatten(2))
    return _DiceAndCrossEntropy.apply(flat, target.one_hot, target.counts, target.weights)


class _DiceAndCrossEntropy(torch.autograd.Function):
    """At each voxel only the true class's probability enters the overlap and the logarithm, so one pass computes both
    parts of the loss, and a second pass their gradient.
    """

    @staticmethod
    def forward(ctx, probabilities: Tensor, one_hot: Tensor, counts: Tensor, weights: Tensor):
        # Row k: probabilities of each class, summed over the voxels of class k. The diagonal is the overlap, and the
        # columns add up to the sums over all voxels.
        by_true_class = torch.matmul(one_hot.to(probabilities.dtype), probabilities.transpose(1, 2)).sum(dim=0)
        overlap = by_true_class.diagonal()
        total = by_true_class.sum(dim=0) + counts.sum(dim=0) + _EPSILON
        dice = 1 - (2 * overlap / total).mean()
        of_true_class = (probabilities * one_hot).sum(dim=1)
        cross_entropy = -(weights * of_true_class.clamp(_FLOOR, 1).log()).mean()
        ctx.save_for_backward(one_hot, weights, of_true_class, overlap, total)
        return dice, cross_entropy

    @staticmethod
    @once_differentiable
    def backward(ctx, of_dice: Tensor, of_cross_entropy: Tensor):
        one_hot, weights, of_true_class, overlap, total = ctx.saved_tensors
        scale = 2 * of_dice / len(total)
        everywhere, at_true_class = scale * overlap / total**2, -scale / total
        inside = (of_true_class >= _FLOOR) & (of_true_class <= 1)
        of_logarithm = -of_cross_entropy / weights.numel() * weights * inside / of_true_class.clamp_min(_FLOOR)
        gradient = of_logarithm[:, None] + at_true_class[:, None]
        return gradient.mul_(one_hot).add_(everywhere[:, None]), None, None, None


@dataclass
class Loss:
    """The loss and its parts, each [cross entropy, Dice]: of the segmentation, each level's map, each modality.

    Attributes:
        extra: a method's own terms by name; ``total`` contains them.
    """

    total: Tensor
    segmentation: tuple[Tensor, Tensor]
    regions: dict[int, tuple[Tensor, Tensor]]
    auxiliary: list[tuple[Tensor, Tensor]]
    extra: dict[str, Tensor] = field(default_factory=dict)


class _Told:
    """What a label tells of a batch: the voxels that it does not ignore, and classes that it tells apart.

    Args:
        label: class numbers, (B, X, Y, Z).
        classes: number of classes.
        groups: classes that the label does not tell apart; their probabilities are added.
    """

    def __init__(self, label: Tensor, classes: int, groups: Groups):
        self._groups = groups
        number_of = torch.full((IGNORE + 1,), IGNORE, dtype=label.dtype, device=label.device)
        for number, group in enumerate(groups or [(number,) for number in range(classes)]):
            number_of[list(group)] = number
        label = number_of[label]
        self._known = label != IGNORE
        classes = len(groups) or classes
        # The weights of a voxel are those among the known voxels of its sample.
        of_samples = [Target.of(of_one[known][None], classes) for of_one, known in zip(label, self._known, strict=True)]
        self.target = Target(
            torch.cat([of_one.one_hot for of_one in of_samples], dim=2),
            torch.stack([of_one.counts for of_one in of_samples]).sum(dim=0),
            torch.cat([of_one.weights for of_one in of_samples], dim=1),
        )

    def probabilities(self, of_all: Tensor) -> Tensor:
        """(B, classes, X, Y, Z) -> (1, told classes, known voxels): sums over batch and voxels are the same."""
        if self._groups:
            of_all = torch.stack([of_all[:, list(group)].sum(dim=1) for group in self._groups], dim=1)
        return of_all.movedim(1, 0)[:, self._known][None]


def told_apart(label: Tensor, groups: Groups) -> Tensor:
    """Returns a label (B, X, Y, Z) that ignores the voxels of which it does not tell a single class."""
    together = [number for group in groups if len(group) > 1 for number in group]
    if not together:
        return label
    return label.masked_fill(torch.isin(label, torch.tensor(together, device=label.device)), IGNORE)


def training_loss(outputs: Outputs, label: Tensor, groups: Groups = ()) -> Loss:
    """Sums the loss over the segmentation, the four region maps and the modalities' auxiliary predictions.

    Args:
        outputs: of a training pass.
        label: class numbers, (B, X, Y, Z); voxels of :data:`~fedmepd.tasks.labels.IGNORE` enter nothing.
        groups: classes that the label does not tell apart; the loss counts a group as one class.
    """
    told = _Told(label, outputs.segmentation.shape[1], groups) if groups or (label == IGNORE).any() else None
    target = told.target if told else Target.of(label, outputs.segmentation.shape[1])

    def parts(probabilities: Tensor) -> tuple[Tensor, Tensor]:
        if told:
            probabilities = told.probabilities(full_precision(probabilities))
            if not probabilities.numel():
                return probabilities.sum(), probabilities.sum()
        dice, cross_entropy = dice_and_cross_entropy(probabilities, target)
        return cross_entropy, dice

    segmentation = parts(outputs.segmentation)
    regions = {level: parts(region) for level, region in sorted(outputs.full_size_regions().items())}
    auxiliary = [parts(of_modality) for of_modality in outputs.auxiliary.unbind(dim=0)]
    total = sum(cross_entropy + dice for cross_entropy, dice in (segmentation, *regions.values(), *auxiliary))
    return Loss(total, segmentation, regions, auxiliary)
