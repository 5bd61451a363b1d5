"""A tiny federation: two sites and the fusion site, a few NIfTI cases each, and settings that train it in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from fedmepd import methods
from fedmepd.config import Settings
from fedmepd.data.site import SiteData, open_site_data
from fedmepd.job_settings import make_settings
from fedmepd.site_settings import SiteSettings

# T1ce is owned by both sites, FLAIR and T2 by one, T1 by the fusion site alone.
SITES = {"site-1": ("FLAIR", "T1ce"), "site-2": ("T1ce", "T2")}
MODALITIES = SITES | {"fusion": ("FLAIR", "T1ce", "T1", "T2")}
CASES = {"site-1": 6, "site-2": 4, "fusion": 6}
# Of a half for training and a fifth for validation.
COUNTS = {
    "site-1": {"train": 3, "validation": 1, "test": 2},
    "site-2": {"train": 2, "validation": 1, "test": 1},
    "fusion": {"train": 3, "validation": 1, "test": 2},
}
_SHAPE = (18, 16, 20)
# Of healthy tissue, NCR/NET, ED and ET.
_INTENSITIES = {"FLAIR": (4, 5, 9, 7), "T1ce": (5, 2, 4, 9), "T1": (6, 2, 4, 5), "T2": (4, 8, 7, 6)}


def write(folder: Path, apart: bool = False) -> Path:
    """Writes the cohort's data folder, one sub-folder per site.

    Args:
        folder: to write to.
        apart: whether the fusion site's patients are none of the sites', as where it is one of the hospitals.
    """
    for site, count in CASES.items():
        first = 100 if apart and site == "fusion" else 0
        for number in range(first, first + count):
            write_case(folder / site / f"case-{number}", MODALITIES[site], number)
    return folder


def write_case(folder: Path, modalities: tuple[str, ...], number: int) -> None:
    random = np.random.default_rng(number)
    grid = np.stack(np.meshgrid(*(np.arange(side) for side in _SHAPE), indexing="ij"), axis=-1)
    brain = (((grid - np.array(_SHAPE) / 2 + 0.5) / (np.array(_SHAPE) / 2 - 1)) ** 2).sum(axis=-1) < 1
    distance = np.linalg.norm(grid - random.uniform(6, 10, 3), axis=-1)
    label = np.select([distance < 2, distance < 3, distance < 5], [1, 4, 2], 0).astype("uint8") * brain
    classes = np.where(label == 4, 3, label)
    folder.mkdir(parents=True)
    volumes = {name.lower(): np.array(_INTENSITIES[name])[classes] * 100 for name in modalities}
    for word, values in volumes.items():
        values = (values + random.normal(0, 40, _SHAPE)).clip(1) * brain
        nibabel.save(nibabel.Nifti1Image(values.astype("int16"), np.eye(4)), folder / f"x_{word}.nii.gz")
    nibabel.save(nibabel.Nifti1Image(label, np.eye(4)), folder / "x_seg.nii.gz")


def settings(method: str = "fedmepd", **changes: Any) -> Settings:
    """The paper's settings, scaled down; a keyword's dictionary changes one section, any other value a key."""
    scaled = {
        "method": method,
        "rounds": 3,
        "network": {"width": 4},
        "calibration": {"residual": True, "anchors_per_class": 2, "anchor_cases": 1, "anchor_ema": 0.5},
        "aggregation": {"min_sites": 1},
        "personalization": {"patience": 1, "warmup_rounds": 1, "weight_ema": 0.5},
        "training": {
            "crop": 16,
            "batch": 2,
            "learning_rate": 1e-3,
            "precision": "float32",
            "threads": 1,
            "fusion_threads": 1,
        },
        "augmentation": {"rotation_degrees": 0, "intensity": 0},
        # Drawing takes as long as the training.
        "evaluation": {"window": 24, "every": 2, "pictures": False},
        "data": {"train": 0.5, "validation": 0.2},
    }
    # Changes of sections that the method has not are left out too, so that tests can run over methods.
    foreign = {"calibration", "personalization"} - methods.find(method).settings.model_fields.keys()
    for key, value in changes.items():
        scaled[key] = scaled.get(key, {}) | value if isinstance(value, dict) else value
    return make_settings("paper", {key: value for key, value in scaled.items() if key not in foreign})


class Tiny:
    """The tiny cohort, written once and read by many tests.

    Args:
        folder: to write it to.
        apart: see :func:`write`.
    """

    def __init__(self, folder: Path, apart: bool = False):
        self.machine = SiteSettings(data=write(folder / "data", apart), cache=folder / "cache", device="cpu")

    def data(self, site: str, of: Settings | None = None) -> SiteData:
        """The data of a site, or of the fusion site."""
        return open_site_data(site, of or settings(), self.machine.for_one_machine())


def never() -> bool:
    """An abort signal that nobody gives."""
    return False
