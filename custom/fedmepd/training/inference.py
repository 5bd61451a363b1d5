"""Sliding-window inference over a whole volume."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fedmepd.config import EvaluationSettings
from fedmepd.networks.network import FedMEPDNet
from fedmepd.training.arithmetic import autocast


@torch.inference_mode()
def predict(
    network: FedMEPDNet, images: Tensor, modalities: Sequence[str], settings: EvaluationSettings, precision: str
) -> Tensor:
    """The most probable class of each voxel; background wherever only windows without any brain look.

    Args:
        network: set to evaluation mode.
        images: preprocessed images of one case, (1, M, X, Y, Z).
        modalities: the images' modalities.
        settings: window (voxels) and overlap.
        precision: of the forward pass.

    Returns:
        class numbers (X, Y, Z), int64, on the CPU.
    """
    from monai.inferers import sliding_window_inference

    network.eval()
    device = next(network.parameters()).device
    # No window is larger than the volume: the network itself pads what is too small for it.
    window = [min(settings.window, side) for side in images.shape[2:]]

    def probabilities(crops: Tensor) -> Tensor:
        if not crops.any():
            return _background(crops, len(network.description.classes))
        with autocast(device, precision):
            return network(crops.to(device), modalities).float()

    stitched = sliding_window_inference(images, window, 1, probabilities, overlap=settings.overlap, device="cpu")
    return stitched.argmax(dim=1)[0]


def _background(crops: Tensor, classes: int) -> Tensor:
    certain = crops.new_zeros(len(crops), classes, *crops.shape[2:])
    certain[:, 0] = 1
    return certain
