"""Batches for training and cases for evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from fedmepd.config import Settings
from fedmepd.data.cases import Case
from fedmepd.data.preparation import PreparedCases
from fedmepd.seeds import Secret, derive_seed
from fedmepd.tasks.labels import Groups

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Crops of cases that have the same modalities, and labels that tell the same classes.

    Args:
        images: (B, M, X, Y, Z) float32, mean 0 and standard deviation 1 inside the brain of the whole case.
        modalities: the M modalities, in the task's order.
        label: (B, X, Y, Z) int64, classes.
        cases: indices of the B cases in the list of cases.
        groups: classes that their labels do not tell apart, see :class:`fedmepd.tasks.labels.Convention`.
    """

    images: Tensor
    modalities: tuple[str, ...]
    label: Tensor
    cases: tuple[int, ...]
    groups: Groups = ()


@dataclass(frozen=True)
class EvaluationCase:
    """A whole case, cropped to its brain.

    Args:
        images: (1, M, X, Y, Z) float32.
        modalities: the M modalities, in the task's order.
        label: (X, Y, Z) int64, classes.
        spacing: size of a voxel in mm along each axis.
        corner: first voxel of the box around the brain, on the network's grid.
        groups: classes that its label does not tell apart.
    """

    images: Tensor
    modalities: tuple[str, ...]
    label: Tensor
    spacing: tuple[float, float, float]
    corner: tuple[int, int, int] = (0, 0, 0)
    groups: Groups = ()


def _one_thread() -> Executor:
    return ThreadPoolExecutor(1)


class TrainingBatches:
    """Random crops of a site's cases, each case once per epoch.

    Order and augmentation of an epoch depend only on the job's seed, ``seed_parts`` and the epoch's number. So an epoch
    can be repeated, and a resumed run gets the same crops as an uninterrupted one.

    Args:
        cases: labelled cases.
        settings: the job's settings; crop, batch, seed and augmentation are used.
        seed_parts: what distinguishes this sequence of epochs from others of the job, such as the site's name.
        cache: folder for prepared cases.
        secret: of the participant; empty: the crops follow from the job's seed.
        loader: makes what loads an epoch's batches; by default a thread, so that the next batch is loaded while the
            network works on this one.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        settings: Settings,
        seed_parts: Sequence[str | int],
        cache: Path,
        loader: Callable[[], Executor] = _one_thread,
        secret: Secret = (),
    ):
        self._cases = list(cases)
        self._prepared = PreparedCases(self._cases, Path(cache), settings.data.clip_percent)
        self._augment = _augmentation(settings)
        self._lock = Lock()
        self._loader = loader
        self._batch = settings.training.batch
        self._seed, self._secret = derive_seed(settings.seed, *seed_parts, "batches"), secret
        groups: dict[tuple[tuple[str, ...], Groups], list[int]] = {}
        for index, case in enumerate(self._cases):
            groups.setdefault((case.modalities, case.label_groups), []).append(index)
        self._groups = [groups[alike] for alike in sorted(groups)]
        patients: dict[str, list[int]] = {}
        for index, case in enumerate(self._cases):
            patients.setdefault(case.patient, []).append(index)
        self._patients = [patients[name] for name in sorted(patients)]

    def __len__(self) -> int:
        """Returns the number of batches, and so of steps, in an epoch."""
        return sum(-(-len(group) // self._batch) for group in self._groups)

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yields the batches of one epoch."""
        rng = np.random.default_rng(derive_seed(self._seed, number, "order", *self._secret))
        batches = []
        for group in self._groups:
            order = rng.permutation(group).tolist()
            batches += [order[start : start + self._batch] for start in range(0, len(order), self._batch)]
        order = [batches[place] for place in rng.permutation(len(batches))]
        if not order:
            return
        with self._loader() as loader:
            upcoming = loader.submit(self._load, order[0], number)
            for indices in order[1:]:
                batch = upcoming.result()
                upcoming = loader.submit(self._load, indices, number)
                yield batch
            yield upcoming.result()

    def examinations(self) -> list[int]:
        """Returns how many cases each patient has, in the order of the patients' names."""
        return [len(cases) for cases in self._patients]

    def lots(self, number: int, drawn: Iterable[Sequence[tuple[int, int]]]) -> Iterator[Iterator[Batch]]:
        """Yields the crops of drawn patients, one batch of one crop each, for every step of an epoch.

        Args:
            number: of the epoch.
            drawn: of every step, pairs of patient and case, as places in :meth:`examinations`.
        """
        with self._loader() as loader:
            for step, pairs in enumerate(drawn):
                yield self._crops([self._patients[patient][case] for patient, case in pairs], number, step, loader)

    def _crops(self, indices: list[int], number: int, step: int, loader: Executor) -> Iterator[Batch]:
        upcoming = None
        for index in indices:
            before, upcoming = upcoming, loader.submit(self._load, [index], number, step)
            if before is not None:
                yield before.result()
        if upcoming is not None:
            yield upcoming.result()

    def _load(self, indices: list[int], number: int, *step: int) -> Batch:
        import torch

        samples = [self._sample(index, number, *step) for index in indices]
        return Batch(
            images=torch.stack([sample["image"] for sample in samples]),
            modalities=self._cases[indices[0]].modalities,
            label=torch.stack([sample["label"][0] for sample in samples]).long(),
            cases=tuple(indices),
            groups=self._cases[indices[0]].label_groups,
        )

    def _sample(self, index: int, number: int, *step: int) -> dict[str, Any]:
        # The transforms share one random state, so no other epoch may use it between these two calls.
        with self._lock:
            seed = derive_seed(self._seed, number, "sample", index, *step, *self._secret)
            self._augment.set_random_state(seed)
            [crop] = self._augment(self._prepared[index])
        return crop


