import pytest
import torch
import torch.nn.functional as F
from torch.profiler import ProfilerActivity, profile

from fedmepd.networks.kernels import convolution
from fedmepd.networks.kernels.convolution import convolve, convolve_voxels

with_kernels = pytest.mark.skipif(not convolution._HAS_KERNELS, reason="not a processor that this is about")

SMALL, LARGE, PAIR = (1, 8, 6, 5, 4), (1, 8, 52, 52, 3), (2, 8, 6, 5, 4)


def kernels(run) -> set[str]:
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        run()
    return {event.key for event in profiler.key_averages()}


def slow(names: set[str]) -> bool:
    """PyTorch's own kernel; its gradient has no name of its own."""
    return any("slow_conv3d" in name for name in names)


@pytest.mark.parametrize("shape", [SMALL, LARGE, PAIR])
@pytest.mark.parametrize(
    ("kernel", "padding", "stride"),
    [
        ((3, 3, 3), (1, 1, 1), (1, 1, 1)),
        ((3, 3, 3), (1, 1, 1), (2, 2, 2)),
        ((3, 3, 1), (1, 1, 0), (1, 1, 1)),
        ((1, 1, 1), (0, 0, 0), (1, 1, 1)),
        ((1, 1, 1), (0, 0, 0), (2, 2, 2)),
    ],
)
def test_values_and_gradients(shape, kernel, padding, stride) -> None:
    """Against float64, which goes another way."""
    torch.manual_seed(0)
    exact = [torch.randn(shape), torch.randn(6, shape[1], *kernel)]
    exact = [each.double().requires_grad_() for each in exact]
    given = [each.detach().float().to(memory_format=torch.channels_last_3d).requires_grad_() for each in exact]
    expected = F.conv3d(*exact, padding=padding, stride=stride)
    result = convolve(*given, padding, stride)
    toward = torch.randn_like(result)
    gradients = torch.autograd.grad(result, given, toward)
    of_exact = torch.autograd.grad(expected, exact, toward.double())
    for one, other in zip([result, *gradients], [expected, *of_exact], strict=True):
        assert one.dtype == torch.float32 and one.shape == other.shape
        assert (one.double() - other).norm() < 1e-5 * other.norm()


def test_kernels_of_one_voxel_are_products_in_float32() -> None:
    image = torch.randn(PAIR).to(memory_format=torch.channels_last_3d)
    weight, bias = torch.randn(6, PAIR[1], 1, 1, 1), torch.randn(6)

    def run() -> None:
        convolve(image, weight, (0, 0, 0), (1, 1, 1))
        convolve_voxels(image, weight, bias)

    assert not any("conv" in name for name in kernels(run))
    with torch.autocast("cpu", torch.bfloat16):
        assert any("conv" in name for name in kernels(run))


@with_kernels
def test_small_maps_do_not_get_the_slow_kernel() -> None:
    image = torch.randn(SMALL).to(memory_format=torch.channels_last_3d)
    weight = torch.randn(6, SMALL[1], 3, 3, 3).to(memory_format=torch.channels_last_3d)
    step = (1, 1, 1)
    assert slow(kernels(lambda: F.conv3d(image, weight, padding=1)))
    assert not slow(kernels(lambda: convolve(image, weight, step, step)))


@with_kernels
def test_gradients_of_small_maps_are_taken_in_a_batch(monkeypatch) -> None:
    """Alone they would get the slow kernel."""
    batches, take = [], torch.ops.aten.convolution_backward

    def counted(gradient, x, *others):
        batches.append((len(gradient), len(x)))
        return take(gradient, x, *others)

    monkeypatch.setattr(torch.ops.aten, "convolution_backward", counted)
    image, weight = torch.randn(SMALL), torch.randn(6, SMALL[1], 3, 3, 3, requires_grad=True)
    convolve(image, weight, (1, 1, 1), (1, 1, 1)).sum().backward()
    assert batches == [(2, 2)]


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="oneDNN computes the forward pass")
def test_without_avx512_products_give_the_gradient_of_the_weight(batch, monkeypatch) -> None:
    monkeypatch.setattr(convolution, "_WITHOUT_AVX512", True)
    torch.manual_seed(0)
    exact = [torch.randn(batch, 16, 6, 5, 4), torch.randn(6, 16, 3, 3, 3)]
    exact = [each.double().requires_grad_() for each in exact]
    given = [each.detach().float().to(memory_format=torch.channels_last_3d).requires_grad_() for each in exact]
    masks, take = [], torch.ops.aten.convolution_backward

    def counted(*arguments):
        masks.append(arguments[-1])
        return take(*arguments)

    monkeypatch.setattr(torch.ops.aten, "convolution_backward", counted)
    result = convolve(*given, (1, 1, 1), (1, 1, 1))
    toward = torch.randn_like(result)
    found = torch.autograd.grad(result, given, toward)
    expected = torch.autograd.grad(F.conv3d(*exact, padding=1), exact, toward.double())
    assert masks == [(True, False, False)]
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape and (one.double() - other).norm() < 1e-5 * other.norm()


@pytest.mark.parametrize("needed", [(True, False), (False, True)])
def test_only_the_gradient_that_is_needed(needed) -> None:
    torch.manual_seed(0)
    given = [torch.randn(SMALL), torch.randn(6, SMALL[1], 3, 3, 3)]
    for each, wanted in zip(given, needed, strict=True):
        each.requires_grad_(wanted)
    convolve(*given, (1, 1, 1), (1, 1, 1)).sum().backward()
    assert tuple(each.grad is not None for each in given) == needed


def test_half_precision_stays_pytorchs_choice() -> None:
    image, weight = torch.randn(SMALL), torch.randn(6, SMALL[1], 3, 3, 3)
    with torch.autocast("cpu", torch.bfloat16):
        assert convolve(image, weight, (1, 1, 1), (1, 1, 1)).dtype == torch.bfloat16
