"""Attention of many voxels to a few anchors by PyTorch, a block of voxels at a time: for GPUs, and every precision."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fedmepd.networks.kernels.blockwise import block_size
from fedmepd.networks.kernels.dropout import Dropout


class Attend(torch.autograd.Function):
    """See :func:`~fedmepd.networks.kernels.attention.attend`; ``seed`` decides which weights dropout keeps."""

    @staticmethod
    def forward(ctx, voxels, score, score_bias, out, out_bias, heads, dropout, seed):
        ctx.save_for_backward(voxels, score, score_bias, out)
        ctx.heads, ctx.dropout, ctx.seed = heads, dropout, seed
        kind = voxels.dtype
        dropping = Dropout(dropout, seed, voxels.device)
        score, score_bias, out, out_bias = (
            each.to(kind) for each in (score, score_bias, out * dropping.scale, out_bias)
        )
        result = torch.empty_like(voxels)
        with torch.autocast(voxels.device.type, enabled=False):
            size = block_size(voxels)
            for block, into in zip(voxels.split(size), result.split(size), strict=True):
                weights = _softmax(block, score, score_bias, heads)
                if dropout:
                    weights.mul_(_kept(weights, dropping))
                torch.addmm(out_bias, weights.t(), out.t(), out=into)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        voxels, score, score_bias, out = ctx.saved_tensors
        kind = voxels.dtype
        dropping = Dropout(ctx.dropout, ctx.seed, voxels.device)
        low_score, low_bias, low_out = score.to(kind), score_bias.to(kind), (out * dropping.scale).to(kind)
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
                mask = _kept(weights, dropping)
                kept, of_weights = weights * mask, of_weights.mul_(mask)
            to_out += torch.mm(of_result.t(), kept.t())
            to_out_bias += of_result.sum(dim=0, dtype=out.dtype)
            by_head = [each.view(ctx.heads, -1, len(block)) for each in (of_weights, weights)]
            of_scores = torch._softmax_backward_data(*by_head, 1, kind).flatten(0, 1)
            to_score += torch.mm(of_scores, block)
            to_bias += of_scores.sum(dim=1, dtype=score.dtype)
            torch.mm(of_scores.t(), low_score, out=into)
        return to_voxels, to_score, to_bias, to_out * dropping.scale, to_out_bias, None, None, None


def _softmax(block: Tensor, score: Tensor, bias: Tensor, heads: int) -> Tensor:
    # Voxels last, so that the softmax over a head's few rows runs along whole vectors of voxels.
    scores = torch.addmm(bias[:, None], score, block.t())
    return scores.view(heads, -1, len(block)).softmax(dim=1).flatten(0, 1)


def _kept(weights: Tensor, dropping: Dropout) -> Tensor:
    """1 for each of a block's weights that dropout keeps, and 0 for the others."""
    # Computed directly in the weights' precision: converting booleans to numbers takes five times as long.
    return torch.ge(dropping.bits(weights.shape), dropping.lowest_kept, out=torch.empty_like(weights))
