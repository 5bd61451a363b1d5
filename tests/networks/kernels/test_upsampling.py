from __future__ import annotations

import pytest
import torch

from fedmepd.networks.kernels.upsampling import upsample_maps


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_linear_map_stays_linear(dtype: torch.dtype) -> None:
    """Aligned corners: the first and last voxels keep their values, those between lie on the line."""
    lines = [torch.linspace(0, 1, side)[(..., *[None] * (2 - axis))] for axis, side in enumerate((3, 2, 5))]
    longer = [torch.linspace(0, 1, 4 * side)[(..., *[None] * (2 - axis))] for axis, side in enumerate((3, 2, 5))]
    small, large = (1 * x + 2 * y + 4 * z for x, y, z in (lines, longer))
    found = upsample_maps(small.expand(2, 3, -1, -1, -1).to(dtype), 4)
    assert found.shape == (2, 3, 12, 8, 20) and found.dtype == dtype
    assert (found - large).abs().max() < (1e-5 if dtype == torch.float32 else 0.05)


def test_gradient() -> None:
    x = torch.randn(2, 1, 3, 2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: upsample_maps(x, 2), x)


def test_full_size_maps_are_given_back() -> None:
    x = torch.randn(1, 2, 4, 4, 4)
    assert upsample_maps(x, 1) is x
