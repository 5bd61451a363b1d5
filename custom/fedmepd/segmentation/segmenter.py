"""From a model and the images of one case to its segmentation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedmepd.config import EvaluationSettings
from fedmepd.data.case_facts import CaseFacts
from fedmepd.data.cases import Case
from fedmepd.data.findings import Finding
from fedmepd.data.inspection import for_a_model, inspect_cases
from fedmepd.data.own_grid import first_classes, probability_image, segmentation_image
from fedmepd.data.preparation import prepare_case
from fedmepd.data.training_images import differences
from fedmepd.data.volumes import VolumeError
from fedmepd.errors import DataError, FedMEPDError
from fedmepd.evaluation.measures import region_millilitres
from fedmepd.segmentation.cleanup import clean, require_rule
from fedmepd.tasks.task import Task
from fedmepd.training.checkpoints import About, describe, load_model, trained_with
from fedmepd.training.inference import class_probabilities, most_probable


@dataclass(frozen=True)
class Segmentation:
    """A segmented case, in a box of the network's grid around its brain.

    Args:
        case: with the images that were used.
        classes: class numbers (X, Y, Z) uint8.
        probabilities: (classes, X, Y, Z) float32, before any clean-up.
        images: the prepared images (M, X, Y, Z).
        corner: the box's first voxel.
        spacing: size of a voxel in mm along each axis.
    """

    case: Case
    classes: np.ndarray
    probabilities: np.ndarray
    images: np.ndarray
    corner: tuple[int, int, int]
    spacing: tuple[float, float, float]

    @cached_property
    def millilitres(self) -> dict[str, float]:
        """Volume of each region, counted in voxels of the case's first image, as the segmentation is written."""
        return region_millilitres(self.case.task, *self._back(first_classes, self.classes, self.corner))

    def image(self, convention: str, like: Path | None = None) -> Any:
        """The segmentation as a nibabel image in the case's own grid, with the label values of a convention.

        Args:
            convention: of the label values.
            like: the file of the case that has this grid; None: its first image.
        """
        return self._back(segmentation_image, self.classes, self.corner, convention, like)

    def probability(self, region: str) -> np.ndarray:
        """The probability of a region, the sum over its classes (X, Y, Z)."""
        return self.probabilities[list(self.case.task.regions[region])].sum(axis=0)

    def probability_image(self, region: str) -> Any:
        """The same as a nibabel image in the case's own grid."""
        return self._back(probability_image, self.probability(region), self.corner)

    def _back(self, make: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return make(self.case, *arguments)
        except (VolumeError, OSError) as error:
            raise DataError(f"an image of case {self.case.name} cannot be read any more: {error}") from error


class Segmenter:
    """A trained model, ready to segment cases with any of its modalities.

    Images are checked and prepared as in training, with the clipping that the model was trained with. A modality that
    the model has and a case lacks contributes no features, as in training. Calibration works on the remaining features.

    Args:
        model: a file of :func:`fedmepd.training.checkpoints.save_model`.
        device: to compute on.
        window: side of the inference window in voxels; None: that of the job that trained the model.
        overlap: share of neighbouring windows; None: that of the job.
        precision: of the forward pass: ``auto``, ``float32`` or ``bfloat16``.
        flips: also segment the seven mirror images and average.
        min_component_ml, min_enhancing_ml: see :func:`fedmepd.segmentation.cleanup.clean`.
        infer: what applies the network to a prepared case, with the arguments of :func:`class_probabilities`.

    Raises:
        CheckpointError: the file is not a model of fedmepd.
        SettingsError: window or overlap is out of bounds, or the model's task has no rule for small classes.

    >>> from pathlib import Path
    >>> import torch
    >>> from fedmepd.data.layouts import find_dataset
    >>> from fedmepd.data.own_grid import save_image
    >>> from fedmepd.segmentation.segmenter import Segmenter
    >>> segmenter = Segmenter("model.pt", torch.device("cpu"))
    >>> for case in map(segmenter.usable, find_dataset(segmenter.task, Path("patients")).cases):
    ...     segmentation = segmenter.segment(case)
    ...     save_image(Path(f"{case.name}.nii.gz"), segmentation.image("brats"))
    >>> sorted(segmentation.millilitres)
    ['ET', 'TC', 'WT']
    """

    def __init__(
        self,
        model: Path,
        device: torch.device,
        *,
        window: int | None = None,
        overlap: float | None = None,
        precision: str = "auto",
        flips: bool = False,
        min_component_ml: float = 0.0,
        min_enhancing_ml: float = 0.0,
        infer: Callable[..., torch.Tensor] = class_probabilities,
    ):
        about = describe(model)["about"]
        # Models of older versions do not contain it.
        self._clip_percent = about.get("clip_percent", About.clip_percent)
        sliding = {
            "window": about.get("window", About.window) if window is None else window,
            "overlap": about.get("overlap", About.overlap) if overlap is None else overlap,
        }
        self._phantoms = about.get("phantoms")
        self._inference = EvaluationSettings.sliding(**sliding)
        self._network = load_model(model).to(device)
        self._trained_with = trained_with(about).that_matter(self.task)
        require_rule(self.task, min_enhancing_ml)
        self._precision = precision
        self._flips = flips
        self._infer = infer
        self._thresholds = {"min_component_ml": min_component_ml, "min_enhancing_ml": min_enhancing_ml}

    @property
    def task(self) -> Task:
        """The model's task."""
        return self._network.task

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities that the model was trained with."""
        return self._network.modalities

    @property
    def phantoms(self) -> bool | None:
        """Whether it was trained on phantoms alone; None where the model does not say it."""
        return self._phantoms

    def usable(self, case: Case) -> Case:
        """Returns the case without its label and without the modalities that the model does not know.

        Raises:
            DataError: no modality is left.
        """
        images = {modality: path for modality, path in case.images.items() if modality in self.modalities}
        if case.images and not images:
            raise DataError(
                f"case {case.name} has {' '.join(case.modalities)} only, the model was trained with "
                f"{' '.join(self.modalities)}: expected at least one of these"
            )
        return replace(case, images=images, label=None, convention=None)

    def check(self, case: Case) -> list[Finding]:
        """Reads the files of a case from :meth:`usable` and returns warnings about them.

        Raises:
            DataError: they cannot be used.
        """
        inspection = inspect_cases([case])
        inspection.require_good()
        return [*for_a_model(inspection.findings), *self.unlike_training(case, inspection.facts[0])]

    def unlike_training(self, case: Case, facts: CaseFacts) -> list[Finding]:
        """Returns a warning for each way in which a case's images differ from those of the training.

        Args:
            case: from :meth:`usable`.
            facts: that were read from its files.
        """
        return differences(case.name, facts.measures, self._trained_with)

    def segment(self, case: Case, progress: Callable[[int, int], None] = lambda done, total: None) -> Segmentation:
        """Segments a case from :meth:`usable`.

        Args:
            case: that passed :meth:`check`.
            progress: called with the number of windows done, and of all.

        Raises:
            DataError: a file cannot be read any more.
            FedMEPDError: the device's memory does not suffice.
        """
        item = prepare_case(case, self._clip_percent)
        spacing = tuple(item["spacing"].tolist())
        try:
            probabilities = self._infer(
                self._network,
                item["image"][None].float(),
                case.modalities,
                self._inference,
                self._precision,
                flips=self._flips,
                progress=progress,
            )
        except torch.OutOfMemoryError as error:
            raise FedMEPDError(
                f"case {case.name} does not fit into the memory of the GPU: use --device cpu, or a smaller --window"
            ) from error
        found = most_probable(probabilities).numpy().astype(np.uint8)
        classes = clean(self.task, found, spacing, **self._thresholds)
        return Segmentation(
            case,
            classes,
            probabilities.numpy(),
            item["image"].float().numpy(),
            tuple(item["corner"].tolist()),
            spacing,
        )
