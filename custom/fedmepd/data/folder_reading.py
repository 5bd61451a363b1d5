"""How a folder is read: as one data set, as a hospital's with its cases for fusion training, or as a federation's."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from shlex import quote

from fedmepd.config import FUSION_SITE
from fedmepd.data.federation_folder import MOVE_THEM, FederationFolder, look_into
from fedmepd.data.findings import ERROR, Finding
from fedmepd.data.folders import (
    children_of,
    data_set_mark,
    images_in,
    is_group,
    require_spelling,
    site_folders,
    sole_folder,
)
from fedmepd.data.layouts import NESTED, Dataset, find_dataset
from fedmepd.data.ownership import OWN, deeper_cases, has_fusion_folder
from fedmepd.data.patients import is_examination
from fedmepd.data.volumes import is_nifti
from fedmepd.errors import DataError
from fedmepd.tasks.task import Task
from fedmepd.text_table import counted

_HOSPITAL = "the cases of a hospital and those for fusion training"


def data_sets(
    task: Task, folder: Path, found: Callable[[str], None], *, follow_links: bool, one_site: bool = False
) -> tuple[dict[str, Dataset], list[Finding]]:
    """Finds the data sets of a folder of several: of a federation's sites, or of a hospital with fusion cases apart.

    Sub-folders without manifests are sites if one of them has a folder for fusion training. They are sites too if one
    of them is called ``fusion``, no case lies beside them, and not each of them holds examinations named after dates or
    sessions, as a patient's folder does.

    Args:
        task: that the cases are of.
        folder: the folder.
        found: called with what it is.
        follow_links: whether links may lead out of a case's folder.
        one_site: whether the folder is known to be one hospital's.

    Returns:
        the data sets by site, and what was found beside them; none if the folder is a single data set.

    Raises:
        DataError: it cannot be read, or it is not clear whether it is a federation's or a hospital's, or it is said to
            be one hospital's and its sub-folders have manifests.
    """

    def find(place: Path, deep: bool = True) -> Dataset:
        return find_dataset(task, place, follow_links=follow_links, deep=deep, without=FUSION_SITE)

    if not (one_data_set := bool(data_set_mark(folder))):
        require_spelling(task, folder, FUSION_SITE)
    with_fusion = has_fusion_folder(task, folder)
    with_manifest = {place.name for place in site_folders(folder)} - {FUSION_SITE}
    if one_site:
        if with_manifest:
            raise DataError(
                f"--one-site: {folder / min(with_manifest)} has a manifest of its own, so {folder} is a federation's: "
                f"check one of its sites, `fedmepd data check {quote(str(folder / min(with_manifest)))}`",
                public="--one-site: sub-folders have manifests of their own",
            )
        if with_fusion:
            found(_HOSPITAL)
        return {OWN: find(folder), FUSION_SITE: find(folder / FUSION_SITE)} if with_fusion else {}, []
    beside = [] if one_data_set else children_of(folder)
    hospitals = {child.name for child in beside if _has_images(child / FUSION_SITE)} - {FUSION_SITE}
    if not with_manifest and not with_fusion and not hospitals:
        return {}, []
    federation = look_into(task, folder)
    told = with_manifest | hospitals & set(federation.sites)
    if not told and not with_fusion:
        return {}, []
    there = {name: find(folder / name) for name in federation.sites}
    if not told and (own := _hospitals(task, folder, federation, there, find)) is not None:
        found(_HOSPITAL)
        return {OWN: own, FUSION_SITE: find(folder / FUSION_SITE)}, []
    if not there:
        return {}, []
    if with_fusion:
        there[FUSION_SITE] = find(folder / FUSION_SITE)
    or_one = "" if told else "; if the folders are the patients of one hospital, say so with --one-site"
    found(f"a federation of {counted(len(there), 'site')}{or_one}")
    made = {}
    for name, dataset in there.items():
        made[name] = dataset
        if has_fusion_folder(task, folder / name):
            made[f"{name}/{FUSION_SITE}"] = find(folder / name / FUSION_SITE)
    return made, federation.findings()


def _has_images(folder: Path) -> bool:
    # Of a folder that may not be read nobody knows; whoever looks into it says so.
    return os.path.isdir(folder) and any(map(is_nifti, folder.glob("*/**/*")))


def _hospitals(
    task: Task,
    folder: Path,
    federation: FederationFolder,
    sites: Mapping[str, Dataset],
    find: Callable[..., Dataset],
) -> Dataset | None:
    """Returns a hospital's own cases, beside a folder for fusion training; None: the folder is a federation's.

    Raises:
        DataError: it is not clear which of the two.
    """
    upper = find(folder, deep=False)
    # A folder with an atlas alone is no case.
    cases = [case for case in upper.cases if case.files or any(found.severity == ERROR for found in case.findings)]
    if not cases and not _are_patients(sites):
        return None
    all_of_it = find(folder)
    if not cases:
        return None if _has_doubts(all_of_it) else all_of_it
    if _are_patients(sites):
        return all_of_it
    if sites or deeper_cases(upper, all_of_it):
        raise DataError(
            f"{federation.describe_strays()}. {MOVE_THEM}; or, if all are one hospital's, "
            f"`fedmepd data init {quote(str(folder))}` makes a data set of them",
            public="a data folder holds cases and folders of cases, and it is not clear whether these are sites: "
            "move the cases into a folder of their own, or, if all are one hospital's, make a data set of them with "
            "`fedmepd data init`",
        )
    return upper


def require_one_reading(task: Task, dataset: Dataset) -> None:
    """Does nothing if it is clear that a folder without ``fusion`` is one data set, and that it holds no sites.

    Folders of cases in sub-folders without manifests are a federation's sites or a hospital's patients with several
    examinations. Dates and sessions tell examinations; a case beside them tells that these are no sites.

    Args:
        task: that the cases are of.
        dataset: the folder, taken as one data set.

    Raises:
        DataError: it may be either; the message says what to do for each.
    """
    nested = [case for case in dataset.cases if case.layout == NESTED]
    if not nested:
        return
    folder = dataset.folder
    # A single folder, as an unpacked download has it, is no site by itself.
    if (inner := sole_folder(folder)) is not None and not is_group(inner.name):
        folder = inner
    sites = {name: find_dataset(task, folder / name, follow_links=True) for name in look_into(task, folder).sites}
    if not sites or _are_patients(sites):
        return
    files = [file for case in nested for file in case.files]
    for child in children_of(folder):
        if child.is_dir() and images_in(task, child) and not any(file.is_relative_to(child) for file in files):
            return
    first = next(iter(sites))
    raise DataError(
        f"the sub-folders of {folder}, such as {first}, may be the sites of a federation, or the patients of one "
        "hospital with a folder for each examination. If they are sites, give the folder with the cases for fusion "
        f"training the name {FUSION_SITE}, or, if there is none, make a data set of each site: `fedmepd data init "
        f"{quote(str(folder / first))}`. If they are patients, say so with --one-site, or make a data set of the whole "
        f"folder, which checks it too: `fedmepd data init {quote(str(folder))}`",
        public="a data folder holds folders of cases, and it is not clear whether these are sites or patients: "
        "`--one-site` tells `fedmepd data check` that they are one hospital's patients",
    )


def _are_patients(sites: Mapping[str, Dataset]) -> bool:
    """Whether folders are patients', and no sites': dates and sessions in them would be the names of patients.

    In all of them: a date at one site of several is that site's fault, which its check tells.
    """
    dated = [any(is_examination(case.patient) for case in dataset.cases) for dataset in sites.values()]
    return bool(dated) and all(dated)


def _has_doubts(dataset: Dataset) -> bool:
    return any(case.patient_doubt for case in dataset.cases)
