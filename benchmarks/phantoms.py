"""Phantom cases as files: small ones as the cohort has them, or one of the size of a real case.

python -m benchmarks.phantoms FOLDER --year 2018    # as many as BraTS 2018 has, in its layout, to try its protocol
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np

from benchmarks.heads import BRAIN, VOLUME, head, in_volume
from benchmarks.measure import command
from fedmepd.config import FUSION_SITE
from fedmepd.data.cases import Case
from fedmepd.data.inspection import inspect_cases
from fedmepd.data.layouts import find_dataset
from fedmepd.data.phantom import case_names, cases_without_enhancement, phantom_case, phantom_sites
from fedmepd.data.site import SiteData
from fedmepd.tasks.brats import BRATS

_SEED = 0
_AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0])

# Stored values of a real-sized case.
_MEAN, _DEVIATION = 1000, 200


def phantom_data(folder: Path, site: str, count: int) -> SiteData:
    """Writes the first phantom cases of a site that have all classes, and returns them as cases to train on.

    Args:
        folder: gets a sub-folder for the site; prepared cases are kept in it too.
        site: a name of :func:`fedmepd.data.phantom.phantom_sites`.
        count: number of cases.
    """
    plain, place = cases_without_enhancement(site, _SEED), folder / "data" / site
    for name in [name for name in case_names(site) if name not in plain][:count]:
        images, label = phantom_case(site, name, _SEED)
        _write(place / name, {modality: images[modality] for modality in phantom_sites()[site]}, label)
    return SiteData(
        name=site,
        modalities=phantom_sites()[site],
        train=_read(place),
        validation=[],
        test=[],
        source="phantom",
        cache=folder / "prepared",
        task=BRATS,
    )


def real_sized_cases(
    folder: Path, count: int, brain: tuple[int, ...] = BRAIN, volume: tuple[int, ...] = VOLUME
) -> list[Case]:
    """Writes cases with all modalities.

    Args:
        folder: gets a sub-folder for each case.
        count: number of cases.
        brain: size of the box around the brain, in voxels.
        volume: size of the files' volumes, in voxels.
    """
    for number in range(count):
        made = in_volume(head(number, brain), volume)
        images, label = made.images.numpy(), np.array(BRATS.label_of_class("brats"), dtype=np.uint8)[made.label.numpy()]
        inside = (images != 0).any(axis=0)
        stored = np.where(inside, np.rint(_MEAN + _DEVIATION * images).clip(1), 0).astype(np.int16)
        _write(folder / f"case-{number}", dict(zip(BRATS.modalities, stored, strict=True)), label)
    return _read(folder)


def brats_layout(folder: Path, year: int, count: int | None = None) -> None:
    """Writes small phantoms under the names of a BraTS data set: a part of them as low-grade, where it has that.

    Args:
        folder: to write to.
        year: 2018 or 2020.
        count: of cases; None: as many as the data set has.
    """
    total = {2018: 285, 2020: 369}[year]
    for number in range(1, (count or total) + 1):
        images, label = phantom_case(FUSION_SITE, f"BraTS {year} {number}", _SEED)
        place, name = folder, f"BraTS20_Training_{number:03d}"
        if year == 2018:
            # 210 of the 285 cases are high-grade.
            place, name = folder / ("HGG" if number <= 210 else "LGG"), f"Brats18_TRY{number % 4}_A{number:03d}_1"
        _write(place / name, images, label)


def _read(folder: Path) -> list[Case]:
    return inspect_cases(find_dataset(BRATS, folder).cases).cases


def _write(folder: Path, images: dict[str, np.ndarray], label: np.ndarray) -> None:
    folder.mkdir(parents=True)
    for word, values in {**images, "seg": label}.items():
        nibabel.save(nibabel.Nifti1Image(values, _AFFINE), folder / f"{folder.name}_{word.lower()}.nii.gz")


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the cases."""
    parser = argparse.ArgumentParser(description="Write phantoms under the names of a BraTS data set.")
    parser.add_argument("folder", type=Path, help="folder to write")
    parser.add_argument("--year", type=int, choices=[2018, 2020], required=True, help="of the data set")
    options = parser.parse_args(arguments)
    brats_layout(options.folder, options.year)


if __name__ == "__main__":
    sys.exit(main())
