"""The data of one site: found, checked, split."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fedmepd.config import Settings
from fedmepd.data.cases import Case
from fedmepd.data.layouts import find_cases
from fedmepd.data.phantom import RECIPE, ensure_site
from fedmepd.data.splits import split_cases
from fedmepd.data.validation import check_cases
from fedmepd.errors import DataError
from fedmepd.modalities import BRATS
from fedmepd.site_settings import SiteSettings


@dataclass(frozen=True)
class SiteData:
    """What a site has to train, to validate and to test on.

    Args:
        name: the site's name; ``fusion`` for the fusion site.
        modalities: those that any of its cases has, in the task's order.
        train: cases to train on.
        validation: cases to select the best model on.
        test: cases to report on.
        source: whether the cases are phantoms or the site's own.
        cache: folder for prepared cases.
    """

    name: str
    modalities: tuple[str, ...]
    train: list[Case]
    validation: list[Case]
    test: list[Case]
    source: Literal["phantom", "folder"]
    cache: Path

    def counts(self) -> dict[str, int]:
        """Returns the number of cases of each part."""
        return {"train": len(self.train), "validation": len(self.validation), "test": len(self.test)}


def open_site_data(name: str, settings: Settings, site_settings: SiteSettings) -> SiteData:
    """Finds, checks and splits the cases of a site.

    They lie in the site's sub-folder of the data folder, or in the data folder itself where a hospital has its own
    only. Without a data folder they are the phantom's, if the job allows that.

    Args:
        name: the site's name.
        settings: the job's settings.
        site_settings: the machine's.

    Raises:
        DataError: there is no data folder, no case in it, or a case that cannot be used.
    """
    cases, source = _find(name, settings, site_settings)
    check_cases(cases, cache=site_settings.cache)
    split = split_cases(cases, settings.data, settings.seed, name)
    return SiteData(
        name=name,
        modalities=BRATS.subset({modality for case in cases for modality in case.modalities}),
        train=split.train,
        validation=split.validation,
        test=split.test,
        source=source,
        cache=site_settings.cache / "prepared",
    )


def _find(
    name: str, settings: Settings, site_settings: SiteSettings
) -> tuple[list[Case], Literal["phantom", "folder"]]:
    data = site_settings.data
    if data is None:
        if not settings.data.phantom:
            raise DataError(
                f"{name} has no data folder: set FEDMEPD_DATA (or data in the site's fedmepd.json) to a folder with "
                f"a sub-folder {name}, or with the site's cases; setting data.phantom allows made-up cases",
                public=f"{name} has no data folder",
            )
        root = site_settings.cache / "phantoms" / f"recipe-{RECIPE}-seed-{settings.seed}"
        return find_cases(ensure_site(root, name, settings.seed)), "phantom"
    if not data.is_dir():
        raise DataError(
            f"the data folder {data} does not exist, or is no folder: set FEDMEPD_DATA (or data in the site's "
            "fedmepd.json) to one",
            public=f"the data folder of {name} does not exist",
        )
    own = data / name
    folder = own if own.is_dir() else data
    cases = find_cases(folder)
    if not cases:
        expected = "one sub-folder per case with NIfTI files, such as 001/001_flair.nii.gz and 001/001_seg.nii.gz"
        missing = "" if folder == own else f"no sub-folder {name} and "
        raise DataError(
            f"{folder} has {missing}no case in it: expected {expected}",
            public=f"the data folder of {name} has no case in it",
        )
    return cases, "folder"
