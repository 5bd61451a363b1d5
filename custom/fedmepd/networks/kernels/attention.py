"""Attention of many voxels to a few anchors, a block of voxels at a time.

The attention weights of a full-resolution level are four times as large as the feature map that they come from. They
are never stored in full: a block's weights stay in the processor's cache, and the backward pass computes them again.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fedmepd.networks.kernels.blockwise import block_size
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
    return _Attend.apply(voxels, score, score_bias, out, out_bias, heads, dropout, seed)


def plain_attend(
    voxels: Tensor, score: Tensor, score_bias: Tensor, out: Tensor, out_bias: Tensor, heads: int
) -> Tensor:
    """The plain twin of :func:`attend`, without dropout."""
    return torch.addmm(out_bias, _softmax(voxels, score, score_bias, heads).t(), out.t())


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx, voxels, score, score_bias, out, out_bias, heads, dropout, seed):
        ctx.save_for_backward(voxels, score, score_bias, out)
        ctx.heads, ctx.dropout, ctx.seed = heads, dropout, seed
        kind = voxels.dtype
        keep = _Keep(dropout, seed, voxels.device)
        score, score_bias, out, out_bias = (each.to(kind) for each in (score, score_bias, out * keep.scale, out_bias))
        result = torch.empty_like(voxels)
        with torch.autocast(voxels.device.type, enabled=False):
            size = block_size(voxels)
            for block, into in zip(voxels.split(size), result.split(size), strict=True):
                weights = _softmax(block, score, score_bias, heads)
                if dropout:
                    weights.mul_(keep.next(weights))
                torch.addmm(out_bias, weights.t(), out.t(), out=into)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        voxels, score, score_bias, out = ctx.saved_tensors
        kind = voxels.dtype
        keep = _Keep(ctx.dropout, ctx.seed, voxels.device)
        low_score, low_bias, low_out = score.to(kind), score_bias.to(kind), (out * keep.scale).to(kind)
        # The parameters' gradients are sums over all voxels, and stay in the parameters' precision.
        to_score, to_bias, to_out = torch.zeros_like(score), torch.zeros_like(score_bias), torch.zeros_like(out)
        to_out_bias = torch.zeros_like(out[:, 0])
        to_voxels = torch.empty_like(voxels)
        size = block_size(voxels)
        blocks = zip(voxels.split(size), gradient.split(size), to_voxels.split(size), strict=True)
        for block, of_result, into in blocks:
            weights = _softmax(block, low_score, low_bias, ctx.heads)
            of_weights = torch.mm(low_out.t(), of_result.t())
            kept = weights
            if ctx.dropout:
                mask = keep.next(weights)
                kept, of_weights = weights * mask, of_weights.mul_(mask)
            to_out += torch.mm(of_result.t(), kept.t())
            to_out_bias += of_result.sum(dim=0, dtype=out.dtype)
            by_head = [each.view(ctx.heads, -1, len(block)) for each in (of_weights, weights)]
            of_scores = torch._softmax_backward_data(*by_head, 1, kind).flatten(0, 1)
            to_score += torch.mm(of_scores, block)
            to_bias += of_scores.sum(dim=1, dtype=score.dtype)
            torch.mm(of_scores.t(), low_score, out=into)
        return to_voxels, to_score, to_bias, to_out * keep.scale, to_out_bias, None, None, None


def _softmax(block: Tensor, score: Tensor, bias: Tensor, heads: int) -> Tensor:
    # Voxels last, so that the softmax over a head's few rows runs along whole vectors of voxels.
    scores = torch.addmm(bias[:, None], score, block.t())
    return scores.view(heads, -1, len(block)).softmax(dim=1).flatten(0, 1)


class _Keep:
    """The weights that dropout keeps, block by block. The same seed always gives the same weights on a kind of device.

    Attributes:
        scale: factor of the kept weights, which preserves their mean.
    """

    def __init__(self, dropout: float, seed: int, device: torch.device):
        # 16 random bits decide each weight.
        self.dropped = round(dropout * 2**16)
        self.scale = 2**16 / (2**16 - self.dropped)
        self._bits = processor_bits(seed) if device.type == "cpu" or not dropout else device_bits(seed, device)

    def next(self, weights: Tensor) -> Tensor:
        """Returns 1 for each of a block's weights that is kept, and 0 for the others."""
        # Computed directly in the weights' precision: converting booleans to numbers takes five times as long.
        return torch.ge(self._bits(weights.shape), self.dropped - 2**15, out=torch.empty_like(weights))


def processor_bits(seed: int) -> Callable[[torch.Size], Tensor]:
    """Returns what draws tensors of random int16 of a shape, on the processor.

    NumPy makes them several times as fast as PyTorch, whose dropout would take longer than the rest of the attention.
    """
    generator = np.random.Generator(np.random.SFC64(seed))

    def draw(shape: torch.Size) -> Tensor:
        words = generator.integers(0, 2**64, -(-shape.numel() // 4), dtype=np.uint64)
        return torch.from_numpy(words.view(np.int16))[: shape.numel()].view(shape)

    return draw


def device_bits(seed: int, device: torch.device) -> Callable[[torch.Size], Tensor]:
    """Returns what draws tensors of random int16 of a shape on a GPU, which need not be sent to it."""
    generator = torch.Generator(device).manual_seed(seed)
    return lambda shape: torch.randint(-(2**15), 2**15, shape, dtype=torch.int16, device=device, generator=generator)
