"""The weight's gradient of a 3x3x3 convolution in float32, on a processor with AVX2 and without AVX-512.

There oneDNN has no kernel of its own for it and unfolds the input: 27 values for each that it reads. Here the
input's and the gradient's neighbours along one axis each lie side by side, so that one product of two narrow matrices
gives nine of the 27 weights, a few planes at a time.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Values of the largest of a slab's matrices: together they stay in the processor's cache.
_VALUES = 2**19
# With fewer channels, to lay neighbours side by side takes longer than what it saves.
FEWEST_INPUTS = 16


def weight_gradient(x: Tensor, gradient: Tensor) -> Tensor:
    """Gradient of the weight of a 3x3x3 convolution with step 1, padded by one voxel of zeros.

    Args:
        x: input (B, inputs, X, Y, Z), in channels_last_3d.
        gradient: of the result, (B, outputs, X, Y, Z).

    Returns:
        (outputs, inputs, 3, 3, 3).
    """
    maps, gradients = x.permute(0, 2, 3, 4, 1), gradient.permute(0, 2, 3, 4, 1)
    planes, plane = maps.shape[1], maps.shape[2:4].numel()
    inputs, outputs = maps.shape[-1], gradients.shape[-1]
    thickness = max(1, _VALUES // (plane * 3 * max(inputs, outputs)))
    # By the neighbour along X; rows: by the gradient's neighbour along Z; columns: by the input's along Y.
    sums = x.new_zeros(3, 3 * outputs, 3 * inputs)
    for of_sample, sample in zip(gradients.split(1), maps.split(1), strict=True):
        for first in range(0, planes, thickness):
            end = min(planes, first + thickness)
            lowest, highest = max(0, first - 1), min(planes, end + 1)
            left = _with_neighbours(of_sample[:, first:end], axis=3).view(-1, 3 * outputs)
            right = _with_neighbours(sample[:, lowest:highest], axis=2).view(-1, 3 * inputs)
            for place, step in enumerate((-1, 0, 1)):
                start, stop = max(first, lowest - step), min(end, highest - step)
                rows = left[(start - first) * plane : (stop - first) * plane]
                columns = right[(start + step - lowest) * plane : (stop + step - lowest) * plane]
                sums[place].addmm_(rows.t(), columns)
    # A neighbour of the gradient is a neighbour of the input the other way round.
    return sums.view(3, 3, outputs, 3, inputs).flip(1).permute(2, 4, 0, 3, 1)


def plain_weight_gradient(x: Tensor, gradient: Tensor) -> Tensor:
    """The plain twin of :func:`weight_gradient`."""
    shape = (gradient.shape[1], x.shape[1], 3, 3, 3)
    return torch.nn.grad.conv3d_weight(x, shape, gradient, padding=1)


def _with_neighbours(maps: Tensor, axis: int) -> Tensor:
    """(B, X, Y, Z, C) -> (B, X, Y, Z, 3 * C): the channels before, at and after each voxel along the axis."""
    side = maps.shape[axis]
    padded = F.pad(maps, [0, 0] * (4 - axis) + [1, 1])
    return torch.cat([padded.narrow(axis, start, side) for start in range(3)], dim=-1)
