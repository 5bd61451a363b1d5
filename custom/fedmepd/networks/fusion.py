"""Region probabilities and region-aware modality fusion of one decoder level (RFNet; algorithm section 2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fedmepd.networks.blocks import (
    ConvBlock,
    ModalityConvBlock,
    channel_major,
    classify,
    full_precision,
    join,
    voxel_major,
)
from fedmepd.networks.kernels.region_sum import sum_over_regions

_HIDDEN = 128
_EPSILON = 1e-7


class RegionProbabilities(nn.Module):
    """Estimates where each class lies, from the stacked modality features.

    Args:
        modalities, classes: their numbers in the task.
        width: channels C of this level.
        below: whether the upsampled feature of the next coarser level is given too.
    """

    def __init__(self, modalities: int, classes: int, width: int, below: bool):
        super().__init__()
        self.reduce = ModalityConvBlock(modalities, width, width // 4)
        self.mix = ConvBlock(width // 4, width // 4)
        self.expand = ConvBlock(width // 4, width, kernel=1)
        self.gather = ConvBlock(2 * width if below else width, 16, kernel=1)
        self.classify = nn.Conv3d(16, classes, 1)

    def forward(self, features: Tensor, present: list[int], below: Tensor | None) -> Tensor:
        """features (B, M * C, X, Y, Z), below (B, C, X, Y, Z) or None -> probabilities (B, classes, X, Y, Z)."""
        x = self.expand(self.mix(self.reduce(features, present)))
        if below is not None:
            x = join(below, x)
        # Stored class by class, because the following operations work on whole maps of one class.
        return classify(self.classify, self.gather(x)).contiguous().softmax(dim=1)


class RegionFusion(nn.Module):
    """Weighs the modalities for each region by pooled features, and joins the result with a plain short cut.

    Args:
        modalities, classes: their numbers in the task.
        width: channels C of this level.
    """

    def __init__(self, modalities: int, classes: int, width: int):
        super().__init__()
        self.modalities = modalities
        self.classes = classes
        # One perceptron for each region: grouped convolutions over the pooled vectors.
        self.hidden = nn.Conv1d(classes * (modalities * width + 1), classes * _HIDDEN, 1, groups=classes)
        self.weigh = nn.Conv1d(classes * _HIDDEN, classes * modalities, 1, groups=classes)
        self.fuse = nn.Sequential(
            ConvBlock(classes * width, width, kernel=1), ConvBlock(width, width), ConvBlock(width, width // 2, kernel=1)
        )
        self.short_cut = nn.ModuleList(
            [
                ModalityConvBlock(modalities, width, width),
                ConvBlock(width, width),
                ConvBlock(width, width // 2, kernel=1),
            ]
        )

    def modality_weights(self, pooled: Tensor, share: Tensor, present: list[int]) -> Tensor:
        """Weight of each present modality in each region.

        Args:
            pooled: mean feature in the region, (B, classes, M, C).
            share: mean probability of the region, (B, classes).
            present: the given modalities' positions in the task's order.

        Returns:
            (B, classes, M), between 0 and 1.
        """
        hidden_weight = self.hidden.weight.view(self.classes, _HIDDEN, -1)
        by_modality = hidden_weight[..., :-1].unflatten(2, (self.modalities, -1))
        by_modality = _of_present(by_modality, 2, present)
        hidden = torch.einsum("bkmc,khmc->bkh", pooled, by_modality)
        hidden = hidden + share[..., None] * hidden_weight[None, ..., -1]
        hidden = nn.functional.leaky_relu(hidden + self.hidden.bias.view(self.classes, _HIDDEN), 0.2)
        weight = _of_present(self.weigh.weight.view(self.classes, self.modalities, _HIDDEN), 1, present)
        bias = _of_present(self.weigh.bias.view(self.classes, self.modalities), 1, present)
        return torch.sigmoid(torch.einsum("bkh,kmh->bkm", hidden, weight) + bias)

    def forward(self, features: Tensor, probabilities: Tensor, present: list[int]) -> Tensor:
        """features (B, M * C, X, Y, Z), probabilities (B, classes, X, Y, Z) -> (B, C, X, Y, Z), fusion half first.

        The region features sum_m w_km F_m P_k only feed a 1x1x1 convolution, so modality weights and convolution become
        one matrix a sample: sum_k P_k (F A_k). No tensor over modality and region at once is made.
        """
        flat, regions = voxel_major(features), probabilities.flatten(2)
        weights = self._weights(flat, regions, present)
        first, mix, halve = self.fuse
        by_region = first.conv.weight.flatten(1).unflatten(1, (self.classes, -1))
        # Every voxel is multiplied with these few thousand numbers, so they are computed in full precision.
        with torch.autocast(flat.device.type, enabled=False):
            matrix = torch.einsum("bkm,okc->bkomc", weights, by_region).flatten(3)
        fused = sum_over_regions(flat, matrix, regions)
        fused = halve(mix(first.activate(channel_major(fused, features.shape[2:]))))
        reduce, mix, halve = self.short_cut
        return join(fused, halve(mix(reduce(features, present))))

    def _weights(self, flat: Tensor, regions: Tensor, present: list[int]) -> Tensor:
        # The means run over every voxel: in half precision they would lose the small regions.
        with torch.autocast(flat.device.type, enabled=False):
            share = full_precision(regions).mean(dim=2) + _EPSILON
            sums = full_precision(torch.matmul(regions.to(flat.dtype), flat))
            pooled = sums / regions.shape[2] / share[..., None]
            return self.modality_weights(pooled.unflatten(2, (len(present), -1)), share, present)


def _of_present(weights: Tensor, axis: int, present: list[int]) -> Tensor:
    """The present modalities' part of weights with all modalities along ``axis``.

    Neighbours are a view: a list of places would be sent to a GPU each time, which a CUDA graph cannot record.
    """
    if present == list(range(present[0], present[-1] + 1)):
        return weights.narrow(axis, present[0], len(present))
    return weights.index_select(axis, torch.tensor(present, device=weights.device))
