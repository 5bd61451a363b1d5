"""The parts of an exported MONAI bundle that run at its user: they read a case and segment as `fedmepd predict`
does.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
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
from fedmepd.data.training_images import ImageMeasures, differences, percentiles
from fedmepd.errors import DataError
from fedmepd.networks.network import FedMEPDNet
from fedmepd.segmentation.limits import ON_PHANTOMS
from fedmepd.tasks.find import find_task
from fedmepd.text_table import counted
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
        self._require_all(image)
        spacing = tuple(torch.as_tensor(image.pixdim).tolist()) if isinstance(image, MetaTensor) else ()
        values = torch.as_tensor(image).numpy()
        millilitres = float((values > 0).any(axis=0).sum()) * math.prod(spacing) / 1000 if spacing else 0.0
        self._warn(data, values, spacing, millilitres)
        return {**data, "image": image}

    def _require_all(self, channels: Sequence[Any]) -> None:
        if len(channels) != len(self.modalities):
            names = ", ".join(self.modalities)
            raise DataError(
                f"{counted(len(channels), 'channel')}: expected {len(self.modalities)}, {names} in this order"
            )

    def _warn(
        self,
        data: Mapping[str, Any],
        values: Sequence[np.ndarray],
        spacing: tuple[float, ...] = (),
        millilitres: float = 0.0,
    ) -> None:
        """Says before anything is computed what the model is not for.

        Args:
            data: what was given.
            values: (X, Y, Z) of each image.
            spacing: size of a voxel in mm; empty: unknown, or of no matter.
            millilitres: volume in which an image is above 0; 0 likewise.
        """
        if self._phantoms:
            warnings.warn(f"the model was {ON_PHANTOMS}: what it marks in a patient means nothing", stacklevel=3)
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


class PrepareCase(LoadCase):
    """Takes a case like :class:`LoadCase`, on any grids, and prepares it as in training, for a task that resamples.

    Args:
        modalities: the keys of the files.
        task: name of the task.
        clip_percent: as in the training.
        case: further arguments of :class:`LoadCase`.
    """

    def __init__(self, modalities: Sequence[str], task: str, clip_percent: float, **case: Any):
        super().__init__(modalities, **case)
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
        self._warn(data, [values for values, _ in placed])
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
