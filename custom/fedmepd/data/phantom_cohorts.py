"""The cohorts of phantom heads, and their files: BraTS 2020's layout, read back like real data."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fedmepd.closest import did_you_mean
from fedmepd.config import cohort_name
from fedmepd.data import hospitals, phantom
from fedmepd.data.layouts import find_dataset
from fedmepd.data.manifest import Part, make_manifest, write_manifest
from fedmepd.data.phantom import phantom_sites
from fedmepd.data.phantom_heads import SIDE, SPACING_MM, phantom_task
from fedmepd.errors import DataError, FedMEPDError
from fedmepd.storage import locked, read_json


@dataclass(frozen=True)
class Cohort:
    """A cohort of phantoms. Its sites and their modalities are those of :func:`~fedmepd.data.phantom.phantom_sites`.

    Args:
        name: for users.
        recipe: number of the way it is made.
        case_names: returns the names of a site's cases.
        make: makes a case of a site with a seed: images of all modalities, and label.
        owned: returns the modalities of a case of a site with a seed.
        without_enhancement: returns the names of a site's cases without enhancing tumour, with a seed.
        parts: returns the part of each of a site's cases, where the job's shares do not decide.
    """

    name: str
    recipe: int
    case_names: Callable[[str], list[str]]
    make: Callable[[str, str, int], tuple[dict[str, np.ndarray], np.ndarray]]
    owned: Callable[[str, str, int], tuple[str, ...]]
    without_enhancement: Callable[[str, int], set[str]]
    parts: Callable[[str], dict[str, Part]] | None = None


MILD = Cohort(
    "mild",
    phantom.RECIPE,
    phantom.case_names,
    phantom.phantom_case,
    lambda site, case, seed: phantom_sites()[site],
    phantom.cases_without_enhancement,
)
HOSPITALS = Cohort(
    "hospitals",
    hospitals.RECIPE,
    hospitals.case_names,
    hospitals.hospital_case,
    hospitals.owned_modalities,
    hospitals.cases_without_enhancement,
    hospitals.parts,
)

COHORTS = {cohort.name: cohort for cohort in (MILD, HOSPITALS)}


def cohort_of(chosen: bool | str) -> Cohort:
    """Returns the cohort that the setting ``data.phantom`` chooses."""
    return COHORTS[cohort_name(chosen)]


def cohort_folder(cache: Path, cohort: Cohort, seed: int) -> Path:
    """Returns the folder of a seed's cohort in a machine's cache."""
    name = "recipe" if cohort is MILD else cohort.name
    return Path(cache) / "phantoms" / f"{name}-{cohort.recipe}-seed-{seed}"


def ensure_site(root: Path, site: str, seed: int, cohort: Cohort = MILD, advice: str = "") -> Path:
    """Makes the phantom cases of one site, unless they exist already.

    Args:
        root: folder that holds one sub-folder per site; made when missing.
        site: a name of :func:`phantom_sites`.
        seed: the cohort's seed; site and case names do the rest.
        cohort: that the site belongs to.
        advice: what to do if the folder cannot be written, for the message.

    Returns:
        ``root/site``, with a folder per case: ``Phantom_site-1_001/Phantom_site-1_001_flair.nii.gz``; and with a
        manifest if the cohort says which cases train.

    Raises:
        DataError: the site has no phantom, the folder cannot be written, or it holds anything else.
    """
    if site not in phantom_sites():
        raise DataError(
            f"there is no phantom of site {site!r}: expected one of {', '.join(phantom_sites())}; "
            f"set FEDMEPD_DATA for a site with data of its own{did_you_mean(site, phantom_sites())}"
        )
    folder = Path(root) / site
    try:
        # One process at a time: the others wait, then find the site complete.
        with locked(folder.parent / f".{site}.lock", None):
            if not folder.exists():
                _build(folder, site, seed, cohort)
    except (OSError, FedMEPDError) as error:
        raise DataError(
            f"cannot make the phantom of {site} in {root}: {error}{advice}",
            public=f"the phantom of {site} cannot be written",
        ) from error
    _check_complete(folder, site, seed, cohort)
    return folder


def _build(folder: Path, site: str, seed: int, cohort: Cohort) -> None:
    partial = folder.parent / f".{site}.part"
    # Remains of a killed process. The lock guarantees that nobody else is writing there.
    shutil.rmtree(partial, ignore_errors=True)
    try:
        for case in cohort.case_names(site):
            _write_case(partial / case, site, case, seed, cohort)
        if cohort.parts is not None:
            _write_parts(partial, cohort.parts(site))
        (partial / "phantom.json").write_text(json.dumps(_description(site, seed, cohort)) + "\n")
        os.rename(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _write_case(folder: Path, site: str, case: str, seed: int, cohort: Cohort) -> None:
    import nibabel

    images, label = cohort.make(site, case, seed)
    files = _files(site, case, seed, cohort)
    affine = np.diag([-SPACING_MM, -SPACING_MM, SPACING_MM, 1.0])
    affine[1, 3] = SPACING_MM * (SIDE - 1)
    folder.mkdir(parents=True)
    for modality, file in files.items():
        volume = label if modality is None else images[modality]
        nibabel.save(nibabel.Nifti1Image(volume, affine), folder / file)


def _write_parts(folder: Path, parts: dict[str, Part]) -> None:
    convention = phantom_task().default_convention
    cases = [replace(case, convention=convention) for case in find_dataset(phantom_task(), folder).cases]
    files = [file for case in cases for file in case.files]
    digests = {file: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    write_manifest(folder, make_manifest(phantom_task(), folder, cases, dict(parts), digests))


def _files(site: str, case: str, seed: int, cohort: Cohort) -> dict[str | None, str]:
    """The name of the file of each modality, and of the label (None)."""
    return {kind: phantom_task().file_name(case, kind) for kind in (*cohort.owned(site, case, seed), None)}


def _description(site: str, seed: int, cohort: Cohort) -> dict[str, int | str]:
    of_cohort = {} if cohort is MILD else {"cohort": cohort.name}
    return {**of_cohort, "recipe": cohort.recipe, "site": site, "seed": seed}


def _check_complete(folder: Path, site: str, seed: int, cohort: Cohort) -> None:
    cases = cohort.case_names(site)
    files = (folder / case / file for case in cases for file in _files(site, case, seed, cohort).values())
    missing = next((file for file in files if not file.is_file()), None)
    try:
        description = read_json(folder / "phantom.json", "a phantom's description")
    except FedMEPDError:
        description = None
    if missing is not None or description != _description(site, seed, cohort):
        raise DataError(
            f"{folder} is not the phantom of {site} with seed {seed}"
            + (f" in the cohort {cohort.name}" if cohort is not MILD else "")
            + (f" ({missing.name} is missing)" if missing is not None else "")
            + ": remove that folder, or choose another",
            public=f"the phantom of {site} is damaged",
        )
