"""The parts of an exported MONAI bundle that run at its user: they read a case and segment as `fedmepd predict`
does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from monai.transforms import EnsureChannelFirst, LoadImage, MapTransform
from torch import Tensor

from fedmepd.config import EvaluationSettings
from fedmepd.data.preparation import prepare_images
from fedmepd.data.resampling import Grid, onto
from fedmepd.errors import DataError
from fedmepd.networks.network import FedMEPDNet
from fedmepd.tasks.find import find_task
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
        self._require_all(image)
        return {**data, "image": image}

    def _require_all(self, channels: Sequence[Any]) -> None:
        if len(channels) != len(self.modalities):
            names = ", ".join(self.modalities)
            raise DataError(f"{len(channels)} channels: expected {len(self.modalities)}, {names} in this order")

    def _take(self, image: Any) -> Tensor:
        if not isinstance(image, Tensor):
            return self._load(image)
        return self._channel_first(image).float()


class PrepareCase(LoadCase):
    """Takes a case like :class:`LoadCase`, on any grids, and prepares it as in training, for a task that resamples.

    Args:
        modalities: the keys of the files.
        task: name of the task.
        clip_percent: as in the training.
    """

    def __init__(self, modalities: Sequence[str], task: str, clip_percent: float):
        super().__init__(modalities)
        self._task = find_task(task)
        self._clip_percent = clip_percent

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Adds ``image`` (M, X, Y, Z), float32, on the network's grid, which remembers the grid of the first image.

        Raises:
            DataError: one file has another number of channels.
        """
        images = [self._take(data[key]) for key in (["image"] if "image" in data else self.modalities)]
        placed = [
            (channel.numpy(), np.asarray(image.affine, dtype=np.float64)) for image in images for channel in image
        ]
        self._require_all(placed)
        item, grid = prepare_images(self._task, placed, self._clip_percent)
        own = {OWN_SHAPE: np.array(placed[0][0].shape), OWN_AFFINE: placed[0][1]}
        kept = {key: value for key, value in images[0].meta.items() if key == "filename_or_obj"}
        return {**data, "image": MetaTensor(item["image"].float(), affine=grid.affine, meta=kept | own)}


OWN_SHAPE, OWN_AFFINE = "own_shape", "own_affine"


class OntoOwnGrid(MapTransform):
    """Brings classes (1, X, Y, Z) from the network's grid back to that of the first image of :class:`PrepareCase`."""

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Replaces the classes under each key."""
        changed, meta = dict(data), data["image"].meta
        own = Grid(tuple(int(side) for side in meta[OWN_SHAPE]), np.asarray(meta[OWN_AFFINE], dtype=np.float64))
        affine = np.asarray(data["image"].affine, dtype=np.float64)
        for key in self.key_iterator(data):
            found = onto(np.asarray(data[key][0]).astype(np.uint8), affine, own, linear=False)
            kept = {name: value for name, value in meta.items() if name == "filename_or_obj"}
            changed[key] = MetaTensor(torch.from_numpy(found)[None], affine=own.affine, meta=kept)
        return changed


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
