"""How much one patient can change a released sum."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedmepd.privacy.clipped_sum import ClippedSum
from tests.privacy.randomness import Silent, known

SHAPES = [(3, 2), (4,)]


def patients(count: int) -> list[list[torch.Tensor]]:
    """Gradients of very different sizes."""
    random = torch.Generator().manual_seed(1)
    return [
        [torch.randn(shape, generator=random) * 10.0 ** (number - 3) for shape in SHAPES] for number in range(count)
    ]


def released(of: list[list[torch.Tensor]], clip: float) -> torch.Tensor:
    total = ClippedSum([torch.zeros(shape) for shape in SHAPES], clip)
    for tensors in of:
        total.add(tensors)
    return torch.cat([value.flatten() for value in total.released(1.0, Silent())])


@pytest.mark.parametrize("clip", [0.01, 1.0, 1000.0])
def test_without_a_patient_the_sum_differs_by_the_clip_at_most(clip) -> None:
    everybody = patients(7)
    whole = released(everybody, clip)
    for left_out in range(7):
        rest = released(everybody[:left_out] + everybody[left_out + 1 :], clip)
        norm = float((whole - rest).norm())
        own = float(torch.cat([tensor.flatten() for tensor in everybody[left_out]]).norm())
        assert norm <= clip * (1 + 1e-9)
        assert norm == pytest.approx(min(own, clip), rel=1e-5)


def test_a_patient_without_a_finite_gradient_adds_nothing() -> None:
    total = ClippedSum([torch.zeros(shape) for shape in SHAPES], 1.0)
    for bad in (float("nan"), float("inf")):
        assert not total.add([torch.full(SHAPES[0], bad), None])
    assert not any(value.any() for value in total.sums)
    assert total.add([None, torch.ones(4)])
    assert torch.equal(total.sums[1], torch.full((4,), 0.5, dtype=torch.float64))


def test_the_noise_is_as_large_as_it_is_said_to_be() -> None:
    total = ClippedSum([torch.zeros(200, 100), torch.zeros(10_000)], clip=0.5)
    first, second = total.released(3.0, known())
    assert first.shape == (200, 100) and second.shape == (10_000,)
    values = np.concatenate([first.flatten(), second])
    assert values.std() == pytest.approx(3.0 * 0.5, rel=0.02)
    assert abs(values.mean()) < 0.03
