"""The parts of an exported MONAI bundle that run at its user: they read a case and segment as `fedmepd predict`
does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.inferers import Inferer
from monai.transforms import EnsureChannelFirst, LoadImage, MapTransform
from torch import Tensor

from fedmepd.config import EvaluationSettings
from fedmepd.errors import DataError
from fedmepd.networks.network import FedMEPDNet
from fedmepd.training.inference import class_probabilities


class LoadCase(MapTransform):
    """Takes a case from a file for each modality, or from one image with a channel for each.

    MONAI Label gives one file, MONAI Deploy one image in memory, whose metadata say where its channels are.

    Args:
        modalities: the keys of the files; a single image has the key ``image`` and its channels in this order.
    """

    def __init__(self, modalities: Sequence[str]):
        super().__init__(["image", *modalities], allow_missing_keys=True)
        self.modalities = tuple(modalities)
        self._load = LoadImage(ensure_channel_first=True)
        self._channel_first = EnsureChannelFirst()

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Adds ``image`` (M, X, Y, Z), float32, with the grid of the first file.

        Raises:
            DataError: the files have different shapes, or one file another number of channels.
        """
        names = ", ".join(self.modalities)
        images = [self._take(data[key]) for key in (["image"] if "image" in data else self.modalities)]
        shapes = [tuple(image.shape[1:]) for image in images]
        if len(set(shapes)) > 1:
            raise DataError(f"the images of {names} have shapes {shapes}: expected images resampled to one grid")
        image = torch.cat(images)
        if len(image) != len(self.modalities):
            raise DataError(f"{len(image)} channels: expected {len(self.modalities)}, {names} in this order")
        return {**data, "image": image}

    def _take(self, image: Any) -> Tensor:
        if not isinstance(image, Tensor):
            return self._load(image)
        return self._channel_first(image).float()


class WindowInferer(Inferer):
    """MONAI's sliding window, with windows outside the brain left out; a fixed set of modalities.

    Args:
        modalities: the channels' names.
        window: side of the window in voxels.
        overlap: share of neighbouring windows.
        precision: of the forward pass: ``auto``, ``float32`` or ``bfloat16``.
    """

    def __init__(self, modalities: Sequence[str], window: int, overlap: float, precision: str = "auto"):
        super().__init__()
        self.modalities = tuple(modalities)
        self._settings = EvaluationSettings.sliding(window, overlap)
        self._precision = precision

    def __call__(self, inputs: Tensor, network: FedMEPDNet, *args: object, **kwargs: object) -> Tensor:
        """Returns class probabilities (1, classes, X, Y, Z) on the CPU, of prepared images (1, M, X, Y, Z)."""
        images = getattr(inputs, "as_tensor", lambda: inputs)()
        found = class_probabilities(network, images, self.modalities, self._settings, self._precision)
        return found[None]
