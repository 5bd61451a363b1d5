"""Made cases of the task ms_lesions, named as MSSEG names its files: four images on three grids, all turned otherwise.

Every image is a picture of the same brain in mm, so what lies where does not depend on the grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np
from nibabel.eulerangles import euler2mat

FILES = {"FLAIR": "3DFLAIR", "T1ce": "3DT1GADO", "T1": "3DT1", "T2": "T2"}
# Voxels and their sizes in mm.
_GRIDS = {
    "FLAIR": ((40, 44, 12), (1.0, 1.0, 3.0)),
    "T1ce": ((36, 36, 36), (1.2, 1.2, 1.2)),
    "T1": ((36, 36, 36), (1.2, 1.2, 1.2)),
    "T2": ((40, 40, 14), (1.0, 1.0, 2.8)),
}
_BRAIN_MM = 15.0
# In these they are bright; in the others they are as the rest of the brain.
BRIGHT_IN = ("FLAIR", "T2")


def centres(number: int) -> np.ndarray:
    """The middle of each of the three lesions in mm, which no slice of 3 mm misses."""
    return np.array([(-6.0, 2, 3), (5, -5, -4), (2, 7, 0)]) + np.random.default_rng(number).uniform(-1.5, 1.5, (3, 3))


def grid_of(modality: str, number: int) -> tuple[tuple[int, int, int], np.ndarray]:
    """Returns shape and affine of an image, turned by up to 12 degrees about each axis."""
    shape, sizes = _GRIDS[modality]
    turns = np.random.default_rng([number, len(FILES[modality])]).uniform(-0.2, 0.2, 3)
    affine = np.eye(4)
    affine[:3, :3] = euler2mat(*turns) @ np.diag([-sizes[0], -sizes[1], sizes[2]])
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return shape, affine


def places(shape: Sequence[int], affine: np.ndarray) -> np.ndarray:
    """Returns where each voxel lies, in mm (X, Y, Z, 3)."""
    return np.stack(np.indices(shape), axis=-1) @ affine[:3, :3].T + affine[:3, 3]


def lesions(number: int, shape: Sequence[int], affine: np.ndarray) -> np.ndarray:
    """Returns the mask of the lesions, balls of 3 mm, on a grid."""
    return _near(places(shape, affine), centres(number), 3)


def write_case(folder: Path, modalities: Sequence[str], number: int) -> None:
    """Writes one case; the label lies on the grid of FLAIR, also where that is not among the images."""
    random = np.random.default_rng([number, 1])
    folder.mkdir(parents=True)
    for modality in modalities:
        shape, affine = grid_of(modality, number)
        bright = 300 * lesions(number, shape, affine) * (modality in BRIGHT_IN)
        brain = _near(places(shape, affine), np.zeros((1, 3)), _BRAIN_MM)
        image = ((300 + bright + random.normal(0, 20, shape)) * brain).clip(0).astype("int16")
        nibabel.save(nibabel.Nifti1Image(image, affine), folder / f"{FILES[modality]}.nii.gz")
    shape, affine = grid_of("FLAIR", number)
    label = lesions(number, shape, affine).astype("uint8")
    nibabel.save(nibabel.Nifti1Image(label, affine), folder / "Consensus.nii.gz")


def _near(where: np.ndarray, middles: np.ndarray, radius: float) -> np.ndarray:
    return np.any([np.linalg.norm(where - middle, axis=-1) < radius for middle in middles], axis=0)
