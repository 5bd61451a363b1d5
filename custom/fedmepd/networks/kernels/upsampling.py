"""Trilinear upsampling of whole maps on a processor: a product with a small matrix along one axis after the other.

PyTorch's own kernel works map by map in plain loops. For features, whose many channels lie together in each voxel, it
is as fast as this, but for the maps of a few classes it takes four to ten times as long.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from fedmepd.networks.kernels.portable import is_exported


def upsample_maps(x: Tensor, factor: int) -> Tensor:
    """Trilinear upsampling with aligned corners of maps that are stored one by one.

    Args:
        x: (B, C, X, Y, Z).
        factor: of every side.

    Returns:
        (B, C, factor * X, factor * Y, factor * Z).
    """
    if factor == 1:
        return x
    # In half precision the matrices would move the voxels.
    if is_exported() or x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64):
        return plain_upsample_maps(x, factor)
    return _Upsample.apply(x, factor)


def plain_upsample_maps(x: Tensor, factor: int) -> Tensor:
    """The plain twin of :func:`upsample_maps`."""
    return F.interpolate(x, scale_factor=factor, mode="trilinear", align_corners=True)


class _Upsample(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, factor: int) -> Tensor:
        ctx.matrices = [_matrix(side, factor, x.dtype) for side in x.shape[2:]]
        return _along_axes(x, ctx.matrices, (2, 1, 0))

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return _along_axes(gradient, [matrix.t() for matrix in ctx.matrices], (0, 1, 2)), None


def _along_axes(x: Tensor, matrices: list[Tensor], order: tuple[int, ...]) -> Tensor:
    """Multiplies the map with the matrices (new side, side) of its three axes, one after the other."""
    sides = list(x.shape[2:])
    values = x.contiguous()
    with torch.autocast("cpu", enabled=False):
        for axis in order:
            matrix, inner = matrices[axis], torch.Size(sides[axis + 1 :]).numel()
            if axis == 2:
                values = torch.mm(values.view(-1, sides[axis]), matrix.t())
            else:
                values = values.view(-1, sides[axis], inner)
                values = torch.bmm(matrix.expand(len(values), *matrix.shape), values)
            sides[axis] = len(matrix)
    return values.view(*x.shape[:2], *sides)


@functools.lru_cache(maxsize=64)
def _matrix(side: int, factor: int, dtype: torch.dtype) -> Tensor:
    """(factor * side, side): each row has the shares of the two voxels between which a new one lies."""
    longer = side * factor
    if side == 1:
        return torch.ones(longer, 1, dtype=dtype)
    place = torch.arange(longer, dtype=torch.float64) * (side - 1) / (longer - 1)
    below = place.floor().clamp(max=side - 2)
    row, column = torch.arange(longer), below.long()
    matrix = torch.zeros(longer, side, dtype=torch.float64)
    matrix[row, column], matrix[row, column + 1] = 1 - (place - below), place - below
    return matrix.to(dtype)
