"""Instance normalisation and LeakyReLU on a GPU, or in a precision that the compiled loops do not know.

PyTorch's instance normalisation copies a channels-last feature map into the other memory format and back, in both
directions, and its gradient then forces the convolution's gradient into the other format too. Here the channels-last
kernels of batch normalisation do the work, one sample at a time.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

# Channels per row of memory: the number that the kernels of batch normalisation process at once. Fewer channels are
# folded side by side up to this number, which fills vectors and shortens sums over many voxels.
_ROW = 1024
# Below this number of voxels the extra steps cost more than they save.
_FEW_VOXELS = 8192


class NormaliseAndActivate(torch.autograd.Function):
    """See :func:`~fedmepd.networks.kernels.normalisation.normalise_and_activate`."""

    @staticmethod
    def forward(ctx, x: Tensor, epsilon: float, slope: float) -> Tensor:
        ctx.slope = slope
        x = x.contiguous(memory_format=torch.channels_last_3d)
        channels, voxels = x.shape[1], x.shape[2:].numel()
        ctx.fold = 1 if voxels < _FEW_VOXELS else math.gcd(voxels, max(1, _ROW // channels))
        rows = _rows(x, ctx.fold)
        y, scales = torch.empty_like(rows), []
        for sample, into in zip(rows.split(1), y.split(1), strict=True):
            scales.append(_normalise(sample, channels, into, epsilon))
            torch.ops.aten.leaky_relu(into, slope, out=into)
        y = _maps(y, x.shape)
        ctx.save_for_backward(y, *scales)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        y, *scales = ctx.saved_tensors
        rows = _rows(y, ctx.fold)
        gradient = _rows(gradient.contiguous(memory_format=torch.channels_last_3d), ctx.fold)
        result = torch.empty_like(rows)
        # Sample by sample, as four modalities at full resolution are the largest batch that there is.
        samples = zip(gradient.split(1), rows.split(1), scales, result.split(1), strict=True)
        for of_sample, activated, scale, into in samples:
            of_sample = torch.ops.aten.leaky_relu_backward(of_sample, activated, ctx.slope, True)
            _normalise_backward(of_sample, F.leaky_relu(activated, 1 / ctx.slope), scale, into)
        return _maps(result, y.shape), None, None


def _rows(x: Tensor, fold: int) -> Tensor:
    """(B, C, X, Y, Z) channels-last -> (B, fold * C, V / fold, 1) channels-last, without a copy."""
    return x.permute(0, 2, 3, 4, 1).reshape(len(x), -1, 1, fold * x.shape[1]).permute(0, 3, 1, 2)


def _maps(rows: Tensor, shape: torch.Size) -> Tensor:
    """The inverse of :func:`_rows`."""
    return rows.permute(0, 2, 3, 1).reshape(shape[0], *shape[2:], shape[1]).permute(0, 4, 1, 2, 3)


def _normalise(x: Tensor, channels: int, into: Tensor, epsilon: float) -> Tensor:
    """x (1, fold * C, V / fold, 1) -> ``into``, normalised; returns the C inverse standard deviations."""
    ones = torch.ones(x.shape[1], dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)
    fold, normalise = x.shape[1] // channels, torch.ops.aten.native_batch_norm
    results = {"out": into, "save_mean": ones.new_empty(0), "save_invstd": ones.new_empty(0)}
    if fold == 1:
        # Parameters in float32 make the kernel compute in it.
        normalise(x, ones, None, None, None, True, 0.0, epsilon, **results)
        return results["save_invstd"]
    zeros = torch.zeros_like(ones)
    means, variances = torch.batch_norm_update_stats(x, zeros, ones, 0.0)
    means, variances = means.view(fold, channels), variances.view(fold, channels)
    mean = means.mean(dim=0).repeat(fold)
    variance = variances.mean(dim=0) + means.var(dim=0, unbiased=False)
    normalise(x, None, None, mean, variance.repeat(fold), False, 0.0, epsilon, **results)
    return (variance + epsilon).rsqrt()


def _normalise_backward(gradient: Tensor, normalised: Tensor, scale: Tensor, into: Tensor) -> None:
    """scale * (g - mean(g) - n * mean(g * n)), with means over the voxels of each channel."""
    ones = torch.ones(gradient.shape[1], dtype=scale.dtype, device=scale.device)
    zeros = torch.zeros_like(ones)
    fold, channels = len(ones) // len(scale), len(scale)
    backward = torch.ops.aten.native_batch_norm_backward
    if fold == 1:
        mask = [True, False, False]
        into.copy_(backward(gradient, normalised, scale, None, None, zeros, ones, True, 0.0, mask)[0])
        return
    mask = [False, True, True]
    _, products, sums = backward(gradient, normalised, ones, None, None, zeros, ones, True, 0.0, mask)
    means = torch.stack([products, sums]).view(2, fold, channels).sum(dim=1) / (fold * gradient.shape[2])
    factors = torch.stack([-scale * means[0], -scale * means[1], scale]).repeat(1, fold)
    of_normalised = _scale_and_shift(normalised, factors[0], factors[1])
    torch.add(of_normalised, _scale_and_shift(gradient, factors[2], zeros), out=into)


def _scale_and_shift(x: Tensor, factor: Tensor, offset: Tensor) -> Tensor:
    """x * factor + offset by channel: batch normalisation with fixed statistics computes it in one pass, in float32."""
    zeros, ones = torch.zeros_like(factor), torch.ones_like(factor)
    return torch.native_batch_norm(x, factor, offset, zeros, ones, False, 0.0, 0.0)[0]