def evaluation_cases(cases: Sequence[Case], settings: Settings, cache: Path) -> Iterator[EvaluationCase]:
    """Yields whole cases in the order of ``cases``, prepared like those of :class:`TrainingBatches`, not augmented."""
    prepared = PreparedCases(cases, Path(cache), settings.data.clip_percent)
    for index, case in enumerate(prepared.cases):
        item = prepared[index]
        yield EvaluationCase(
            images=item["image"][None].float(),
            modalities=case.modalities,
            label=item["label"][0].long(),
            spacing=tuple(item["spacing"].tolist()),
            corner=tuple(item["corner"].tolist()),
            groups=case.label_groups,
        )


def _augmentation(settings: Settings) -> Any:
    from monai import transforms as t

    both = ["image", "label"]
    crop = (settings.training.crop,) * 3
    augmentation = settings.augmentation
    share = augmentation.tumour_share
    if share > 0:
        centres = {"label_key": "label", "fg_indices_key": "tumour", "bg_indices_key": "brain"}
        shares = {"pos": share, "neg": 1 - share}
        cropping = t.RandCropByPosNegLabeld(
            both, spatial_size=crop, num_samples=1, allow_smaller=True, **centres, **shares
        )
    else:
        cropping = t.RandSpatialCropSamplesd(both, crop, num_samples=1, random_size=False)
    # Padding comes after the crop, because the indices of tumour and brain refer to the unpadded volume.
    steps: list[Any] = [cropping, t.SpatialPadd(both, crop)]
    steps += [t.CastToTyped("image", np.float32)]
    if augmentation.rotation_degrees > 0:
        turn = np.deg2rad(augmentation.rotation_degrees)
        ranges = {"range_x": turn, "range_y": turn, "range_z": turn}
        steps += [t.RandRotated(both, prob=1, mode=("bilinear", "nearest"), padding_mode="zeros", **ranges)]
    if augmentation.intensity > 0:
        size = augmentation.intensity
        steps += [
            t.RandScaleIntensityd("image", factors=size, prob=1, channel_wise=True),
            t.RandShiftIntensityd("image", offsets=size, prob=1, channel_wise=True),
        ]
    if augmentation.flips:
        steps += [t.RandFlipd(both, prob=0.5, spatial_axis=axis) for axis in range(3)]
    return t.Compose([*steps, t.ToTensord(both, track_meta=False)])
