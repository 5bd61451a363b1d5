"""FedAMM's loss: what is fused teaches each modality alone, and slow modalities are helped most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fedmepd.training.arithmetic import autocast
from fedmepd.training.distillation import class_means, divergence, map_differences, similarity_maps
from fedmepd.training.epoch import Step
from fedmepd.training.losses import Loss, told_apart, training_loss

TEMPERATURE = 4.0
OF_DIVERGENCE, OF_MAPS = 0.5, 0.1


@dataclass
class Prototypes:
    """What the server knows of one subset of modalities.

    Attributes:
        means: mean feature of each class over all participants' cases with this subset, (classes, C).
        known: of which classes there is one, bool (classes,).
        share: the participant's share of all cases with this subset.
    """

    means: Tensor
    known: Tensor
    share: float


@dataclass
class FedAMMLoss:
    """The loss of a step, and what it leaves behind: paces, and class means of every case.

    A batch counts as one of the paper's samples, since all its crops have the same modalities.

    Args:
        weights: by modality, w_m: the participant's cases divided by those that have the modality.
        prototypes: by subset of modalities, what the server sent.
        gradient: whether the prototype term has a gradient.

    Attributes:
        paces: by modality and step, d_m divided by the mean of d over the present modalities: above 1 it is behind.
        seen: by case, its modalities, its class means (classes, C) and which classes were in its crop.
    """

    weights: Mapping[str, float]
    prototypes: Mapping[tuple[str, ...], Prototypes]
    gradient: bool
    paces: dict[str, list[float]] = field(default_factory=dict)
    seen: dict[int, tuple[tuple[str, ...], Tensor, Tensor]] = field(default_factory=dict)

    def __call__(self, step: Step) -> Loss:
        """Returns the loss: of the fused output, the region maps and each modality, and the terms of distillation."""
        plain = training_loss(step.outputs, step.label, step.batch.groups)
        classes = step.outputs.segmentation.shape[1]
        label = told_apart(step.label, step.batch.groups)
        means, there = class_means(step.outputs.features[1], label, classes)
        for place, case in enumerate(step.batch.cases):
            self.seen[case] = step.modalities, means[place].detach().cpu(), there[place].cpu()

        total = sum(plain.segmentation)
        total = total + sum(2.0**-level * sum(pair) for level, pair in plain.regions.items())
        behind, extra = [True], {}
        if len(step.modalities) > 1:
            behind, extra = self._distil(step, label, means.detach(), there)
        for modality, is_behind, pair in zip(step.modalities, behind, plain.auxiliary, strict=True):
            total = total + is_behind * self.weights[modality] * sum(pair)
        extra["prototypes"] = self._to_prototypes(step.modalities, means, there)
        total = total + sum(extra.values())
        return Loss(total, plain.segmentation, plain.regions, plain.auxiliary, extra)

    def _distil(self, step: Step, label: Tensor, means: Tensor, there: Tensor) -> tuple[list[bool], dict[str, Tensor]]:
        """Which modalities are behind, and the two terms that draw each of them to what all give together."""
        fused = similarity_maps(step.outputs.features[1].detach(), means)
        divergences, squares, distances = [], [], []
        for place, modality in enumerate(step.modalities):
            segmentation, regions, feature = _alone(step, place, modality)
            of_levels = [
                2.0**-level * divergence(region, step.outputs.regions[level], TEMPERATURE)
                for level, region in regions.items()
            ]
            divergences.append(divergence(segmentation, step.outputs.segmentation, TEMPERATURE) + sum(of_levels))
            own, _ = class_means(feature, label, means.shape[1])
            squared, absolute = map_differences(similarity_maps(feature, own), fused, there)
            squares.append(squared)
            distances.append(float(absolute.detach()))
        mean = sum(distances) / len(distances)
        for modality, distance in zip(step.modalities, distances, strict=True):
            self.paces.setdefault(modality, []).append(distance / mean if mean else 1.0)
        behind = [distance > mean for distance in distances]
        weights = [self.weights[modality] for modality in step.modalities]
        return behind, {
            "divergence": OF_DIVERGENCE * sum(w * term for w, term in zip(weights, divergences, strict=True)),
            "similarity": OF_MAPS * sum(b * w * term for b, w, term in zip(behind, weights, squares, strict=True)),
        }

    def _to_prototypes(self, modalities: Sequence[str], means: Tensor, there: Tensor) -> Tensor:
        """The distance of the cases' class means from the prototypes of all participants."""
        known = self.prototypes.get(tuple(modalities))
        if known is None:
            return means.new_zeros(())
        means = means if self.gradient else means.detach()
        counted = there & known.known.to(there.device)
        distances = (means - known.means.to(means.device)).square().mean(dim=2)
        return known.share * (distances * counted).sum(dim=1).mean()


def _alone(step: Step, place: int, modality: str) -> tuple[Tensor, dict[int, Tensor], Tensor]:
    """What the decoder returns for one of a step's modalities: segmentation, region maps, finest level feature."""
    network = step.network
    with autocast(step.label.device, step.precision):
        features = [level[place] for level in step.outputs.encoded]
        segmentation, regions, levels = network.decoder(features, [network.task.modalities.index(modality)])
    return segmentation, regions, levels[1]


def prototypes_of(cases: Sequence[tuple[Tensor, Tensor, str]], fewest: int) -> tuple[Tensor, Tensor]:
    """Returns the mean over cases of every class (classes, C), zero with too few patients; and how many cases they are.

    Args:
        cases: of one subset, each with its class means (classes, C), which classes its crop held, and its patient.
        fewest: patients behind a mean, at least.
    """
    of_cases, held, patients = zip(*cases, strict=True)
    means, there = torch.stack(of_cases), torch.stack(held)
    whose = [{patient for has, patient in zip(of_class, patients, strict=True) if has} for of_class in there.T.tolist()]
    counts = torch.where(torch.tensor([len(of) >= fewest for of in whose]), there.sum(dim=0), 0)
    total = (means * there[..., None]).sum(dim=0)
    return torch.where(counts[:, None] > 0, total / counts[:, None].clamp_min(1), 0.0), counts
