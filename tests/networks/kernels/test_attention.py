from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

from fedmepd.networks.kernels import attention_blocks, attention_compiled, blockwise
from fedmepd.networks.kernels.attention import attend
from fedmepd.networks.kernels.compiled import compiled
from fedmepd.networks.kernels.dropout import device_bits, processor_bits

HEADS, ROWS, CHANNELS, VOXELS = 2, 3, 5, 7
KERNELS = [attention_compiled, attention_blocks]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven voxels in blocks of three: two whole ones and a rest."""
    monkeypatch.setattr(blockwise, "_VOXELS", {"cpu": 3})


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def inputs(voxels: int = VOXELS) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(voxels, CHANNELS), (HEADS * ROWS, CHANNELS), (HEADS * ROWS,), (CHANNELS, HEADS * ROWS), (CHANNELS,)]
    return [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]


def slow(voxels: Tensor, score: Tensor, score_bias: Tensor, out: Tensor, out_bias: Tensor) -> Tensor:
    """The formula, voxel by voxel and head by head."""
    results = []
    for x in voxels:
        y = out_bias
        for head in range(HEADS):
            rows = slice(head * ROWS, (head + 1) * ROWS)
            scores = score[rows] @ x + score_bias[rows]
            exponentials = (scores - scores.max()).exp()
            y = y + out[:, rows] @ (exponentials / exponentials.sum())
        results.append(y)
    return torch.stack(results)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("block", [3, 300])
@pytest.mark.parametrize(
    ("precision", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6), (torch.bfloat16, 2e-2)]
)
def test_every_voxel_and_head_has_its_own_softmax(
    kernel: ModuleType, block: int, precision: torch.dtype, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values and all gradients, in blocks of less than a group of voxels and of several groups and a rest."""
    monkeypatch.setattr(blockwise, "_VOXELS", {"cpu": block})
    exact = [each.to(precision).double().detach().requires_grad_() for each in inputs(310)]
    toward = torch.randn(310, CHANNELS, generator=torch.Generator().manual_seed(1)).to(precision)
    expected = slow(*exact)
    gradients = torch.autograd.grad(expected, exact, toward.double())
    # Parameters are kept in float32 where the voxels are bfloat16.
    kind = torch.float32 if precision == torch.bfloat16 else precision
    mine = [each.detach().to(precision if place == 0 else kind).requires_grad_() for place, each in enumerate(exact)]
    found = kernel.Attend.apply(*mine, HEADS, 0.0, 0)
    assert found.dtype == precision
    for one, other in zip((found, *torch.autograd.grad(found, mine, toward)), (expected, *gradients), strict=True):
        assert (one.double() - other).norm() <= tolerance * other.norm()


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_gradients(kernel: ModuleType, dropout: float) -> None:
    """Against finite differences; with dropout the same weights must be dropped on the way back."""
    assert torch.autograd.gradcheck(lambda *tensors: kernel.Attend.apply(*tensors, HEADS, dropout, 3), inputs())


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_threads_change_no_bit(precision: torch.dtype, threads: Callable[[int], None]) -> None:
    toward = torch.randn(VOXELS, CHANNELS).to(precision)
    found = []
    for count in (1, 2, 5):
        threads(count)
        mine = [each.float().detach().requires_grad_() for each in inputs()]
        y = attention_compiled.Attend.apply(mine[0].to(precision), *mine[1:], HEADS, 0.4, 3)
        found.append([y, *torch.autograd.grad(y, mine, toward)])
    for other in found[1:]:
        assert all(torch.equal(one, another) for one, another in zip(found[0], other, strict=True))


