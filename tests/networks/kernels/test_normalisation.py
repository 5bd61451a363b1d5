from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fedmepd.networks.kernels import normalisation_compiled, normalisation_rows
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


@pytest.mark.parametrize("kernel", [normalisation_compiled, normalisation_rows])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("batch", "channels"), [(1, 3), (2, 8), (1, 16)])
def test_values_and_gradients(batch: int, channels: int, size: tuple[int, int, int], kernel: ModuleType) -> None:
    start, weight = draw(batch, channels, size, 0), draw(batch, channels, size, 1)
    x = start.clone().requires_grad_()
    expected = plain(x)
    expected.backward(weight)
    for layout in FORMATS:
        # The gradient comes in either format, whatever that of the input.
        for gradient in FORMATS:
            mine = start.clone(memory_format=layout).requires_grad_()
            found = kernel.NormaliseAndActivate.apply(mine * 1.0, 1e-5, 0.2)
            assert found.is_contiguous(memory_format=torch.channels_last_3d)
            found.backward(weight.contiguous(memory_format=gradient))
            torch.testing.assert_close(found, expected.detach(), rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(mine.grad.contiguous(), x.grad, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("kernel", [normalisation_compiled, normalisation_rows])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
def test_sums_over_many_voxels_lose_nothing(dtype: torch.dtype, tolerance: float, kernel: ModuleType) -> None:
    """A channel is summed in pieces: a running sum over 110,592 voxels in float32 would be off by 1e-5."""
    start, weight = draw(1, 16, (48, 48, 48), 0).to(dtype), draw(1, 16, (48, 48, 48), 1).to(dtype)
    x, exact = start.clone().requires_grad_(), start.double().requires_grad_()
    found, expected = kernel.NormaliseAndActivate.apply(x, 1e-5, 0.2), plain(exact)
    found.backward(weight)
    expected.backward(weight.double())
    for mine, theirs in ((found, expected), (x.grad, exact.grad)):
        assert (mine - theirs).norm() <= tolerance * theirs.norm()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("batch", "channels"), [(1, 3), (2, 8)])
def test_scale_and_shift(batch: int, channels: int, size: tuple[int, int, int]) -> None:
    """A scale may be negative, and zero."""
    start, toward = draw(batch, channels, size, 0), draw(batch, channels, size, 1)
    numbers = torch.linspace(-1, 1, 2 * channels, dtype=torch.float64)
    scale, shift = numbers[:channels].clone(), numbers[channels:].clone()
    scale[1] = 0
    inputs = [start.clone(memory_format=torch.channels_last_3d), scale, shift]
    x, weight, bias = (value.clone().requires_grad_() for value in inputs)
    centred = x - x.mean(dim=(2, 3, 4), keepdim=True)
    normalised = centred / ((centred**2).mean(dim=(2, 3, 4), keepdim=True) + 1e-5).sqrt()
    expected = F.leaky_relu(normalised * weight[:, None, None, None] + bias[:, None, None, None], 0.2)
    expected_gradients = torch.autograd.grad(expected, [x, weight, bias], toward)
    mine = [value.clone().requires_grad_() for value in inputs]
    found = normalise_and_activate(*mine)
    assert found.is_contiguous(memory_format=torch.channels_last_3d)
    gradients = torch.autograd.grad(found, mine, toward)
    torch.testing.assert_close([found, *gradients], [expected, *expected_gradients], rtol=1e-8, atol=1e-8)


def test_scale_and_shift_in_bfloat16() -> None:
    start = draw(1, 8, (12, 10, 8), 0)
    scale, shift = torch.linspace(0.5, 1.5, 8), torch.linspace(-1, 1, 8)
    found = normalise_and_activate(start.bfloat16(), scale, shift)
    expected = F.leaky_relu(F.instance_norm(start, weight=scale.double(), bias=shift.double(), eps=1e-5), 0.2)
    assert (found.double() - expected).norm() <= 0.01 * expected.norm()


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_threads_change_no_bit(dtype: torch.dtype, threads: None) -> None:
    """Of a map with more than 2**20 values a sample, which threads share."""
    start, toward = draw(2, 8, (52, 52, 50), 0).to(dtype), draw(2, 8, (52, 52, 50), 1).to(dtype)
    found = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        x = start.clone().requires_grad_()
        y = normalise_and_activate(x)
        found.append([y.detach(), *torch.autograd.grad(y, x, toward)])
    for other in found[1:]:
        for mine, theirs in zip(found[0], other, strict=True):
            assert torch.equal(mine, theirs)


def test_a_large_mean_costs_no_precision() -> None:
    """The square's mean less the mean's square would have no right digit left in float32."""
    start = draw(1, 8, (16, 16, 16), 0).float() + 1e5
    found, expected = normalise_and_activate(start), plain(start.double())
    assert (found - expected).norm() <= 1e-2 * expected.norm()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_is_seen_in_its_channel_alone(bad: float, dtype: torch.dtype) -> None:
    start = draw(2, 8, (6, 5, 4), 0).to(dtype)
    start[1, 3, 2, 2, 2] = bad
    found = normalise_and_activate(start).isfinite().flatten(2)
    expected = torch.ones(2, 8, dtype=torch.bool)
    expected[1, 3] = False
    assert torch.equal(found.all(dim=2), expected)
    assert not found[1, 3].any() or bad != bad
