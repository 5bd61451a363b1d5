"""Anchors from outside."""

from __future__ import annotations

import pytest
import torch

from fedmepd.networks.anchors import LARGEST_VALUE, fault_of
from fedmepd.networks.network import FedMEPDNet
from fedmepd.tasks.brats import BRATS

WIDTH = 4


def anchors(value: float) -> dict[int, torch.Tensor]:
    return {level: torch.full((4, WIDTH * 2 ** (level - 1)), value) for level in (1, 2, 3, 4)}


@pytest.mark.parametrize("value", [0.0, -4096.0, 2 * 4096.0, LARGEST_VALUE, -LARGEST_VALUE])
def test_the_largest_that_are_taken_leave_the_output_finite(value: float) -> None:
    """Normalised features of 256^3 voxels are at most the root of that, 4096."""
    assert fault_of(anchors(value), BRATS, WIDTH) == ""
    network = FedMEPDNet(BRATS, ("FLAIR",), WIDTH, calibration={"residual": True, "dropout": 0.0}).start(1).eval()
    network.anchors = anchors(value)
    with torch.no_grad():
        assert torch.isfinite(network(torch.randn(1, 1, 16, 16, 16), ("FLAIR",))).all()


@pytest.mark.parametrize("value", [3e38, -3e38, 2 * LARGEST_VALUE])
def test_what_no_mean_of_normalised_features_reaches(value: float) -> None:
    assert "of level 1 hold values up to" in fault_of(anchors(value), BRATS, WIDTH)
