from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fedmepd.networks.kernels import blockwise
from fedmepd.networks.kernels.attention import attend, device_bits, processor_bits

HEADS, ROWS, CHANNELS, VOXELS = 2, 3, 5, 7


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven voxels in blocks of three: two whole ones and a rest."""
    monkeypatch.setattr(blockwise, "_VOXELS", {"cpu": 3})


def inputs(voxels: int = VOXELS) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(voxels, CHANNELS), (HEADS * ROWS, CHANNELS), (HEADS * ROWS,), (CHANNELS, HEADS * ROWS), (CHANNELS,)]
    return [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]


def test_every_voxel_and_head_has_its_own_softmax() -> None:
    voxels, score, score_bias, out, out_bias = inputs()
    found = attend(voxels, score, score_bias, out, out_bias, HEADS, 0.0)
    for x, y in zip(voxels, found, strict=True):
        expected = out_bias.clone()
        for head in range(HEADS):
            rows = slice(head * ROWS, (head + 1) * ROWS)
            exponentials = (score[rows] @ x + score_bias[rows]).exp()
            expected = expected + out[:, rows] @ (exponentials / exponentials.sum())
        torch.testing.assert_close(y, expected)


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_gradients(dropout: float) -> None:
    """Against finite differences; with dropout the same weights must be dropped on the way back."""

    def seeded(*tensors: Tensor) -> Tensor:
        torch.manual_seed(3)
        return attend(*tensors, HEADS, dropout)

    assert torch.autograd.gradcheck(seeded, inputs())


def test_dropout_keeps_the_mean_and_follows_the_seed() -> None:
    voxels, score, score_bias, _, out_bias = inputs(4000)
    # One row a head: its weight is 1 before dropout, and the output says what became of it.
    score, score_bias, out = score[:HEADS], score_bias[:HEADS], torch.eye(CHANNELS, HEADS, dtype=torch.float64)
    arguments = (voxels, score, score_bias, out, torch.zeros_like(out_bias), HEADS, 0.25)
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
