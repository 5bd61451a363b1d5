from __future__ import annotations

import pytest
import torch

from fedmepd.networks.kernels import blockwise
from fedmepd.networks.kernels.region_sum import sum_over_regions


def test_sum_and_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blockwise, "_VOXELS", {"cpu": 4})
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 9, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    matrix = torch.randn(2, 4, 5, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    regions = torch.rand(2, 4, 9, generator=generator, dtype=torch.float64)
    found = sum_over_regions(features, matrix, regions)
    for sample in range(2):
        for voxel in range(9):
            expected = torch.zeros(5, dtype=torch.float64)
            for region in range(4):
                expected += regions[sample, region, voxel] * (matrix[sample, region] @ features[sample, voxel]).detach()
            torch.testing.assert_close(found[sample, voxel].detach(), expected)
    assert torch.autograd.gradcheck(lambda x, y: sum_over_regions(x, y, regions), (features, matrix))
