"""Tiny cases, written as NIfTI."""

from pathlib import Path
from zlib import crc32

import nibabel
import numpy as np

from fedmepd.data.cases import Case
from fedmepd.tasks.brats import BRATS

WORDS = {"FLAIR": "flair", "T1ce": "t1ce", "T1": "t1", "T2": "t2", "label": "seg"}
ALL = ("FLAIR", "T1ce", "T1", "T2")
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
SHAPE = (8, 9, 10)


def volume(value: float = 100, shape=SHAPE, dtype: str = "int16") -> np.ndarray:
    """A box of two values in a background of 0, two voxels wide."""
    made = np.zeros(shape, dtype=dtype)
    made[2:-2, 2:-2, 2:-2] = value
    made[3, 3, 3] = 2 * value
    return made


def tumour(shape=SHAPE, kind: int = 0) -> np.ndarray:
    """Label with NCR/NET and ET in a corner each of a cube of ED; each bit of ``kind`` adds one of ED beside it."""
    made = np.zeros(shape, dtype="uint8")
    made[3:5, 3:5, 3:5] = 2
    made[3, 3, 3], made[4, 4, 4] = 1, 4
    beside = [place for place in np.ndindex(3, 3, 3) if 2 in place]
    for bit, place in enumerate(beside):
        if kind >> bit & 1:
            made[tuple(3 + step for step in place)] = 2
    return made


def save(path: Path, values: np.ndarray, affine: np.ndarray = LPS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, affine), path)
    return path


def write_case(folder: Path, name: str = "case", modalities=ALL, affine=LPS, **replaced) -> Case:
    """Writes a case of tiny volumes in ``folder``; a keyword replaces the volume of a modality or of the label.

    The values depend on modality and name, so that no two are the same.
    """
    number = crc32(name.encode())
    images = {modality: volume(100 + 200 * ALL.index(modality)) for modality in modalities}
    for image in images.values():
        image[2, 2, 2] = 1 + number % 30_011
    volumes = images | {"label": tumour(kind=number % 2**19)} | replaced
    files = {
        kind: save(folder / name / f"{name}_{WORDS[kind]}.nii.gz", values, affine)
        for kind, values in volumes.items()
        if values is not None
    }
    label = files.pop("label", None)
    return Case(name, files, label, convention="brats", task=BRATS)
