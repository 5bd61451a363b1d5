"""Every kernel and its plain twin give the same values and gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from fedmepd.networks.kernels import attention, convolution, normalisation, region_sum, upsampling


def draw(*shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]


def values_and_gradients(run: Callable[..., Tensor], given: Sequence[Tensor]) -> list[Tensor]:
    result = run(*given)
    toward = torch.randn(result.shape, generator=torch.Generator().manual_seed(1))
    return [result.detach(), *torch.autograd.grad(result, given, toward)]


STEP = (1, 1, 1)
REGIONS = torch.rand((2, 4, 60), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(
    ("kernel", "twin", "shapes"),
    [
        (
            lambda x, weight: convolution.convolve(x, weight, STEP, STEP),
            lambda x, weight: convolution.plain_convolve(x, weight, STEP, STEP),
            [(1, 8, 6, 5, 4), (6, 8, 3, 3, 3)],
        ),
        (
            convolution.convolve_voxels,
            convolution.plain_convolve_voxels,
            [(2, 8, 6, 5, 4), (6, 8, 1, 1, 1), (6,)],
        ),
        (
            normalisation.normalise_and_activate,
            normalisation.plain_normalise_and_activate,
            [(2, 8, 32, 16, 24)],
        ),
        (
            lambda *tensors: attention.attend(*tensors, 2, 0.0),
            lambda *tensors: attention.plain_attend(*tensors, 2),
            [(60, 5), (6, 5), (6,), (5, 6), (5,)],
        ),
        (
            lambda features, matrix: region_sum.sum_over_regions(features, matrix, REGIONS),
            lambda features, matrix: region_sum.plain_sum_over_regions(features, matrix, REGIONS),
            [(2, 60, 3), (2, 4, 5, 3)],
        ),
        (
            lambda x: upsampling.upsample_maps(x, 4),
            lambda x: upsampling.plain_upsample_maps(x, 4),
            [(2, 3, 5, 1, 3)],
        ),
    ],
    ids=["convolution", "convolution of voxels", "normalisation", "attention", "region sum", "upsampling"],
)
def test_twins(kernel: Callable[..., Tensor], twin: Callable[..., Tensor], shapes: list[tuple[int, ...]]) -> None:
    given = draw(*shapes)
    for mine, plain in zip(values_and_gradients(kernel, given), values_and_gradients(twin, given), strict=True):
        assert mine.shape == plain.shape
        assert (mine - plain).norm() < 1e-5 * plain.norm()
