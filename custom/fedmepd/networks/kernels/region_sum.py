"""The sum over regions sum_k P_k (A_k^T f) of every voxel, a block of voxels at a time.

For a block, the products of all regions stay in the processor's cache; for the whole map they would take several times
the memory of the features, and again in the backward pass.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fedmepd.networks.kernels.blockwise import block_size
from fedmepd.networks.kernels.portable import is_exported


def sum_over_regions(features: Tensor, matrix: Tensor, regions: Tensor) -> Tensor:
    """Applies the regions' matrices to each voxel's features, weighted by the voxel's probability of each region.

    Args:
        features: (B, V, I).
        matrix: of each sample and region, (B, K, O, I).
        regions: probabilities (B, K, V); no gradient goes to them.

    Returns:
        (B, V, O) in the precision of ``features``.
    """
    if is_exported():
        return plain_sum_over_regions(features, matrix, regions)
    return _SumOverRegions.apply(features, matrix, regions)


def plain_sum_over_regions(features: Tensor, matrix: Tensor, regions: Tensor) -> Tensor:
    """The plain twin of :func:`sum_over_regions`."""
    return torch.einsum("bkoi,bvi,bkv->bvo", matrix.to(features.dtype), features, regions.to(features.dtype))


class _SumOverRegions(torch.autograd.Function):
    @staticmethod
    def forward(ctx, features: Tensor, matrix: Tensor, regions: Tensor) -> Tensor:
        ctx.save_for_backward(features, matrix, regions)
        outputs = matrix.shape[2]
        result = features.new_empty(*features.shape[:2], outputs)
        add = _adder(matrix, features.dtype)
        size = block_size(features)
        with torch.autocast(features.device.type, enabled=False):
            for sample, factors, shares, target in zip(features, matrix, regions, result, strict=True):
                factors = factors.flatten(0, 1).to(features.dtype)
                blocks = zip(sample.split(size), shares.split(size, dim=1), target.split(size), strict=True)
                for block, share, into in blocks:
                    by_region = _times(torch.mm(factors, block.t()), share)
                    torch.mm(by_region.t(), add, out=into)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        features, matrix, regions = ctx.saved_tensors
        to_features, to_matrix = torch.empty_like(features), torch.zeros_like(matrix)
        add = _adder(matrix, features.dtype)
        size = block_size(features)
        for sample, factors, shares, of_sample, into_sample, into_matrix in zip(
            features, matrix, regions, gradient, to_features, to_matrix, strict=True
        ):
            factors = factors.flatten(0, 1).to(features.dtype)
            blocks = zip(
                sample.split(size),
                shares.split(size, dim=1),
                of_sample.split(size),
                into_sample.split(size),
                strict=True,
            )
            for block, share, of_block, into in blocks:
                by_region = _times(torch.mm(add, of_block.t()), share)
                torch.mm(by_region.t(), factors, out=into)
                # A sum over all voxels, in the precision of the matrix.
                into_matrix += torch.mm(by_region, block).view_as(into_matrix)
        return to_features, to_matrix, None


def _adder(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """(K * O, O): stacked identities. A product with it adds up the regions, or repeats a value for each region."""
    return torch.eye(matrix.shape[2], dtype=dtype, device=matrix.device).repeat(matrix.shape[1], 1)


def _times(products: Tensor, share: Tensor) -> Tensor:
    """products (K * O, n) times share (K, n), in place."""
    products.view(len(share), -1, products.shape[1]).mul_(share.to(products.dtype)[:, None])
    return products
