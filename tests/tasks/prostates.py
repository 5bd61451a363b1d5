"""Made cases of the task prostate: a bright gland in a body, T2 in thick oblique slices, ADC on a grid of its own.

Every image is a picture of the same body in mm, so what lies where does not depend on the grid.
"""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
from nibabel.eulerangles import euler2mat

SITES = {"site-1": ("T2", "ADC"), "site-2": ("T2",)}
MODALITIES = SITES | {"fusion": ("T2", "ADC")}
CASES = 6
# Of body and gland.
_INTENSITIES = {"T2": (300, 620), "ADC": (1500, 900)}
# Voxels, and their sizes in mm.
_GRIDS = {"T2": ((44, 40, 12), (0.8, 0.8, 3.0)), "ADC": ((20, 22, 9), (2.0, 2.0, 3.6))}


def grid_of(modality: str, number: int) -> tuple[tuple[int, int, int], np.ndarray]:
    """Returns shape and affine: T2 is turned by up to 20 degrees, ADC lies straight and is shifted by some mm."""
    shape, sizes = _GRIDS[modality]
    random = np.random.default_rng([number, 7])
    turn = euler2mat(*random.uniform(-0.35, 0.35, 3)) if modality == "T2" else np.eye(3)
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-sizes[0], -sizes[1], sizes[2]])
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2) + random.uniform(-2, 2, 3)
    return shape, affine


def gland(number: int, shape: tuple[int, int, int], affine: np.ndarray) -> np.ndarray:
    """Returns the gland's mask on a grid: an ellipsoid with half axes of 9, 8 and 10 mm."""
    centre = np.random.default_rng(number).uniform(-3, 3, 3)
    places = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    return (((places @ affine[:3, :3].T + affine[:3, 3] - centre) / (9, 8, 10)) ** 2).sum(axis=-1) < 1


def write(folder: Path) -> Path:
    """Writes a data folder, one sub-folder per site, in it six patients of one examination each."""
    for place, (site, modalities) in enumerate(MODALITIES.items()):
        for number in range(10 * place, 10 * place + CASES):
            write_case(folder / site / f"patient-{number}", modalities, number)
    return folder


def write_case(folder: Path, modalities: tuple[str, ...], number: int) -> None:
    """Writes one case; the label lies on the grid of T2."""
    random = np.random.default_rng([number, 1])
    folder.mkdir(parents=True)
    for modality in modalities:
        shape, affine = grid_of(modality, number)
        values = np.array(_INTENSITIES[modality])[gland(number, shape, affine).astype(int)]
        values = (values + random.normal(0, 40, shape)).clip(1).astype("int16")
        nibabel.save(nibabel.Nifti1Image(values, affine), folder / f"{modality.lower()}.nii.gz")
    shape, affine = grid_of("T2", number)
    label = gland(number, shape, affine).astype("uint8")
    nibabel.save(nibabel.Nifti1Image(label, affine), folder / "seg.nii.gz")
