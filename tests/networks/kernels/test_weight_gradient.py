from __future__ import annotations

import pytest
import torch

from fedmepd.networks.kernels.weight_gradient import plain_weight_gradient, weight_gradient


@pytest.mark.parametrize("size", [(6, 5, 4), (1, 2, 1), (2, 64, 96), (3, 1, 3)])
def test_as_in_float64(size: tuple[int, int, int]) -> None:
    """The third is worked on plane by plane."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 33, *size, generator=generator).to(memory_format=torch.channels_last_3d)
    gradient = torch.randn(2, 6, *size, generator=generator).to(memory_format=torch.channels_last_3d)
    found, twin = weight_gradient(x, gradient), plain_weight_gradient(x, gradient)
    weight = torch.zeros(6, 33, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    result = torch.nn.functional.conv3d(x.double(), weight, padding=1)
    [expected] = torch.autograd.grad(result, weight, gradient.double())
    assert found.shape == twin.shape == weight.shape and found.dtype == torch.float32
    assert (found - expected).norm() < 1e-5 * expected.norm()
    assert (twin - expected).norm() < 1e-5 * expected.norm()
