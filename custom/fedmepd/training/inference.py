"""Sliding-window inference over a whole volume."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

import torch
from torch import Tensor

from fedmepd.config import EvaluationSettings
from fedmepd.networks.network import FedMEPDNet
from fedmepd.training.arithmetic import autocast
from fedmepd.training.memory import freed_memory_kept

# Every subset of the three axes: the volume as it is, and its seven mirror images.
_MIRRORED = [axes for count in range(4) for axes in combinations((2, 3, 4), count)]


def predict(
    network: FedMEPDNet,
    images: Tensor,
    modalities: Sequence[str],
    settings: EvaluationSettings,
    precision: str,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Tensor:
    """Returns the most probable class of each voxel; voxels seen only by windows without brain are background.

    Args:
        network: set to evaluation mode.
        images: preprocessed images of one case, (1, M, X, Y, Z).
        modalities: the images' modalities.
        settings: window (voxels) and overlap.
        precision: of the forward pass.
        progress: called after each window with the number of windows done and the total.

    Returns:
        class numbers (X, Y, Z), int64, on the CPU.
    """
    return most_probable(class_probabilities(network, images, modalities, settings, precision, progress=progress))


def most_probable(probabilities: Tensor) -> Tensor:
    """(classes, X, Y, Z) -> class numbers (X, Y, Z), int64."""
    # argmax along the first dimension takes more than ten times as long.
    return probabilities.max(dim=0).indices


@torch.inference_mode()
@freed_memory_kept()
def class_probabilities(
    network: FedMEPDNet,
    images: Tensor,
    modalities: Sequence[str],
    settings: EvaluationSettings,
    precision: str,
    *,
    flips: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Tensor:
    """The probability of each class in each voxel, from windows that overlap; arguments as for :func:`predict`.

    Args:
        flips: also segment the seven mirror images, and average: eight times the work.
        progress: called after each window with the number of windows done and the total.

    Returns:
        (classes, X, Y, Z), float32, on the CPU.
    """
    from monai.inferers import sliding_window_inference

    network.eval()
    device = next(network.parameters()).device
    # No window is larger than the volume; the network pads volumes that are too small for it.
    window = [min(settings.window, side) for side in images.shape[2:]]
    mirrored = _MIRRORED if flips else _MIRRORED[:1]
    total, done = len(mirrored) * settings.windows(images.shape[2:]), 0

    def probabilities(crops: Tensor) -> Tensor:
        nonlocal done
        done += 1
        if not crops.any():
            found = _background(crops, len(network.task.classes))
        else:
            with autocast(device, precision):
                found = network(crops.to(device), modalities).float()
        progress(done, total)
        return found

    mean = None
    for axes in mirrored:
        seen = images.flip(axes) if axes else images
        found = sliding_window_inference(seen, window, 1, probabilities, overlap=settings.overlap, device="cpu")
        found = found.flip(axes) if axes else found
        mean = found if mean is None else mean.add_(found)
    return mean.div_(len(mirrored))[0]


def _background(crops: Tensor, classes: int) -> Tensor:
    certain = crops.new_zeros(len(crops), classes, *crops.shape[2:])
    certain[:, 0] = 1
    return certain
