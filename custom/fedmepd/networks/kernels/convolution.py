"""Convolution in float32 on a processor, where PyTorch uses slow kernels for small maps and for single voxels.

A convolution with a kernel of one voxel is a matrix product. In float32 oneDNN's convolution takes four to ten times as
long as the product; in bfloat16 it takes as long.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from fedmepd.networks.kernels.portable import is_exported
from fedmepd.networks.kernels.weight_gradient import FEWEST_INPUTS, weight_gradient

# In float32 PyTorch does not use oneDNN for a single sample with this many channels x X x Y or fewer. Its own kernel
# takes two to fifteen times as long. Whole levels of the network are below this limit.
_SMALL = 20480
# On other processors oneDNN may use its slow reference kernels for three axes.
_HAS_KERNELS = torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability().startswith("AVX")
_WITHOUT_AVX512 = _HAS_KERNELS and torch.backends.cpu.get_cpu_capability() == "AVX2"


def convolve(x: Tensor, weight: Tensor, padding: tuple[int, int, int], stride: tuple[int, int, int]) -> Tensor:
    """Three-dimensional convolution without bias.

    Args:
        x: (B, inputs, X, Y, Z).
        weight: (outputs, inputs, kernel sides).
        padding, stride: in voxels, by axis.

    Returns:
        (B, outputs, ...).
    """
    if _in_single(x) and weight.shape[2:].numel() == 1 and (*padding, *stride) == (0, 0, 0, 1, 1, 1):
        return _product(x, weight, None)
    if _is_slow(x) or _has_slow_gradient(x, weight, padding, stride):
        return _Convolution.apply(x, weight, padding, stride)
    return plain_convolve(x, weight, padding, stride)


def convolve_voxels(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Convolution with a kernel of one voxel.

    Args:
        x: (B, inputs, X, Y, Z).
        weight: (outputs, inputs, 1, 1, 1).
        bias: (outputs,).

    Returns:
        (B, outputs, X, Y, Z).
    """
    return _product(x, weight, bias) if _in_single(x) else plain_convolve_voxels(x, weight, bias)


def plain_convolve(x: Tensor, weight: Tensor, padding: tuple[int, int, int], stride: tuple[int, int, int]) -> Tensor:
    """The plain twin of :func:`convolve`."""
    return F.conv3d(x, weight, padding=padding, stride=stride)


def plain_convolve_voxels(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The plain twin of :func:`convolve_voxels`."""
    return F.conv3d(x, weight, bias)


def _in_single(x: Tensor) -> bool:
    return (
        not is_exported()
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
    )


def _is_slow(x: Tensor) -> bool:
    return _in_single(x) and _HAS_KERNELS and x.shape[:4].numel() <= _SMALL and len(x) == 1


def _has_slow_gradient(x: Tensor, weight: Tensor, padding: tuple[int, int, int], stride: tuple[int, int, int]) -> bool:
    """Whether the weight's gradient is the business of :func:`weight_gradient`."""
    return (
        _WITHOUT_AVX512
        and _in_single(x)
        and (weight.shape[2:], tuple(padding), tuple(stride)) == ((3, 3, 3), (1, 1, 1), (1, 1, 1))
        and x.shape[1] >= FEWEST_INPUTS
    )


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Every voxel's channels times the weight; neither copies a map in channels_last_3d."""
    return F.linear(x.permute(0, 2, 3, 4, 1), weight.flatten(1), bias).permute(0, 4, 1, 2, 3)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, padding, stride) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.padding, ctx.stride = padding, stride
        ctx.by_products = _has_slow_gradient(x, weight, padding, stride)
        ctx.alone = _is_slow(x)
        return torch.mkldnn_convolution(x, weight, None, padding, stride, (1, 1, 1), 1)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last_3d)
        needs_x, needs_weight = ctx.needs_input_grad[:2]
        to_x = to_weight = None
        if ctx.by_products and needs_weight:
            to_weight, needs_weight = weight_gradient(x, gradient), False
        if needs_x or needs_weight:
            # oneDNN's gradients cannot be requested, but PyTorch uses them for batches of two. The second is zeros.
            found = torch.ops.aten.convolution_backward(
                _with_nothing(gradient) if ctx.alone else gradient,
                _with_nothing(x) if ctx.alone else x,
                weight,
                None,
                ctx.stride,
                ctx.padding,
                (1, 1, 1),
                False,
                (0, 0, 0),
                1,
                (needs_x, needs_weight, False),
            )
            to_x = found[0][: len(x)] if needs_x else None
            to_weight = found[1] if needs_weight else to_weight
        return to_x, to_weight, None, None


def _with_nothing(x: Tensor) -> Tensor:
    """(1, C, X, Y, Z) -> (2, C, X, Y, Z), with zeros."""
    return torch.cat([x, torch.zeros_like(x)]).contiguous(memory_format=torch.channels_last_3d)
