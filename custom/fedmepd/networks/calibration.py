"""LACCA: localized adaptive calibration by cross-attention to the fusion site's anchors (paper section 3.4)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from fedmepd.networks.blocks import channel_major, voxel_major
from fedmepd.networks.kernels.attention import attend


class Calibration(nn.Module):
    """Multi-head cross-attention of a level feature's voxels to the anchors of that level.

    The anchors do not change within a pass, so queries, keys and values are never formed: the scores are one linear map
    of the voxels, and the output is one linear map of the attention weights.

    Args:
        width: channels C of the level, of the anchors and of each head.
        heads: number of heads.
        residual: add the output to the feature instead of replacing it.
        dropout: share of attention weights dropped in training.
    """

    def __init__(self, width: int, heads: int, residual: bool = False, dropout: float = 0.1):
        super().__init__()
        self.heads = heads
        self.residual = residual
        self.dropout = dropout
        self.query = nn.Linear(width, heads * width)
        self.key = nn.Linear(width, heads * width)
        self.value = nn.Linear(width, heads * width)
        self.out = nn.Linear(heads * width, width)

    def start_weights(self, generator: torch.Generator) -> None:
        """Starts the weights at N(0, 0.001^2) and the biases at zero."""
        for layer in (self.query, self.key, self.value, self.out):
            nn.init.normal_(layer.weight, std=0.001, generator=generator)
            nn.init.zeros_(layer.bias)

    def maps(self, anchors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Folds the projections and the anchors (rows, C) into the two linear maps.

        Returns:
            score weight (heads * rows, C), score bias (heads * rows), output weight (C, heads * rows).
        """
        width = anchors.shape[1]
        keys = self.key(anchors).view(-1, self.heads, width) / math.sqrt(width)
        values = self.value(anchors).view(-1, self.heads, width)
        query = self.query.weight.view(self.heads, width, width)
        score_weight = torch.einsum("rhd,hdc->hrc", keys, query).flatten(0, 1)
        score_bias = torch.einsum("rhd,hd->hr", keys, self.query.bias.view(self.heads, width)).flatten()
        out = self.out.weight.view(width, self.heads, width)
        out_weight = torch.einsum("chd,rhd->chr", out, values).flatten(1)
        return score_weight, score_bias, out_weight

    def forward(self, feature: Tensor, anchors: Tensor) -> Tensor:
        """feature (B, C, X, Y, Z), anchors (rows, C) -> calibrated feature (B, C, X, Y, Z)."""
        with torch.autocast(feature.device.type, enabled=False):
            score, score_bias, out = self.maps(anchors.to(self.key.weight.dtype))
        voxels = voxel_major(feature)
        dropout = self.dropout if self.training else 0.0
        attended = attend(voxels.flatten(0, 1), score, score_bias, out, self.out.bias, self.heads, dropout)
        calibrated = channel_major(attended.view(voxels.shape), feature.shape[2:])
        return feature + calibrated if self.residual else calibrated