@pytest.mark.parametrize("precision", [torch.float64, torch.float32, torch.bfloat16])
def test_large_scores(precision: torch.dtype) -> None:
    """Exponentials of the scores alone would be infinite, or all zero."""
    voxels, score, score_bias, out, out_bias = (each.detach().float() for each in inputs())
    for large in (3e4, -3e4):
        arguments = (voxels.to(precision), torch.zeros_like(score), torch.full_like(score_bias, large), out, out_bias)
        found = attention_compiled.Attend.apply(*arguments, HEADS, 0.0, 0)
        # All rows of a head weigh the same.
        expected = out_bias + out.view(CHANNELS, HEADS, ROWS).mean(dim=2).sum(dim=1)
        torch.testing.assert_close(found.float(), expected.expand_as(found), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("precision", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_seen_in_its_voxel_alone(precision: torch.dtype, bad: float) -> None:
    voxels, *parameters = (each.detach().to(precision) for each in inputs())
    voxels[4, 2] = bad
    found = attention_compiled.Attend.apply(voxels, *(each.float() for each in parameters), HEADS, 0.0, 0)
    assert not found[4].isfinite().any()
    assert found[[0, 1, 2, 3, 5, 6]].isfinite().all()


@compiled
def exponentials(numbers, results):
    for place in range(len(numbers)):
        results[place] = attention_compiled._exponential(numbers[place])


def test_exponentials_in_single_precision() -> None:
    """Of all that a softmax needs: 0 for the largest score, down to where the result no longer counts."""
    numbers = np.linspace(-87, 0, 1_000_001, dtype=np.float32)
    found = np.empty_like(numbers)
    exponentials(numbers, found)
    # Half a unit in the last place is 6e-8.
    np.testing.assert_allclose(found, np.exp(numbers.astype(np.float64)), rtol=1.5e-7)
    assert found[-1] == 1
    exponentials(np.array([-88, -1e30, -np.inf, np.nan], np.float32), found)
    assert (found[:3] < 2e-38).all() and (found[:3] >= 0).all() and np.isnan(found[3])


@pytest.mark.parametrize("precision", [torch.float64, torch.float16])
def test_dropout_keeps_the_mean_and_follows_the_seed(precision: torch.dtype) -> None:
    """In loops, and in float16, for which there are none."""
    voxels, score, score_bias, _, out_bias = inputs(4000)
    # One row a head: its weight is 1 before dropout, and the output says what became of it.
    score, score_bias, out = score[:HEADS], score_bias[:HEADS], torch.eye(CHANNELS, HEADS, dtype=torch.float64)
    tensors = (voxels, score, score_bias, out, torch.zeros_like(out_bias))
    arguments = (*(each.detach().to(precision) for each in tensors), HEADS, 0.25)
    torch.manual_seed(1)
    first = attend(*arguments)
    again = attend(*arguments)
    torch.manual_seed(1)
    assert torch.equal(attend(*arguments), first)
    assert not torch.equal(again, first)
    weights = first[:, :HEADS]
    dropped = weights == 0
    torch.testing.assert_close(weights[~dropped], torch.full_like(weights[~dropped], 1 / 0.75))
    # 8000 draws: the standard deviation of their share is 0.005.
    assert abs(dropped.double().mean() - 0.25) < 0.025
    # The two heads of a voxel are drawn apart: 3/16 and not 1/4 of all are dropped and kept.
    assert abs((dropped[:, 0] & ~dropped[:, 1]).double().mean() - 0.1875) < 0.035


@pytest.mark.parametrize("make", [processor_bits, lambda seed: device_bits(seed, torch.device("cpu"))])
def test_random_bits_of_both_kinds(make) -> None:
    """A quarter of them lies below a quarter of their range; the seed decides them; later draws are others."""
    draw, shape = make(3), torch.Size((40, 101))
    first, second = draw(shape), draw(shape)
    assert first.dtype == torch.int16 and first.shape == shape and not torch.equal(first, second)
    assert torch.equal(make(3)(shape), first) and not torch.equal(make(4)(shape), first)
    # 4040 draws: the standard deviation of the share is 0.007.
    assert abs((first < -(2**15) + 2**14).double().mean() - 0.25) < 0.04
    assert first.min() < -32000 and first.max() > 32000
