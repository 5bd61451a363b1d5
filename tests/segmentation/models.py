"""Tiny models for inference."""

from __future__ import annotations

from pathlib import Path

import torch

from fedmepd.networks.network import FedMEPDNet
from fedmepd.tasks.brats import BRATS
from fedmepd.training.checkpoints import About, save_model


def by_brightness(network, images, *_, **__) -> torch.Tensor:
    """Instead of a network: voxels that are brighter than the brain's mean by half a deviation are enhancing tumour."""
    bright = images[0, 0] > 0.5
    return torch.stack([(~bright).float(), torch.zeros(bright.shape), torch.zeros(bright.shape), bright * 0.75])


def save_tiny(path: Path, modalities: tuple[str, ...] = ("FLAIR", "T1ce"), **about) -> FedMEPDNet:
    """Saves a calibrated network of width 4 that finds every class somewhere, and returns it."""
    net = FedMEPDNet(BRATS, modalities, 4, calibration={"residual": True, "dropout": 0.1}).start(0)
    generator = torch.Generator().manual_seed(0)
    for parameter in net.calibration.parameters():
        torch.nn.init.normal_(parameter, std=0.1, generator=generator)
    net.anchors = {level: torch.randn(5, 4 * 2 ** (level - 1), generator=generator) for level in (1, 2, 3, 4)}
    save_model(path, net, About("site-1", "fedmepd", 3, **about))
    return net.eval()
