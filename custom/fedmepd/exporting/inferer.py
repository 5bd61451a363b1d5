"""The parts of an exported MONAI bundle that run at its user: they read a case and segment as `fedmepd predict`
does.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from monai.transforms import EnsureChannelFirst, LoadImage, MapTransform
from torch import Tensor

from fedmepd.config import EvaluationSettings
from fedmepd.data.training_images import ImageMeasures, differences, percentiles
from fedmepd.errors import DataError
from fedmepd.networks.network import FedMEPDNet
from fedmepd.segmentation.limits import ON_PHANTOMS
from fedmepd.training.inference import class_probabilities


class LoadCase(MapTransform):
    """Takes a case from a file for each modality, or from one image with a channel for each.

    MONAI Label gives one file, MONAI Deploy one image in memory, whose metadata say where its channels are.

    Args:
        modalities: the keys of the files; a single image has the key ``image`` and its channels in this order.
        trained_with: the fields of :class:`~fedmepd.data.training_images.ImageMeasures` of the training cases; a case
            that is unlike them is warned about. Older bundles do not hold them.
        phantoms: whether the model was trained on phantoms alone, which is warned about.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        trained_with: Mapping[str, Any] | None = None,
        phantoms: bool = False,
    ):
        super().__init__(["image", *modalities], allow_missing_keys=True)
        self.modalities = tuple(modalities)
        self._load = LoadImage(ensure_channel_first=True)
        self._channel_first = EnsureChannelFirst()
        self._trained_with = ImageMeasures(**trained_with or {})
        self._phantoms = phantoms

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
        self._warn(data, image)
        return {**data, "image": image}

    def _warn(self, data: Mapping[str, Any], image: Tensor) -> None:
        """Says before anything is computed what the model is not for.

        Args:
            data: what was given.
            image: (M, X, Y, Z), with its grid.
        """
        if self._phantoms:
            warnings.warn(f"the model was {ON_PHANTOMS}: what it marks in a patient means nothing", stacklevel=3)
        spacing = tuple(torch.as_tensor(image.pixdim).tolist()) if isinstance(image, MetaTensor) else ()
        values = torch.as_tensor(image).numpy()
        millilitres = float((values > 0).any(axis=0).sum()) * math.prod(spacing) / 1000 if spacing else 0.0
        scores = {name: percentiles(of) for name, of in zip(self.modalities, values, strict=True)}
        measures = ImageMeasures(spacing, millilitres, {name: found for name, found in scores.items() if found})
        given = data["image"] if "image" in data else data[self.modalities[0]]
        name = Path(given).name if isinstance(given, str | Path) else "in memory"
        for finding in differences(name, measures, self._trained_with):
            warnings.warn(finding.text, stacklevel=3)

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
