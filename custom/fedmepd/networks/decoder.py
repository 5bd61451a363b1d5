"""The fusion decoder: from the features of the available modalities to one segmentation (algorithm section 2)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from fedmepd.networks.blocks import ConvBlock, JoinedConvBlock, UpsampledConvBlock, classify, full_precision
from fedmepd.networks.encoder import LEVELS, channels
from fedmepd.networks.fusion import RegionFusion, RegionProbabilities


class DecoderLevel(nn.Module):
    """One level of the fusion decoder.

    Args:
        modalities, classes: their numbers in the task.
        width: channels C of this level.
        deepest: whether there is no coarser level below.
    """

    def __init__(self, modalities: int, classes: int, width: int, deepest: bool):
        super().__init__()
        self.regions = RegionProbabilities(modalities, classes, width, below=not deepest)
        self.fusion = RegionFusion(modalities, classes, width)
        if not deepest:
            self.up = UpsampledConvBlock(2 * width, width)
            self.merge = nn.ModuleList([JoinedConvBlock(2 * width, width), ConvBlock(width, width, kernel=1)])

    def forward(self, features: Tensor, present: list[int], coarser: Tensor | None) -> tuple[Tensor, Tensor]:
        """features (B, M * C, X, Y, Z), coarser (B, 2C, X/2, ...) or None -> level feature, region probabilities."""
        below = None if coarser is None else self.up(coarser)
        probabilities = self.regions(features, present, below)
        # The probabilities learn only from their own loss.
        fused = self.fusion(features, probabilities.detach(), present)
        if below is not None:
            join, mix = self.merge
            fused = mix(join(fused, below))
        return fused, probabilities


class FusionDecoder(nn.Module):
    """Four decoder levels, from the coarsest to full resolution.

    Args:
        modalities, classes: their numbers in the task.
        width: channels at full resolution.
    """

    def __init__(self, modalities: int, classes: int, width: int):
        super().__init__()
        self.levels = nn.ModuleDict(
            {
                str(level): DecoderLevel(modalities, classes, channels(width, level), deepest=level == LEVELS[-1])
                for level in reversed(LEVELS)
            }
        )
        self.classify = nn.Conv3d(width, classes, 1)

    def forward(
        self,
        features: list[Tensor],
        present: list[int],
        calibrate: Callable[[int, Tensor], Tensor] | None = None,
    ) -> tuple[Tensor, dict[int, Tensor], dict[int, Tensor]]:
        """Decodes the features of levels 1 to 4, each (B, M * C_l, ...), modality-major.

        Args:
            features: in the order of ``present``.
            present: the given modalities' positions in the task's order.
            calibrate: called with level and level feature; its result is passed to the next level.

        Returns:
            class probabilities (B, classes, X, Y, Z); region probabilities and level features (before calibration),
            each by level at that level's resolution.
        """
        level_features, probabilities = {}, {}
        x = None
        for name, stage in self.levels.items():
            level = int(name)
            x, probabilities[level] = stage(features[level - 1], present, x)
            level_features[level] = x
            if calibrate is not None:
                x = calibrate(level, x)
        return self._classify(x).contiguous().softmax(dim=1), probabilities, level_features

    def _classify(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() or not torch.is_autocast_enabled(x.device.type):
            return classify(self.classify, x)
        # About a third of the voxels that a network in bfloat16 classifies differently are due to rounding its logits.
        with torch.autocast(x.device.type, enabled=False):
            return classify(self.classify, full_precision(x))
