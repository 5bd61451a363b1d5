"""Attention of many voxels to a few anchors.

The attention weights of a full-resolution level are four times as large as the feature map that they come from. They
are never stored in full: the weights of some voxels stay in the processor's cache, and the backward pass computes them
again. On a processor, loops compiled for it do the work (:mod:`attention_compiled`), elsewhere PyTorch, a block of
voxels at a time (:mod:`attention_blocks`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from fedmepd.networks.kernels import attention_blocks, attention_compiled
from fedmepd.networks.kernels.compiled import PRECISIONS
from fedmepd.networks.kernels.portable import is_exported


def attend(
    voxels: Tensor, score: Tensor, score_bias: Tensor, out: Tensor, out_bias: Tensor, heads: int, dropout: float
) -> Tensor:
    """For every voxel x: out @ softmax(score @ x + score_bias) + out_bias, with one softmax for each head.

    Args:
        voxels: (V, C).
        score: (heads * rows, C), head-major, and its bias (heads * rows).
        out: (C, heads * rows) and its bias (C).
        heads: number of heads.
        dropout: share of the attention weights that are set to zero; the others are scaled up. The random numbers come
            from PyTorch's global generator.

    Returns:
        (V, C) in the precision of ``voxels``.
    """
    if is_exported():
        return plain_attend(voxels, score, score_bias, out, out_bias, heads)
    # One seed for the whole map, drawn from the generator that the caller has seeded.
    seed = int(torch.randint(2**62, ())) if dropout else 0
    has_loops = voxels.device.type == "cpu" and voxels.dtype in PRECISIONS
    kernel = attention_compiled if has_loops else attention_blocks
    return kernel.Attend.apply(voxels, score, score_bias, out, out_bias, heads, dropout, seed)


def plain_attend(
    voxels: Tensor, score: Tensor, score_bias: Tensor, out: Tensor, out_bias: Tensor, heads: int
) -> Tensor:
    """The plain twin of :func:`attend`, without dropout."""
    scores = torch.addmm(score_bias, voxels, score.t()).view(len(voxels), heads, -1)
    return torch.addmm(out_bias, scores.softmax(dim=2).flatten(1), out.t())
