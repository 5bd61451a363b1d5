from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fedmepd.networks.kernels.normalisation import normalise_and_activate

# Few voxels; many, which are folded into rows; a number of them that no power of two divides.
SIZES = [(6, 5, 4), (32, 16, 24), (41, 23, 21)]
FORMATS = [torch.contiguous_format, torch.channels_last_3d]


def plain(x: Tensor) -> Tensor:
    """The formulas, each step of its own, in the memory format in which PyTorch's gradient is right for one sample."""
    centred = x - x.mean(dim=(2, 3, 4), keepdim=True)
    normalised = centred / ((centred**2).mean(dim=(2, 3, 4), keepdim=True) + 1e-5).sqrt()
    return F.leaky_relu(normalised, 0.2)


def draw(batch: int, channels: int, size: tuple[int, int, int], seed: int) -> Tensor:
    noise = torch.randn(batch, channels, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    # Every channel with a mean and a scale of its own.
    place = torch.arange(1, batch * channels + 1).view(batch, channels, 1, 1, 1)
    return noise * place + 3 * place.sin()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("batch", "channels"), [(1, 3), (2, 8), (1, 16)])
def test_values_and_gradients(batch: int, channels: int, size: tuple[int, int, int]) -> None:
    start, weight = draw(batch, channels, size, 0), draw(batch, channels, size, 1)
    x = start.clone().requires_grad_()
    expected = plain(x)
    expected.backward(weight)
    for layout in FORMATS:
        # The gradient comes in either format, whatever that of the input.
        for gradient in FORMATS:
            mine = start.clone(memory_format=layout).requires_grad_()
            found = normalise_and_activate(mine * 1.0)
            assert found.is_contiguous(memory_format=torch.channels_last_3d)
            found.backward(weight.contiguous(memory_format=gradient))
            torch.testing.assert_close(found, expected.detach(), rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(mine.grad.contiguous(), x.grad, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
def test_sums_over_many_voxels_lose_nothing(dtype: torch.dtype, tolerance: float) -> None:
    """A channel is summed in pieces: a running sum over 110,592 voxels in float32 would be off by 1e-5."""
    start, weight = draw(1, 16, (48, 48, 48), 0).to(dtype), draw(1, 16, (48, 48, 48), 1).to(dtype)
    x, exact = start.clone().requires_grad_(), start.double().requires_grad_()
    found, expected = normalise_and_activate(x), plain(exact)
    found.backward(weight)
    expected.backward(weight.double())
    for mine, theirs in ((found, expected), (x.grad, exact.grad)):
        assert (mine - theirs).norm() <= tolerance * theirs.norm()
