"""Made cases of BraTS after treatment, named as the challenge names them: tumours with a resection cavity."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np

SITES = {"site-1": ("t2f", "t1c"), "site-2": ("t1c", "t2w")}
WORDS = SITES | {"fusion": ("t2f", "t1c", "t1n", "t2w")}
CASES = 6
SHAPE = (18, 16, 20)
# Of healthy tissue, NETC, SNFH, ET and RC: a cavity is dark, but bright in T2.
_INTENSITIES = {"t2f": (4, 5, 9, 7, 1), "t1c": (5, 2, 4, 9, 1), "t1n": (6, 2, 4, 5, 1), "t2w": (4, 8, 7, 6, 12)}


def write(folder: Path) -> Path:
    """Writes a data folder, one sub-folder per site, in it six patients of one examination each."""
    for place, (site, words) in enumerate(WORDS.items()):
        for number in range(CASES):
            write_case(folder / site, f"BraTS-GLI-{10 * place + number:05d}-100", words, 10 * place + number)
    return folder


def label_of(number: int) -> tuple[np.ndarray, np.ndarray]:
    """A label (X, Y, Z) with the values 0 to 4, and the brain."""
    random = np.random.default_rng(number)
    grid = np.stack(np.meshgrid(*(np.arange(side) for side in SHAPE), indexing="ij"), axis=-1)
    brain = (((grid - np.array(SHAPE) / 2 + 0.5) / (np.array(SHAPE) / 2 - 1)) ** 2).sum(axis=-1) < 1
    centre = random.uniform(7, 9, 3)
    distance = np.linalg.norm(grid - centre, axis=-1)
    label = np.select([distance < 2, distance < 3, distance < 4.5], [1, 3, 2], 0)
    label[np.linalg.norm(grid - centre - [0, 0, 5], axis=-1) < 2.2] = 4
    return label.astype("uint8") * brain, brain


def write_case(folder: Path, name: str, words: tuple[str, ...], number: int) -> None:
    """Writes one case."""
    label, brain = label_of(number)
    random = np.random.default_rng(number)
    (folder / name).mkdir(parents=True)
    for word in words:
        values = np.array(_INTENSITIES[word])[label] * 100 + random.normal(0, 40, SHAPE)
        image = (values.clip(1) * brain).astype("int16")
        nibabel.save(nibabel.Nifti1Image(image, np.eye(4)), folder / name / f"{name}-{word}.nii.gz")
    nibabel.save(nibabel.Nifti1Image(label, np.eye(4)), folder / name / f"{name}-seg.nii.gz")
