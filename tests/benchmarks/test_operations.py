from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmarks.operations import OTHER, PARTS, count, count_by_part, matrix_rate
from fedmepd.networks.kernels.convolution import convolve


class Encoder(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ torch.ones(3, 5)


def test_operations_by_part() -> None:
    encoder = Encoder()

    def work() -> None:
        torch.ones(4, 2) @ torch.ones(2, 3)
        encoder(torch.ones(4, 3))

    assert count(work) == pytest.approx(2 * 4 * 3 * (5 + 2) / 1e9)
    found = count_by_part(work)
    assert found.pop("encoders") == pytest.approx(2 * 4 * 3 * 5 / 1e9)
    assert found.pop(OTHER) == pytest.approx(2 * 4 * 2 * 3 / 1e9)
    assert found == {title: 0 for name, title in PARTS.items() if name != "Encoder"}


@pytest.mark.parametrize("batch", [1, 2])
def test_small_maps_count_too(batch: int) -> None:
    image = torch.ones(batch, 4, 6, 6, 6).to(memory_format=torch.channels_last_3d)
    found = count(lambda: convolve(image, torch.ones(5, 4, 3, 3, 3), (1, 1, 1), (1, 1, 1)))
    assert found == pytest.approx(2 * batch * 5 * 6**3 * 4 * 3**3 / 1e9)


def test_matrix_rate() -> None:
    # Any machine reaches a tenth of a billion, and none a billion billions.
    assert 0.1 < matrix_rate(torch.float32, "cpu", side=64, repeats=3) < 1e9
