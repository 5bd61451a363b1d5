"""Images to measure with: phantom heads, resampled to the size of real ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fedmepd.config import FUSION_SITE
from fedmepd.data.batches import Batch
from fedmepd.data.phantom import case_names, cases_without_enhancement, phantom_case
from fedmepd.tasks.brats import BRATS

# Voxels of 1 mm around a brain in BraTS, and the volume that it comes in.
BRAIN = (140, 175, 140)
VOLUME = (240, 240, 155)

# Crops of this side cover as much of a brain as they do in training on real cases.
CROP = 80

_NOISE = 0.05


@dataclass(frozen=True)
class Head:
    """One phantom case.

    Attributes:
        images: (4, X, Y, Z) float32, mean 0 and standard deviation 1 inside the brain, 0 outside.
        label: (X, Y, Z) int64, classes.
    """

    images: Tensor
    label: Tensor


def brain_for(crop: int) -> tuple[int, ...]:
    """Returns the size of a brain that is as large beside ``crop`` as a real one beside a crop of 80."""
    return tuple(round(side * crop / CROP) for side in BRAIN)


def head(number: int, size: tuple[int, ...]) -> Head:
    """Makes one head.

    Args:
        number: which of the fusion site's phantoms that have all classes, from 0.
        size: voxels of the box around its brain.
    """
    plain = cases_without_enhancement(FUSION_SITE, seed=0)
    names = [name for name in case_names(FUSION_SITE) if name not in plain]
    volumes, label = phantom_case(FUSION_SITE, names[number], seed=0)
    images = torch.from_numpy(np.stack([volumes[name] for name in BRATS.modalities]).astype(np.float32))
    box = bounding_box((images > 0).any(dim=0))
    images, classes = images[:, *box], torch.from_numpy(label)[box]
    for value, number_of_class in BRATS.conventions["brats"].classes.items():
        classes = torch.where(classes == value, number_of_class, classes)
    brain = _nearest((images > 0).any(dim=0), size) > 0
    resampled = F.interpolate(images[None], size, mode="trilinear", align_corners=False)[0]
    # Noise from voxel to voxel, which resampling has smoothed away.
    generator = torch.Generator().manual_seed(number)
    spread = torch.stack([image[brain].std() for image in resampled]).view(-1, 1, 1, 1)
    resampled = resampled + _NOISE * spread * torch.randn(resampled.shape, generator=generator)
    return Head(normalised(resampled, brain), _nearest(classes, size).long() * brain)


def normalised(images: Tensor, brain: Tensor) -> Tensor:
    """Brings each image (M, X, Y, Z) to mean 0 and standard deviation 1 over ``brain`` (X, Y, Z), 0 outside."""
    inside = images[:, brain]
    mean, deviation = (of(inside, dim=1).view(-1, 1, 1, 1) for of in (torch.mean, torch.std))
    return (images - mean) / deviation * brain


def bounding_box(mask: Tensor) -> tuple[slice, ...]:
    """Returns the smallest box around the voxels of a mask (X, Y, Z)."""
    voxels = mask.nonzero()
    lowest, highest = voxels.amin(dim=0).tolist(), voxels.amax(dim=0).tolist()
    return tuple(slice(low, high + 1) for low, high in zip(lowest, highest, strict=True))


def in_volume(small: Head, size: tuple[int, ...]) -> Head:
    """Returns a head in the middle of a larger volume, zero around it."""
    images, label = torch.zeros(len(small.images), *size), torch.zeros(size, dtype=torch.int64)
    inner = small.label.shape
    place = tuple(slice((o - i) // 2, (o - i) // 2 + i) for o, i in zip(size, inner, strict=True))
    images[:, *place], label[place] = small.images, small.label
    return Head(images, label)


def batch(heads: list[Head], modalities: tuple[str, ...], crop: int, size: int, seed: int) -> Batch:
    """Returns crops that hold some tumour.

    Args:
        heads: to choose from.
        modalities: of the batch.
        crop: side of the crops, no larger than the heads.
        size: crops in the batch.
        seed: of the choice.
    """
    generator = torch.Generator().manual_seed(seed)
    channels = [BRATS.modalities.index(name) for name in modalities]
    images, labels, chosen = [], [], []
    for _ in range(size):
        case = int(torch.randint(len(heads), (), generator=generator))
        tumour = heads[case].label.nonzero()
        centre = tumour[torch.randint(len(tumour), (), generator=generator)].tolist()
        place = []
        for middle, side in zip(centre, heads[case].label.shape, strict=True):
            start = min(max(middle - crop // 2, 0), side - crop)
            place.append(slice(start, start + crop))
        images.append(heads[case].images[:, *place][channels])
        labels.append(heads[case].label[*place])
        chosen.append(case)
    return Batch(torch.stack(images), modalities, torch.stack(labels), tuple(chosen))


def _nearest(volume: Tensor, size: tuple[int, ...]) -> Tensor:
    return F.interpolate(volume[None, None].float(), size, mode="nearest-exact")[0, 0]
